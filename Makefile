# A fresh clone needs python3 (3.11 or newer) and make: every target makes its own environment first.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: quickstart test test-slow lint format docs notebooks clean

quickstart: $(INSTALLED)  ## default data -> teacher -> few-step student -> report
	$(BIN)/scigen fit domain=weather

test test-slow: export OMP_NUM_THREADS ?= 1
test: $(INSTALLED)  ## the suite
	$(BIN)/python -m pytest -q -n auto --maxprocesses 4

test-slow: $(INSTALLED)  ## what trains networks
	$(BIN)/python -m pytest -q -m slow

lint: $(INSTALLED)  ## style, layers, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/mypy

format: $(INSTALLED)  ## mend the style
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(INSTALLED)  ## the site, in build/site
	$(BIN)/python -m pip install --quiet --progress-bar off --disable-pip-version-check -e '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

notebooks: $(INSTALLED)  ## run examples/ anew and keep their outputs
	$(BIN)/python examples/execute.py

$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "scigen needs Python 3.11 or newer; try: make PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --progress-bar off --disable-pip-version-check -e '.[dev]'
	touch $@

clean:  ## the environment and what tools leave behind; keeps runs/
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .import_linter_cache .hypothesis
	find scigen tests -name __pycache__ -type d -prune -exec rm -rf {} +
