# make quickstart: install and train on digits;  make test: install and run the suite;  make lint: the linters
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin

.PHONY: quickstart test lint install install-dev clean

quickstart: install
	$(BIN)/python train_motivated.py --config configs/quickstart.yaml

test: install-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

lint: install-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

install: $(VENV)/installed
install-dev: $(VENV)/installed-dev

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: requirements.txt pyproject.toml | $(VENV)/bin/python
	$(BIN)/pip install -e .
	touch $@

$(VENV)/installed-dev: requirements.txt pyproject.toml | $(VENV)/bin/python
	$(BIN)/pip install -e .[dev]
	touch $(VENV)/installed $@

clean:
	rm -rf $(VENV)
