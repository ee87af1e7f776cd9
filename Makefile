# Headsup: everything a developer runs. `make` alone lists the targets.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/ready
LOCK   := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
          --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" $(LOCK_ARGS)

.DEFAULT_GOAL := help
.PHONY: help setup up demo test lint format bench lock schemas clean

help:  ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

setup: $(READY)  ## a virtual environment with exactly the locked versions

$(READY): requirements-dev.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "Headsup needs Python 3.11 or later: make PYTHON=python3.11 setup")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements-dev.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

up: $(READY)  ## run Headsup with its own database in ./.headsup
	$(BIN)/headsup up

demo: $(READY)  ## the same in a throw-away folder, sixty times as fast as the clock on the wall
	@data=$$(mktemp -d); trap 'rm -rf "$$data"' EXIT; trap 'exit 130' INT TERM; $(BIN)/headsup up --data "$$data" --clock virtual@60

test: $(READY)  ## every test; what a missing program leaves out is listed (with CI=true it fails)
	$(BIN)/python -m pytest -n auto --dist loadfile $(ARGS)

lint: $(READY)  ## style, types and who may import what
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY)  ## put the code into shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY)  ## measure; JSON lines
	$(BIN)/python -m bench $(ARGS)

lock: $(READY)  ## pin the dependencies again (LOCK_ARGS=--upgrade for newer ones)
	$(LOCK) pyproject.toml --output-file requirements.txt
	$(LOCK) pyproject.toml --extra dev --output-file requirements-dev.txt
	$(LOCK) --group build --constraint requirements-dev.txt --output-file requirements-build.txt

schemas: $(READY)  ## write the JSON Schemas of all events
	$(BIN)/headsup schemas

clean:  ## remove what the tools have made
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
