# make demo   everything once, from nothing to runs/demo/report.html     make test    lint, types, tests
# make env    install only     make lint     make bench     make gpu (needs an NVIDIA GPU)
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

# pybullet has ready-made wheels up to Python 3.11 and compiles on later ones.
PYTHON ?= $(firstword $(shell for p in python3.11 python3.12 python3.13 python3; do command -v $$p; done))
TORCH := 2.13.0
BIN := .venv/bin
READY := .venv/.ready

.PHONY: help env demo test lint bench gpu clean

help:
	@sed -n '1,2s/^# //p' Makefile

env: $(READY)

# An installed torch >= 2.11 is used as it is. Otherwise this exact version: an open range can mean gigabytes of CUDA.
NEW_TORCH := import sys, torch; sys.exit(tuple(map(int, torch.__version__.split(".")[:2])) < (2, 11))

# The library of kernels is compiled by the installation, so its sources make the environment stale.
KERNELS := cpp_ext/CMakeLists.txt $(wildcard cpp_ext/include/awase/*.h* $(foreach d,src cpu cuda bindings cmake engine ort_ops,cpp_ext/$(d)/*))

$(READY): pyproject.toml $(KERNELS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: $(PYTHON) is too old, expected Python >= 3.11; set PYTHON=" >&2; exit 2; }
	@if $(PYTHON) -c '$(NEW_TORCH)' 2>/dev/null; then $(PYTHON) -m venv --system-site-packages .venv; else $(PYTHON) -m venv .venv; fi
	@$(BIN)/python -c '$(NEW_TORCH)' 2>/dev/null || $(BIN)/pip install --disable-pip-version-check torch==$(TORCH)
	$(BIN)/pip install --disable-pip-version-check -e '.[cpu,robot,train,skia,trt,triton,dev]'
	$(BIN)/pip install --disable-pip-version-check --no-deps tensorrt-stubs  # its dependency is TensorRT itself: gigabytes
	@touch $@

demo: $(READY)
	@start=$$SECONDS; \
	$(BIN)/python -m trainer mgan --preset demo --name demo --fresh; \
	$(BIN)/python -m export runs/demo --trt; \
	$(BIN)/python -m runtime generate bundles/demo --count 64 --out runs/demo/generated --overwrite; \
	$(BIN)/python -m runtime evaluate bundles/demo --count 500 --random 5000 > runs/demo/evaluation.part; \
	mv runs/demo/evaluation.part runs/demo/evaluation.json; \
	$(BIN)/python -m trainer report runs/demo > /dev/null; \
	echo "demo done in $$((SECONDS - start)) s; the report: runs/demo/report.html"

test: lint
	@start=$$SECONDS; $(BIN)/python -m pytest; echo "tests took $$((SECONDS - start)) s"

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(READY)
	$(BIN)/python -m benchmarks

# Without a .venv (on a machine with no package index, say) it takes what GPU_PYTHON has: torch >= 2.11, numpy, rich,
# pytest, nanobind, scikit-build-core, cmake and ninja. Awase is put into an environment of its own that sees all of that.
GPU_PYTHON ?= python3
GPU_ENV := $(if $(wildcard $(READY)),.venv,build/gpu)
CUDA_ARCH ?= native
OUT ?= benchmarks/results
PACKAGES := import sys; print("\n".join(path for path in sys.path if path.endswith("-packages")))
SANITIZE = compute-sanitizer --error-exitcode 1 --kernel-regex kns=awase

build/gpu/bin/python:
	$(GPU_PYTHON) -m venv --system-site-packages --without-pip build/gpu
	@$(GPU_PYTHON) -c '$(PACKAGES)' > "$$($@ -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/seen.pth"

gpu: $(GPU_ENV)/bin/python
	@$< -c 'import torch, sys; sys.exit(not torch.cuda.is_available())' || { echo "error: no CUDA GPU works here; make gpu needs one" >&2; exit 2; }
	@isolated=; if $< -c 'import nanobind, scikit_build_core' 2> /dev/null; then isolated=--no-build-isolation; fi; set -x; \
	CMAKE_ARGS="-DAWASE_CUDA=on -DCMAKE_CUDA_ARCHITECTURES=$(CUDA_ARCH)" \
	    $< -m pip install --disable-pip-version-check $$isolated --no-deps -C build-dir=build/kernels-gpu -e .
	@tests=tests; $< -c 'import runtime.models, trainer.__main__' 2> /dev/null \
	    || { echo "only the kernels are tested: what the runtime and the trainer need is not all here"; tests=$$(ls tests/cpp_ext/*gpu*.py); }; \
	$< -m pytest -m gpu $$tests
	@if ! command -v compute-sanitizer > /dev/null; then echo "compute-sanitizer is not installed: not run"; \
	elif ! $(SANITIZE) $< -c 'import torch; torch.ones(1).cuda()' > /dev/null; then echo "compute-sanitizer does not work on this GPU: not run"; \
	else for tool in memcheck racecheck initcheck; do \
	    echo "compute-sanitizer: $$tool"; \
	    PYTORCH_NO_CUDA_MEMORY_CACHING=1 $(SANITIZE) --tool $$tool $< -m pytest -m gpu tests/cpp_ext/test_kernels_gpu.py; \
	done; fi
	$< -m benchmarks gpu --out $(OUT) > /dev/null

clean:
	rm -rf .venv build dist *.egg-info
