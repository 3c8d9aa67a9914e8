# Everything a developer or a visitor needs, from a fresh machine with Python 3.11 or newer.
#   make try     install into .venv, rehearse one whole run at no cost, verify the proof it left
#   make test    the default suite        make slow    what installs or starts something big first
#   make simulate N=1000000   histories of crashes and faults
#   make lint    ruff and mypy            make lock    refresh the two hash-locked requirement files

SHELL := /bin/sh
VENV ?= .venv
BIN := $(VENV)/bin
PYTHON ?=
WORKERS ?= auto
ARGS ?=
N ?= 1000000
STATE = $${XDG_STATE_HOME:-$$HOME/.local/state}/gpulease

# --no-compile: Python compiles what it uses when it first uses it; the rest would be 45 MB that nobody reads.
INSTALL = $(BIN)/python -m pip install -q --disable-pip-version-check --no-input --no-compile
unexport PYTHONDONTWRITEBYTECODE PYTHONPATH PYTHONHOME

.DEFAULT_GOAL := help
.PHONY: help try install dev test slow simulate real-input real-os lint format lock clean

help:
	@sed -n 's/^#   //p' Makefile

try: install
	@$(BIN)/gpulease run smoke --rehearse --yes
	@echo
	@$(BIN)/gpulease verify "$$(ls -dt "$(STATE)"/runs/*.evidence | head -n 1)"

install: $(VENV)/.installed
dev: $(VENV)/.developer

test: $(VENV)/.developer
	@$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(ARGS)

# Two at a time, those that load a real inference server one after the other.
slow: WORKERS = 2
slow: $(VENV)/.developer
	@$(BIN)/python -m pytest -m slow -n $(WORKERS) --dist loadgroup --timeout 1800 $(ARGS)

# A million histories of crashes and faults, over all cores; stopped, it goes on where it was. See tests/sim.
simulate: $(VENV)/.developer
	@$(BIN)/python -m tests.sim $(N) $(ARGS)

# What tests/real runs against; the tests do this too. About a minute the first time, nothing after that.
real-input: $(VENV)/.developer
	@tools/real-input.sh

# The system that tests/realos boots; the tests do this too. A minute the first time, nothing after that. Root only.
real-os:
	@tools/real-os.sh

lint: $(VENV)/.developer
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: $(VENV)/.developer
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

$(BIN)/python:
	@for python in $(PYTHON) python3.13 python3.12 python3.11 python3; do \
	  if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
	    if "$$python" -c 'import ensurepip, venv' >/dev/null 2>&1; then \
	      echo "making $(VENV) with $$("$$python" --version)"; exec "$$python" -m venv "$(VENV)"; \
	    fi; without="$$python"; \
	  fi; \
	done; \
	if [ -n "$$without" ]; then echo "error: $$without has no venv module; on Debian and Ubuntu: apt-get install python3-venv" >&2; \
	else echo "error: gpulease needs Python 3.11 or newer; found $$(python3 --version 2>/dev/null || echo none). make PYTHON=/path/to/python names another" >&2; fi; \
	exit 1

$(VENV)/.installed: requirements.txt pyproject.toml | $(BIN)/python
	@echo "installing $$(grep -c == requirements.txt) locked packages into $(VENV) (about 110 MB, some 20 seconds)"
	@$(INSTALL) --require-hashes -r requirements.txt
	@$(INSTALL) --no-deps --no-build-isolation -e .
	@touch "$@"

$(VENV)/.developer: requirements-dev.txt pyproject.toml | $(BIN)/python
	@echo "installing $$(grep -c == requirements-dev.txt) locked packages into $(VENV) (with the tools for tests)"
	@$(INSTALL) --require-hashes -r requirements-dev.txt
	@$(INSTALL) --no-deps --no-build-isolation -e .
	@touch "$@" "$(VENV)/.installed"

# Without index addresses or paths of this machine in the files; valid for every Python from 3.11 and every platform.
LOCK = $(BIN)/uv pip compile -q pyproject.toml --extra rehearsal --universal --python-version 3.11 \
  --generate-hashes --no-emit-index-url --no-emit-find-links --no-annotate --custom-compile-command "make lock"

lock: $(VENV)/.developer
	@$(LOCK) $(ARGS) --group build -o requirements.txt
	@# pip (23) knows a package with an extra only under that name: sigstore needs pydantic[email].
	@$(LOCK) $(ARGS) --no-strip-extras --group dev -c requirements.txt -o requirements-dev.txt
	@! grep -nE '://|file:|^ *-' requirements.txt requirements-dev.txt | grep -v -- '--hash=sha256:'
	@grep -c == requirements.txt requirements-dev.txt

clean:
	@rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	@find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +
