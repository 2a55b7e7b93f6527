# Every target makes what it needs in .venv, once. Works with GNU make 3.81 (macOS) and later.
#
#   PYTHON=python3.13 make test     another Python than the first one found that will do
#   make demo ARGS=/usr/share/doc   arguments for the program that the target runs

PYTHON ?=
ARGS ?=
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: help demo test check lint bench chaos chaos-cluster clean

help:
	@echo "make demo    watch workers go through thousands of files of this machine"
	@echo "make test    run the tests against a real server"
	@echo "make check   what must pass before a commit: ruff, mypy, import contracts, tests"
	@echo "make bench   measure, and print a table"
	@echo "make chaos   strike a running system with faults, seed after seed; chaos-cluster: on three servers"
	@echo "make clean   remove .venv and everything that tools left behind"

demo: .venv/.installed
	@$(BIN)/corral demo $(ARGS)

# Three processes, also on two cores: tests mostly wait. For one: make test ARGS="-n 0".
test: .venv/.developed
	$(BIN)/python -m pytest -n 3 $(ARGS)

check: lint test

lint: .venv/.developed
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: .venv/.developed
	@$(BIN)/python -m benchmarks $(ARGS)

chaos: .venv/.developed
	@$(BIN)/python -m tests.chaos --count 200 $(ARGS)

chaos-cluster: .venv/.developed
	@$(BIN)/python -m tests.chaos --cluster --count 50 $(ARGS)

clean:
	rm -rf .venv .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache build dist

# --- the environment: each step leaves a stamp, and is done again when its reason has changed ---

.venv/.developed: .venv/.installed
	@echo "Installing the development tools in .venv (once) ..."
	@$(PIP) install --group dev
	@touch $@

.venv/.installed: .venv/.made pyproject.toml
	@echo "Installing Corral in .venv (once) ..."
	@$(PIP) install --editable '.[all]'
	@touch $@

# The first Python that will do is taken. pip is upgraded because one older than 25.1 knows no --group.
.venv/.made:
	@found=; lacking=; \
	for python in $(PYTHON) python3 python3.14 python3.13 python3.12 python3.11 python; do \
	    "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 || continue; \
	    if "$$python" -c 'import ensurepip, venv' >/dev/null 2>&1; then found="$$python"; break; fi; \
	    lacking="$${lacking:-$$python}"; \
	done; \
	if [ -z "$$found" ] && [ -n "$$lacking" ]; then \
	    echo "$$lacking cannot make virtual environments: its modules venv and ensurepip are missing." >&2; \
	    echo "On Debian and Ubuntu: sudo apt install python3-venv (or python3.12-venv and so on)." >&2; \
	    exit 1; \
	elif [ -z "$$found" ]; then \
	    echo "Corral needs Python 3.11 or later, and none was found (tried python3, python3.11 to python3.14)." >&2; \
	    echo "Debian, Ubuntu: sudo apt install python3 python3-venv    Fedora: sudo dnf install python3" >&2; \
	    echo "macOS: brew install python    everywhere: https://www.python.org/downloads/" >&2; \
	    echo "If it is somewhere else: make PYTHON=/path/to/python3" >&2; \
	    exit 1; \
	fi; \
	echo "Making .venv with $$found ..."; \
	"$$found" -m venv --clear .venv
	@$(PIP) install --upgrade pip
	@touch $@
