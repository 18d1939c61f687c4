PYTHON_BIN := .venv/bin
# Tiny models do not gain from a second thread, and two threads on busy cores are slower than one.
export OMP_NUM_THREADS ?= 1

.DEFAULT_GOAL := help
.PHONY: help setup demo test check format wheel

help:
	@echo 'make demo     set everything up and find people in two pictures'
	@echo 'make test     set everything up and run the tests'
	@echo 'make check    format, lint and types'
	@echo 'make format   format and fix what ruff can fix'
	@echo 'make wheel    build dist/posesdk-*.whl'
	@echo 'make setup    system packages, .venv and Python packages'

setup:
	@scripts/setup.sh

demo: setup
	$(PYTHON_BIN)/python samples/demo.py

test: setup
	$(PYTHON_BIN)/python -m pytest

check: setup
	$(PYTHON_BIN)/ruff format --check .
	$(PYTHON_BIN)/ruff check .
	$(PYTHON_BIN)/mypy

format: setup
	$(PYTHON_BIN)/ruff format .
	$(PYTHON_BIN)/ruff check --fix .

wheel: setup
	$(PYTHON_BIN)/python -m build --wheel --no-isolation
