# Every target installs what it needs; a second call finds it installed and starts at once.
#   make demo    sanitize a poisoned sample of real data, and say how much of the poison was found
#   make test    everything that CI checks
#   make bench   the benchmarks (see benchmarks/README.md for the data)
#   make venv    only install, into .venv
#   make clean   remove what the other targets made

SHELL := bash
.SHELLFLAGS := -euo pipefail -c

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
INSTALLED := .venv/.installed
INSTALLED_BENCH := .venv/.installed-bench

.PHONY: venv demo test bench clean

venv: $(INSTALLED)

$(INSTALLED): pyproject.toml requirements.lock
	@command -v $(PYTHON) > /dev/null || { echo "no $(PYTHON) found; install Python 3.11 or newer, or name one: make venv PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$$($(PYTHON) --version) is too old; Python 3.11 or newer is needed: make venv PYTHON=python3.12" >&2; exit 1; }
	@echo "installing into .venv (a minute or two the first time)"
	@$(PYTHON) -m venv .venv
	@$(PIP) install --constraint requirements.lock --editable '.[dev]'
	@touch $@

$(INSTALLED_BENCH): $(INSTALLED)
	@$(PIP) install --constraint requirements.lock --editable '.[dev,bench]'
	@touch $@

demo: $(INSTALLED)
	@$(BIN)/sanitize run data_samples/demo.toml --json | $(BIN)/python data_samples/check.py

# Threads of OpenMP that wait for a busy core keep it busier; tests are small.
test: export OMP_NUM_THREADS = 1
test: $(INSTALLED)
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest --numprocesses auto --maxprocesses 4 --dist worksteal

bench: $(INSTALLED_BENCH)
	$(BIN)/python -m benchmarks.all

clean:
	rm -rf .venv demo_store build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
