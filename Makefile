# Everything runs from .venv, which `make setup` creates; every other target sees to that first.
PYTHON ?= python3
ARGS ?=
# Processes that the tests are shared out to; each takes one core and up to 2 GB.
JOBS ?= 2
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SOURCES := src tests tools benchmarks

.DEFAULT_GOAL := help
.PHONY: help setup train test test-all check format

help: ## This list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | \
		while IFS="$$(printf '\t')" read -r target what; do printf '  make %-10s %s\n' "$$target" "$$what"; done

setup: $(STAMP) ## Create .venv and install everything from the pinned constraints

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; name one with: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@echo "Installing into $(VENV): some minutes the first time."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

train: $(STAMP) ## Train adaptive_lm/tiny on the default text; more options with ARGS="--train.steps 100"
	$(BIN)/ouro train adaptive_lm/tiny $(ARGS)

test: $(STAMP) ## The tests, without those that take minutes
	$(BIN)/python -m pytest -m "not slow" -n $(JOBS) --dist worksteal $(ARGS)

test-all: $(STAMP) ## All tests, the slow ones too
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal $(ARGS)

check: $(STAMP) ## Lint, format, types, import layers, size rules: what CI runs before the tests
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/python tools/check_size.py

format: $(STAMP) ## Rewrite the code as `make check` wants it
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)
