# The commands that people need; each sets up .venv by itself. `make help` lists them.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Where the demo writes, and the real data it prefers when MSRF_DATA_DIR holds Kvasir-SEG.
DEMO_DIR ?= demo
# Two busy test processes with one thread each beat one process with two threads on small networks.
TEST_JOBS ?= 2

.PHONY: help demo test lint format bench clean
.DEFAULT_GOAL := help

help:  ## list the commands
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -c 'import torch' 2>/dev/null || $(BIN)/pip install -q 'torch==2.13.0'
	$(BIN)/pip install -q -c constraints.txt -e '.[dev]'
	@touch $(STAMP)

demo: $(STAMP)  ## the main job in about five minutes: train, evaluate, segment images, show where the pictures are
	BIN=$(BIN) DEMO_DIR=$(DEMO_DIR) bash bundles/demo.sh

test: $(STAMP)  ## the whole test suite with coverage
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(TEST_JOBS) --dist worksteal --cov --cov-report=term

lint: $(STAMP)  ## ruff, ruff format and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)  ## let ruff mend and format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP)  ## speed as ratios taken in one run
	for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

clean:  ## remove the environment and the demo's results
	rm -rf $(VENV) $(DEMO_DIR)
