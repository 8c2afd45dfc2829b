# Two commands set everything up: `make demo` and `make test`. The rest is for those who change the code.

PYTHON ?= python3
VENV ?= .venv
RUN := $(VENV)/bin/python

.PHONY: demo test test-faults test-cluster test-fast lint format types bench lock clean

demo: $(VENV)/installed  ## the main job, small, on the embedded digits
	$(RUN) sweep.py --space bip_unstructured --profile demo --name demo

test: $(VENV)/installed  ## every test but those of the next line
	$(RUN) -m pytest -n 2 --dist loadfile tests/trials tests/sweeper tests/upgrade tests/test_*.py
	$(RUN) -m pytest tests/faults -m "not slow_faults"

test-faults: $(VENV)/installed  ## every fault of docs/faults.md: machines killed, frozen and cut off; minutes
	$(RUN) -m pytest tests/faults

test-cluster: $(VENV)/installed  ## three machines in namespaces: a cluster from ray up to ray down, and a network cut; needs root, openssh-server, rsync, iproute2
	PYTHON=$(RUN) bash tests/cluster/run.sh
	PYTHON=$(RUN) bash tests/cluster/cut_off.sh

test-fast: $(VENV)/installed  ## all but the tests that kill and restart whole sweeps
	$(RUN) -m pytest -m "not slow"

lint: $(VENV)/installed
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

format: $(VENV)/installed
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

types: $(VENV)/installed
	$(RUN) -m mypy

bench: $(VENV)/installed  ## ratios, each against something in the same run
	$(RUN) -m benchmarks

$(VENV)/installed: requirements.lock
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python >= 3.10 is needed; name one: make PYTHON=python3.11")'
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements.lock
	touch $@

lock:  ## pin the newest versions that pyproject.toml allows, for every Python it allows (needs uv)
	uv pip compile --universal --python-version 3.10 --all-extras --upgrade --no-header --no-annotate \
	    pyproject.toml -o requirements.lock

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache
