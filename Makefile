# `make pipeline`, `make test`, `make latency-table`; each takes ARGS="...". Everything is installed from exact pins.
PYTHON ?= python3.11
VENV ?= .venv
ARGS ?=
KDNAS = $(VENV)/bin/kdnas
READY = $(VENV)/.installed

.PHONY: pipeline test latency-table setup lint docs bench wheel-test gate hooks clean

pipeline: setup
	$(KDNAS) pipeline --config configs/offline.yaml $(ARGS)

test: setup lint wheel-test docs
	$(VENV)/bin/pytest --numprocesses 2 --dist loadfile $(ARGS)

latency-table: setup
	$(KDNAS) latency-table --minutes 10 $(ARGS)

setup: $(READY)

# A failed or interrupted installation leaves no stamp, so the next call does it again.
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

# The documentation site in build/docs; a warning is an error.
docs: setup
	$(VENV)/bin/sphinx-build -W --keep-going -q -b html docs build/docs

# The built wheel, imported from another folder in an environment without the checkout.
wheel-test: setup
	bash tests/wheel_test.sh $(VENV)/bin/python

# What is timed: never part of the tests. Some need what `make pipeline` left, or say which data they want.
bench: setup
	@for file in tests/bench/*.py; do $(VENV)/bin/python $$file || exit 1; done

# Is HEAD slower than its first parent? Exit code 3 where it is; ARGS="--base main" for another one.
gate: setup
	$(KDNAS) gate compare --base HEAD^ --head HEAD $(ARGS)

hooks: setup
	$(VENV)/bin/pre-commit install

clean:
	rm -rf $(VENV) build *.egg-info
