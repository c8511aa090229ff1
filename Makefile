# Everything a user types. `make help` lists it; extra options go through ARGS: make train ARGS="--data.batch_size 8"

.DEFAULT_GOAL := help
SHELL := /bin/bash
ifeq ($(OS),Windows_NT)
  PYTHON ?= python
  BIN := .venv/Scripts
else
  PYTHON ?= python3
  BIN := .venv/bin
endif
READY := .venv/.ready
ARGS ?=
CONFIG ?= configs/denoise.yaml
SWEEP ?= configs/sweep/denoise.yaml

.PHONY: help setup check overfit lr train train-bsd colorize sweep test test-all lint format benchmark bench-inference soak faults lines clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## /\1|/' | awk -F'|' '{printf "  make %-12s %s\n", $$1, $$2}'

setup: $(READY) ## create .venv and install what the project needs (uv when it is there, pip otherwise)

# Installed anew only when the requirements change.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed, but '$(PYTHON)' is $$($(PYTHON) --version 2>&1). Say which to take: make setup PYTHON=python3.12"; exit 2; }
	@if command -v uv >/dev/null 2>&1; then \
	  echo "Setting up .venv with uv ..." && \
	  uv venv --quiet --allow-existing --python "$$(command -v $(PYTHON))" .venv && \
	  uv pip install --quiet --python $(BIN)/python --compile-bytecode --constraint constraints.txt --editable '.[dev]'; \
	else \
	  echo "Setting up .venv with pip (a few minutes, most of it PyTorch) ..." && \
	  $(PYTHON) -m venv .venv && \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'; \
	fi
	@touch $(READY)

check: $(READY) ## check data and model before the first step (under 2 minutes): make check CONFIG=configs/colorize.yaml
	@$(BIN)/python -m project check --config $(CONFIG) $(ARGS)

overfit: $(READY) ## overfit a few images: the training loss goes to nearly 0 (at most 3 minutes)
	@$(BIN)/python -m project fit --config $(CONFIG) --config configs/trainer/overfit.yaml --name overfit $(ARGS)

lr: $(READY) ## suggest a learning rate by the range test: make lr CONFIG=FILE
	@$(BIN)/python -m project tune-lr --config $(CONFIG) $(ARGS)

train: $(READY) ## train a UNet to denoise the embedded photographs (at most 5 minutes on 2 cores)
	@$(BIN)/python -m project fit --config configs/denoise.yaml $(ARGS)

train-bsd: $(READY) ## the same on a folder of photographs: make train-bsd ARGS="--data.root FOLDER" (10 minutes)
	@$(BIN)/python -m project fit --config configs/denoise_bsd.yaml $(ARGS)

colorize: $(READY) ## train a GAN to color line art of generated characters (about 8 minutes on 2 cores)
	@$(BIN)/python -m project fit --config configs/colorize.yaml $(ARGS)

# Trials that share a machine cannot be compared by the clock: they end by trainer.max_steps.
sweep: $(READY) ## search hyper-parameters, on every core: make sweep CONFIG=FILE SWEEP=FILE ARGS="--jobs 2"
	@$(BIN)/python -m project sweep --config $(CONFIG) --sweep $(SWEEP) --trainer.max_time null $(ARGS)

test: $(READY) ## run the tests except the slow ones (no network)
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto -m "not slow" $(ARGS)

test-all: $(READY) ## run every test
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto $(ARGS)

lint: $(READY) ## check style and likely mistakes with ruff
	@$(BIN)/python -m ruff check . && $(BIN)/python -m ruff format --check .

format: $(READY) ## format the code
	@$(BIN)/python -m ruff check --fix . && $(BIN)/python -m ruff format .

benchmark: $(READY) ## time a step, the loader and the start, each against doing it by hand (under 4 minutes)
	@$(BIN)/python scripts/benchmark $(ARGS)

bench-inference: $(READY) ## time a checkpoint in PyTorch and in ONNX Runtime: ARGS="--ckpt_path FILE"
	@$(BIN)/python scripts/benchmark inference $(ARGS)

soak: $(READY) ## kill a small run at 50 random moments, resume it, compare its end (half an hour): ARGS="--kills 5"
	@$(BIN)/python scripts/soak.py $(ARGS)

faults: $(READY) ## plant faults into small runs and print which are found, and the false alarms (ARGS="--seeds 1")
	@$(BIN)/python scripts/faults $(ARGS)

lines: ## count the lines of Python: project/, workbench/ (and tune/ in it), tests/, scripts/
	@for folder in project workbench workbench/tune tests scripts; do printf '%7d  %s/\n' $$(find $$folder -name '*.py' -exec cat {} + | wc -l) $$folder; done

clean: ## remove the cache of indexed images and test leftovers (keeps runs/ and .venv/)
	@rm -rf .cache .pytest_cache .ruff_cache build *.egg-info
