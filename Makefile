# What a person types. Each target works on a fresh clone that has only make and Python 3.11 or newer.

PYTHON ?= python3
VENV ?= .venv
NAME ?= train_cpu
ARGS ?=
WORKERS ?= 2

BIN := $(VENV)/bin
# By the environment too: it reaches the build, whose jaxlib must be the one that is installed.
PIP := PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt $(BIN)/python -m pip --quiet --disable-pip-version-check
USE := $(VENV)/.installed
WORK := $(VENV)/.installed-for-work
# The native kernels: compiled by the installation where there is a compiler, and again when their code has changed.
NATIVE := $(VENV)/.native
CODE := $(wildcard cupola/kernels/*/*.cc cupola/kernels/*/*.h cupola/kernels/native/*.py)

.PHONY: help install quickstart test test-all lint bench clean
.DEFAULT_GOAL := help

help:  ## show this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' Makefile
	@echo '  Options: ARGS="..." is passed on; PYTHON=python3.12 VENV=.venv-3.12 chooses another Python; WORKERS=4 tests in as many processes.'

install: $(NATIVE)  ## install Cupola into .venv

quickstart: $(NATIVE)  ## train a real model on real text in minutes, and use it
	$(BIN)/cupola quickstart $(ARGS)

# Tests start many processes: what they import is compiled once, whatever the shell says of bytecode.
test test-all: export PYTHONDONTWRITEBYTECODE =

test: $(WORK) $(NATIVE)  ## run the quick tests
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m 'not slow and not gpu' $(ARGS)

test-all: $(WORK) $(NATIVE)  ## run every test, the slow ones too
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(ARGS)

lint: $(WORK)  ## check style, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(NATIVE)  ## measure against the peers; NAME=train_cpu chooses the bench
	bench/setup $(NAME)
	$(BIN)/python bench/$(NAME).py $(ARGS)

clean:  ## remove what was installed and cached; runs/ stays
	rm -rf .venv .venv-* .cache build dist *.egg-info cupola/kernels/native/lib .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp is older than what it was made from only when that has changed: a second make installs nothing.
$(USE): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "Cupola needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) --version 2>&1 | tail -n 1)."; \
	  echo "Name another one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "This Python cannot make a virtual environment. On Debian and Ubuntu: apt install python3-venv"; exit 1; }
	@echo "Installing into $(VENV): a minute or two, once."
	$(PIP) install --constraint constraints.txt --editable '.[serve,access,speech]'
	@touch $@

$(WORK): $(USE)
	$(PIP) install --constraint constraints.txt --editable '.[serve,access,speech,test,lint]'
	@touch $@

$(NATIVE): $(USE) $(CODE)
	@$(BIN)/python -m cupola.kernels.native.build
	@touch $@
