# All of it works on a bare Debian 12 or 13 with make, git, python3-venv and ca-certificates.

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo check test lint bench bench-check fresh clean tools

# The first that is new enough.
PYTHON ?= $(shell for python in python3 python3.15 python3.14 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)

PIP = .venv/bin/python -m pip --disable-pip-version-check --quiet

help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## /make \1\t/p' $(MAKEFILE_LIST) | expand -t 20

demo: .venv/package ## Run the demonstration; it needs no broker
	.venv/bin/jsonrpc-amqp demo

# Two at a time, since type checkers and unit tests take about as long; ruff takes a tenth of a second.
check: .venv/check ## Check style, types and unit tests; no broker, under a minute
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	@(.venv/bin/mypy && .venv/bin/pyright --pythonpath .venv/bin/python) & types=$$!; .venv/bin/python -m pytest --quiet tests/unit; tests=$$?; wait $$types && exit $$tests

# Most of their time the environments wait; `depends` in tox.ini says which may run beside which. Output is shown
# environment by environment, as each ends.
test: .venv/tox tools ## Run everything that CI runs, about 12 minutes; installs RabbitMQ with apt-get if it is missing
	.venv/bin/tox run-parallel --parallel 3

lint: .venv/tox ## Check style and types
	.venv/bin/tox run -e lint,types

# 3 rounds of 3 s for each figure take about an hour; QUICK=1, one round of 1 s, takes 9 minutes and leaves docs/ alone.
BENCH = $(if $(QUICK),--rounds 1 --seconds 1,--rounds 3 --seconds 3)
BENCH_PAGE = $(if $(QUICK),.bench/quick/performance.md,docs/performance.md)

bench: .venv/bench tools ## Measure all, beside floors and other libraries, into docs/performance.md; an hour, QUICK=1 9 minutes
	.venv/bin/python -m benchmarks run $(BENCH) --out .bench/results.json
	.venv/bin/python -m benchmarks page .bench/results.json $(BENCH_PAGE)

bench-check: .venv/package ## Compare what the steps of a call cost with benchmarks/baseline.json; half a minute
	.venv/bin/python -m benchmarks.micro --check

fresh: ## Try this commit on bare Debian 12, 13 and testing systems (as root)
	tools/fresh.sh

clean: ## Remove what the other targets made
	rm -rf .venv .bench .tox .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache build dist *.egg-info
	rm -rf examples/*/target examples/*/node_modules tests/interop/peers/*/target tests/interop/peers/*/node_modules
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

tools:
	@tools/ensure-tools.sh

.venv/python: Makefile
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed, and was not found; name it: make PYTHON=..." >&2; exit 1; }
	$(PYTHON) -m venv --clear .venv
	@touch $@

.venv/package: .venv/python setup.cfg pyproject.toml
	$(PIP) install --editable .
	@touch $@

.venv/check: .venv/python setup.cfg pyproject.toml constraints.txt
	$(PIP) install --constraint constraints.txt --editable '.[test,lint,types]'
	@touch $@

.venv/bench: .venv/python setup.cfg pyproject.toml
	$(PIP) install --editable '.[bench]'
	@touch $@

.venv/tox: .venv/python
	$(PIP) install 'tox>=4.21'
	@touch $@
