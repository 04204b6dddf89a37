# Yardmaster. `make` lists what there is.

PYTHON ?= python3
BIND ?= 127.0.0.1:8080
HOME_DIR ?= ./var
# More for pytest: make test PYTEST_ARGS='-k cancel'
PYTEST_ARGS ?=
# Tests at a time, in each run of the suite; many wait for processes of their own, so more than two cores
PROCESSES ?= 3
# For the fault suite: make test-faults FAULTS='--scale 0.05 kill'; --help tells all
FAULTS ?=

OURS := config clusters authn jobs ui manage.py
VENV := .venv
BIN := $(VENV)/bin
RUN_STAMP := $(VENV)/.yardmaster-requirements
DEV_STAMP := $(VENV)/.yardmaster-requirements-dev
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input
# Settings as in production, for the checks of a deployment; the key is thrown away.
SCRATCH := build/check
AS_DEPLOYED := YARDMASTER_HOME=$(SCRATCH) YARDMASTER_TLS=yes YARDMASTER_REQUIRE_TLS=yes \
	YARDMASTER_SECRET_KEY=checked-and-thrown-away-0123456789-abcdefghijklmnopqrstuvwxyz

.DEFAULT_GOAL := help
.PHONY: help up demo screenshots test test-sqlite test-postgresql test-faults lint openapi check format bench sbom secrets clean

help:
	@echo "make up                everything on this machine at http://$(BIND), until Ctrl-C"
	@echo "make demo              the same with a day's work in two clusters, below ./var/demo"
	@echo "make screenshots       take the pictures in docs/screens anew, of the same day"
	@echo "make test              lint, types, checks, and the whole suite on both databases"
	@echo "make test-sqlite       only the suite, on SQLite"
	@echo "make test-postgresql   only the suite, on a PostgreSQL of its own"
	@echo "make test-faults       kill, cut, freeze and fill, for about two hours (FAULTS='--scale 0.05')"
	@echo "make lint              ruff, bandit, dlint, mypy, import rules"
	@echo "make openapi           write openapi.json anew, after a change of the native API"
	@echo "make format            let ruff format and sort"
	@echo "make bench             measure speed (benchmarks/)"
	@echo "make sbom              a bill of materials of what runs, build/sbom.json, for a release"
	@echo "make secrets           random passwords for compose.yaml, below ./var/secrets"
	@echo "make clean             remove caches and build files; data and .venv stay"
	@echo
	@echo "BIND=$(BIND)  HOME_DIR=$(HOME_DIR)  PYTHON=$(PYTHON)"

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(RUN_STAMP): requirements.txt | $(BIN)/python
	@echo "Installing what requirements.txt names ..."
	@$(PIP_INSTALL) -r requirements.txt
	@touch $@

$(DEV_STAMP): requirements-dev.txt requirements-sso.txt requirements.txt | $(BIN)/python
	@echo "Installing what requirements-dev.txt names ..."
	@$(PIP_INSTALL) -r requirements-dev.txt
	@touch $@ $(RUN_STAMP)

# exec, so that signals reach the program and not a shell in front of it.
up: $(RUN_STAMP)
	@exec env YARDMASTER_HOME=$(HOME_DIR) $(BIN)/python manage.py up --bind $(BIND)

# Apart from what `make up` keeps, with a day of made-up work in both clusters.
demo: $(RUN_STAMP)
	@exec env YARDMASTER_HOME=$(HOME_DIR)/demo $(BIN)/python manage.py up --demo --bind $(BIND)

screenshots: $(DEV_STAMP)
	@exec $(BIN)/python -m tests.ui.screenshots

# What uses no database runs on the first of the two only.
test: AGAIN := YARDMASTER_TEST_AGAIN=1
test: lint check test-sqlite test-postgresql

test-sqlite: $(DEV_STAMP)
	YARDMASTER_TEST_BACKEND=sqlite $(BIN)/python -m pytest -q -n $(PROCESSES) --dist worksteal $(PYTEST_ARGS)

test-postgresql: $(DEV_STAMP)
	$(AGAIN) YARDMASTER_TEST_BACKEND=postgresql $(BIN)/python -m pytest -q -n $(PROCESSES) --dist worksteal $(PYTEST_ARGS)

test-faults: $(DEV_STAMP)
	@exec $(BIN)/python -m tests.faults $(FAULTS)

lint: $(DEV_STAMP)
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m bandit --quiet --configfile pyproject.toml --severity-level medium --recursive $(OURS)
	$(BIN)/python -m flake8 --select=DUO138 $(OURS)
	$(BIN)/python -m mypy .
	$(BIN)/lint-imports

# The document of the native API, which a test compares with what the code says.
openapi: $(DEV_STAMP)
	@mkdir -p $(SCRATCH)
	$(AS_DEPLOYED) $(BIN)/python manage.py openapi > openapi.json

check: $(DEV_STAMP)
	@mkdir -p $(SCRATCH)
	$(AS_DEPLOYED) $(BIN)/python manage.py check --deploy --fail-level WARNING
	$(AS_DEPLOYED) $(BIN)/python manage.py makemigrations --check --dry-run

format: $(DEV_STAMP)
	$(BIN)/python -m ruff check --fix .
	$(BIN)/python -m ruff format .

bench: $(DEV_STAMP)
	$(BIN)/python -m benchmarks

# Of an environment with nothing in it but what a running Yardmaster needs.
sbom: $(DEV_STAMP)
	@$(PYTHON) -m venv --clear --without-pip build/sbom
	@$(BIN)/python -m pip --python build/sbom/bin/python install --quiet --no-input -r requirements.txt
	$(BIN)/cyclonedx-py environment --output-reproducible --pyproject pyproject.toml \
		--output-file build/sbom.json build/sbom

# The directory is private; the files are readable, because containers read them as another user.
secrets:
	@mkdir -p -m 700 var var/secrets
	@cd var/secrets && \
	random() { $(PYTHON) -c 'import secrets; print(secrets.token_hex(32), end="")'; } && \
	keep() { test -s "$$1" || { cat > "$$1" && chmod 644 "$$1"; }; } && \
	random | keep postgres_password && \
	random | keep secret_key && \
	address="postgresql://yardmaster:$$(cat postgres_password)@postgres" && \
	printf '%s/control' "$$address" | keep control_url && \
	printf 'payroll=%s/payroll,notifications=%s/notifications' "$$address" "$$address" | keep clusters
	@echo "Written to var/secrets; now: docker compose up --build"

clean:
	rm -rf build .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache .coverage
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
