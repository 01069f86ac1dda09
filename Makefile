# `make demo` and `make test` do all their own set-up: Python 3.11 or newer is enough.

VENV ?= .venv
PYTHON ?= python3
ARGS ?=
BIN := $(VENV)/bin

.PHONY: demo test check format docs lock protos clean

demo: $(VENV)/.installed
	$(BIN)/steno up $(ARGS)

test: $(VENV)/.installed
	$(BIN)/pytest -q $(ARGS)

check: $(VENV)/.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/mypy
	$(BIN)/basedpyright
	$(BIN)/python -m docs.generate --check

format: $(VENV)/.installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(VENV)/.installed
	$(BIN)/python -m docs.generate

protos: $(VENV)/.installed
	$(BIN)/python protos/generate.py

# Hashes only: which registry serves the files is the machine's own business.
lock: $(VENV)/.installed
	$(BIN)/uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 \
	    --generate-hashes --no-emit-index-url --no-annotate --quiet \
	    --custom-compile-command "make lock" --output-file requirements.lock

$(VENV)/.installed: requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
