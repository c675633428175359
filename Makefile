# make build | demo | test | bench | soak | crash | lint | wheels | install | uninstall | clean. Each does all of its own set-up and is quick to repeat.
SHELL := /bin/sh
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
export VM_RUNNER ?= $(wildcard ../shared/vm/run-in-vm)
export PYTHON
export PIP_DISABLE_PIP_VERSION_CHECK := 1

NATIVE := $(wildcard native/*.py native/core/*.c native/core/*.h native/core/*.pyx native/core/*.pxi native/core/*.py native/launcher/*.c native/launcher/*.h \
  native/client/*.c native/client/*.h native/client/*.def)
# Two makes in one tree take turns.
LOCKED = flock $(VENV)/.lock

# The Python that the installed daemon runs under: one that every user can read.
SYSTEM_PYTHON ?= /usr/bin/python3
PREFIX ?= /usr/local

.PHONY: build demo test bench soak crash lint wheels install uninstall clean launcher-asan vm-test
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

test: build wheels $(VENV)/.system-test
	@$(PY) -m scripts.run_tests

vm-test: build wheels $(VENV)/.system-test
	@$(PY) -m scripts.run_tests --only-vm

lint: build
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy

demo: build
	@$(PY) -m demo

# ARGS: --quick, --only NAME, ... (docs/performance.md)
bench: build $(VENV)/.system-bench
	@$(PY) -m bench $(ARGS)

# What `install` installs, made or fetched; nothing of the system is touched, and `install` then needs no network.
wheels:
	@$(SYSTEM_PYTHON) scripts/install.py wheels

# DESTDIR=... packages: nothing is started, no account made. docs/systemd.md
install:
	@$(SYSTEM_PYTHON) scripts/install.py install --prefix $(PREFIX) $(if $(DESTDIR),--destdir $(DESTDIR))

# PURGE=1: the state directory, with its ledger and keys, and the account go too.
uninstall:
	@$(SYSTEM_PYTHON) scripts/install.py uninstall --prefix $(PREFIX) $(if $(DESTDIR),--destdir $(DESTDIR)) $(if $(PURGE),--purge)

# ARGS: --minutes N (30 by default)
soak: build
	@$(PY) -m tests.soak $(ARGS)

# ARGS: --rounds N (200 by default) kills of the daemon, --kills N (1000) of what appends to a ledger; `make test` has fewer
crash: build
	@$(PY) -m tests.crash $(ARGS)

launcher-asan: $(VENV)/.system-build
	$(PYTHON) native/launcher_build.py --sanitize .build/asan/immured-launcher

clean:
	rm -rf .venv .build build dist daemon/*.egg-info daemon/immured/_native .mypy_cache .pytest_cache .ruff_cache .hypothesis
	rm -f daemon/immured/*.so
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
