# Everything that is done with this tree. `make help` lists it. Needs GNU make 4 and Python 3.11; node only for TypeScript.
SHELL := /bin/sh
.SHELLFLAGS := -eu -c
.DEFAULT_GOAL := help
# Targets run in the order in which they are written: the tests' summary is the last thing one sees.
.NOTPARALLEL:
MAKEFLAGS += --no-print-directory

BIN := .venv/bin
PYTHON_FOLDERS := $(wildcard dispatcher wrapper queryd ctl kernel sdk tools tests bench examples)

export KEEP
export TRACE_TEST_REQUIRE_ALL

##@ Start here
.PHONY: help
help: ## List every target
	@if [ -t 1 ]; then colour=36; else colour=; fi; awk -v colour="$$colour" 'BEGIN { FS = ":.*## "; \
	    start = colour ? "\033[" colour "m" : ""; end = colour ? "\033[0m" : "" } \
	  /^##@ / { printf "\n%s\n", substr($$0, 5) } \
	  /^[a-z-]+:.*## / { printf "  %s%-14s%s %s\n", start, $$1, end, $$2 }' Makefile

# Ctrl-C waits until Python has loaded what the demo is made of, which then ends in order. `exec`: no shell dies before it.
.PHONY: demo
demo: venv ## Run the whole stack on real chain data and show what comes out (KEEP=1 leaves it running)
	@exec env --block-signal=INT $(BIN)/python -m ctl.demo $(ARGS)

.PHONY: test
test: venv check ## Make the environment and run every check and every test

##@ Environment
.PHONY: venv
venv: ## Make .venv with the pinned packages (PYTHON=... chooses the interpreter); quick when up to date
	@tools/venv.sh

.PHONY: node
node: ## Install the TypeScript client's packages and the tests' SQS server, where node is there
	@tools/node_modules.sh

.PHONY: extensions
extensions: venv ## Install the DuckDB with extensions that tests of queries need
	@tools/other_venv.sh extensions

.PHONY: lock
lock: venv ## Resolve the dependencies into requirements/*.txt (UPGRADE=1, or UPGRADE=package, for newer versions)
	@tools/lock.sh

.PHONY: clean
clean: ## Remove what builds and tests leave behind, .venv and node_modules too
	rm -rf .venv .venv-bench .venv-extensions clients/typescript/node_modules clients/typescript/dist bench/out build dist
	rm -rf .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	find $(PYTHON_FOLDERS) gen -name __pycache__ -type d -prune -exec rm -rf {} +

##@ Checks
.PHONY: check
check: lint format types imports proto-lint breaking verify pytest ## Everything below, in this order

.PHONY: lint
lint: venv ## Look for faults in the Python code (ruff)
	@echo "lint: ruff"; $(BIN)/ruff check --quiet .

.PHONY: format
format: venv ## Check that the Python code is formatted (`make fmt` does it)
	@echo "format: ruff"; $(BIN)/ruff format --check --quiet . || { echo "format: run 'make fmt'" >&2; exit 1; }

.PHONY: types
types: venv ## Check the types (mypy --strict)
	@echo "types: mypy"; $(BIN)/mypy $(PYTHON_FOLDERS)

.PHONY: imports
imports: venv ## Check who imports whom (import-linter)
	@$(BIN)/lint-imports --no-logo

.PHONY: proto-lint
proto-lint: venv ## Check the style and the comments of the contracts (buf)
	@echo "proto-lint: buf"; $(BIN)/buf lint; $(BIN)/buf format --exit-code > /dev/null || \
	    { echo "proto-lint: a contract is not formatted, run 'make fmt'" >&2; exit 1; }

.PHONY: breaking
breaking: venv ## Check that the contracts break no caller of the last release (buf)
	@$(BIN)/python -m tools.breaking

.PHONY: verify
verify: venv node ## Check that what is generated is what the generators make now
	@$(BIN)/python -m tools.verify

.PHONY: pytest
pytest: venv node extensions ## Run the tests (ARGS="tests/kernel -k scopes" chooses)
	@$(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

##@ Proving
.PHONY: chaos
chaos: venv node ## Real programs under seeded faults, and every promise checked (SEED=1 RUNS=20; ARGS="--ledger FILE")
	@$(BIN)/python -m tests.chaos --seed $(or $(SEED),1) --runs $(or $(RUNS),1) $(ARGS)

##@ Changing things
.PHONY: fmt
fmt: venv ## Format the code and the contracts, and repair what can be repaired
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format --quiet .
	$(BIN)/buf format --write

.PHONY: generate
generate: venv node ## Make everything that is generated again
	@$(BIN)/python -m tools.generate

.PHONY: release-image
release-image: venv ## At a release: keep its contracts, for `make breaking` to compare with
	@mkdir -p protos/release
	$(BIN)/buf build --exclude-source-info --output protos/release/image.binpb

##@ Measuring
.PHONY: bench-million
bench-million: venv ## A source of 10^6 events through an aggregator and a sql job, with its limits checked
	@$(BIN)/python -m bench.million

.PHONY: bench-dispatch
bench-dispatch: venv ## How fast tasks are delivered, beside other queues (ARGS="--quick --only noop")
	@tools/other_venv.sh bench
	@$(BIN)/python -m bench.dispatch $(ARGS)

.PHONY: bench-deploy
bench-deploy: venv ## Cutovers and rollbacks: how long, what they hold up, and that nobody sees a mixture (ARGS="--quick")
	@$(BIN)/python -m bench.deploy $(ARGS)

.PHONY: bench-query
bench-query: venv ## How fast rows come to a client, and how soon a tiny query is answered (ARGS="--quick --only tiny")
	@$(BIN)/python -m bench.query $(ARGS)

.PHONY: bench-gate
bench-gate: venv extensions ## What the gate lets through of 10^5 mutated attacks, and what it costs (ARGS="--mutants 1000")
	@$(BIN)/python -m bench.gate $(ARGS)

.PHONY: bench-churn
bench-churn: venv ## Whether the hot tables stay flat while 2*10^6 tasks come and go (ARGS="--tasks 200000")
	@$(BIN)/python -m bench.churn $(ARGS)
