# Every target creates what it needs; `make` alone prints this help.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo test check fix bench bench-peers docs clean

help: ## Show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/core ## From raw rows to a served model that answers, on this machine, in under 3 minutes
	$(BIN)/mis demo

# Bytecode of package and tests (ignored by git) saves every process after the first run seven seconds; an empty value counts as unset.
test check: export PYTHONDONTWRITEBYTECODE :=
# Two processes share two cores: threads of a matrix product of a few rows wait for each other, and burn half of what the tests of judging take.
test check: export OMP_NUM_THREADS := 1

test: $(VENV)/dev ## Run every test (the slow ones too)
	$(BIN)/python -m pytest -n 2 --dist worksteal -q

check: $(VENV)/dev ## Lint, types, layers, docs up to date, fast tests; changes no file
	$(BIN)/ruff check --no-cache .
	$(BIN)/ruff format --no-cache --check .
	$(BIN)/mypy --cache-dir $(VENV)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python docs/reference.py --check
	HYPOTHESIS_STORAGE_DIRECTORY=$(VENV)/hypothesis $(BIN)/python -m pytest -n 2 --dist worksteal -q -m "not slow" -p no:cacheprovider

fix: $(VENV)/dev ## Format and mend what can be mended, regenerate the reference
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/python docs/reference.py

bench: $(VENV)/dev ## Run the benchmarks, about half an hour; says what it leaves out
	$(BIN)/python benchmarks/run.py

bench-peers: ## Install what benchmarks/automl.py is held against, into an environment of its own
	$(PYTHON) -m venv benchmarks/.peers
	benchmarks/.peers/bin/python -m pip install --disable-pip-version-check --quiet -r benchmarks/peers.txt

docs: $(VENV)/dev ## Regenerate the reference from the classes
	$(BIN)/python docs/reference.py

clean: ## Remove the virtual environment and everything generated
	rm -rf $(VENV) .mis demo .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis build dist src/*.egg-info
	find src tests docs examples benchmarks -name __pycache__ -prune -exec rm -rf {} +

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/core: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "Installing Model In Scale into $(VENV) (about 2 GB, a few minutes, once) …"
	$(PIP) -e .
	@touch $@

$(VENV)/dev: $(VENV)/core
	@echo "Installing what the tests need into $(VENV) …"
	$(PIP) -e '.[dev]'
	@touch $@
