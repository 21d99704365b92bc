# Everything runs from .venv, which is made from the locked versions on first use.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check -q
RUN    := $(VENV)/.run-stamp
DEV    := $(VENV)/.dev-stamp
BENCH  := $(VENV)/.bench-stamp
REBUILD := $(VENV)/rebuild
BROWSER := $(VENV)/browser

.PHONY: demo test test-slow chaos lint mutants wheel-check bench results recording install clean postgres browser

demo: $(RUN)
	$(BIN)/fedmeta run examples/credit.toml
	$(BIN)/fedmeta verify runs/latest

install: $(RUN)

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)

# Both torch and the build backend come from the lock: nothing unpinned is ever resolved.
$(RUN): pyproject.toml requirements.lock | $(VENV)/bin/python
	@echo "Installing the locked packages into $(VENV) (a few minutes the first time) ..."
	$(PIP) install -c requirements.lock hatchling editables
	$(PIP) install -c requirements.lock --no-build-isolation -e .
	@touch $@

$(DEV): $(RUN)
	$(PIP) install -c requirements.lock --no-build-isolation -e '.[dev]'
	@touch $@

$(BENCH): $(RUN)
	$(PIP) install -c requirements.lock --no-build-isolation -e '.[bench,flower]'
	@touch $@

test: $(DEV)
	$(BIN)/python -m pytest -n 2 --dist worksteal --cov --cov-report=
	$(BIN)/python -m coverage report --include='privacy/*,crypto/*,audit/*' --fail-under=95
	$(BIN)/python -m coverage report --include='secure_fedmeta/*' --fail-under=85

# The server that the ledger's tests start for themselves; Debian's own cluster is not made.
postgres:
	@if ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1; then exit 0; fi; \
	if [ "$$(id -u)" -ne 0 ]; then echo 'PostgreSQL is missing: apt-get install postgresql' >&2; exit 1; fi; \
	apt-get update -q && apt-get install -yq --no-install-recommends postgresql-common && \
	echo 'create_main_cluster = false' > /etc/postgresql-common/createcluster.conf && \
	apt-get install -yq --no-install-recommends postgresql

# What opens a report in the tests: Debian's Chromium, and the locked axe-core in a folder beside
# the interpreter that is not part of any distribution.
browser: $(BROWSER)/.stamp
	@if command -v chromium >/dev/null; then exit 0; fi; \
	if [ "$$(id -u)" -ne 0 ]; then echo 'Chromium is missing: apt-get install chromium' >&2; exit 1; fi; \
	apt-get update -q && apt-get install -yq --no-install-recommends chromium fonts-dejavu-core

$(BROWSER)/.stamp: tests/browser/package.json tests/browser/package-lock.json | $(VENV)/bin/python
	@if command -v npm >/dev/null; then exit 0; fi; \
	if [ "$$(id -u)" -ne 0 ]; then echo 'npm is missing: apt-get install npm' >&2; exit 1; fi; \
	apt-get update -q && apt-get install -yq --no-install-recommends npm
	@mkdir -p $(BROWSER) && cp $^ $(BROWSER)
	npm ci --prefix $(BROWSER) --ignore-scripts --no-audit --no-fund --no-update-notifier
	@touch $@

# Rebuilds the shipped data from the pinned archives, in an environment of its own.
test-slow: $(DEV) $(REBUILD)/.stamp
	FEDMETA_ARCHIVES=$(abspath $(REBUILD)/archives) FEDMETA_REBUILD_PYTHON=$(abspath $(REBUILD)/bin/python) \
	$(BIN)/python -m pytest -m slow

$(REBUILD)/.stamp: scripts/rebuild/requirements.txt scripts/rebuild/archives.txt | $(VENV)/bin/python
	$(PYTHON) -m venv $(REBUILD)
	$(REBUILD)/bin/python -m pip -q install -r scripts/rebuild/requirements.txt
	$(REBUILD)/bin/python -m pip -q download --no-deps -d $(REBUILD)/archives -r scripts/rebuild/archives.txt
	@touch $@

lint: $(DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Kills that many runs at any moment and has them resumed; fills disks; plants bugs to be noticed.
KILLS ?= 500
chaos: $(DEV)
	$(BIN)/python -m tests.chaos --kills $(KILLS) --plants --full 300 --tmpfs 40 --json

# Changes the code in one place at a time and runs its tests: ten changes of each module, or as many
# as MUTANTS says; MUTANTS=all takes hours and writes docs/mutants.md.
MUTANTS ?= 10
mutants: $(DEV)
	$(BIN)/python scripts/mutants.py $(if $(filter all,$(MUTANTS)),--write,--sample $(MUTANTS))

wheel-check: $(DEV)
	$(BIN)/python scripts/wheel_check.py

# Runs the demo in a terminal of 100 columns; writes what it showed into README.md and docs/images.
recording: $(DEV) browser
	$(BIN)/python -m scripts.recording

# Every example with every algorithm and kind of noise, in short; writes docs/results.md.
results: $(RUN)
	$(BIN)/python scripts/results.py

bench: $(BENCH)
	$(BIN)/python -m benchmarks.meta_gradients --json
	$(BIN)/python -m benchmarks.conv_meta --json
	$(BIN)/python -m benchmarks.credit_folds --json
	$(BIN)/python -m benchmarks.table_folds --json
	$(BIN)/python -m benchmarks.sinusoid_seeds --json
	$(BIN)/python -m benchmarks.utility --json
	$(BIN)/python -m benchmarks.homomorphic --json
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.ledger --json
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.masking --json
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.noise --json
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.round_overhead --json
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.scale_masking --clients 100 1000 --json
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.simulation --json

clean:
	rm -rf $(VENV) dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage
