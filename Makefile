# make search and make test set everything up by themselves: a virtual environment, then the tested versions.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
READY = $(VENV)/.ready

.PHONY: search test lint format bench bench-scale bench-surrogate clean help

help:
	@echo "make search   search blocks on handwritten digits, minutes on a laptop"
	@echo "make test     lint, types and all tests"
	@echo "make lint     ruff and mypy alone"
	@echo "make format   let ruff rewrite the files"
	@echo "make bench    every benchmark, into benchmarks/results/"
	@echo "make bench-scale  what one search carries: 32 workers, a million candidates (half an hour)"
	@echo "make bench-surrogate  which surrogate predicts best, into docs/results/ (twenty minutes)"

search: $(READY)
	$(BIN)/blockqnn search

test: lint
	$(BIN)/python -m pytest --numprocesses=2

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY)
	$(BIN)/python -m benchmarks

bench-scale: $(READY)
	$(BIN)/python -m benchmarks --scale

bench-surrogate: $(READY)
	$(BIN)/python -m benchmarks.surrogate_comparison

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .pytest_cache .ruff_cache

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if (3, 11) <= v[:2] <= (3, 13) else f"Python {v[0]}.{v[1]} was found: make PYTHON=python3.11 (or 3.12, 3.13)")'
	@echo "Setting up $(VENV): some minutes, once."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@
