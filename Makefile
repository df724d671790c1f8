# Every target sets up what it needs; `make help` lists them.
.DEFAULT_GOAL := help
SHELL := bash
PYTHON ?= python3
BIN := .venv/bin
PORT ?= 8866
# The stamp names the Python: asked for another one, make sets up anew.
STAMP := .venv/.done-$(shell $(PYTHON) -c 'import platform; print(platform.python_version())' 2>/dev/null)
# What a shell tells Python about its streams and paths is not what others have: tests and users see the same.
unexport $(filter PYTHON%,$(.VARIABLES))
# Without a screen; and no message of ours depends on the language of the machine.
export MPLBACKEND := Agg

.PHONY: help setup browser demo model test soak check readme docs bench app serve site clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

setup: $(STAMP) ## make .venv and install everything into it (nothing to do the second time)

# The stamp is older than what it was made from when requirements change, so a changed requirement is installed.
$(STAMP): settings.ini setup.py pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: make PYTHON=python3.11 …")'
	@rm -f .venv/.done*
	cmp -s <($(BIN)/python -V 2>&1) <($(PYTHON) -V) || $(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install -q uv
	$(BIN)/uv pip install -q --compile-bytecode --python $(BIN)/python -e '.[dev]' -c constraints.txt
	@touch $@

browser: ## install Chromium for the browser test, where apt is there and may
	@command -v chromium >/dev/null || { \
	  command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ] && \
	  { apt-get update && apt-get install -y --no-install-recommends chromium chromium-driver; } >/dev/null 2>&1; } || \
	  echo 'Chromium is not there and could not be installed; the browser test will be skipped'

demo: setup ## photos in, a prediction out, in three minutes (CLOUD_DATA=folder for your own photos)
	$(BIN)/cloud-classifier demo

model: setup ## make the model that ships anew, from CCSN (CLOUD_DATA=folder; half an hour)
	$(BIN)/python models/make_model.py

# Two processes at a time, each on a core: with threads of their own they would get in each other's way.
test: export OMP_NUM_THREADS := 1
test: setup browser check ## run every notebook, compare what it says with what is saved, and run every test
	$(BIN)/python tools/run_notebooks.py
	$(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder --durations 10 --ignore tests/test_notebooks.py

soak: setup ## run what takes too long for every change: hundreds of kills, thousands of examples, large networks
	$(BIN)/python -m pytest -q -m 'soak or hypothesis' -n 2 --dist loadfile --hypothesis-profile default

check: setup ## look for notebooks and package that differ, unclean notebooks, and what ruff finds
	$(BIN)/python -m pytest -q tests/test_notebooks.py
	$(BIN)/ruff check -q
	$(BIN)/ruff format -q --check tests benchmarks tools models

readme: setup ## write README.md from nbs/index.ipynb
	$(BIN)/python tools/readme.py

docs: $(STAMP)-docs ## make the documentation in _docs (the page that runs in a browser in it needs npm)
	$(BIN)/cloud-classifier site -q _build/extra/try >/dev/null 2>&1 || { rm -rf _build/extra _build/html/try; \
	  echo 'The page that runs in a browser is left out: onnxruntime-web could not be fetched (cloud-classifier site says why)'; }
	$(BIN)/python tools/pages.py _build/pages --try _build/extra/try
	$(BIN)/python -m sphinx -q -W --keep-going -j auto -c docs -d _build/doctrees _build/pages _build/html
	$(BIN)/python tools/links.py _build/html
	rm -rf _docs && cp -r _build/html _docs

# Sphinx and its theme, which no test needs.
$(STAMP)-docs: $(STAMP)
	$(BIN)/uv pip install -q --compile-bytecode --python $(BIN)/python -e '.[docs]' -c constraints.txt
	@touch $@

bench: setup ## time every stage beside the plain fastai way
	$(BIN)/python benchmarks/bench_stages.py

app: setup ## serve the web page on http://localhost:8866 (PORT=… for another)
	$(BIN)/cloud-classifier app --port $(PORT)

serve: setup ## answer over HTTP on http://localhost:8000, with the page at /
	$(BIN)/cloud-classifier serve

site: setup ## write the page that runs in a browser into _site (OUT=… for another folder; needs npm)
	$(BIN)/cloud-classifier site $(or $(OUT),_site)

clean: ## remove what was made, but not data, models or .venv
	rm -rf build dist *.egg-info .pytest_cache .hypothesis .ruff_cache _build _docs _proc _site
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
