# Two commands: `make demo` shows the whole path on a real model, `make test` checks everything.
PYTHON ?= python3
BIN := .venv/bin
# test processes: each has a model, caches, ports and a Prefect home of its own, and takes about 2 GB
WORKERS ?= 2

.PHONY: demo test lint clean

demo: .venv/ready
	$(BIN)/rise demo

test: .venv/ready lint
	$(BIN)/rise models fetch smollm2-135m-instruct
	$(BIN)/python -m pytest --numprocesses=$(WORKERS)

lint: .venv/ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# pip alone, exact versions. torch first and by name: an index or folder that has a CPU build of
# this version then decides, and nothing later replaces it.
.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[test]"
	touch $@

clean:
	rm -rf .venv rise-demo .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
