# Common tasks. `make serve` and `make test` only need Python 3.11+ and a package index.
PYTHON ?= python3
# for tests and training; `make serve` uses its own environment without TensorFlow
VENV ?= .venv
SERVE_VENV ?= .venv-serve
PIP = -m pip install --quiet --disable-pip-version-check --require-hashes
PY = $(VENV)/bin/python

.PHONY: help help-all serve key train test lint format lock clean
.DELETE_ON_ERROR:

# the targets that most people need have a group in brackets
help:  ## [use] show this list
	@for group in use develop train operate; do echo "$$group:"; \
	sed -nE "s/^([a-z0-9-]+):.*## \[$$group\] */  \1\t/p" $(MAKEFILE_LIST) | expand -t 18; done

help-all:  ## [use] show all targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## *(\[[a-z]+\] )?/\1\t/' | expand -t 18

serve: $(SERVE_VENV)/.installed  ## [use] start the service on http://localhost:5000 (PORT=8000 for another port)
	$(SERVE_VENV)/bin/python -m gunicorn app:app

key: $(SERVE_VENV)/.installed  ## [use] create an API key and the hash for the service
	$(SERVE_VENV)/bin/python -m digits.web.keys

# the stages run `python`
DVC = PATH="$(abspath $(VENV))/bin:$$PATH" $(abspath $(PY)) -m dvc

# in a new clone the data are missing; DVC makes them when a stage that needs them is out of date
train: $(VENV)/.installed  ## [train] run the stages for single digits that are out of date; MNIST_NPZ names a local copy of MNIST
	@if plan="$$($(DVC) repro --dry --allow-missing evaluate 2>&1)" && ! echo "$$plan" | grep -q "^Running stage"; \
	then echo "$$plan" | grep "^Stage"; \
	echo "models/ and metrics/ are what the pipeline makes of this code and params.yaml, so there is nothing to train."; \
	else $(DVC) repro evaluate; fi

# with this profile Hypothesis uses the same examples in each run; without it, each run tries new ones
test: $(VENV)/.installed  ## [develop] run all tests except the slow ones
	$(PY) -m pytest --hypothesis-profile=ci -m "not e2e and not docker and not terraform and not mlflow and not kubernetes and not bulk"

lint: $(VENV)/.installed  ## [develop] check the code with ruff, mypy and import-linter
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(VENV)/bin/lint-imports --no-logo

format: $(VENV)/.installed  ## [develop] format the code with ruff
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

# The other lock files take their versions from that of dev, so that all agree. requirements.txt is for training and
# stays where tools look for it. serve and bulk are images of their own; bulk-dev has what the tests of bulk add. tools
# stays apart, because atheris has no wheel for every Python; deploy, because checkov requires an older boto3 than DVC;
# mlflow, because it requires an older gunicorn than the service.
LOCK = $(PY) -m uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --custom-compile-command "make lock"
lock: $(VENV)/.installed  ## pin all packages with their hashes (UPGRADE=--upgrade for newer versions)
	$(LOCK) $(UPGRADE) requirements/dev.in -o requirements/dev.txt
	$(LOCK) requirements/train.in -c requirements/dev.txt -o requirements.txt
	$(LOCK) requirements/serve.in -c requirements/dev.txt -o requirements/serve.txt
	$(LOCK) requirements/tools.in -c requirements/dev.txt -o requirements/tools.txt
	$(LOCK) requirements/bulk.in -c requirements/dev.txt -o requirements/bulk.txt
	$(LOCK) requirements/bulk-dev.in -c requirements/dev.txt -c requirements/bulk.txt -o requirements/bulk-dev.txt
	$(LOCK) $(UPGRADE) requirements/deploy.in -o requirements/deploy.txt
	$(LOCK) $(UPGRADE) requirements/mlflow.in -o requirements/mlflow.txt

clean:  ## remove the virtual environments
	rm -rf $(VENV) $(SERVE_VENV) $(TOOLS_VENV) $(DEPLOY_VENV) $(MLFLOW_VENV) $(BULK_VENV)

$(VENV)/.installed: requirements/dev.txt
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) $(PIP) -r requirements/dev.txt
	touch $@

