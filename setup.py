"Reads settings.ini, the one place for this package's metadata, and hands it to setuptools."
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

MODEL = ('models/clouds.onnx', 'models/clouds.onnx.sha256', 'models/clouds.md')  # what ships, and its card

config = ConfigParser(delimiters=['='])
config.read(Path(__file__).with_name('settings.ini'), encoding='utf-8')
settings = config['DEFAULT']


def lines(key: str) -> list[str]:
    "The non-empty lines of a setting that holds a list."
    return [line.strip() for line in settings[key].splitlines() if line.strip()]


extras = {key.removesuffix('_requirements'): lines(key) for key in settings if key.endswith('_requirements')}
# Whoever develops needs every stage; fastbook pins ipywidgets below 8 and stays an extra of its own.
extras['dev'] += [need for stage in ('train', 'scrape', 'curate', 'app', 'serve', 'heic') for need in extras[stage]]


class BuildWithModel(build_py):
    "Puts the model that ships, which the repository has once, into the package that is built."

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
    long_description=Path(__file__).with_name('README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    keywords=settings['keywords'].split(),
    author=settings['author'],
    license=settings['license'],
    license_files=['LICENSE', 'NOTICE'],
    python_requires=f">={settings['min_python']}",
    install_requires=lines('requirements'),
    extras_require=extras,
    entry_points={'console_scripts': lines('console_scripts')},
    classifiers=['Development Status :: 3 - Alpha', 'Intended Audience :: Developers',
                 'Intended Audience :: Science/Research', 'Programming Language :: Python :: 3',
                 'Topic :: Scientific/Engineering :: Atmospheric Science'],
)
