# Everything a newcomer needs: `make demo`, `make test`. Each target does its own set-up.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
IMAGES ?=
KEEP ?=

.PHONY: help setup demo test torture model sbom audit lint types test-training bench soak docs pictures lock clean

help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

setup: $(VENV)/.ready ## virtual environment, pinned dependencies, server binaries

$(VENV)/.ready: requirements.lock pyproject.toml consumer/local/stack.lock
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
	  || { echo "Python 3.11, 3.12 or 3.13 is needed; $(PYTHON) is $$($(PYTHON) --version). Name another: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null \
	  || { echo "Python's venv module is missing (Debian: apt install python3-venv)" >&2; exit 1; }
	@echo "Setting up: a virtual environment in $(VENV) and servers in .stack; the first time takes some minutes"
	@$(PYTHON) -m venv $(VENV)
	@echo "  pinned dependencies"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements.lock
	@PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@echo "  Kafka broker, Triton, Redis"
	@$(BIN)/python -c 'from consumer.local.binaries import find_binaries; find_binaries(print)'
	@touch $@

demo: setup ## photographs and edited copies through the whole service (IMAGES=folder for your own; KEEP=1: look at the page)
	$(BIN)/seenit demo $(if $(IMAGES),--images "$(IMAGES)") $(if $(KEEP),--keep)

WORKERS ?= 2
SHARED = $(BIN)/python -m pytest -n $(WORKERS) --no-loadscope-reorder
# What hurts servers says within which time they have to be back: nothing but its like, which waits, runs beside it.
HARMFUL = tests/torture tests/faults
test: setup ## all tests except those of the training, by WORKERS processes, which mostly wait
	@failed=0; set -x; $(SHARED) $(HARMFUL) || failed=1; \
	  $(SHARED) $(addprefix --ignore=,$(HARMFUL)) || failed=1; exit $$failed

SEEDS ?= 20
START ?= 1
torture: setup ## kill, freeze and cut off everything while uploads flow and the network fails; SEEDS=200 for the long run
	$(BIN)/python -m tests.torture --seeds $(SEEDS) --start $(START) --results out/torture

model: setup ## search the model of the protocol at depth (an hour); needs java and mvn
	$(BIN)/python -m tests.model

test-training: .venv-train/.ready ## tests of the training, in an environment of its own (PyTorch: several GB)
	.venv-train/bin/python -m pytest --confcutdir tests/training tests/training

.venv-train/.ready: pyproject.toml
	@echo "Setting up .venv-train with PyTorch: several GB"
	@$(PYTHON) -m venv .venv-train
	@.venv-train/bin/python -m pip install --quiet --disable-pip-version-check 'setuptools>=77'
	@.venv-train/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[train]'
	@touch $@

# What describes and checks the locks has an environment of its own, so that its packages are not among the described.
.venv-supply/.ready: deploy/supply/requirements.lock
	@$(PYTHON) -m venv .venv-supply
	@.venv-supply/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement $<
	@touch $@

sbom: .venv-supply/.ready ## out/sbom.cdx.json: what the image's lock contains, as CycloneDX
	@mkdir -p out
	.venv-supply/bin/cyclonedx-py requirements --output-reproducible --spec-version 1.6 --output-format JSON \
	  --pyproject pyproject.toml --output-file out/sbom.cdx.json deploy/docker/requirements.lock

LOCKS = requirements.lock consumer/local/stack.lock deploy/docker/requirements.lock deploy/docker/triton.lock \
  deploy/docker/build.lock deploy/supply/requirements.lock tests/deploy/requirements.lock \
  tests/deploy/go.lock
audit: .venv-supply/.ready ## known vulnerabilities in every lock; fails too where the advisory database cannot be asked
	@failed=; for lock in $(LOCKS); do echo "$$lock"; \
	  .venv-supply/bin/pip-audit --strict --disable-pip --require-hashes --progress-spinner off --requirement "$$lock" \
	  || failed="$$failed $$lock"; done; \
	  [ -z "$$failed" ] || { echo "vulnerable, or not asked about:$$failed" >&2; exit 1; }

lint: setup ## ruff, as formatter and linter
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: setup ## mypy --strict
	$(BIN)/mypy

docs: setup ## write what is made from code: JSON Schemas, the table of settings, dashboards, PrometheusRule
	$(BIN)/python -m deploy.reference
	$(BIN)/python deploy/grafana/dashboards.py
	$(BIN)/python deploy/kubernetes/prometheus_rule.py

pictures: setup ## plot the dashboards' panels from some minutes of real load, and the page; needs Debian's prometheus and chromium
	@command -v prometheus >/dev/null || { echo "there is no prometheus on the PATH (on Debian: apt-get install prometheus)" >&2; exit 1; }
	$(BIN)/python -m tests.deploy.picture_dashboards
	$(BIN)/python -m tests.http.page.picture_pages

bench: setup ## images a second, beside the bounds of the service; needs an otherwise idle machine
	$(BIN)/python -m tests.benchmarks.bench_service
	$(BIN)/python -m tests.benchmarks.bench_second_look
	$(BIN)/python -m tests.benchmarks.bench_sizing

MINUTES ?= 30
soak: setup ## run the service at full load for MINUTES, see whether memory, descriptors and threads stay flat, and plot them
	$(BIN)/python -m tests.benchmarks.soak --minutes $(MINUTES) --results out/soak

PIN = $(BIN)/pip-compile --quiet --strip-extras --allow-unsafe --generate-hashes --no-emit-index-url \
  --no-emit-trusted-host --no-emit-find-links

lock: setup ## pin the newest allowed dependencies of the checkout, the images and the validators
	$(PIN) --upgrade --extra local --extra serve --extra tracing --extra dev --output-file requirements.lock pyproject.toml
	$(PIN) --upgrade --extra serve --extra tracing --constraint requirements.lock --output-file deploy/docker/requirements.lock pyproject.toml
	$(PIN) --upgrade --constraint requirements.lock --output-file deploy/docker/triton.lock deploy/docker/triton.in
	$(PIN) --upgrade --output-file deploy/docker/build.lock deploy/docker/build.in
	$(PIN) --upgrade --output-file deploy/supply/requirements.lock deploy/supply/requirements.in
	$(PIN) --upgrade --output-file tests/deploy/requirements.lock tests/deploy/requirements.in
	$(PIN) --upgrade --output-file tests/deploy/go.lock tests/deploy/go.in

clean: ## remove everything the other targets made
	rm -rf $(VENV) .venv-train .venv-supply .stack .cache out build dist *.egg-info