$(SERVE_VENV)/.installed: requirements/serve.txt
	test -x $(SERVE_VENV)/bin/python || $(PYTHON) -m venv $(SERVE_VENV)
	$(SERVE_VENV)/bin/python $(PIP) -r requirements/serve.txt
	touch $@

.PHONY: bench bench-quick bench-train bench-profile
bench: $(VENV)/.installed  ## [develop] compare the service with other servers (takes minutes; installs them in .bench; needs wrk)
	$(PY) benchmarks/bench.py

bench-quick: $(VENV)/.installed  ## fail if the service is much slower than a server with a constant answer (under a minute)
	$(PY) benchmarks/bench.py --quick

bench-profile: $(VENV)/.installed  ## show where the CPU time of a request goes
	$(PY) benchmarks/profile_request.py

bench-train: $(VENV)/.installed  ## compare training with other frameworks (takes minutes; installs them in .bench)
	$(DVC) repro data
	$(PY) benchmarks/training.py

.PHONY: train-quick train-twice train-seeds reproduce
# train in another folder than models/: $(call run,FOLDER,OPTIONS OF THE STAGE images,OPTIONS OF train.py)
define run
	$(DVC) repro data corrections
	$(PY) -m digits.training.images $(2) --out $(1)/data/images.npz
	$(PY) train.py $(3) --images $(1)/data/images.npz --out $(1)
	$(PY) -m digits.training.compile $(1)/models/mnist.h5 $(1)/models/mnist.tflite
	$(PY) -m digits.training.evaluate --images $(1)/data/images.npz --out $(1)
endef

LIMIT ?= 2000
EPOCHS ?= 1
train-quick: $(VENV)/.installed  ## train with a few images in tmp/train, to try a change (LIMIT=2000 EPOCHS=1)
	$(call run,tmp/train,--limit $(LIMIT),--epochs $(EPOCHS))
	$(DVC) metrics show metrics/metrics.json tmp/train/metrics/metrics.json

.PHONY: corrections candidate candidate-quick
corrections: $(VENV)/.installed  ## fetch the corrections that a service has collected (from corrections.source in params.yaml)
	$(DVC) repro --force --single-item corrections

# the pipeline runs in a clone with this folder's changes and cache, so that dvc.lock describes the candidate
candidate: $(VENV)/.installed  ## train with the corrections, and replace the model in models/ if the new one is better (N=300 pictures of each kind)
	rm -rf tmp/candidate && mkdir -p tmp && git clone --quiet . tmp/candidate
	git diff --binary HEAD | git -C tmp/candidate apply --allow-empty
	cd tmp/candidate && $(DVC) cache dir --quiet --local "$$(cd ../.. && $(DVC) cache dir)"
	cd tmp/candidate && { $(DVC) checkout --quiet --allow-missing || true; } && $(DVC) repro evaluate
	$(PY) benchmarks/candidate.py tmp/candidate $(if $(N),--n $(N))

candidate-quick: $(VENV)/.installed  ## the same as candidate in minutes, beginning with the weights of the model in models/
	$(DVC) repro data
	$(call run,tmp/candidate,,--start models/mnist.h5 --epochs 1 --learning-rate 0.0003)
	$(PY) benchmarks/candidate.py tmp/candidate $(if $(N),--n $(N))

.PHONY: detector detector-quick
detector: $(VENV)/.installed  ## [train] train the detector (takes hours; after Ctrl-C, the next run continues)
	$(DVC) repro calibrate

detector-quick: $(VENV)/.installed  ## train a detector for some minutes in tmp/detector-quick, to try a change
	$(PY) -m digits.training.detector --pages 4000 --out tmp/detector-quick

train-twice: $(VENV)/.installed  ## train twice with the same seed, and compare the models byte by byte
	$(DVC) repro images corrections
	rm -rf tmp/twice
	$(PY) train.py --out tmp/twice/a
	$(PY) train.py --out tmp/twice/b
	sha256sum tmp/twice/a/models/mnist.h5 tmp/twice/b/models/mnist.h5
	cmp tmp/twice/a/models/mnist.h5 tmp/twice/b/models/mnist.h5 && echo "identical"

