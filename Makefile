# Each target does all the set-up it needs on a machine with Python 3.11 or newer.
#
#   make demo      set up, then make a few videos with the model that comes with the package
#   make test      set up, then run the tests, in less than 15 minutes on two cores
#   make test-all  the same, with the few that take a minute each
#   make lint      set up, then check style and types
#   make setup     only the set-up for the tests: .venv with the versions of constraints.txt
#
# PYTHON=python3.12 chooses another interpreter. On Linux, plain PyPI gives torch with CUDA (several GB); for the CPU
# build set PIP_EXTRA_INDEX_URL to PyTorch's index of CPU builds.

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
READY := .venv/.ready-for-tests
PIP := $(BIN)/python -m pip install --disable-pip-version-check --quiet --no-compile -c constraints.txt
COMPILE := $(BIN)/python -m compileall -q -j 0 .venv/lib >/dev/null || true

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-all lint

help:
	@sed -n '/^#/!q; s/^# \{0,1\}//p' Makefile

setup: $(READY)

# pip compiles modules on one core; COMPILE does it on all of them, and goes on past the templates in packages that are no Python.
# torch goes first and alone, so that no other package's requirement can choose its version.
$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Timeloom needs Python 3.11 or newer; choose one with: make PYTHON=python3.11" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) torch
	$(PIP) -e .
	@$(COMPILE)
	@touch $@

# What only tests and checks need: every extra that they try.
$(READY): $(INSTALLED)
	$(PIP) -e '.[curate,dev,lora,ray,studio,study]'
	@$(COMPILE)
	@touch $@

demo: $(INSTALLED)
	@mkdir -p demo
	$(BIN)/timeloom generate "a red seven moves left" --output demo/red-seven.mp4 --upscale --overwrite
	printf '%s\n' "a blue three bounces on stripes" "a green zero grows on black" "a yellow five moves right on gray" > demo/prompts.txt
	$(BIN)/timeloom generate --prompts demo/prompts.txt --output demo/more --contact-sheet demo/more.png --overwrite
	@echo "Three more videos are in demo/more, side by side in demo/more.png."
	@echo "Asked for, a red seven that moves left, made 256x256: $(CURDIR)/demo/red-seven.mp4"

# Tiny models gain nothing from threads: one thread each, and whole files of tests side by side on up to four cores.
# In the order of their names: sorted by the number of tests, the few that take longest would come last, side by side with nothing.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q --durations=10 --numprocesses=auto --maxprocesses=4 --dist=loadfile --no-loadscope-reorder

test: $(READY)
	$(PYTEST) -m "not long"

test-all: $(READY)
	$(PYTEST)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
