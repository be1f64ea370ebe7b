# make demo: set up, run the main job, say where its report is.   make test: set up, run the tests.
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
PACKAGES := core domains pipelines
export DO_NOT_TRACK := 1
export PREFECT_SERVER_ANALYTICS_ENABLED := false

.PHONY: help setup demo test test-all lint bench docs clean
.DEFAULT_GOAL := help

help:  ## Say what there is to make
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(STAMP)  ## Install everything into .venv

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "$(PYTHON) is $$($(PYTHON) -V 2>&1); 3.11 or newer is needed: make $(MAKECMDGOALS) PYTHON=python3.11"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[graph,series,compression,compression-jxl,mri,flows,test,dev]'
	@$(BIN)/python -c "$$REPAIR"
	@touch $@

# The registry's torchaudio is built for CUDA and does not import beside a CPU build of torch; all we use of it
# is plain torch and works without its extension.
define REPAIR
import importlib.util, pathlib
found = importlib.util.find_spec("torchaudio")
if found:
    import torch
    for library in pathlib.Path(found.origin).parent.glob("lib/*.so"):
        try:
            torch.ops.load_library(library)
        except OSError:
            if torch.version.cuda is None:
                library.rename(library.with_suffix(".so.cuda"))
endef
export REPAIR

demo: setup  ## From raw data to a report on real data, in minutes
	$(BIN)/latentworks run configs/graph/airline-routes.yaml

test: setup  ## The fast tests
	$(BIN)/python -m pytest -m "not slow and not gpu and not peers"

test-all: setup  ## All tests, once more with every shape annotation checked, and the examples in docstrings
	$(BIN)/python -m pytest -m "not gpu and not peers"
	PYTHONPATH=tests $(BIN)/python -m pytest -m "not slow and not gpu and not peers" \
	  --jaxtyping-packages=core,domains,checked.checked
	$(MAKE) --no-print-directory docs

lint: setup  ## Format, style, types, and which package may import which
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright $(PACKAGES)
	$(BIN)/lint-imports

bench: setup  ## Measure against the peers; results are JSON beside the scripts
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[peers]'
	@for script in benchmarks/*.py; do echo "$$script"; $(BIN)/python "$$script" || exit 1; done

docs: setup  ## Run the examples in docstrings and check the links between pages
	$(BIN)/python -m pytest --doctest-modules $(PACKAGES) tests/test_docs.py

clean:  ## Remove what setup and the tests made; runs stay
	rm -rf .venv build dist *.egg-info .pytest_cache .ruff_cache .hypothesis .import_linter_cache
