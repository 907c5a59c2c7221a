# Two commands: `make demo` runs the main job, `make test` passes the tests. Both set up .venv first, once.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SERVERS ?= .venv-servers

.PHONY: demo test test-servers lint bench cookbook clean

demo: .make/installed
	$(BIN)/xl3m demo $(ARGS)

test: .make/tested
	$(BIN)/python -m pytest -n auto --dist loadgroup --benchmark-disable $(ARGS)

test-servers: .make/tested .make/servers
	XL3M_LLAMA_CPP_PYTHON=$(abspath $(SERVERS)/bin/python) $(BIN)/python -m pytest -m servers -s $(ARGS)

lint: .make/tested
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

bench: .make/installed
	$(BIN)/xl3m bench $(ARGS)

cookbook: .make/tested  # run the notebooks and keep their outputs
	$(BIN)/python cookbook/refresh.py $(ARGS)

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

.make/installed: $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet -c constraints.txt -e .
	mkdir -p .make && touch $@

.make/tested: $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[test]"
	mkdir -p .make && touch .make/installed $@

# Built from source, which takes minutes; apart from .venv, whose versions it need not share.
.make/servers:
	$(PYTHON) -m venv $(SERVERS)
	$(SERVERS)/bin/python -m pip install --quiet "llama-cpp-python[server]==0.3.36"
	mkdir -p .make && touch $@

clean:
	rm -rf $(VENV) $(SERVERS) .make .mypy_cache .pytest_cache .ruff_cache .hypothesis
