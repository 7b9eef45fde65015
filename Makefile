# Every target sets up what it needs in $(VENV), from python3 >= 3.10 and the package registry.
PYTHON ?= python3
VENV ?= .venv
CLIENTS_VENV ?= .venv-clients
BENCH_VENV ?= .venv-bench
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DOCS_READY := $(VENV)/.docs-ready
CLIENTS_READY := $(CLIENTS_VENV)/.ready
BENCH_READY := $(BENCH_VENV)/.ready
UI_READY := $(VENV)/.ui-ready
BENCHES := $(patsubst benchmarks/bench_%.py,bench-%,$(wildcard benchmarks/bench_*.py))

.PHONY: help setup demo test test-fast test-slow coverage test-clients test-sdk test-airflow-min test-dagster-only test-wheel test-ui test-deployment lint dist format bench $(BENCHES) dagster-defects docs constraints clean

help:
	@echo "make demo          an Airflow DAG and a Dagster job on a local Lakebase"
	@echo "make test          the tests, in four workers or WORKERS=N"
	@echo "make test-fast     most of the core, in two minutes: no fronts, faults, attacks, files, types, docs"
	@echo "make test-slow     the tests that take more than a minute each"
	@echo "make coverage      branch coverage of the core, 95 % at least"
	@echo "make test-clients  clients that others wrote, from PyPI and npm, on the local Lakebase"
	@echo "make test-sdk      minting, with the oldest databricks-sdk or SDK=VERSION"
	@echo "make test-airflow-min   the Airflow tests with the oldest Airflow that is promised to work"
	@echo "make test-dagster-only  the Dagster side without Airflow, and beside dagster-databricks"
	@echo "make test-wheel    the wheel in a fresh environment: its demo, and its types as mypy finds them"
	@echo "make test-ui       the web interfaces in a headless browser (needs Chromium)"
	@echo "make test-deployment   whole deployments of Airflow and Dagster, with what happens to them at night"
	@echo "make lint          ruff, mypy --strict, import-linter"
	@echo "make format        let ruff rewrite what it can"
	@echo "make dist          the wheels and source archives, as they are published"
	@echo "make bench         the measurements, or one of: $(BENCHES)"
	@echo "make dagster-defects  known defects of database I/O managers, there and here"
	@echo "make docs          the documentation, in build/docs"
	@echo "make constraints   resolve constraints.txt anew"
	@echo "make clean         remove all that was made, $(VENV) included"

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed; use make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[all]' --group dev
	@touch $@

demo: $(READY)
	$(BIN)/lakebase demo

# Tests start hundreds of processes: each would compile the package anew where a container's environment says so.
unexport PYTHONDONTWRITEBYTECODE

# Tests wait more than they compute, so workers may be more than cores. The files that take longest come first.
WORKERS ?= 4
# What hangs in C hears of no timeout: the worker ends then, and the test is named.
TEST := $(BIN)/pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder -o faulthandler_timeout=600 -o faulthandler_exit_on_timeout=true

test: $(READY)
	$(TEST)

# What takes a quarter of a minute or more of the core's tests.
NOT_FAST := $(addprefix --ignore=tests/core/,test_hardest.py bulk/files bulk/types bulk/load/test_transfer.py bulk/load/test_changes_killed.py \
  bulk/sources/test_read_once.py bulk/unload/test_round_trip.py)

test-fast: $(READY)
	$(TEST) tests/core tests/test_architecture.py tests/test_remedies.py $(NOT_FAST)

$(CLIENTS_READY): tests/clients/requirements.txt tests/clients/package.json
	$(PYTHON) -m venv $(CLIENTS_VENV)
	$(CLIENTS_VENV)/bin/python -m pip install --quiet --requirement tests/clients/requirements.txt
	mkdir -p $(CLIENTS_VENV)/node
	cp tests/clients/package.json $(CLIENTS_VENV)/node
	npm install --no-fund --no-audit --no-package-lock --silent --prefix $(CLIENTS_VENV)/node
	@touch $@

test-slow: $(READY)
	$(BIN)/pytest -m "slow or deep" --hypothesis-profile=full --timeout=1800

coverage: $(READY)
	$(BIN)/pytest tests/core tests/faults --cov=lakebase_provider.core --cov-branch --cov-report=term-missing:skip-covered --cov-fail-under=95

test-clients: $(READY) $(CLIENTS_READY)
	CLIENTS_VENV=$(CLIENTS_VENV) $(BIN)/pytest tests/clients

