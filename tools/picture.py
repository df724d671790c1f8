"Makes the picture of the front page: a rendered sky, and what the model that ships answers. Needs Chromium."

import io
from base64 import b64encode
from pathlib import Path

from playwright.sync_api import sync_playwright

from cloud_classifier import CloudApp, find_model, render_sky
from cloud_classifier.prediction.app import card_html

ROOT = Path(__file__).parents[1]


def page_of(genus: str, seed: int) -> str:
    "The page of the app, without its widgets, after it was shown a rendered sky."
    photo = io.BytesIO()
    render_sky(genus, size=420, seed=seed, width=630).save(photo, 'PNG')
    app = CloudApp(find_model(root=ROOT))
    card = app.show(photo.getvalue(), 'sky.png')
    image = b64encode(card.picture.value).decode()
    picture = f'<img class="widget-image" src="data:image/jpeg;base64,{image}">'
    body = card_html(f'{picture}{card.answer.value}')
    return f'<!doctype html><meta charset="utf-8"><body style="margin:0;background:white">{body}'


def main() -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path='/usr/bin/chromium', args=['--no-sandbox'])
        page = browser.new_page(viewport={'width': 460, 'height': 900})
        page.set_content(page_of('Cirrus', seed=4))
        page.locator('.cloud-app').screenshot(path=ROOT / 'nbs' / 'images' / 'answer.png')
        browser.close()


if __name__ == '__main__':
    main()
