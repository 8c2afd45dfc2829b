# `make demo` and `make test` set everything up. The other targets are for changing the code; `make help` lists them.

PYTHON ?= python3
VENV ?= .venv
RUN := $(VENV)/bin/python
# Options of pytest, as --cov for the coverage of lines. Lines that run in other processes
# (Ray's workers, commands that a test starts) are not counted.
MEASURED ?=

.PHONY: help demo test test-products test-faults test-cluster test-fast lint format types bench lock clean

help:  ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-13s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: $(VENV)/installed  ## run a small sweep (BiP) on scikit-learn's digits
	$(RUN) sweep.py --space bip_unstructured --profile demo --name demo

test: $(VENV)/installed  ## run every test except the slowest (test-faults, test-cluster)
	$(RUN) -m pytest -n 2 --dist loadfile $(MEASURED) tests/trials tests/sweeper tests/upgrade tests/plugin tests/test_*.py
	$(RUN) -m pytest tests/faults -m "not slow_faults"

test-products: $(VENV)/installed  ## every method on every model trains a step or is refused; compact forms of every model (about an hour)
	$(RUN) -m pytest -n 2 --maxschedchunk 1 tests/products

test-faults: $(VENV)/installed  ## run every fault of docs/faults.md: machines killed, frozen and cut off (an hour)
	$(RUN) -m pytest tests/faults

test-cluster: $(VENV)/installed  ## run a cluster of three machines in namespaces (20 minutes; needs root, openssh-server, rsync, iproute2)
	PYTHON=$(RUN) bash tests/cluster/run.sh
	PYTHON=$(RUN) bash tests/cluster/cut_off.sh
	PYTHON=$(RUN) bash tests/cluster/plugins.sh
	PYTHON=$(RUN) bash tests/cluster/slurm.sh

test-fast: $(VENV)/installed  ## run the tests that do not kill whole sweeps
	$(RUN) -m pytest -m "not slow and not products"

lint: $(VENV)/installed  ## check rules and format with ruff, without changes
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

format: $(VENV)/installed  ## apply ruff's fixes and format
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

types: $(VENV)/installed  ## check types with mypy, strict
	$(RUN) -m mypy

bench: $(VENV)/installed  ## measure performance, as ratios to a baseline in the same run
	$(RUN) -m benchmarks

$(VENV)/installed: requirements.lock
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python >= 3.10 is needed; name one: make PYTHON=python3.11")'
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements.lock
	touch $@

lock:  ## pin the newest versions that pyproject.toml allows, without trackers (needs uv)
	uv pip compile --universal --python-version 3.10 --extra dev --extra dashboard --extra export --extra hub --extra plots \
	    --extra s3 --extra timm --extra hf --upgrade --no-header --no-annotate pyproject.toml -o requirements.lock

clean:  ## remove the environment and the tools' caches
	rm -rf $(VENV) .mypy_cache .ruff_cache