train-seeds: $(VENV)/.installed  ## train with three seeds and print the mean accuracy
	$(call run,tmp/seeds/1,--seed 1,--seed 1)
	$(call run,tmp/seeds/2,--seed 2,--seed 2)
	$(call run,tmp/seeds/3,--seed 3,--seed 3)
	$(PY) -c "import json; a = [json.load(open(f'tmp/seeds/{s}/models/mnist.json'))['test']['accuracy'] for s in (1, 2, 3)]; print('test accuracy', *a, 'mean', round(sum(a) / 3, 4))"

# dvc.lock then has the hashes of what was made, so that git shows each difference
reproduce: $(VENV)/.installed  ## [train] run the stages data, images, compile and evaluate in a new clone of HEAD, and compare with dvc.lock
	rm -rf tmp/reproduce && mkdir -p tmp && git clone --quiet . tmp/reproduce
	cd tmp/reproduce && $(DVC) repro --force --single-item data images compile evaluate && git diff --exit-code && $(DVC) status

.PHONY: eval
eval: $(VENV)/.installed  ## [train] measure the accuracy on many kinds of pictures (N=100 for fewer of each; MNIST_NPZ to include MNIST's)
	$(PY) benchmarks/evaluate.py $(if $(N),--n $(N))
	test -z "$$MNIST_NPZ" || $(PY) benchmarks/numerals.py $(if $(N),--n $(N))
	test -z "$$MNIST_NPZ" || $(PY) benchmarks/numerals_costs.py

.PHONY: numbers-pictures
numbers-pictures: $(VENV)/.installed  ## draw the pictures in docs/numbers.md (set MNIST_NPZ)
	$(PY) benchmarks/numerals_pictures.py

.PHONY: e2e screenshots
e2e: $(VENV)/.installed reproduce  ## [develop] run the slow end-to-end tests: the pipeline, the browser, faults under load
	$(PY) -m pytest -m e2e

screenshots: $(VENV)/.installed  ## take new screenshots of the web page
	SCREENSHOTS=1 $(PY) -m pytest -q -m e2e tests/page -k screenshots

.PHONY: e2e-docker
e2e-docker: $(VENV)/.installed  ## test the images and docker-compose.yml with a real Docker engine
	$(PY) -m pytest -s -m docker

.PHONY: image
# the part before the @ of a remote's URL is removed, because it may contain a password
image: export VERSION = $(shell $(PYTHON) -c "from digits.version import VERSION; print(VERSION)")
image: export REVISION = $(shell git rev-parse HEAD)
image: export SOURCE = $(shell git remote get-url origin 2>/dev/null | sed -E 's,//[^/@]*@,//,')
image:  ## [operate] build the service's image, labelled with its version, revision and source
	docker compose build service

