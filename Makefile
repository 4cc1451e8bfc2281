# `make` lists what there is. Everything works on a fresh clone: what is missing is set up first, in .venv.
PYTHON ?= python3
BIN := .venv/bin
.DEFAULT_GOAL := help
.PHONY: help setup demo test test-long bench observe drill dashboards lint format lock clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-11s %s\n", $$1, $$2}'

setup: .venv/ready ## Make .venv with the pinned packages and this one, editable

.venv/ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Aidtrail needs Python 3.11 or newer, found %s; use make PYTHON=..." % sys.version.split()[0])'
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

demo: setup ## Play a donation from pledge to receipt, in a PostgreSQL of its own
	@$(BIN)/aidtrail demo --home build/demo

test: lint ## Lint, then every test that takes seconds (needs Java 17 and Maven for those on Kafka)
	$(BIN)/python -m pytest -m 'not long' -n 2 --dist loadfile --no-loadscope-reorder  # two at a time, each with a broker and a database of its own

test-long: setup ## The tests that take minutes: processes killed, records forged, 20,000 submissions
	$(BIN)/python -m pytest -m long

bench: setup ## Measure speed, against a bare loop in the same run
	$(BIN)/python -m tests.bench

observe: setup ## Run everything under Prometheus and a load, ask every panel, draw the dashboards to build/observe
	$(BIN)/python -m tests.observe

drill: setup ## Make each alert fire by its real cause, and end when that is undone; takes about ten minutes
	$(BIN)/python -m tests.drill

dashboards: setup ## Generate the Grafana dashboards anew
	$(BIN)/python deploy/grafana/generate.py

lint: setup ## ruff, mypy --strict, import-linter
	$(BIN)/ruff check services tests deploy
	$(BIN)/ruff format --check services tests deploy
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: setup ## Let ruff format and sort
	$(BIN)/ruff check --fix services tests deploy
	$(BIN)/ruff format services tests deploy

lock: ## Pin the packages of pyproject.toml anew (needs uv)
	uv pip compile pyproject.toml --extra test --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
		--no-emit-index-url --upgrade --quiet --output-file requirements.lock

clean: ## Delete .venv, builds and caches
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache services/*.egg-info
