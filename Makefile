# `make study` runs the default study, `make test` the tests; every target makes .venv first.
PYTHON ?= python3
VENV := .venv
ENVIRONMENT := $(VENV)/.complete

.PHONY: study test test-all verify reference crashes kernels seeds sensitivity simulations benchmark notebook weights layers models leak bench format clean

# Its headline is printed at the very end, when the report is there too.
study: $(ENVIRONMENT)
	READOUT_HEADLINE=later $(VENV)/bin/snakemake --cores all
	@$(MAKE) --silent --no-print-directory results/digits/report.zip
	@PYTHONPATH=workflow $(VENV)/bin/python -m commands.headline results/digits --report results/digits/report.zip

# Snakemake's report: figures, captions and claims in one page. What Snakemake says of it is shown only if it fails.
results/digits/report.zip: $(wildcard results/digits/figures/*.png) $(wildcard results/digits/claims.html)
	@echo "Making the report, $@"
	@$(VENV)/bin/snakemake --report $@ > $(@D)/logs/report.log 2>&1 || { cat $(@D)/logs/report.log; exit 1; }

# Within ten minutes on 2 cores: what is fast, and a slice of the rest.
test: $(ENVIRONMENT)
	$(VENV)/bin/python -m pytest -m "not slow"

# Every test.
test-all: $(ENVIRONMENT)
	$(VENV)/bin/python -m pytest

# Kills runs of a tiny study at twenty moments, and compares what reruns make of them with an undisturbed run.
crashes: $(ENVIRONMENT)
	$(VENV)/bin/python tests/crashes.py

# Compares the finished default study with the documented run.
verify: $(ENVIRONMENT)
	@PYTHONPATH=workflow $(VENV)/bin/python -m commands.verify results/digits

# Makes the numbers of the finished default study those of the documented run.
reference: $(ENVIRONMENT)
	@PYTHONPATH=workflow $(VENV)/bin/python -m commands.verify results/digits --write

# The default study with other kernels, as other processors have them; takes as long as three default studies.
kernels: $(ENVIRONMENT)
	$(VENV)/bin/python tests/kernels.py

# The study of training seeds, and which verdicts depend on them; takes as long as three default studies.
seeds: $(ENVIRONMENT)
	$(VENV)/bin/snakemake --cores all --configfile workflow/studies/seeds.yaml
	@PYTHONPATH=workflow $(VENV)/bin/python -m commands.seeds

# Variants of the default study, each with one setting changed, and which verdicts depend on them: docs/sensitivity.md.
sensitivity: $(ENVIRONMENT)
	READOUT_HEADLINE=later $(VENV)/bin/snakemake --cores all sensitivity
	@PYTHONPATH=workflow $(VENV)/bin/python -m commands.sensitivity results/digits

# The tests of the claims in worlds whose truth is known; writes docs/simulations.md in some minutes.
simulations: $(ENVIRONMENT)
	@OMP_NUM_THREADS=1 PYTHONPATH=workflow $(VENV)/bin/python -m commands.simulations

# Methods on the network whose truth is known; writes docs/benchmark.md. METHOD=mine.py tries the functions of a file.
benchmark: $(ENVIRONMENT)
	@OMP_NUM_THREADS=1 PYTHONPATH=workflow $(VENV)/bin/python -m commands.benchmark $(if $(METHOD),--method "$(METHOD)")

# Runs docs/notebook.md on the finished default study, and writes what it shows into the page.
notebook: $(ENVIRONMENT)
	$(VENV)/bin/python tests/notebook.py

# The weights that the default study ships: the networks of seed 0 of the study of seeds, trained anew.
SHIPPED := alexnet_0 vgg16_0 mobilenet_v2_0 resnet_0
weights: $(ENVIRONMENT)
	$(VENV)/bin/snakemake --cores all --forcerun networks \
		--configfile workflow/studies/seeds.yaml -- $(SHIPPED:%=results/seeds/networks/%/weights.pt)
	PYTHONPATH=workflow $(VENV)/bin/python -m commands.ship results/seeds workflow/studies/seeds.yaml $(SHIPPED)

# The layers of a network as a configuration lists them: make layers MODEL=googlenet SIZE=224 OUTPUTS=1000 SELECT=blocks
# With NODES=1 all other names that may be listed, too.
SIZE ?= 224
OUTPUTS ?= 1000
SELECT ?= all
layers: $(ENVIRONMENT)
	@PYTHONPATH=workflow $(VENV)/bin/python -m commands.layers "$(MODEL)" --size $(SIZE) --outputs $(OUTPUTS) --select "$(SELECT)" $(if $(NODES),--nodes)

# Whether torchvision's and timm's networks are cut exactly; writes docs/models.md in about an hour.
models: $(ENVIRONMENT)
	@OMP_NUM_THREADS=1 PYTHONPATH=workflow $(VENV)/bin/python -m commands.models

# What the retired held-out probe read on noise, beside the cross-fitted one; a minute.
leak: $(ENVIRONMENT)
	@PYTHONPATH=workflow $(VENV)/bin/python -m commands.leak docs/figures/leak.png

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
