# Two commands: `make study` runs the embedded study, `make test` the tests. Both make .venv first.
PYTHON ?= python3
VENV := .venv
ENVIRONMENT := $(VENV)/.complete

.PHONY: study test crashes layers bench format clean

study: $(ENVIRONMENT)
	$(VENV)/bin/snakemake --cores all
	@$(MAKE) --no-print-directory results/digits/report.zip

# Snakemake's report: figures, captions and claims in one page.
results/digits/report.zip: $(wildcard results/digits/figures/*.png) $(wildcard results/digits/claims.html)
	$(VENV)/bin/snakemake --report $@

test: $(ENVIRONMENT)
	$(VENV)/bin/python -m pytest

# Kills runs of a tiny study at twenty moments, and compares what reruns make of them with an undisturbed run.
crashes: $(ENVIRONMENT)
	$(VENV)/bin/python tests/crashes.py

# The layers of a network as a configuration lists them: make layers MODEL=googlenet SIZE=224
SIZE ?= 224
layers: $(ENVIRONMENT)
	@PYTHONPATH=workflow $(VENV)/bin/python -m commands.layers $(MODEL) --size $(SIZE)

# The engine beside other ways to the same numbers; prints a table and writes results/bench.json.
bench: $(ENVIRONMENT)
	$(VENV)/bin/python tests/bench.py

# Formats what `make test` checks.
format: $(ENVIRONMENT)
	$(VENV)/bin/ruff check --fix workflow tests
	$(VENV)/bin/ruff format workflow tests
	$(VENV)/bin/snakefmt Snakefile workflow

$(ENVIRONMENT): envs/requirements.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "error: Python 3.11 or later is needed; name one with `make PYTHON=python3.11 ...`")'
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --requirement envs/requirements.txt
	touch $(ENVIRONMENT)

clean:
	rm -rf $(VENV)
