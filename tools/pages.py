"Writes the pages that Sphinx reads: python tools/pages.py FOLDER [--try FOLDER]."

import argparse
import io
import os
import re
from pathlib import Path

from api import Entries, Names, Source, code, table
from charts import benchmarks_page
from fastcore.nbio import mk_cell, nb2str, read_nb
from readme import ROOT
from verbs import index_page, verb_page, verbs

from cloud_classifier import CloudClassifier, render_sky
from cloud_classifier.prediction.infer import shipped_model
from cloud_classifier.prediction.site import draw_icon
from cloud_classifier.taxonomy import FAMILIES, GENERA, Genus, height_range

NBS = ROOT / 'nbs'
# What lies outside nbs/ and has a page of its own.
PAGES = {
    'README.md': 'index.ipynb',
    'models/clouds.md': 'model.md',
    'CONTRIBUTING.md': 'project/contributing.md',
    'CHANGELOG.md': 'project/changelog.md',
    'SECURITY.md': 'project/security.md',
    'data/README.md': 'project/data.md',
    'models/README.md': 'project/models.md',
}
WAYS = [  # the cards of the front page
    ('Tutorials', '/tutorials/index', 'The whole way, step by step. Start here.'),
    ('Notebooks', '/notebooks', 'Every part of the package, its functions and examples.'),
    ('Command line', '/cli/index', 'Each verb of `cloud-classifier`, and what it can be told.'),
    ('Gallery', '/gallery', 'The ten genera, and what the model says of them.'),
]
TOP = ['tutorials/index', 'notebooks', 'cli/index', 'gallery', 'benchmarks', 'model', 'project/index']
TRY = '```{raw} html\n<p><a class="btn btn-primary" href="try/index.html">Try it in your browser</a></p>\n```'
GALLERY = """# Gallery

> The ten genera: what they look like, where they stand, and what seeing one means.

The skies are rendered by `samples.render_sky`, the first one (`seed=0`) of each genus, so none was chosen. They show
what sets the genera apart and are no photos; the model learned from photos alone, and its answers are those it gives
when this page is made. Heights are those of the cloud base above ground, in temperate regions."""
NOT_FOUND = """---
orphan: true
---

# There is no such page

It may have moved: try the search, or begin at the [front page](index.ipynb).
"""


def text_of(file: Path) -> str:
    "The Markdown of a notebook or a file."
    if file.suffix != '.ipynb':
        return file.read_text(encoding='utf-8')
    return '\n\n'.join(o.source for o in read_nb(file).cells if o.cell_type == 'markdown')


def title_of(file: Path) -> str:
    return re.search(r'^# (.+)$', text_of(file), re.MULTILINE)[1]


def question_of(file: Path) -> str:
    "The sentence below the title."
    quoted = re.search(r'(?:^> ?.*\n?)+', text_of(file), re.MULTILINE)
    return ' '.join(re.sub(r'^> ?', '', quoted[0], flags=re.MULTILINE).split()) if quoted else ''


def notebooks() -> list[str]:
    "The notebooks that have pages, by their paths below nbs/, without those that have a place of their own."
    found = [o.relative_to(NBS) for o in sorted(NBS.rglob('*.ipynb')) if '.ipynb_checkpoints' not in o.parts]
    return [o.with_suffix('').as_posix() for o in found if o.parts[0] != 'app' and o.stem not in ('index', 'notebooks')]


def sections() -> dict[str, list[str]]:
    "The notebooks by the headings of notebooks.ipynb; one that is not listed there joins those of its folder."
    found, missing = {}, notebooks()
    for part in re.split(r'^## ', text_of(NBS / 'notebooks.ipynb'), flags=re.MULTILINE)[1:]:
        title, _, body = part.partition('\n')
        listed = dict.fromkeys(re.findall(r'\]\(([\w/]+)\.ipynb\)', body))
        found[title.partition(':')[0]] = [o for o in listed if o in missing]
    for name in missing:
        folder = name.rpartition('/')[0]
        if not any(name in names for names in found.values()):
            beside = [names for names in found.values() if any(o.rpartition('/')[0] == folder for o in names)]
            (beside or [*found.values()])[0].append(name)
    return found


