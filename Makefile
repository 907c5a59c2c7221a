# Two commands: `make demo` runs the main job, `make test` passes the tests. Both set up .venv first, once.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test lint bench clean

demo: .make/installed
	$(BIN)/xl3m demo $(ARGS)

test: .make/tested
	$(BIN)/python -m pytest $(ARGS)

lint: .make/tested
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

bench: .make/installed
	$(BIN)/xl3m bench $(ARGS)

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

.make/installed: $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet -c constraints.txt -e .
	mkdir -p .make && touch $@

.make/tested: $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[test]"
	mkdir -p .make && touch .make/installed $@

clean:
	rm -rf $(VENV) .make .mypy_cache .pytest_cache .ruff_cache .hypothesis
