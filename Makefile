PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.built

.DEFAULT_GOAL := help

# Some images set it: every process that a test starts would compile the whole program again.
unexport PYTHONDONTWRITEBYTECODE

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys, venv, ensurepip; assert sys.version_info >= (3, 11)' || { \
	  echo "dispatcherd needs Python >= 3.11 with venv (Debian: apt install python3-venv); try PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

env: $(STAMP) ## Build the environment in .venv

demo: $(STAMP) ## See it work: embedded Kafka and Postgres, local receivers, a few thousand events
	$(BIN)/dispatcherd demo

parts: ## Install the Debian packages that tests need and this machine lacks (as root)
	@tests/parts.sh

test: $(STAMP) ## Run all tests (real Kafka where Java and Maven are present)
	@if [ "$$CI" = true ]; then tests/parts.sh; fi
	$(BIN)/python -m pytest -q -n 3 --dist loadfile --no-loadscope-reorder

matrix: $(STAMP) ## Run the sample receivers of examples/ and write examples/MATRIX.md
	$(BIN)/python -m pytest -q tests/acceptance/test_sample_receivers.py --matrix -k 'not the_table'

COMPILED := build/compiled
SOURCES := setup.py pyproject.toml constraints.txt $(shell find dispatcherd bench tests -name '*.py' -o -name '*.sql')

$(COMPILED)/.built: $(STAMP) $(SOURCES)
	@mkdir -p $(COMPILED)
	@git ls-files -co --exclude-standard -z | tar --null --no-recursion -T - -cf - | tar -xf - -C $(COMPILED)
	@ln -sfn $(abspath .parts) $(COMPILED)/.parts
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt 'setuptools>=77'
	cd $(COMPILED) && DISPATCHERD_COMPILE=1 $(abspath $(BIN))/python setup.py -q build_ext --inplace
	@touch $@

compiled: $(COMPILED)/.built ## Compile the hot modules, in a copy of the tree: build/compiled (needs gcc)

test-compiled: compiled ## Run all tests against the compiled modules
	cd $(COMPILED) && $(abspath $(BIN))/python -m pytest -q -n 3 --dist loadfile --no-loadscope-reorder

faults: $(STAMP) ## Break every part and check every promise (ONLY=soak SEED=7 SECONDS=60)
	$(BIN)/python -m tests.faults --isolation 1.5 $(if $(ONLY),--only $(ONLY)) \
	  $(if $(SEED),--seed $(SEED)) $(if $(SECONDS),--seconds $(SECONDS)) \
	  $(if $(ONLY)$(SECONDS),,--write docs/reliability.md) $(ARGS)

bench: $(STAMP) ## Measure (QUICK=1: two minutes, a smoke test; SCENARIO=drain ARGS='--runs 3')
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e '.[bench]'
	$(BIN)/python -m bench $(or $(SCENARIO),all) $(if $(QUICK),--quick) $(ARGS)

bench-peers: ## The same for another engine, where Go is present
	@$(MAKE) --no-print-directory bench SCENARIO=peers

docs: $(STAMP) ## Build the documentation site into docs/_build/html; a warning is an error
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

check: $(STAMP) ## Lint, format, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

lock: $(STAMP) ## Write requirements.lock anew: hashes of what constraints.txt pins
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e '.[lock]'
	supply/lock.sh $(BIN)/uv

audit: $(STAMP) ## Known vulnerabilities in the pins, by ADVISORIES=a folder or zip (exit 3: could not look)
	@$(BIN)/python supply/audit.py $(if $(ADVISORIES),--advisories $(ADVISORIES))

.PHONY: help env demo parts test matrix compiled test-compiled faults bench bench-peers docs check lock audit
