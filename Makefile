# All of it works on a bare Debian 12 or 13 with make, git, python3-venv and ca-certificates.

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test lint fresh clean tools

# The first that is new enough.
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11 python3.10; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null && echo $$python && break; done)

PIP = .venv/bin/python -m pip --disable-pip-version-check --quiet

help: ## List the targets
	@sed -n 's/^\([a-z]*\):.*## /make \1\t/p' $(MAKEFILE_LIST) | expand -t 14

demo: .venv/package ## Run the demonstration; it needs no broker
	.venv/bin/jsonrpc-amqp demo

test: .venv/tox tools ## Run everything that CI runs; installs RabbitMQ with apt-get if it is missing
	.venv/bin/tox run

lint: .venv/tox ## Check style and types
	.venv/bin/tox run -e lint,types

fresh: ## Try this commit on bare Debian 12 and 13 systems (as root)
	tools/fresh.sh

clean: ## Remove what the other targets made
	rm -rf .venv .tox .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache build dist *.egg-info
	rm -rf examples/*/target examples/*/node_modules tests/interop/peers/*/target tests/interop/peers/*/node_modules
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

tools:
	@tools/ensure-tools.sh

.venv/python: Makefile
	@test -n "$(PYTHON)" || { echo "Python 3.10 or newer is needed, and was not found; name it: make PYTHON=..." >&2; exit 1; }
	$(PYTHON) -m venv --clear .venv
	@touch $@

.venv/package: .venv/python setup.cfg pyproject.toml
	$(PIP) install --editable .
	@touch $@

.venv/tox: .venv/python
	$(PIP) install 'tox>=4.21'
	@touch $@
