# Two commands do everything: `make sample` runs the main job, `make test` the tests.
PYTHON ?= python3
PROBLEM ?= problems/clock-digits.yaml
BIN := .venv/bin

.PHONY: sample test lint check clean

# Installed once, and again when the dependencies change.
.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

.venv/installed-dev: .venv/installed
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

sample: .venv/installed
	mkdir -p runs
	$(BIN)/hydragen-sample $(PROBLEM) -n 1000 -o runs/sample.jsonl --force
	@echo "1000 programs are in runs/sample.jsonl"

test: .venv/installed-dev
	$(BIN)/python -m pytest -q -n auto --dist worksteal

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint test

clean:
	rm -rf .venv runs
