# The commands of this project; `make` alone lists them.

PYTHON ?= python3
VENV := .venv
STAMP := $(VENV)/.made
APT := apt-get install -y --no-install-recommends
# runc, nft and ip live in sbin on Debian, which is not on an ordinary user's path.
export PATH := $(PATH):/usr/sbin:/sbin

.ONESHELL:
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help venv system demo emulate test test-slow bench bench-placement bench-delivery fuzz lint clean

help: ## show this list
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' Makefile | expand -t 24

venv: $(STAMP) ## make .venv with the pinned versions of constraints.txt

$(STAMP): setup.py pyproject.toml constraints.txt gateway/__init__.py
	@command -v $(PYTHON) >/dev/null || { echo "make: $(PYTHON) is missing. Type: sudo apt-get install python3 python3-venv" >&2; exit 1; }
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
		echo "make: $$($(PYTHON) --version) is too old, 3.11 or newer is needed. Type: make $(MAKECMDGOALS) PYTHON=python3.11" >&2
		exit 1
	}
	if ! $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null; then
		if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
			export DEBIAN_FRONTEND=noninteractive
			$(APT) python3-venv || { apt-get update && $(APT) python3-venv; }
		else
			echo "make: Python's venv module is missing. Type: sudo apt-get install python3-venv" >&2
			exit 1
		fi
	fi
	echo "making $(VENV) …"
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[controller,dev]'
	touch $(STAMP)

# What the demo cannot do without is needed; the rest is for tests that make networks of their own.
system: ## install the system packages that demo and test use, or say what to type
	@missing() {
		needed=() wanted=()
		busybox=$$(ldd "$$(command -v busybox)" 2>&1 || true)
		[[ $$busybox =~ 'not a dynamic'|'statically linked' ]] || needed+=(busybox-static)
		if [ "$$(id -u)" = 0 ]; then runtime=needed sandbox=wanted; else runtime=wanted sandbox=needed; fi
		command -v crun >/dev/null || command -v runc >/dev/null || eval "$$runtime+=(crun)"
		command -v bwrap >/dev/null || eval "$$sandbox+=(bubblewrap)"
		command -v ip >/dev/null || wanted+=(iproute2)
		command -v nft >/dev/null || wanted+=(nftables)
		command -v aria2c >/dev/null || wanted+=(aria2)
	}
	missing
	[ $$(( $${#needed[@]} + $${#wanted[@]} )) = 0 ] && exit 0
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
		export DEBIAN_FRONTEND=noninteractive
		packages=("$${needed[@]}" "$${wanted[@]}")
		$(APT) "$${packages[@]}" || { apt-get update && $(APT) "$${packages[@]}"; } || true
		missing
	fi
	if [ $${#needed[@]} != 0 ]; then
		needed+=("$${wanted[@]}")
		echo "make: system packages are missing. Type: sudo apt-get install $${needed[*]}" >&2
		exit 1
	fi
	[ $${#wanted[@]} = 0 ] || echo "make: some tests need more. Type: sudo apt-get install $${wanted[*]}"

demo: system venv ## a community network on this machine; JSON=FILE NODES=N SERVICES=N SEED=N
	@$(VENV)/bin/picasso-controller demo $(if $(NODES),--nodes $(NODES)) $(if $(SERVICES),--services $(SERVICES)) \
		$(if $(SEED),--seed $(SEED)) $(if $(JSON),--json '$(JSON)')

emulate: venv ## a network of namespaces to play with (root); TOPOLOGY=qmp:N:SEED|FILE N=GATEWAYS IMAGE_MB=MB
	@$(VENV)/bin/python -m tests.emulation $(if $(TOPOLOGY),--topology '$(TOPOLOGY)') $(if $(N),--gateways $(N)) \
		$(if $(IMAGE_MB),--image-mb $(IMAGE_MB))

test: system venv ## run the tests; with CI=true a skipped one is a failure
	@$(VENV)/bin/python -m pytest -q -m 'not slow'

test-slow: system venv ## run the tests that take minutes
	@$(VENV)/bin/python -m pytest -q -m slow

bench: venv ## the figures of forwarder and placement; JSON=FILE QUICK=1 ONLY=ROW (python -m bench --list)
	@$(VENV)/bin/python -m bench $(if $(JSON),--json '$(JSON)') $(if $(QUICK),--quick) $(addprefix --only ,$(ONLY))

bench-placement: venv ## the figures of placement alone; JSON=FILE QUICK=1 ONLY=ROW
	@$(VENV)/bin/python -m bench.placement $(if $(JSON),--json '$(JSON)') $(if $(QUICK),--quick) $(addprefix --only ,$(ONLY))

bench-delivery: venv ## the figures of content delivery (root, half an hour); JSON=FILE IMAGE_MB=MB ONLY=ROW
	@command -v aria2c >/dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && $(APT) aria2; } ||
		{ echo "make: aria2 is missing. Type: sudo apt-get install aria2" >&2; exit 1; }
	$(VENV)/bin/python -m bench.delivery $(if $(JSON),--json '$(JSON)') $(if $(IMAGE_MB),--image-mb $(IMAGE_MB)) \
		$(addprefix --only ,$(ONLY))

fuzz: venv ## a million hostile inputs to the packet code and the forwarder; INPUTS=N
	@$(VENV)/bin/python -m tests.fuzz.fuzz --inputs $(or $(INPUTS),1000000)

lint: venv ## ruff and mypy --strict
	@$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy --strict gateway controller bench

clean: ## remove what make has made
	@rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
