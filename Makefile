# Everything that people and CI do with this repository. `make` lists it.

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.up-to-date

# Folders with Python files in them; those that are still missing do no harm.
TYPED := $(foreach folder,src tests benchmarks examples,$(if $(shell find $(folder) -name '*.py' 2>/dev/null | head -n 1),$(folder)))

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-long test-containers check bench bench-peers lock format clean

help: ## Print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP) ## Build .venv from requirements.lock; does nothing when it is up to date

$(STAMP): requirements.lock pyproject.toml
	@PYTHON="$(PYTHON)" scripts/system-packages venv
	test -x $(BIN)/python || "$(PYTHON)" -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps --editable .
	@touch $@

demo: setup ## Show in one go what Taskyard does; PORT=6001, MANAGER_PORT=..., EXECUTOR_PORT=... choose other ports
	@$(BIN)/python examples/demo.py $(if $(PORT),--port $(PORT)) \
		$(if $(MANAGER_PORT),--manager-port $(MANAGER_PORT)) $(if $(EXECUTOR_PORT),--executor-port $(EXECUTOR_PORT))

test: setup ## Run every suite within its time budget, then check the coverage
	@scripts/system-packages curl iproute2 iptables strace e2fsprogs gcc python-tests openssl nginx caddy systemd-analyze
	$(BIN)/python scripts/run-suites

test-long: export TASKYARD_TEST_LONG = 1
test-long: test ## The same, with more examples, longer simulations and larger budgets

test-containers: setup ## Build the images and try them on a container engine of its own; needs root on Debian
	@scripts/test-containers

check: setup ## Formatting, lint, types, import rules, and the rules of the tree
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy $(TYPED)
	$(BIN)/mypy --scripts-are-modules scripts/check-tree scripts/run-suites
	$(BIN)/lint-imports
	$(BIN)/python scripts/check-tree

bench: setup ## Run the benchmarks; NAMES="latency numpy" chooses some, JSON=FILE keeps the figures
	$(BIN)/python -m benchmarks $(if $(JSON),--json $(JSON)) $(NAMES)

bench-peers: setup ## Run the same scripts through other systems; NAMES="celery ray" chooses some, JSON=FILE keeps the figures
	@scripts/system-packages redis-server
	$(BIN)/python -m benchmarks.peers $(if $(JSON),--json $(JSON)) $(NAMES)

lock: ## Make requirements.lock again; LOCK_FLAGS=--upgrade renews every pin
	PYTHON="$(PYTHON)" scripts/lock $(LOCK_FLAGS)

format: setup ## Format the code and fix what ruff can fix
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

clean: ## Remove what tools and tests leave behind; .venv stays
	rm -rf build dist .coverage .coverage.* htmlcov .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -path ./.venv -prune -o -path ./.git -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
