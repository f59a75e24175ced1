# dynctl: `make` lists the targets.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3.13 python3.12 python3.11 python3
ENGINE ?= vllm
VENV := .venv
AGAIN := $(MAKE)  # under this name `make -n test` does not run what it should only print
DYNCTL := $(VENV)/bin/dynctl

.PHONY: help up down setup engine test check bench chaos fuzz

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

up: setup engine ## set up, then serve what fits this machine, with a sample request; it stays running
	@$(DYNCTL) up -d --sample

down: ## end what `make up` started
	@[ ! -x $(DYNCTL) ] || $(DYNCTL) down

setup: $(VENV)/.stamp ## .venv with dynctl and its development tools (PYTHON=python3.12 to choose one)
	@:

# Made again only where pyproject.toml changed. An interpreter's name proves nothing: each is asked for what is needed.
$(VENV)/.stamp: pyproject.toml
	@good=; bare=; \
	for python in $(PYTHON); do \
	  "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue; \
	  if "$$python" -c 'import venv, ensurepip' 2>/dev/null; then good=$$python; break; fi; \
	  bare=$${bare:-$$("$$python" -c 'import sys; print("python%d.%d" % sys.version_info[:2])')}; \
	done; \
	if [ -z "$$good" ]; then \
	  want=$${bare:-python3.11}; \
	  if [ -n "$$bare" ]; then echo "error: $$bare has no venv module with pip" >&2; \
	  else echo "error: dynctl needs Python 3.11 or newer; none of these is: $(PYTHON)" >&2; fi; \
	  if command -v apt-get >/dev/null; then echo "  fix sudo apt-get install $$want $$want-venv" >&2; \
	  elif command -v dnf >/dev/null; then echo "  fix sudo dnf install $$want $$want-pip" >&2; fi; \
	  echo "  fix without root: install uv (https://docs.astral.sh/uv), uv python install 3.12, then" >&2; \
	  echo '      make setup PYTHON="$$(uv python find 3.12)"' >&2; \
	  exit 3; \
	fi; \
	echo "setting up $(VENV) with $$("$$good" -c 'import sys; print("Python %d.%d.%d" % sys.version_info[:3])')" >&2; \
	$(VENV)/bin/python -m pip --version >/dev/null 2>&1 || "$$good" -m venv --clear $(VENV); \
	$(VENV)/bin/python -m pip install -qq --disable-pip-version-check -e '.[dev]'; \
	touch $@

engine: setup ## the engine's own environment, in the user's cache (ENGINE=vllm or dynamo)
	@$(DYNCTL) engine build --engine $(ENGINE)

test: ## everything: set-up, engine, checks, integration and end-to-end tests
	@times=; \
	stage() { \
	  local name=$$1 begin=$$SECONDS code=0; shift; printf '\n== %s\n' "$$name"; \
	  "$$@" || code=$$?; \
	  times+="$$(printf '%-12s %5d s%s' "$$name" $$((SECONDS - begin)) "$$([ $$code = 0 ] || echo '  failed')")"$$'\n'; \
	  if [ $$code != 0 ]; then printf '\n%s' "$$times"; exit $$code; fi; \
	}; \
	stage setup $(AGAIN) setup; \
	stage engine $(AGAIN) engine; \
	stage dynamo $(AGAIN) engine ENGINE=dynamo; \
	stage check $(AGAIN) check; \
	stage integration $(VENV)/bin/pytest -q tests/integration tests/gpu -n 2 --reruns 1; \
	stage e2e $(VENV)/bin/pytest -q tests/e2e --reruns 1 --durations=8; \
	printf '\n%s' "$$times"

check: setup ## ruff, mypy --strict and the unit tests: seconds
	@$(VENV)/bin/ruff check -q .
	@$(VENV)/bin/ruff format --check -q .
	@$(VENV)/bin/mypy --no-error-summary
	@$(VENV)/bin/pytest -q tests/unit -n auto

bench: setup engine ## time to plan; the frontend and bench's loader against their peers; a supervisor with 64 workers; start-up time
	@$(VENV)/bin/python scripts/bench_plan.py
	@$(VENV)/bin/python scripts/bench_frontend.py --repeats 2
	@$(VENV)/bin/python scripts/bench_loader.py --streams 16,64,200 --requests 8 --repeat 3
	@$(VENV)/bin/python scripts/bench_supervisor.py
	@$(VENV)/bin/python scripts/bench_startup.py

chaos: setup engine ## faults under load: the whole matrix on fake engines, its main rows on real ones
	@$(VENV)/bin/python -m tests.chaos --engine fake --engine vllm

fuzz: setup ## ten minutes of requests by a grammar against the frontend
	@PYTHONPATH=tests/integration $(VENV)/bin/python tests/integration/fuzz_frontend.py --seconds 600
