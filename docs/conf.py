"How Sphinx makes the documentation of the pages that tools/pages.py writes; `make docs` calls both."

import os
import re
from configparser import ConfigParser
from pathlib import Path

from docutils.utils.math import latex2mathml

from cloud_classifier import __version__

ROOT = Path(__file__).parents[1]
config = ConfigParser(delimiters=['='])
config.read(ROOT / 'settings.ini', encoding='utf-8')
settings = config['DEFAULT']

project, author, version = settings['title'], settings['author'], __version__
copyright = f'{author}, {settings["license"]}'
extensions = ['myst_nb', 'sphinx_design']

# Notebooks are shown as they were saved: nothing runs here.
nb_execution_mode = 'off'
nb_merge_streams = True
nb_ipywidgets_js = {}
nb_mime_priority_overrides = [('html', 'application/vnd.jupyter.widget-view+json', None)]
nb_code_prompt_show = 'Show the source'
nb_code_prompt_hide = 'Hide the source'
myst_enable_extensions = ['colon_fence', 'dollarmath', 'html_image']
myst_heading_anchors = 3
toc_object_entries_show_parents = 'hide'
add_module_names = False
python_maximum_signature_line_length = 90
smartquotes = False  # `--out` is typed so

# Every file comes from this site: no fonts, scripts or formulas from elsewhere.
html_math_renderer = 'mathml'
html_theme = 'pydata_sphinx_theme'
html_title = project
html_static_path = ['_static']
html_extra_path = [o for o in ['../_build/extra'] if (ROOT / 'docs' / o).is_dir()]  # the page below try/
html_css_files = ['docs.css']
html_copy_source = html_show_sourcelink = False
html_baseurl = os.environ.get('DOCS_URL', '').rstrip('/') + '/'  # where the site will be; the page 404 needs it
html_sidebars = {o: [] for o in ('index', 'gallery', 'benchmarks', 'model', '404', 'search', 'genindex', 'py-modindex')}
html_context = {'default_mode': 'auto'}
html_theme_options = {
    'logo': {'text': project, 'alt_text': 'the front page'},
    'github_url': settings['repository'],
    'header_links_before_dropdown': 7,
    'navbar_align': 'left',
    'navbar_persistent': ['search-button'],
    'show_nav_level': 2,
    'show_toc_level': 2,
    'navigation_with_keys': False,
    'footer_start': ['copyright'],
    'footer_end': [],
}


def use_icon(app, config) -> None:
    config.html_favicon = config.html_logo = os.path.relpath(Path(app.srcdir, 'images', 'icon.png'), app.confdir)


def visit_math(self, node) -> None:
    "Write a formula as MathML, which browsers know."
    from docutils import nodes

    block = isinstance(node, nodes.math_block)
    self.body.append(str(latex2mathml.tex2mathml(node.astext(), as_block=block)))
    raise nodes.SkipNode


def absolute_links(app, error) -> None:
    "A missing page may lie in any folder, so the links of page 404 begin at the site's root."
    file = Path(app.outdir, '404.html')
    if error is None and app.builder.name == 'html' and file.is_file():
        root = re.sub(r'^https?://[^/]+', '', app.config.html_baseurl) or '/'
        links = re.compile(r'(\b(?:href|src|action|data-content_root)=")(?![a-z]+:|#|/)(?:\./)?')
        file.write_text(links.sub(rf'\g<1>{root}', file.read_text(encoding='utf-8')), encoding='utf-8')


def setup(app) -> None:
    app.add_html_math_renderer('mathml', (visit_math, None), (visit_math, None))
    app.connect('config-inited', use_icon)
    app.connect('build-finished', absolute_links)
