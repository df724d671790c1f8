"Pages over notebooks: who is answered, and how they end."

import httpx
import pytest
from reading import wait_for

from cloud_classifier.hosting import serve_notebook

pytest.importorskip('voila')

BUSY = """
import time
from pathlib import Path
Path({began!r}).touch()
try:
    time.sleep(60)
except KeyboardInterrupt:
    time.sleep(1)  # the kernel closes its sockets in this time
"""


def test_a_page_with_a_token_is_for_those_who_have_it():
    shown = []

    def look(address):
        shown.append(httpx.get(address.partition('?')[0], follow_redirects=True).text)
        shown.append(httpx.get(address, follow_redirects=True).text)
        raise KeyboardInterrupt

    serve_notebook('"Cirrus"', port=0, token='secret', announce=look)
    assert ['Cirrus' in text for text in shown] == [False, True]


def test_a_page_that_ends_while_a_cell_runs_is_silent(tmp_path, capfd):
    began = tmp_path / 'began'

    def look(address):
        with httpx.stream('GET', address, follow_redirects=True) as answer:
            assert answer.status_code == 200
            wait_for(began.exists, 60)
            raise KeyboardInterrupt

    serve_notebook(BUSY.format(began=str(began)), port=0, announce=look)
    assert began.exists()
    assert capfd.readouterr() == ('', '')
