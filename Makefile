# The commands of this project; `make help` lists them. The sequencing lives in scripts/.
#
# Compiled files go to CARGO_TARGET_DIR, by default the user's cache folder, never into the tree.

SHELL := /bin/bash
PYTHON ?= python3
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)
export CARGO_TARGET_DIR ?= $(CACHE)/fluvio-cffi/target

VENV := .venv/bin
CHECK := $(PYTHON) -m scripts.check

.DEFAULT_GOAL := help
.PHONY: help demo build test soak fuzz lint rust python packaging interop examples bench environments clean

help: ## this list
	@grep -hE '^[a-z.]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z.]+):.*## /\1\t/' | column -t -s $$'\t'

demo: build ## build everything, then stream real earthquake data through it
	$(VENV)/python examples/python/earthquakes.py $(ARGS)

build: environments ## compile the release and make it importable in .venv
	@# The build hook would do the same, in silence: here one sees the progress.
	cargo build --release --locked --package fluvio-cffi-capi --package fluvio-devserver
	$(VENV)/python -m pip install --quiet --no-deps --no-build-isolation --editable .

environments: ## make or refresh .venv
	@$(PYTHON) -m scripts.environments

test: ## every check, with its own set-up; closes with what could not run
	$(CHECK)

soak: ## the long forms of the tests
	$(CHECK) --soak rust python interop

fuzz: ## ten million hostile connections against the development server (ITERATIONS=N)
	BOLERO_RANDOM_ITERATIONS=$(or $(ITERATIONS),10000000) cargo test --package fluvio-devserver --lib fuzz -- --nocapture

lint: ## formatting, clippy, ruff, mypy, pyright
	$(CHECK) lint

rust: ## Rust and C tests
	$(CHECK) rust

python: ## the Python tests on every interpreter found
	$(CHECK) python

packaging: ## the wheel and the source archive, in clean environments
	$(CHECK) packaging

interop: ## the official Python client as a peer
	$(CHECK) interop

examples: ## compile and run the examples and the demo
	$(CHECK) examples

bench: build ## benchmarks against the fluvio crate and the official Python client
	$(VENV)/python bench/run.py $(ARGS)

clean: ## remove what the tree holds beside its sources (not the cargo cache)
	rm -rf .venv .venv-* fluvio_cffi/bin fluvio_cffi/libfluvio_cffi.so .mypy_cache .ruff_cache .pytest_cache
