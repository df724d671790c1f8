"Pretended answers, which several tests judge, and what holds of every page."

import re
from html.parser import HTMLParser

import numpy as np
from hypothesis import strategies as st

from cloud_classifier.evaluation.report import Predictions

HISTORY = [
    {'epoch': 0, 'train_loss': 2.0, 'valid_loss': 2.2},
    {'epoch': 1, 'train_loss': float('nan'), 'valid_loss': 1.9},
]


def make(n, c, seed=0, groups=None, names=None, labels=None):
    "Random answers for `n` photos of `c` classes, right more often than by chance; no two probabilities are equal."
    rng = np.random.default_rng(seed)
    names = names or [f'class {i}' for i in range(c)]
    y = rng.integers(0, c, n) if labels is None else np.array(labels)
    odds = rng.exponential(size=(n, c)) + 1.5 * np.eye(c)[y]
    probs = odds / odds.sum(1, keepdims=True)
    return Predictions([f'{i:04}.jpg' for i in range(n)], [names[i] for i in y], probs, names, groups)


def perfect(n, c):
    p = make(n, c, labels=np.arange(n) % c)
    return Predictions(p.paths, p.labels, np.eye(c)[p.y], p.classes)


@st.composite
def predictions(draw, min_classes=2):
    n, c = draw(st.integers(1, 40)), draw(st.integers(min_classes, 7))
    groups = draw(st.none() | st.lists(st.integers(0, 8), min_size=n, max_size=n))
    return make(n, c, draw(st.integers(0, 2**32 - 1)), groups)


def without_time(report):
    return {k: v for k, v in report.data.items() if k != 'created'}


class Elements(HTMLParser):
    "Every element of a page with its attributes."

    def __init__(self, page):
        super().__init__()
        self.found = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def check_page(page):
    "Nothing in `page` runs, and nothing is fetched."
    for tag, attrs in Elements(page).found:
        assert tag not in ('script', 'iframe', 'object', 'embed', 'link', 'base', 'form'), tag
        assert not [o for o in attrs if o.startswith('on')], attrs
        assert 'src' not in attrs or attrs['src'].startswith('data:image/jpeg;base64,'), attrs
        for name in ('href', 'xlink:href'):
            assert name not in attrs or attrs[name].startswith(('file:///', '#')), attrs
    assert not re.findall(r'url\((?!#)|@import', page)
    ids = [attrs['id'] for _, attrs in Elements(page).found if 'id' in attrs]
    assert len(ids) == len(set(ids))
