"Looks for links that lead nowhere: python tools/links.py FOLDER for built pages; without it, in the sources."

import json
import os
import re
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from readme import ROOT

LOADS = {
    'img': 'src',
    'script': 'src',
    'iframe': 'src',
    'source': 'src',
    'video': 'src',
    'audio': 'src',
    'object': 'data',
}


class Page(HTMLParser):
    "What a page links to, what it loads, where it can be linked to, and what a screen reader would stumble over."

    def __init__(self, text: str):
        super().__init__()
        self.links, self.loads, self.anchors, self.levels, self.problems = [], [], {'', 'top'}, [], []
        self.feed(text)
        if self.levels.count(1) != 1:
            self.problems.append(f'has {self.levels.count(1)} headings of the first level')
        jumps = [b for a, b in zip(self.levels, self.levels[1:], strict=False) if b > a + 1]
        self.problems += [f'a heading of level {level} follows one that is too high' for level in jumps]

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.anchors |= {o for o in (attrs.get('id'), attrs.get('name')) if o}
        if tag == 'a' and attrs.get('href') is not None:
            self.links.append(attrs['href'])
        if tag == 'link' and attrs.get('rel') not in ('canonical', 'next', 'prev', 'index', 'search', 'author'):
            self.loads.append(attrs.get('href') or '')
        if attrs.get(LOADS.get(tag)):
            self.loads.append(attrs[LOADS[tag]])
        if tag == 'img' and not attrs.get('alt', '' if 'aria-hidden' in attrs else None):
            self.problems.append(f'a picture has no text: {attrs.get("src", "")[:80]}')
        if re.fullmatch('h[1-6]', tag) and 'hidden' not in attrs:
            self.levels.append(int(tag[1]))


def site_problems(folder: Path) -> Iterator[str]:
    "A line for each link or file that leads nowhere, each thing loaded from another host, and each hurdle."
    folder, base = folder.resolve(), urlsplit(os.environ.get('DOCS_URL', '')).path.rstrip('/')
    files = [o for o in sorted(folder.rglob('*.html')) if '_static' not in o.parts]
    pages = {file: Page(file.read_text(encoding='utf-8')) for file in files}
    for file, page in pages.items():
        name = file.relative_to(folder)
        yield from (f'{name}: {problem}' for problem in page.problems if 'try' not in name.parts)
        for link in [*page.links, *page.loads]:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                if link in page.loads and parts.scheme != 'data':
                    yield f'{name}: loads {link} from elsewhere'
                continue
            path = unquote(parts.path)
            place = folder / path.removeprefix(base).lstrip('/') if path.startswith('/') else file.parent / path
            target = place.resolve() if path else file
            target = target / 'index.html' if target.is_dir() else target
            if not target.is_file():
                yield f'{name}: {link} leads nowhere'
            elif target in pages and unquote(parts.fragment) not in pages[target].anchors:
                yield f'{name}: {link}: there is no such place on that page'
    for file in folder.rglob('*.css'):
        loads = re.compile(r'(?:url\(|@import\s)\s*["\']?((?:https?:)?//[^"\')]+)')
        for url in loads.findall(file.read_text(encoding='utf-8')):
            yield f'{file.relative_to(folder)}: loads {url} from elsewhere'


def external_links(folder: Path) -> set[str]:
    "The addresses outside that pages link to."
    pages = (Page(file.read_text(encoding='utf-8')) for file in folder.rglob('*.html'))
    return {link.partition('#')[0] for page in pages for link in page.links if re.match('https?:', link)}


def markdown_of(file: Path) -> str:
    "The text of a Markdown file or a notebook, without blocks of code."
    text = file.read_text(encoding='utf-8')
    if file.suffix == '.ipynb':
        text = '\n\n'.join(''.join(o['source']) for o in json.loads(text)['cells'] if o['cell_type'] == 'markdown')
    return re.sub(r'^```.*?^```', '', text, flags=re.MULTILINE | re.DOTALL)


def anchors_of(text: str) -> set[str]:
    "The anchors that headings get where Markdown is shown."
    heads = re.findall(r'^#+ (.+?)\s*$', text, re.MULTILINE)
    plain = [re.sub(r'\[([^\]]*)\]\([^)]*\)|[`*]', r'\1', o) for o in heads]
    return {re.sub(r'[^\w\- ]', '', o.lower()).replace(' ', '-') for o in plain}


def source_files() -> list[Path]:
    "The Markdown files and the notebooks of the repository."
    notebooks = [o for o in (ROOT / 'nbs').rglob('*.ipynb') if '.ipynb_checkpoints' not in o.parts]
    return sorted([*notebooks, *ROOT.glob('*.md'), *(ROOT / 'data').glob('*.md'), *(ROOT / 'models').glob('*.md')])


def source_problems(file: Path) -> Iterator[str]:
    "A line for each relative link of a file that leads nowhere."
    text = markdown_of(file)
    prose = re.sub(r'`[^`\n]*`', '', text)
    links = re.findall(r'\]\(([^)\s]+)\)', prose) + re.findall(r'^\[[^\]]+\]: (\S+)', prose, re.MULTILINE)
    links += re.findall(r'(?:href|src)="([^"]+)"', prose)
    for link in links:
        parts = urlsplit(link)
        if parts.scheme or parts.netloc:
            continue
        target = (file.parent / unquote(parts.path)).resolve() if parts.path else file
        if not target.exists():
            yield f'{file.relative_to(ROOT)}: {link} leads nowhere'
        elif parts.fragment and target.suffix in ('.md', '.ipynb'):
            if parts.fragment.lower() not in anchors_of(markdown_of(target)):
                yield f'{file.relative_to(ROOT)}: {link}: there is no such heading'


def main() -> None:
    folders = map(Path, sys.argv[1:])
    found = [o for folder in folders for o in site_problems(folder)] if sys.argv[1:] else []
    found = found if sys.argv[1:] else [o for file in source_files() for o in source_problems(file)]
    sys.exit('\n'.join([*found, f'{len(found)} problems']) if found else 0)


if __name__ == '__main__':
    main()
