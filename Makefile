# The short commands: `make serve` and `make test` need Python 3.11+ and a package index, nothing else.
PYTHON ?= python3
# `make test` and training; `make serve` uses an environment of its own, without TensorFlow
VENV ?= .venv
SERVE_VENV ?= .venv-serve
PIP = -m pip install --quiet --disable-pip-version-check --require-hashes
PY = $(VENV)/bin/python

.PHONY: help serve key train test lint format lock clean
.DELETE_ON_ERROR:

help:  ## this list
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## */\1\t/' | expand -t 18

serve: $(SERVE_VENV)/.installed  ## start the service on port 5000 with the trained model that is in the repo
	$(SERVE_VENV)/bin/python -m gunicorn app:app

key: $(SERVE_VENV)/.installed  ## make an API key and the hash that the service is given
	$(SERVE_VENV)/bin/python -m digits.serving.keys

train: $(VENV)/.installed  ## run the DVC pipeline: data, training, plots
	PATH="$(abspath $(VENV))/bin:$$PATH" $(PY) -m dvc repro

test: $(VENV)/.installed  ## all tests but the slow end-to-end ones
	$(PY) -m pytest -m "not e2e and not docker and not terraform and not bulk"

lint: $(VENV)/.installed  ## ruff, mypy
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

format: $(VENV)/.installed  ## let ruff tidy up
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

# the other locks take their versions from the largest, so that all agree
LOCK = $(PY) -m uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --custom-compile-command "make lock"
lock: $(VENV)/.installed  ## pin every package and its hashes anew (UPGRADE=--upgrade for newer ones)
	$(LOCK) $(UPGRADE) requirements-dev.in -o requirements-dev.txt
	$(LOCK) requirements.in -c requirements-dev.txt -o requirements.txt
	$(LOCK) requirements-serve.in -c requirements-dev.txt -o requirements-serve.txt
	$(LOCK) requirements-tools.in -c requirements-dev.txt -o requirements-tools.txt
	$(LOCK) requirements-bulk.in -c requirements-dev.txt -o requirements-bulk.txt
	$(LOCK) requirements-bulk-dev.in -c requirements-dev.txt -c requirements-bulk.txt -o requirements-bulk-dev.txt
	$(LOCK) $(UPGRADE) requirements-terraform.in -o requirements-terraform.txt

clean:  ## remove the environments
	rm -rf $(VENV) $(SERVE_VENV) $(TOOLS_VENV) $(TERRAFORM_VENV) $(BULK_VENV)

$(VENV)/.installed: requirements-dev.txt
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) $(PIP) -r requirements-dev.txt
	touch $@

$(SERVE_VENV)/.installed: requirements-serve.txt
	test -x $(SERVE_VENV)/bin/python || $(PYTHON) -m venv $(SERVE_VENV)
	$(SERVE_VENV)/bin/python $(PIP) -r requirements-serve.txt
	touch $@

.PHONY: bench bench-quick bench-train bench-parts
bench: $(VENV)/.installed  ## measure the service against its peers (minutes; installs them in .bench; needs wrk)
	$(PY) benchmarks/bench.py

bench-quick: $(VENV)/.installed  ## under a minute: fail if the service fell behind the constant-answer ceiling
	$(PY) benchmarks/bench.py --quick

bench-parts: $(VENV)/.installed  ## where a request's time goes, in µs of CPU
	$(PY) benchmarks/parts.py

bench-train: $(VENV)/.installed  ## measure training against other ways to train (minutes; needs `dvc repro data`)
	$(PY) benchmarks/training.py

.PHONY: train-twice train-seeds
train-twice: $(VENV)/.installed  ## train twice with one seed and compare the models byte for byte
	rm -rf tmp/twice
	$(PY) train.py --out tmp/twice/a
	$(PY) train.py --out tmp/twice/b
	sha256sum tmp/twice/a/models/mnist.h5 tmp/twice/b/models/mnist.h5
	cmp tmp/twice/a/models/mnist.h5 tmp/twice/b/models/mnist.h5 && echo "equal to the byte"

train-seeds: $(VENV)/.installed  ## train with three seeds and print the mean accuracy
	for seed in 1 2 3; do $(PY) train.py --seed $$seed --out tmp/seeds/$$seed >/dev/null || exit 1; done
	$(PY) -c "import json; a = [json.load(open(f'tmp/seeds/{s}/models/mnist.json'))['test']['accuracy'] for s in (1, 2, 3)]; print('test accuracy', *a, 'mean', round(sum(a) / 3, 4))"

.PHONY: eval
eval: $(VENV)/.installed  ## how well pictures of digits are read, by kind (set MNIST_NPZ to include MNIST's)
	$(PY) benchmarks/evaluate.py

