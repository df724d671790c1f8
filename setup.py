"Reads settings.ini, the one place for this package's metadata, and hands it to setuptools."
import re
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

MODEL = ('models/clouds.onnx', 'models/clouds.onnx.sha256', 'models/clouds.md')  # what ships, and its card
CLASSIFIERS = [
    'Development Status :: 3 - Alpha',
    'Environment :: Console',
    'Environment :: Web Environment',
    'Framework :: Jupyter',
    'Intended Audience :: Developers',
    'Intended Audience :: Education',
    'Intended Audience :: Science/Research',
    'Natural Language :: English',
    'Operating System :: OS Independent',
    'Programming Language :: JavaScript',
    'Programming Language :: Python :: 3 :: Only',
    'Programming Language :: Python :: 3.11',
    'Programming Language :: Python :: 3.12',
    'Programming Language :: Python :: 3.13',
    'Topic :: Scientific/Engineering :: Artificial Intelligence',
    'Topic :: Scientific/Engineering :: Atmospheric Science',
    'Topic :: Scientific/Engineering :: Image Recognition',
]

config = ConfigParser(delimiters=['='])
config.read(Path(__file__).with_name('settings.ini'), encoding='utf-8')
settings = config['DEFAULT']


def lines(key: str) -> list[str]:
    "The non-empty lines of a setting that holds a list."
    return [line.strip() for line in settings[key].splitlines() if line.strip()]


extras = {key.removesuffix('_requirements'): lines(key) for key in settings if key.endswith('_requirements')}
# Development needs every stage; fastbook pins ipywidgets below 8 and stays an extra of its own.
extras['dev'] += [need for stage in ('train', 'scrape', 'curate', 'app', 'serve', 'heic', 'scale') for need in extras[stage]]

repository = settings['repository']
owner, name = repository.split('/')[-2:]


def absolute(page: str) -> str:
    "README.md with addresses in the place of paths, for registries and others who show it away from its repository."

    def address(link: re.Match) -> str:
        path = link[1]
        kind = 'raw' if path.endswith(('.png', '.jpg', '.svg')) else 'tree' if path.endswith('/') else 'blob'
        return f']({repository}/{kind}/main/{path})'

    return re.sub(r'\]\((?!\w+:|#)([^)\s]+)\)', address, page)


class BuildWithModel(build_py):
    """Puts the model that ships, which the repository has once, into the package that is built.

    What nbdev keeps for documentation, the largest module of all, stays out of it.
    """

    def find_package_modules(self, package, package_dir):
        return [o for o in super().find_package_modules(package, package_dir) if o[1] != '_modidx']

    def _copies(self) -> dict[str, str]:
        "Where in the package each file goes; a checkout that is installed editable is asked for its own."
        here = [] if self.editable_mode else [file for file in MODEL if Path(file).is_file()]
        return {file: str(Path(self.build_lib, 'cloud_classifier', file)) for file in here}

    def run(self):
        super().run()
        for file, copy in self._copies().items():
            self.mkpath(str(Path(copy).parent))
            self.copy_file(file, copy)

    def get_outputs(self, include_bytecode=True):
        return [*super().get_outputs(include_bytecode), *self._copies().values()]


setup(
    cmdclass={'build_py': BuildWithModel},
    packages=find_packages(include=['cloud_classifier', 'cloud_classifier.*']),
    package_data={'cloud_classifier': ['templates/*.html', 'static/*', 'static/site/*']},
    description=settings['description'],
    long_description=absolute(Path(__file__).with_name('README.md').read_text(encoding='utf-8')),
    long_description_content_type='text/markdown',
    keywords=settings['keywords'].split(),
    author=settings['author'],
    license_expression=settings['license'],
    license_files=['LICENSE', 'NOTICE'],
    project_urls={
        'Documentation': f'https://{owner}.github.io/{name}/',
        'Changelog': f'{repository}/blob/main/CHANGELOG.md',
        'Issues': f'{repository}/issues',
        'Source': repository,
    },
    python_requires=f">={settings['min_python']}",
    install_requires=lines('requirements'),
    extras_require=extras,
    entry_points={'console_scripts': lines('console_scripts')},
    classifiers=CLASSIFIERS,
)