# The oldest databricks-sdk that is promised to work; another one by SDK=.
SDK ?= 0.41.*
test-sdk:
	$(PYTHON) -m venv --clear build/sdk
	build/sdk/bin/python -m pip install --quiet --upgrade 'pip>=25.1'
	build/sdk/bin/python -m pip install --quiet '.[local]' sqlalchemy --group test 'databricks-sdk==$(SDK)'
	build/sdk/bin/python -m pytest tests/core/test_conformance.py tests/core/connect/test_connector.py

# The oldest Airflow that is promised to work; another one by AIRFLOW=.
AIRFLOW ?= 3.1.*
test-airflow-min:
	$(PYTHON) -m venv --clear build/airflow-min
	build/airflow-min/bin/python -m pip install --quiet --upgrade 'pip>=25.1'
	build/airflow-min/bin/python -m pip install --quiet '.[airflow,delta,local,pandas,polars]' --group test-airflow 'apache-airflow==$(AIRFLOW)'
	build/airflow-min/bin/python -m pytest tests/airflow

test-dagster-only:
	$(PYTHON) -m venv --clear build/dagster-only
	build/dagster-only/bin/python -m pip install --quiet --upgrade 'pip>=25.1'
	build/dagster-only/bin/python -m pip install --quiet --constraint constraints.txt '.[dagster-storage,delta,local,pandas,polars]' --group test-dagster
	build/dagster-only/bin/python -m pytest tests/dagster
	build/dagster-only/bin/python -m pip install --quiet dagster-databricks
	build/dagster-only/bin/python -m pytest tests/dagster/test_imports.py tests/dagster/test_resource.py

# What users get: the wheel alone, in a fresh environment, with its demo and its types.
test-wheel:
	rm -rf build/wheel
	$(PYTHON) -m venv build/wheel/venv
	build/wheel/venv/bin/python -m pip install --quiet --upgrade 'pip>=25.1'
	build/wheel/venv/bin/python -m pip wheel --quiet --no-deps --wheel-dir build/wheel .
	build/wheel/venv/bin/python -m pip install --quiet --constraint constraints.txt "$$(echo build/wheel/*.whl)[all]" mypy
	cd build/wheel && venv/bin/lakebase demo
	cd build/wheel && venv/bin/lakebase examples --copy examples
	cp tests/wheel/user_code.py build/wheel
	cd build/wheel && venv/bin/python -m mypy --strict --config-file= user_code.py

$(UI_READY): $(READY)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --group ui
	@touch $@

test-ui: $(UI_READY)
	$(BIN)/pytest -m ui tests/ui

test-deployment: $(UI_READY)
	$(BIN)/pytest -m deployment tests/deployment

lint: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/mypy --strict tests/wheel/user_code.py
	$(BIN)/lint-imports
	$(BIN)/validate-pyproject pyproject.toml
	$(BIN)/zizmor --offline --quiet .github

# What is published, looked at as the index does.
dist:
	rm -rf dist
	$(PYTHON) -m venv --clear build/release
	build/release/bin/python -m pip install --quiet --upgrade 'pip>=25.1'
	build/release/bin/python -m pip install --quiet --constraint constraints.txt --group release
	build/release/bin/python -m build --outdir dist .
	build/release/bin/python -m build --outdir dist packaging/dagster-lakebase
	build/release/bin/twine check --strict dist/*
	build/release/bin/check-wheel-contents dist/lakebase_provider-*.whl

format: $(READY)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: $(BENCHES)

$(BENCH_READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(BENCH_VENV)
	$(BENCH_VENV)/bin/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BENCH_VENV)/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[all]' --group bench
	@touch $@

$(BENCHES): bench-%: $(BENCH_READY)
	$(BENCH_VENV)/bin/python -m benchmarks.bench_$*

# The known defects of Dagster's database I/O managers: what becomes of each case there, and here.
dagster-defects: $(BENCH_READY)
	$(BENCH_VENV)/bin/python -W ignore -m benchmarks.dagster_defects

$(DOCS_READY): $(READY)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --group docs
	@touch $@

docs: $(DOCS_READY)
	AIRFLOW_HOME=$(CURDIR)/build/airflow $(BIN)/sphinx-build -n -W --keep-going -q -b html docs build/docs
	@echo "build/docs/index.html"

constraints:
	$(PYTHON) -m venv build/resolver
	build/resolver/bin/python -m pip install --quiet uv
	build/resolver/bin/uv pip compile --quiet --upgrade --universal --python-version 3.10 --no-header --no-annotate \
	  --all-extras --group dev --group docs --group bench --group ui --group release --output-file constraints.txt pyproject.toml

clean:
	rm -rf build $(VENV) $(CLIENTS_VENV) $(BENCH_VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .coverage
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
