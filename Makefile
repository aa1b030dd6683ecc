# Everything runs in .venv, which is made from pyproject.toml and the pins in constraints.txt.
PYTHON ?= python3
BIN := .venv/bin
UNCOLLAPSE_CORPORA ?= $(wildcard $(abspath ../shared/data))
export UNCOLLAPSE_CORPORA

.PHONY: demo test lint docs bench clean

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,docs]'
	touch $@

demo: .venv/installed
	$(BIN)/python -m uncollapse.demo

test: .venv/installed
	$(BIN)/python -m pytest --numprocesses 2

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

docs: .venv/installed
	$(BIN)/sphinx-build -W --keep-going -b html docs docs/_build/html

bench: .venv/installed
	-$(BIN)/uncollapse kernels
	$(BIN)/python benchmarks/speed.py
	$(BIN)/python benchmarks/growth.py

clean:
	rm -rf .venv demo docs/_build