.PHONY: fuzz corpus audit sbom
# the security tools have their own environment, because their packages may conflict with the others
TOOLS_VENV ?= .venv-tools
TOOLS = $(TOOLS_VENV)/bin/python
LOCKS = requirements.txt $(wildcard requirements/*.txt)
RUNS ?= 100000

fuzz: $(TOOLS_VENV)/.installed  ## fuzz the service with 120,000 requests (takes minutes; Linux only; RUNS= for another number)
	$(TOOLS) tests/support/fuzz.py --runs $(RUNS) $(if $(KEEP),--keep)

corpus:  ## add raw requests to those that the tests replay (FILES= names them)
	$(PYTHON) tests/support/corpus.py $(FILES)

# AUDIT=osv uses osv.dev instead of the package index
audit: $(TOOLS_VENV)/.installed  ## [operate] check the locked packages for known vulnerabilities
	@for lock in $(LOCKS); do echo "$$lock:"; \
	report=$$($(TOOLS) -m pip_audit -s $(or $(AUDIT),pypi) --progress-spinner=off --disable-pip --require-hashes -r $$lock 2>&1) || failed=1; \
	if echo "$$report" | grep -qE "could not be audited|ConnectionError|ServiceError"; \
	then echo "NOT AUDITED: the vulnerability service did not answer for $$(echo "$$report" | grep -c "could not be audited") packages"; failed=1; \
	else echo "$$report"; fi; done; exit $${failed:-0}

sbom: $(TOOLS_VENV)/.installed  ## write the software bills of materials (CycloneDX): sbom-serve.json, sbom-train.json
	$(TOOLS_VENV)/bin/cyclonedx-py requirements requirements/serve.txt --output-reproducible --validate -o sbom-serve.json
	$(TOOLS_VENV)/bin/cyclonedx-py requirements requirements.txt --output-reproducible --validate -o sbom-train.json

$(TOOLS_VENV)/.installed: requirements/tools.txt
	test -x $(TOOLS) || $(PYTHON) -m venv $(TOOLS_VENV)
	$(TOOLS) $(PIP) -r requirements/tools.txt
	touch $@

# these tools have their own environment, because checkov requires an older boto3 than DVC. TERRAFORM names the
# program to use, by default `terraform`
DEPLOY_VENV ?= .venv-deploy
DEPLOY_TOOLS = DEPLOY_TOOLS="$(abspath $(DEPLOY_VENV))/bin"
.PHONY: terraform-check kubernetes kubernetes-check
terraform-check: $(VENV)/.installed $(DEPLOY_VENV)/.installed  ## check terraform/ without an AWS account
	$(DEPLOY_TOOLS) $(PY) -m pytest -m terraform

# one PrometheusRule for the Prometheus Operator, with the groups of both files that docker-compose.yml mounts
RULES = kubernetes/components/monitoring/rules.yaml
kubernetes:  ## generate the Prometheus rules for Kubernetes from monitoring/
	printf '%s\n' '# Generated by `make kubernetes` from monitoring/rules.yml and monitoring/alerts.yml. Edit those.' \
	'apiVersion: monitoring.coreos.com/v1' 'kind: PrometheusRule' 'metadata: {name: digits}' 'spec:' '  groups:' >$(RULES)
	sed -e '/^groups:/d' -e 's/^./  &/' monitoring/rules.yml monitoring/alerts.yml >>$(RULES)

kubernetes-check: $(VENV)/.installed $(DEPLOY_VENV)/.installed  ## check kubernetes/ without a cluster: rendering, schemas, typed models, checkov
	$(DEPLOY_TOOLS) $(PY) -m pytest -m kubernetes

$(DEPLOY_VENV)/.installed: requirements/deploy.txt
	test -x $(DEPLOY_VENV)/bin/python || $(PYTHON) -m venv $(DEPLOY_VENV)
	$(DEPLOY_VENV)/bin/python $(PIP) -r requirements/deploy.txt
	touch $@

# one environment runs and tests bulk.py, so it also has pytest and moto
BULK_VENV ?= .venv-bulk
BULK = $(BULK_VENV)/bin/python
.PHONY: bulk test-bulk bench-bulk
bulk: $(BULK_VENV)/.installed  ## install bulk.py's packages into .venv-bulk
	@echo "$(BULK) bulk.py --help"

test-bulk: $(BULK_VENV)/.installed  ## test bulk.py with real schedulers, workers and an S3 server (takes minutes)
	$(BULK) -m pytest -m bulk tests/bulk

bench-bulk: $(BULK_VENV)/.installed  ## compare bulk.py with other tools (takes minutes; installs them in .bench)
	$(BULK) benchmarks/bulk.py

$(BULK_VENV)/.installed: requirements/bulk-dev.txt
	test -x $(BULK) || $(PYTHON) -m venv $(BULK_VENV)
	$(BULK) $(PIP) -r requirements/bulk-dev.txt
	touch $@

# MLflow's server and clients have their own environment, because they require an older gunicorn than the service
MLFLOW_VENV ?= .venv-mlflow
.PHONY: test-mlflow
test-mlflow: $(VENV)/.installed $(MLFLOW_VENV)/.installed  ## test tracking, registry and /invocations with MLflow's server and clients
	MLFLOW_TOOLS="$(abspath $(MLFLOW_VENV))" $(PY) -m pytest -m mlflow

$(MLFLOW_VENV)/.installed: requirements/mlflow.txt
	test -x $(MLFLOW_VENV)/bin/python || $(PYTHON) -m venv $(MLFLOW_VENV)
	$(MLFLOW_VENV)/bin/python $(PIP) -r requirements/mlflow.txt
	touch $@
