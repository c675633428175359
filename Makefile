# make build | demo | test | bench | lint | clean. Each does all of its own set-up and is quick to repeat.
SHELL := /bin/sh
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
export VM_RUNNER ?= $(wildcard ../shared/vm/run-in-vm)
export PYTHON
export PIP_DISABLE_PIP_VERSION_CHECK := 1

NATIVE := $(wildcard native/*.py native/core/*.c native/core/*.h native/core/*.pyx native/core/*.py native/launcher/*.c native/launcher/*.h \
  native/client/*.c native/client/*.h native/client/*.def)
# Two makes in one tree take turns.
LOCKED = flock $(VENV)/.lock

.PHONY: build demo test bench lint clean launcher-asan vm-test
.DELETE_ON_ERROR:

build: $(VENV)/.native

$(VENV)/.system-%: scripts/system-packages
	@scripts/system-packages $*
	@mkdir -p $(VENV) && touch $@

$(VENV)/.installed: pyproject.toml setup.py | $(VENV)/.system-build
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(LOCKED) $(PY) -m pip install --quiet 'setuptools>=77' wheel 'cython>=3.0.10' 'cffi>=1.16'
	$(LOCKED) $(PY) -m pip install --quiet --no-build-isolation -e '.[daemon,cli,test]'
	@touch $@

$(VENV)/.native: $(NATIVE) $(VENV)/.installed
	$(LOCKED) $(PY) setup.py --quiet build_ext --inplace
	$(LOCKED) $(PY) native/client_build.py $(VENV)/bin/immure
	@touch $@

test: build $(VENV)/.system-test
	@$(PY) scripts/run_tests.py

vm-test: build $(VENV)/.system-test
	@$(PY) scripts/run_tests.py --only-vm

lint: build
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy

demo: build
	@$(PY) -m demo

# ARGS: --quick, --only NAME, ... (docs/performance.md)
bench: build $(VENV)/.system-bench
	@$(PY) -m bench $(ARGS)

launcher-asan: $(VENV)/.system-build
	$(PYTHON) native/launcher_build.py --sanitize .build/asan/immured-launcher

clean:
	rm -rf .venv .build build dist daemon/*.egg-info daemon/immured/_native .mypy_cache .pytest_cache .ruff_cache .hypothesis
	rm -f daemon/immured/*.so
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
