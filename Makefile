# Python and make are all that is needed: everything else is installed into $(VENV).
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK = 1
# pytest keeps the asserts that it rewrote as bytecode: where it may not, it rewrites all of them in each process.
unexport PYTHONDONTWRITEBYTECODE

# Most tests wait for what other processes do: several at a time, file by file.
SIDE_BY_SIDE := --numprocesses 4

# The oldest releases that pyproject.toml allows, tested together.
LOWEST := celery==5.5.0 kombu==5.5.2 redis==4.6.0 python-redis-lock==4.0.0
# What says nothing of them, or needs Celery and kombu 5.7: their states, or their way to deliver a message again soon.
NOT_LOWEST := bench brokers docs endings example fencing peers schedulers integration/test_coord_cli.py integration/test_coord_run.py

.PHONY: help test test-lowest check lint types layers unit demo servers load endurance takeovers sabotage bench docs clean

help:
	@echo "make test         install what the tests need and run all of them"
	@echo "make demo         the example at work: servers, workers, beats, three crashes (60 s or so)"
	@echo "make check        lint, types, import layers and the tests that need no server"
	@echo "make test-lowest  the library's own tests, on the oldest Celery, kombu, redis and python-redis-lock that are supported"
	@echo "make servers      every kind of set-up on every server that is here, as a table (7 min)"
	@echo "make load         fail-overs and reshardings while runs compete for keys (4 min)"
	@echo "make endurance    200,000 runs, and what is left of connections, threads and memory (5 min)"
	@echo "make takeovers    three beats, and 200 crashes, resignations, pauses and stalls (10 min)"
	@echo "make sabotage     break the library on purpose, a check at a time, and see a test fail each time (30 min)"
	@echo "make bench        what coordination costs"
	@echo "make docs         build the documentation into site/"
	@echo "make clean        remove what make made"

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.%: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[$*]'
	@touch $@

test: $(VENV)/.test $(VENV)/.demo
	$(BIN)/python -m pytest $(SIDE_BY_SIDE)

test-lowest:
	$(MAKE) VENV=.venv-lowest .venv-lowest/.test .venv-lowest/.demo
	.venv-lowest/bin/python -m pip install --quiet $(LOWEST)
	.venv-lowest/bin/python -m pytest $(SIDE_BY_SIDE) $(addprefix --ignore=tests/,$(NOT_LOWEST))

check: lint types layers unit

lint: $(VENV)/.lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.lint $(VENV)/.test
	$(BIN)/mypy
	$(BIN)/basedpyright

layers: $(VENV)/.lint
	$(BIN)/lint-imports --no-cache

unit: $(VENV)/.test
	$(BIN)/python -m pytest -q $(SIDE_BY_SIDE) -m "not server" tests

demo: $(VENV)/.demo
	$(BIN)/python -m example_project.demo

servers: $(VENV)/.test
	$(BIN)/python -m tests.servers --save docs/servers_output.txt

load: $(VENV)/.test
	$(BIN)/python -m tests.servers.load --seconds 240 --seed 7

endurance: $(VENV)/.test
	$(BIN)/python -m tests.processes.endurance --tasks 100000 --save docs/endurance_output.txt

takeovers: $(VENV)/.test
	$(BIN)/python -m tests.takeovers --count 200 --seed 7 --save docs/takeovers_output.txt

sabotage: $(VENV)/.test $(VENV)/.demo
	$(BIN)/python -m tests.sabotage

bench: $(VENV)/.demo
	$(BIN)/python -m benchmarks

docs: $(VENV)/.docs
	$(BIN)/python -m docs.settings_page
	$(BIN)/python -m docs.endings_page
	$(BIN)/mkdocs build --strict --quiet

clean:
	rm -rf .venv .venv-lowest site build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