.PHONY: e2e screenshots
e2e: $(VENV)/.installed  ## the slow tests: a browser, faults under load
	$(PY) -m pytest -m e2e

screenshots: $(VENV)/.installed  ## take the pictures of the drawing page anew
	SCREENSHOTS=1 $(PY) -m pytest -q -m e2e tests/test_page.py -k screenshots

.PHONY: e2e-docker
e2e-docker: $(VENV)/.installed  ## images and compose with a real engine: build, predict, alert, kill, stop
	$(PY) -m pytest -s -m docker

.PHONY: image
# a remote's address may hold a password; what stands before the @ stays out
image: export VERSION = $(shell git describe --tags --always --dirty)
image: export REVISION = $(shell git rev-parse HEAD)
image: export SOURCE = $(shell git remote get-url origin 2>/dev/null | sed -E 's,//[^/@]*@,//,')
image:  ## build the image that serves, labelled with its version, revision and source
	docker compose build service

.PHONY: fuzz audit sbom
# what looks for holes has packages of its own, which need not get along with the others
TOOLS_VENV ?= .venv-tools
TOOLS = $(TOOLS_VENV)/bin/python
LOCKS = $(wildcard requirements*.txt)
RUNS ?= 100000

fuzz: $(TOOLS_VENV)/.installed  ## throw 120,000 mutated requests at the service (minutes; Linux; RUNS=, KEEP=1)
	$(TOOLS) tests/fuzz.py --runs $(RUNS) $(if $(KEEP),--keep)

# AUDIT=osv asks osv.dev instead of the index
audit: $(TOOLS_VENV)/.installed  ## look the locked packages up in a list of known vulnerabilities
	@for lock in $(LOCKS); do echo "$$lock:"; \
	told=$$($(TOOLS) -m pip_audit -s $(or $(AUDIT),pypi) --progress-spinner=off --disable-pip --require-hashes -r $$lock 2>&1) || failed=1; \
	if echo "$$told" | grep -qE "could not be audited|ConnectionError|ServiceError"; \
	then echo "NOT AUDITED: no service with known vulnerabilities answered for $$(echo "$$told" | grep -c "could not be audited") packages"; failed=1; \
	else echo "$$told"; fi; done; exit $${failed:-0}

sbom: $(TOOLS_VENV)/.installed  ## write what is inside as CycloneDX: sbom-serve.json, sbom-train.json
	$(TOOLS_VENV)/bin/cyclonedx-py requirements requirements-serve.txt --output-reproducible --validate -o sbom-serve.json
	$(TOOLS_VENV)/bin/cyclonedx-py requirements requirements.txt --output-reproducible --validate -o sbom-train.json

$(TOOLS_VENV)/.installed: requirements-tools.txt
	test -x $(TOOLS) || $(PYTHON) -m venv $(TOOLS_VENV)
	$(TOOLS) $(PIP) -r requirements-tools.txt
	touch $@

# checkov wants an older boto3 than DVC does, so the tools have an environment of their own. TERRAFORM names the
# program, by default `terraform`
TERRAFORM_VENV ?= .venv-terraform
.PHONY: terraform-check
terraform-check: $(VENV)/.installed $(TERRAFORM_VENV)/.installed  ## terraform/: fmt, validate, test, checkov, AWS's models, DVC through S3
	TERRAFORM_TOOLS="$(abspath $(TERRAFORM_VENV))/bin" $(PY) -m pytest -m terraform

$(TERRAFORM_VENV)/.installed: requirements-terraform.txt
	test -x $(TERRAFORM_VENV)/bin/python || $(PYTHON) -m venv $(TERRAFORM_VENV)
	$(TERRAFORM_VENV)/bin/python $(PIP) -r requirements-terraform.txt
	touch $@

# bulk.py: many pictures by Dask; the environment that tests it is the one that runs it, with pytest and moto on top
BULK_VENV ?= .venv-bulk
BULK = $(BULK_VENV)/bin/python
.PHONY: bulk test-bulk bench-bulk
bulk: $(BULK_VENV)/.installed  ## install what bulk.py needs into .venv-bulk
	@echo "$(BULK) bulk.py --help"

test-bulk: $(BULK_VENV)/.installed  ## bulk.py with real schedulers, workers and an S3 server (minutes)
	$(BULK) -m pytest -m bulk tests/test_bulk.py tests/test_bulk_cluster.py

bench-bulk: $(BULK_VENV)/.installed  ## measure bulk.py against its peers (minutes; installs them in .bench)
	$(BULK) benchmarks/bulk.py

$(BULK_VENV)/.installed: requirements-bulk-dev.txt
	test -x $(BULK) || $(PYTHON) -m venv $(BULK_VENV)
	$(BULK) $(PIP) -r requirements-bulk-dev.txt
	touch $@
