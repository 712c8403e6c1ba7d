# make search and make test set everything up by themselves: a virtual environment, then the tested versions.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
READY = $(VENV)/.ready
TOOLS = $(VENV)/.ready-for-tests
# Python compiles what it imports, once, if it may keep that; pip would compile everything, for a minute.
unexport PYTHONDONTWRITEBYTECODE
INSTALL = $(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt

.PHONY: search test soak lint format schema docs experiments bench bench-scale bench-surrogate bench-nasbench201 bench-agents bench-searches bench-fast bench-proxies bench-recipes winner clean help

help:
	@echo "make search   search blocks on handwritten digits, minutes on a laptop"
	@echo "make test     lint, types and all tests"
	@echo "make soak     the tests that take minutes each"
	@echo "make lint     ruff, mypy and import-linter alone"
	@echo "make format   let ruff rewrite the files"
	@echo "make schema   write params.schema.json again, after a change of settings"
	@echo "make docs     the pages of docs/, README.md and the API, into site/"
	@echo "make experiments [ALSO=search.space]  what dvc exp run has kept: accuracies, hours, the seed, and the parameters that you name"
	@echo "make bench    every benchmark, into benchmarks/results/"
	@echo "make bench-scale  what one search carries: 32 workers, a million candidates (half an hour)"
	@echo "make bench-surrogate  which surrogate predicts best, into docs/results/ (half an hour)"
	@echo "make bench-nasbench201 TABLE=FILE  agents on NAS-Bench-201, into docs/results/ (half an hour)"
	@echo "make bench-searches  agents in real searches of the digits, into docs/results/ (half an hour)"
	@echo "make bench-fast  what profile paper-faster saves on a table of trained blocks, into docs/results/ (ten minutes)"
	@echo "make bench-proxies [DATA=DIR SEARCH=DIR]  which cheap training ranks as a long one, into docs/results/ (hours with DATA)"
	@echo "make bench-recipes [DATA=DIR]  what each part of a short recipe brings, into docs/results/ (hours with DATA)"
	@echo "make winner [DATA=DIR] [TASK=cifar10|cifar100-50|imagenette]  what a search ends with, beside networks of one cost (a night with DATA)"
	@echo "make bench-agents  agents on tables of trained blocks, into docs/results/ (ten minutes)"

search: $(READY)
	$(BIN)/blockqnn search

test: lint
	$(BIN)/python -m pytest --numprocesses=2

soak: $(TOOLS)
	$(BIN)/python -m pytest -m slow

lint: $(TOOLS)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(TOOLS)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

schema: $(TOOLS)
	$(BIN)/python -m blockqnn.settings.schema

# dvc exp show has a column for each of 200 parameters; of a terminal's width nothing is left for names.
SHOWN = Experiment|rev|typ|Created|search\.(accuracy|device_hours|seed)$$|top1\.

experiments: $(READY)
	$(BIN)/dvc exp show --no-pager --drop '^(?!$(SHOWN)$(if $(ALSO),|$(ALSO)))'

bench: $(TOOLS)
	$(BIN)/python -m benchmarks

bench-scale: $(TOOLS)
	$(BIN)/python -m benchmarks --scale

bench-surrogate: $(TOOLS)
	$(BIN)/python -m benchmarks.studies.surrogate_comparison

EVOLUTIONS = evolution,evolution:population=20:tournament=10,evolution:population=100:tournament=25
COMPARED = dyna_q,q_learning,q_learning:learning_rate=0.1,$(EVOLUTIONS),random,tpe

bench-nasbench201: $(TOOLS)
	$(if $(TABLE),,$(error name the table of cells: make bench-nasbench201 TABLE=nasbench201.csv.gz))
	for data in cifar10 cifar100 imagenet16; do \
	  $(BIN)/blockqnn compare --cells $(TABLE) --data $$data --agents $(COMPARED) --budget 400 --seeds 100 \
	    --checkpoints 50 100 200 400 --to docs/results/nasbench201-$$data || exit 1; \
	done

bench-agents: $(TOOLS)
	for data in digits cifar10; do \
	  $(BIN)/blockqnn compare --blocks benchmarks/data/$$data-blocks.csv.gz --agents $(COMPARED) --budget 200 \
	    --seeds 20 --count trainings --checkpoints 25 50 100 200 --to docs/results/agents-$$data || exit 1; \
	done

SEARCH = $(BIN)/blockqnn search --runs runs/compared --name
EACH = --set tracking=false seed=$$seed

SEEDS = 0 1 2 3 4 5 6

bench-searches: $(TOOLS)
	for seed in $(SEEDS); do \
	  $(SEARCH) q_learning-$$seed $(EACH) || exit 1; \
	  $(SEARCH) dyna_q-$$seed $(EACH) agent.kind=dyna_q 'schedule=[[1.0,2],[0.0,16]]' || exit 1; \
	  $(SEARCH) random-$$seed $(EACH) agent.kind=random 'schedule=[[1.0,18]]' || exit 1; \
	  $(SEARCH) evolution-$$seed $(EACH) agent.kind=evolution agent.population=36 \
	    agent.tournament=7 'schedule=[[1.0,18]]' || exit 1; \
	done
	$(BIN)/blockqnn compare --runs runs/compared --count trainings --checkpoints 25 50 100 150 --searches \
	  $(foreach agent,dyna_q q_learning evolution random,$(foreach seed,$(SEEDS),$(agent)-$(seed))) \
	  --to docs/results/agents-searches

bench-fast: $(TOOLS)
	$(BIN)/python -m benchmarks.studies.fast_search

bench-proxies: $(TOOLS)
	$(BIN)/python -m benchmarks.studies.proxies $(if $(DATA),--data $(DATA)) $(if $(SEARCH),--search $(SEARCH))

TASK ?= cifar10

winner: $(TOOLS)
	$(BIN)/python -m benchmarks.studies.winner --task $(TASK) $(if $(DATA),--data $(DATA))

bench-recipes: $(TOOLS)
	$(BIN)/python -m benchmarks.studies.recipe_parts $(if $(DATA),--data $(DATA))

# pages of docs/, README.md and the API, into site/
docs: $(READY)
	$(INSTALL) --editable '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) build site *.egg-info .mypy_cache .pytest_cache .ruff_cache

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if (3, 11) <= v[:2] <= (3, 13) else f"Python {v[0]}.{v[1]} was found: make PYTHON=python3.11 (or 3.12, 3.13)")'
	@echo "Setting up $(VENV): a minute or two, once."
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) --editable .
	@touch $@

$(TOOLS): $(READY)
	@echo "Adding what tests and benchmarks need: a minute or two, once."
	$(INSTALL) --editable '.[dev]'
	@touch $@