def module_of(room: str) -> str:
    "The module that a room compiles to."
    return 'cloud_classifier.' + re.sub(r'\d\d_', '', room).replace('/', '.')


def toctree(pages: list[str], caption: str = '') -> str:
    "A list of pages for the navigation."
    caption = f':caption: {caption}\n' if caption else ''
    return f'```{{toctree}}\n:hidden:\n{caption}\n' + '\n'.join(pages) + '\n```'


def cards(entries: list[tuple[str, str, str]], columns: str) -> str:
    "Cards with a title and a sentence each, that lead to pages."
    body = '\n'.join(
        f':::{{grid-item-card}} {title}\n:link: {page}\n:link-type: doc\n\n{text}\n:::' for title, page, text in entries
    )
    return f'::::{{grid}} {columns}\n:gutter: 3\n\n{body}\n::::'


def only_imports(text: str) -> bool:
    return all(line.startswith(('import ', 'from ', ' ', ')')) for line in text.splitlines() if line.strip())


class Site:
    "A folder of pages, and what is known of all of them."

    def __init__(self, out: Path, has_playground: bool = False):
        self.out, self.has_playground, self.written = out, has_playground, set()
        self.sections = sections()
        self.tutorials, *doors = self.sections.values()
        self.rooms = [name for names in doors for name in names]
        self.exported = {room: self.exported_cells(room) for room in self.rooms}
        self.names = Names()
        for room, cells in self.exported.items():
            for name in (o for text in cells for o in Source(text).names()):
                self.names.add(name, f'{module_of(room)}.{name}')
        for verb in verbs():  # a word such as `split` means the verb as often as the function
            self.names.pop(verb, None)

    def exported_cells(self, room: str) -> list[str]:
        "The sources of the cells that make names public."
        found = [o for o in read_nb(NBS / f'{room}.ipynb').cells if 'export' in o.directives]
        for cell in found:
            cell.remove_directives()
        return [o.source for o in found if o.cell_type == 'code']

    def write(self, name: str, content: str | bytes) -> None:
        "Write a file where it differs, so that Sphinx reads only what is new."
        file, content = self.out / name, content.encode() if isinstance(content, str) else content
        self.written.add(file)
        if not file.is_file() or file.read_bytes() != content:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)

    def link(self, target: str, source: str, page: str) -> str:
        "Where a link of a file in the repository leads on its page; a file without a page is put beside the pages."
        path, mark, anchor = target.partition('#')
        if not path or re.match(r'[a-z]+:', path):
            return target
        place = os.path.normpath(os.path.join(os.path.dirname(source), path))
        to = PAGES.get(place) or (place.removeprefix('nbs/') if place.startswith('nbs/') else f'files/{place}')
        if to.startswith('files/'):
            self.write(to, (ROOT / place).read_bytes())
        return os.path.relpath(to, os.path.dirname(page) or '.') + mark + anchor

    def markdown(self, text: str, source: str, page: str) -> str:
        "Markdown of a file in the repository, for its page: links lead to pages, and no picture comes from elsewhere."
        text = re.sub(r'!\[([^\]]*)\]\(https?:[^)]*\)', r'\1', text)
        text = re.sub(r'(?<=\]\()[^)\s]+(?=\))', lambda o: self.link(o[0], source, page), text)
        return self.names.linked(text)

    def file(self, source: str) -> None:
        "The page of a Markdown file of the repository."
        self.write(PAGES[source], self.markdown(text_of(ROOT / source), source, PAGES[source]))

    def overview(self, room: str, entries: Entries) -> str:
        "The public names of a room; where there are many, they are folded."
        shown, module = entries.overview(self.exported[room]), module_of(room)
        count = shown.count('\n') - 1
        state = ':open:\n' if count <= 12 else ''
        names = f'::::{{dropdown}} {count} public names of `{module}`\n{state}\n{shown}\n::::' if shown else ''
        return f'```{{py:module}} {module}\n```\n\n{names}'

    def code_cell(self, cell, folded: bool):
        "A cell as MyST-NB reads it; a picture says which call it comes from."
        cell.remove_directives()
        last = cell.source.rstrip().rpartition('\n')[2].strip()
        cell.metadata = {'mystnb': {'image': {'alt': f'What this shows: {last[:120]}'}}}
        cell.metadata |= {'tags': ['hide-input']} if folded else {}
        for output in cell.outputs:
            if 'text/html' in output.get('data', {}):  # its headings are none of the page's
                html = re.sub(r'<(/?)h\d\b', r'<\1div', output.data['text/html'])
                output.data['text/html'] = re.sub(r'<img (?![^>]*\balt=)', '<img alt="part of the output" ', html)
        return cell

    def cells_of(self, name: str, cell, entries: Entries | None) -> list:
        "What a cell of a notebook is on its page."
        directives = cell.directives
        if {'hide', 'default_exp'} & {*directives} or not cell.source.strip():
            return []
        if cell.cell_type == 'markdown':
            return [mk_cell(self.markdown(cell.source, f'nbs/{name}.ipynb', f'{name}.ipynb'), 'markdown')]
        cell = self.code_cell(cell, folded=False)
        found = entries.of(cell.source) if entries and 'export' in directives else []
        folded = bool(found) or ('export' in directives and only_imports(cell.source))
        return [*(mk_cell(o, 'markdown') for o in found), self.code_cell(cell, folded)]

    def notebook(self, name: str, top: str = '', end: str = '') -> None:
        "The page of a notebook: cells and outputs as they are saved, and entries for what it defines."
        nb = read_nb(NBS / f'{name}.ipynb')
        entries = Entries(module_of(name), self.names) if name in self.rooms else None
        cells = [o for cell in nb.cells for o in self.cells_of(name, cell, entries)]
        text, mark, picture = cells[0].source.partition('\n\n![')
        top = top or (self.overview(name, entries) if entries else '')
        cells[0].source = f'{text}\n\n{top}{mark}{picture}'
        nb.cells = [*cells, mk_cell(end, 'markdown')] if end else cells
        for i, cell in enumerate(nb.cells):
            cell.id = str(i)
        self.write(f'{name}.ipynb', nb2str(nb))

    def lists(self) -> None:
        "The front page, the list of tutorials, that of the rooms door by door, and that of the project's own papers."
        self.notebook('index', cards(WAYS, '1 2 2 4'), toctree(TOP))
        entries = [(title_of(NBS / f'{o}.ipynb'), f'/{o}', question_of(NBS / f'{o}.ipynb')) for o in self.tutorials]
        tree = toctree([page for _, page, _ in entries])
        head = '# Tutorials\n\n> To read here, or to run: each is a notebook.'
        self.write('tutorials/index.md', f'{head}\n\n{cards(entries, "1 1 2 2")}\n\n{tree}\n')
        doors = [*self.sections.items()][1:]
        self.notebook('notebooks', end='\n\n'.join(toctree(names, title) for title, names in doors))
        papers = [o for o, page in PAGES.items() if page.startswith('project/') and (ROOT / o).is_file()]
        rows = [[f'[{title_of(ROOT / o)}](../{PAGES[o]})', code(o)] for o in papers]
        tree = toctree([f'/{PAGES[o].removesuffix(".md")}' for o in papers])
        self.write('project/index.md', f'# Project\n\n{table(["page", "file"], rows)}\n\n{tree}\n')
        for source in papers:
            self.file(source)

    def command_line(self) -> None:
        "The pages of the verbs."
        shell = '\n'.join(re.findall(r'^```sh\n(.*?)^```', text_of(NBS / 'index.ipynb'), re.MULTILINE | re.DOTALL))
        links = {module_of(o).partition('.')[2]: f'[{module_of(o)}](../{o}.ipynb)' for o in self.rooms}
        for verb in verbs():
            examples = re.findall(rf'^cloud-classifier {verb}\b.*$', shell, re.MULTILINE)
            self.write(f'cli/{verb}.md', verb_page(verb, examples, links))
        self.write('cli/index.md', index_page())

    def model(self) -> None:
        "The card of the model that ships, and the way to the page that runs in a browser where that was built."
        card = 'models/clouds.md'
        title, _, body = self.markdown(text_of(ROOT / card), card, PAGES[card]).partition('\n')
        self.write('model.md', f'{title}\n\n{TRY if self.has_playground else ""}\n{body}')

    def gallery(self) -> None:
        "A rendered sky of each genus with what is known of it, and what the model that ships says."
        model, parts = CloudClassifier(shipped_model(), threads=1), [GALLERY]
        for level in dict.fromkeys(o.level for o in GENERA.values()):
            parts.append(f'## {level.capitalize()} clouds')
            parts += [self.genus(o, model) for o in GENERA.values() if o.level == level]
        self.write('gallery.md', '\n\n'.join(parts) + '\n')

    def genus(self, genus: Genus, model: CloudClassifier) -> str:
        "The entry of a genus in the gallery."
        image, file = render_sky(genus.name, size=320, width=480), io.BytesIO()
        image.save(file, 'JPEG', quality=85)
        self.write(f'skies/{genus.name}.jpg', file.getvalue())
        answer = model.predict(image)
        facts = [
            ('Base', height_range(genus.base)),
            ('Shape', next(name for name, members in FAMILIES.items() if genus.name in members)),
            ('What falls', genus.precipitation),
            ('What it tells', genus.weather),
            ('The model says', f'{answer.label}, {answer.probability:.0%}: {answer.decision.verdict_text}'),
        ]
        lines = '\\\n'.join(f'**{name}**: {fact}' for name, fact in facts)
        picture = f'![A rendered sky of {genus.name.lower()}: {genus.texture}](skies/{genus.name}.jpg)'
        beside = f'{genus.texture.capitalize()}.\n\n{lines}'
        looks = '\n'.join(f'- **{other}**: {cue}' for other, cue in genus.lookalikes.items())
        items = '\n'.join(f'::::{{grid-item}}\n{o}\n::::' for o in (picture, beside))
        grid = f':::::{{grid}} 1 1 2 2\n:gutter: 3\n\n{items}\n:::::'
        return f'### {genus.name} ({genus.abbreviation})\n\n{grid}\n\nWhat it is confused with:\n\n{looks}'

    def all(self) -> None:
        "Write every page, and take away those of an earlier time."
        self.lists()
        for name in [*self.tutorials, *self.rooms]:
            self.notebook(name)
        self.command_line()
        self.model()
        self.gallery()
        self.write('benchmarks.md', benchmarks_page())
        self.write('404.md', NOT_FOUND)
        for file in sorted((NBS / 'images').iterdir()):
            self.write(f'images/{file.name}', file.read_bytes())
        icon = io.BytesIO()
        draw_icon(128).save(icon, 'PNG', optimize=True)
        self.write('images/icon.png', icon.getvalue())
        for file in [o for o in self.out.rglob('*') if o.is_file() and o not in self.written]:
            file.unlink()


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('out', type=Path, help='folder for the pages')
    parser.add_argument('--try', dest='playground', type=Path, help='folder of the page that runs in a browser')
    args = parser.parse_args()
    Site(args.out, bool(args.playground) and (args.playground / 'index.html').is_file()).all()
