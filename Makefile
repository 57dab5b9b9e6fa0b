# Python 3.11 and make are all that is needed. `make demo`, `make test`; `make help` lists the rest.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
OMS := $(BIN)/oms
# Exists when the installation is complete and is of these files.
INSTALLED := $(VENV)/.installed
LOG := .cache/install.log
UV := .cache/uv

.PHONY: help setup demo up down test lint format schemas chaos bench screenshots lock

help: ## list the targets
	@sed -nE 's/^([a-z]+):.*## (.*)/  make \1\t\2/p' Makefile | expand -t 18

setup: $(INSTALLED) ## install everything, pinned with hashes (the others do it by themselves)
	@:

demo: $(INSTALLED) ## start the stack, drive 1,000 orders through it, print the KPIs, stop
	@$(OMS) demo

up: $(INSTALLED) ## start the stack and keep it running
	@$(OMS) up

down: $(INSTALLED) ## stop it
	@$(OMS) down

test: $(INSTALLED) ## every test but the long ones
	@$(BIN)/pytest

lint: $(INSTALLED) ## style, types, import rules, topology, schemas
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo
	@$(OMS) topology check
	@$(BIN)/python -m schemas.avro.generate --check
	@$(BIN)/python -m schemas.contract --check docs/events.md
	@$(BIN)/python -m processors.order.lifecycle --check docs/lifecycle.md
	@$(BIN)/python -m analytics.kpis.page --check docs/kpis.md
	@$(BIN)/python -m deploy.grafana.generate --check

format: $(INSTALLED) ## what ruff can mend by itself
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

schemas: $(INSTALLED) ## what is made of the code: Avro schemas that changed, docs/events.md, docs/lifecycle.md, docs/kpis.md
	@$(BIN)/python -m schemas.avro.generate
	@$(BIN)/python -m schemas.contract docs/events.md
	@$(BIN)/python -m processors.order.lifecycle docs/lifecycle.md
	@$(BIN)/python -m analytics.kpis.page docs/kpis.md
	@$(BIN)/python -m tests.schemas.golden

chaos: $(INSTALLED) ## only the tests that break things, and those that take long
	@OMS_CHAOS=1 OMS_LIVES=1000 OMS_AWAY_SECONDS=60 $(BIN)/pytest tests/simulation/test_lives.py \
	    tests/integration/test_breaking.py tests/integration/test_lives.py tests/integration/test_time.py \
	    tests/integration/test_sink.py tests/integration/test_rebuild.py tests/integration/test_views_replica.py
	@OMS_CHAOS=1 $(BIN)/pytest -m long --ignore tests/integration/test_rebuild.py

bench: $(INSTALLED) ## measure the stack: under load, reading from up to a million orders, filling the views, importing
	@$(OMS) bench
	@$(OMS) bench --mode reads
	@$(OMS) bench --mode views
	@$(OMS) bench --mode import

screenshots: $(INSTALLED) ## the dashboard's pictures in the docs, anew (needs chromium and chromium-driver)
	@$(BIN)/python -m tests.support.screenshots

lock: $(UV)/bin/uv ## requirements.lock, anew from pyproject.toml
	@$(UV)/bin/uv pip compile pyproject.toml --extra dev --generate-hashes --no-emit-index-url --universal \
	    --python-version 3.11 --quiet -o requirements.lock

# What a step prints is of interest only when it fails, and then one sentence is.
define quietly
$(1) >>$(LOG) 2>&1 || { \
	if grep -qi 'no space left' $(LOG); then echo "The disk is full: free about 1 GB and run make again." >&2; \
	elif grep -qiE 'connection|resolve|timed out|no matching distribution|unreachable' $(LOG); then \
	  echo "The packages could not be downloaded: check the network and run make again (details: $(LOG))." >&2; \
	else echo "The installation failed: $$(grep -E '[^[:space:]]' $(LOG) | tail -n 1) (details: $(LOG))." >&2; fi; \
	exit 1; }
endef

$(INSTALLED): requirements.lock pyproject.toml runtime/kafka-jars.lock
	@mkdir -p $(dir $(LOG)) && : >$(LOG)
	@good='import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info < (3, 14))'; \
	if ! $(BIN)/python -c "import pip; $$good" 2>/dev/null; then \
	  python=$$(for each in $(PYTHON) python3.11 python3 python3.12 python3.13; do \
	    if "$$each" -c "$$good" 2>/dev/null; then echo "$$each"; break; fi; done); \
	  if [ -z "$$python" ]; then \
	    echo "OMS needs Python 3.11 with venv (3.12 and 3.13 do as well): install it (Debian: python3.11-venv)," \
	      "or say make PYTHON=/path/to/python3.11." >&2; exit 1; fi; \
	  echo "making $(VENV) with $$("$$python" --version)"; \
	  rm -rf $(VENV); \
	  $(call quietly,"$$python" -m venv $(VENV)); \
	fi
	@echo "installing $$(grep -c '^[a-z0-9].*==' requirements.lock) packages (once) …"
	@$(call quietly,$(BIN)/python -m pip install -q --disable-pip-version-check --retries 2 --require-hashes -r requirements.lock)
	@$(call quietly,$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .)
	@$(OMS) fetch
	@touch $@

$(UV)/bin/uv:
	@python3 -m venv $(UV) && $(UV)/bin/pip install -q uv
