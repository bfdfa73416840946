# Every target sets itself up: `make demo` on a fresh machine needs Python 3.10 to 3.13 and the network, once.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
BENCH_STAMP := $(VENV)/.installed-bench
DOCS_STAMP := $(VENV)/.installed-docs
BENCHMARKS := benchmarks/statistics_designs.py benchmarks/fidelity.py

.DEFAULT_GOAL := help
.PHONY: help setup demo test docs-check format lint types layers check bench bench-peers bench-calibration bench-accuracy docs recording wheel clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-17s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## make the virtual environment

# The stamp is written last, so that an interrupted installation is done again.
$(STAMP): pyproject.toml hatch_build.py $(wildcard src/zeropoint/native/*.c)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[dev,openvino,report]"
	@touch $@

demo: $(STAMP) ## quantize a small network and show what it cost
	$(BIN)/python -m zeropoint.demo

test: $(STAMP) ## run the tests and the examples in the docs
	$(BIN)/python -m pytest

docs-check: $(STAMP) ## run only the examples in the docs and docstrings
	$(BIN)/python -m pytest src/zeropoint $(wildcard docs README.md)

format: $(STAMP) ## rewrite the code in the house format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(STAMP)
	$(BIN)/mypy

layers: $(STAMP)
	$(BIN)/lint-imports

check: lint types layers ## everything that must hold before a commit
	$(BIN)/python -m pytest -n 2 --durations=10

# Some of the networks are exported from PyTorch; zeropoint itself does not need it.
$(BENCH_STAMP): $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check torch==2.13.0 tokenizers==0.23.3
	@touch $@

bench: $(BENCH_STAMP) ## run the benchmarks; downloads the reference networks first
	@for script in $(BENCHMARKS); do echo "== $$script"; $(BIN)/python $$script || exit 1; done

bench-peers: $(STAMP) ## make the environments of the tools that zeropoint is measured against
	$(BIN)/python benchmarks/peers/environments.py

bench-calibration: $(BENCH_STAMP) bench-peers ## measure the time and memory of zeropoint and of its peers
	$(BIN)/python benchmarks/calibration.py

bench-accuracy: $(BENCH_STAMP) bench-peers ## measure what quantizing costs in accuracy, by zeropoint at each effort and by its peers
	$(BIN)/python benchmarks/accuracy.py --draws 3

$(DOCS_STAMP): $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[docs]"
	@touch $@

# Not --quiet, which would pass over warnings. The generator's makers announce a successor at each build: that concerns no page.
docs: $(DOCS_STAMP) ## build the documentation into site/, with all links checked; needs no network
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --clean
	@echo "site/index.html"

recording: $(STAMP) ## record the terminal for the README, in docs/images/quantize.svg
	$(BIN)/python scripts/record_terminal.py

wheel: $(STAMP) ## build the wheel into dist/
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

clean: ## remove what the other targets made
	rm -rf $(VENV) build dist site .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
