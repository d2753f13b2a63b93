# One command per intention. Everything happens in .venv, which `setup` builds from the lock; a second run is instant.

PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
  "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo "$$python"; break; }; done)
UV ?= uv
BIN := .venv/bin
READY := .venv/.ready
LOCK_FLAGS := --universal --python-version 3.11 --generate-hashes --no-annotate --custom-compile-command 'make lock' --quiet

.DEFAULT_GOAL := help
.PHONY: help setup demo test check format bench lock clean

help: ## Say what can be made
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(READY) ## Build .venv from the lock (every other target does this by itself)

$(READY): requirements/dev.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "Fairlead needs Python 3.11 or later, and none was found. Install it, or name it: make PYTHON=/path/to/python $(MAKECMDGOALS)" >&2; exit 1; }
	@echo "setting up .venv (once)"
	@test -x $(BIN)/python || "$(PYTHON)" -m venv .venv || { \
	  echo "No virtual environment could be made with $(PYTHON). On Debian and Ubuntu: apt install python3-venv" >&2; rm -rf .venv; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(READY) ## Review this repository with agents, kill it half-way, resume it
	@$(BIN)/python -m examples.demo

test: $(READY) ## Run the tests
	@$(BIN)/python -m pytest $(ARGS)

check: $(READY) ## Lint, formatting and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: $(READY) ## Format and apply the safe fixes
	@$(BIN)/ruff check --fix --quiet . ; $(BIN)/ruff format .

bench: $(READY) ## Run every bench, peers included (ARGS="--quick" for a short one)
	@$(BIN)/python -m bench $(ARGS)

lock: ## Renew the locks after a change of dependencies (needs uv; add ARGS=--upgrade for newer versions)
	@command -v $(UV) >/dev/null || { echo "make lock needs uv: pip install uv, or name it: make UV=/path/to/uv lock" >&2; exit 1; }
	@mkdir -p requirements
	@$(UV) pip compile $(LOCK_FLAGS) $(ARGS) --all-extras --group dev pyproject.toml --output-file requirements/dev.lock
	@$(UV) pip compile $(LOCK_FLAGS) --constraint requirements/dev.lock pyproject.toml --output-file requirements/core.lock

clean: ## Remove what was built (.venv, caches, the benches' environments)
	@rm -rf .venv .bench build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
