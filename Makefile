# Two commands on a fresh Debian or Ubuntu with git, make, python3 (3.11 to 3.13), python3-venv:
#   make demo    sets up .venv and runs the main job on a made-up archive of 20,000 recordings
#   make test    sets up .venv and passes the tests
# PYTHON=python3.13 chooses another interpreter; OUT=DIR another folder for the demo.

PYTHON ?= python3
OUT ?= demo
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test test-slow test-more test-interop test-all lint types check setup clean

demo: $(VENV)/.installed
	$(BIN)/nearfield demo --out $(OUT)

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n auto --dist loadfile

test-slow: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n auto --dist loadfile -m "slow and not long"

# the long ones that need neither other hosts nor minutes each
test-more: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n auto --dist loadfile -m long tests/cli tests/index_build/test_build.py \
	  tests/index_build/test_update_cells.py tests/dumps/test_postgres_speed.py

# Spark (needs Java), pandas, frictionless and mlcroissant read a dump; installs them, 700 MB
test-interop: $(VENV)/.installed-dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[interop]'
	$(BIN)/python -m pytest -m long tests/dumps/test_dump_interop.py

test-all: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n auto --dist loadfile -m ""

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed-dev
	$(BIN)/mypy

check: lint types test test-slow

setup: $(VENV)/.installed-dev

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "nearfield needs Python 3.11 to 3.13, $(PYTHON) is another: make PYTHON=python3.12 ..."; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
	  { rm -rf $(VENV); echo "no venv module: apt install python3-venv, then again"; exit 1; }

$(VENV)/.installed: $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
