"Names of classes: what is a genus, what is a slip, and what is a class of its own."

import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud_classifier.taxonomy import (
    GENERA,
    SpellingWarning,
    UnknownGenus,
    genus,
    known_label,
    near_miss,
    read_label,
    warn_near_misses,
)

SLIPS = {
    'Cirrus': 'Cirrsu Cirruz Ciruus Cirrius',
    'Cirrocumulus': 'Cirrocumlus cirocummulus',
    'Cirrostratus': 'cirostratos Cirrustratos Cirrostratsu',
    'Altocumulus': 'altocumlus altocummulus Altocumuls',
    'Altostratus': 'Altostrauts Altostratuss Altstratus',
    'Nimbostratus': 'nimbostrats Nimbostartus Nimbo-stratos',
    'Stratocumulus': 'stratocumlus Stratocummulus Stratocumulus2',
    'Stratus': 'stratos Stratsu Stratius stratus-1',
    'Cumulus': 'Cumlus Cumullus Cumulis Comulus',
    'Cumulonimbus': 'cumulonimbsu Cummulonimbus Cumolonimbus',
}
# Species, varieties and features of the International Cloud Atlas, what else a sky shows, and what folders are called.
OTHERS = """Contrail Contrails Clear Ct Fog Mammatus Mamma Asperitas Arcus Roll Shelf Sunny Rain Snow Night Overcast
Veil Thick Patterned Clouds Noctilucent Nacreous Lenticularis Castellanus Floccus Undulatus Radiatus Lacunosus
Duplicatus
Translucidus Perlucidus Opacus Incus Virga Praecipitatio Cavum Fluctus Murus Cauda Pannus Pileus Velum Flumen
Homogenitus Cataractagenitus Silvagenitus Flammagenitus Homomutatus Stratiformis Nebulosus Fibratus Uncinus Spissatus
Volutus Fractus Mediocris Humilis Congestus Calvus Capillatus Intortus Vertebratus Pyrocumulus Pyrocumulonimbus
Cumuliform Stratiform Cirriform Nimbus Mist Haze Smoke Dust Sky Sun Moon Aurora Trees Birds Halo Rainbow Lightning
Tornado Storm Thunderstorm Supercell Other Unknown Unsure low high middle test train valid images photos stats state
background mixed Cx Ac2""".split()
OTHERS += ['clear sky', 'thick white clouds', 'wall cloud', 'jet trail', 'Cirrus fibratus', 'Cumulus humilis', '', ' ']
OTHERS += ['Stratus fractus', 'Altocumulus castellanus', 'Cumulonimbus capillatus', 'Stratocumulus stratiformis']


@pytest.mark.parametrize(('meant', 'slip'), [(g, slip) for g, slips in SLIPS.items() for slip in slips.split()])
def test_a_slip_is_known_for_what_was_meant(meant, slip):
    assert near_miss(slip).name == meant
    assert read_label(slip) == slip  # and yet nothing is renamed unasked
    with pytest.raises(UnknownGenus, match=f'did you mean {meant}'):
        known_label(slip)
    assert known_label(slip, new_label=True) == slip


@pytest.mark.parametrize('name', OTHERS)
def test_other_classes_are_not_asked_about(name):
    assert near_miss(name) is None
    assert known_label(name) == read_label(name)


def test_genera_in_every_spelling_are_themselves():
    for g in GENERA.values():
        for name in (g.name, g.name.upper(), g.abbreviation, *g.aliases):
            assert near_miss(name) is None
            assert known_label(name) == g.name == genus(name).name


def test_a_folder_of_slips_is_warned_of_once_a_name():
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter('always')
        warn_near_misses(['Cumlus', 'Cumlus', 'Cirrus', 'Clear'])
    assert [(w.category, str(w.message)) for w in said] == [
        (SpellingWarning, 'Cumlus: read as a class of its own; did you mean Cumulus?')
    ]


@given(st.text())
def test_any_name_has_an_answer(name):
    assert near_miss(name) is None or read_label(name) == name
