# `make` or `make help` lists the targets. Only Python 3.11+ and make are needed; everything goes into .venv.

VENV := .venv
PY := $(VENV)/bin/python
# The newest suitable Python is taken; `make demo PYTHON=/path/to/python` overrides.
PYTHON ?=
PYTHONS := $(if $(PYTHON),$(PYTHON),python3.14 python3.13 python3.12 python3.11 python3)
# More for pytest, for example `make test ARGS="-k loader"`.
ARGS ?=
# How long `make fuzz` goes on: it begins no new pass after so many minutes, and a pass takes one or two.
MINUTES ?= 5

# Bytecode is kept, whatever the environment says of it: else each of hundreds of processes compiles the same files.
PYTEST = OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(PY) -m pytest -n 2 --dist worksteal
INSTALL := $(PY) -m pip install --disable-pip-version-check --no-input
# Whoever has the tests' packages has the demo's, too.
DEMO_READY := $(VENV)/.$(if $(wildcard $(VENV)/.dev),dev,plots)

.DEFAULT_GOAL := help
.PHONY: help venv demo test quick times fuzz check audit docs pages format bench proof matrix dist sbom clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

venv: $(VENV)/.dev  ## make .venv with everything for development, without running anything

demo: $(DEMO_READY)  ## train a small network on notMNIST, test it and draw three pictures (ARGS="--fast": seconds)
	$(PY) -m dlkit.demo $(ARGS)

# One thread each: two test processes with two threads each would mostly wait for one another on two cores. A process that
# has no more tests takes some of the other's.
test: $(VENV)/.dev  ## run the tests
	$(PYTEST) $(ARGS)

quick: $(VENV)/.dev  ## run the tests that take a minute and a quarter: all but those that tests/conftest.py calls slow
	$(PYTEST) -m "not slow and not proof" $(ARGS)

times: $(VENV)/.dev  ## run the tests, and write the 20 that cost most processor time into bench/tests.txt
	$(PYTEST) -q -p cpu_times $(ARGS) | tee /dev/stderr | grep -E '^[0-9.]+s |^[0-9]+ .* in ' > .tests.tmp
	mv .tests.tmp bench/tests.txt

# `make test` draws the same examples every time; this draws others, until something is found or the time is over.
fuzz: $(VENV)/.dev  ## search at random for what the tests do not try (MINUTES=5)
	@end=$$(( $$(date +%s) + 60 * $(MINUTES) )); while [ $$(date +%s) -lt $$end ]; do \
	    $(PYTEST) -x -q -m "hypothesis and not proof" --hypothesis-profile=fuzz $(ARGS) || exit 1; \
	done

check: $(VENV)/.dev  ## look for wrong format, lint, types and licences
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m mypy --strict src
	$(PY) tools/licences.py

# Asks the advisories of the Python packaging authority, so it needs the network, and is no part of `make check`.
audit: $(VENV)/.dev  ## look for known vulnerabilities in what is installed
	$(PY) -m uv tool run pip-audit --skip-editable --path $(VENV)/lib/python3.*/site-packages

# Into build, which git does not see. DLKIT_DOCS_ONLINE=1 links to the pages of torch, numpy and pandas as well.
docs: $(VENV)/.dev  ## build the site into build/site; a link or name that leads nowhere is an error
	$(PY) -m sphinx -q -W --keep-going -d build/site-cache docs build/site

pages: docs  ## look at every page of the site in a browser, wide and narrow (CHROMIUM=/usr/bin/chromium)
	$(PY) tools/pages.py $(ARGS)

format: $(VENV)/.dev  ## put the code into the house's format, and mend what lint can mend
	$(PY) -m ruff format .
	$(PY) -m ruff check --fix .

bench: $(VENV)/.bench  ## run the measurements, against other libraries where those install
	@for script in bench/[a-z]*.py; do echo "== $$script"; $(PY) "$$script" || exit 1; done

proof: $(VENV)/.dev  ## run the long tests: minutes each
	$(PY) -m pytest -m proof $(ARGS)

matrix: $(VENV)/.dev  ## run the quick tests on every Python, and with the oldest packages (ARGS="3.13 oldest": some)
	$(PY) tools/matrix.py $(ARGS)

dist: $(VENV)/.dev  ## build the wheel and the source archive into dist; the same bytes wherever that is done
	rm -rf dist
	$(PY) -m hatchling build
	cd dist && sha256sum *

# What somebody gets who installs everything: in an environment of its own, so that nothing of this one is in it.
sbom: $(VENV)/.dev  ## write build/sbom.json: what an installation with all extras consists of (CycloneDX)
	$(PY) -m uv venv -q --clear build/all
	$(PY) -m uv pip install -q -p build/all '.[all]'
	build/all/bin/dlkit --version
	$(PY) -m uv tool run --from cyclonedx-bom cyclonedx-py environment build/all --pyproject pyproject.toml \
	    --output-reproducible -o build/sbom.json

clean:  ## remove .venv and what tools left; runs/ stays
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis src/*.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# What is installed: a stamp per set of extras, older than pyproject.toml when that has changed.
$(VENV)/.plots: EXTRAS := plots
$(VENV)/.dev: EXTRAS := dev
$(VENV)/.bench: EXTRAS := dev,bench
$(VENV)/.plots $(VENV)/.dev $(VENV)/.bench: $(VENV)/.made pyproject.toml
	@echo "installing dlkit and what it needs into $(VENV); the first time PyTorch takes some minutes and gigabytes"
	$(INSTALL) -e '.[$(EXTRAS)]'
	@touch $@

$(VENV)/.made:
	@for python in $(PYTHONS); do \
	    if "$$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
	        echo "making $(VENV) with $$("$$python" --version)"; \
	        rm -rf $(VENV) && "$$python" -m venv $(VENV) && touch $@ && exit 0; \
	        exit 1; \
	    fi; \
	done; \
	echo "dlkit needs Python 3.11 or newer with its venv module; none of these is one: $(PYTHONS)." >&2; \
	echo "Install one (on Debian or Ubuntu: apt install python3-venv), or say where it is:" >&2; \
	echo "make $(or $(firstword $(MAKECMDGOALS)),demo) PYTHON=/path/to/python3" >&2; \
	exit 1
