# The two commands of the README, and the checks that run before anything is merged.
# PYTHON=python3.12 make bench   uses another interpreter for the virtual environment.

PYTHON ?= python3
BIN := .venv/bin
# Stands for an environment in which pyproject.toml, as it is now, has been installed.
READY := .venv/.ready

.PHONY: bench tasks test nightly check docs clean

bench: $(READY)
	$(BIN)/python -m pytest benchmarks --benchmark-compare

# The gate on two tasks that are no image classification, all but times and memory: a minute.
tasks: $(READY)
	for task in diabetes sequence; do \
		$(BIN)/python -m pytest benchmarks --benchmark-compare --compress-partial --compress-workload=$$task \
			--compress-recipe=benchmarks/recipes/$$task -k "quality or params or macs or file_bytes" || exit; \
	done

# Each test is for itself and none asserts a time, so that they may share the cores.
test: $(READY)
	$(BIN)/python -m pytest --numprocesses=auto --dist=worksteal

nightly: $(READY)
	$(BIN)/python -m pytest --numprocesses=auto --dist=worksteal -m "nightly or not nightly"

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	$(BIN)/mkdocs build --strict

$(READY): pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --editable '.[dev]'
	@touch $(READY)

clean:
	rm -rf .venv site .benchmarks .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
