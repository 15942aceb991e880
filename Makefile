# make run    install what is missing and run the quickstart campaign
# make test   install what is missing and run the C++ and Python tests (make test-slow adds the slow ones)
# make bench  measure against peers; tables go to bench/results/
# make ptx    write the portable CUDA kernels as PTX to build/ptx/ (needs nvcc)
# make gpu-check  on a machine with a GPU, nvcc and a CUDA build of torch: build for it, test and measure the kernels on it
# make lint   formatting, linting and types

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# The CPU build of torch, unless you say otherwise: make run CONSTRAINTS=
CONSTRAINTS ?= -c constraints.txt
SOURCES := pyproject.toml CMakeLists.txt $(shell find csrc python -type f -not -name '*.so' -not -name '*.pyc')
PYTEST  := $(BIN)/python -m pytest -n 2

.PHONY: run test test-slow ctest bench ptx gpu-check lint format clean

run: $(VENV)/.run
	$(BIN)/asi-evolve run examples/quickstart.yaml

test: $(VENV)/.dev ctest
	$(PYTEST) -m "not slow"

test-slow: $(VENV)/.dev ctest
	$(PYTEST)

ctest: $(VENV)/.dev
	$(BIN)/cmake -S . -B build/ctest -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN)/ninja) \
	    -DASI_EVOLVE_TESTS=ON -DASI_EVOLVE_CUDA=OFF > build/ctest.log || (cat build/ctest.log; exit 1)
	$(BIN)/cmake --build build/ctest > build/ctest.log || (cat build/ctest.log; exit 1)
	$(BIN)/ctest --test-dir build/ctest --output-on-failure

bench: $(VENV)/.bench
	$(BIN)/python bench/run.py

ptx: $(VENV)/.dev
	$(BIN)/python bench/cuda_static.py --ptx

# Asks first: without a device nothing is built. Torch must be a CUDA build: make gpu-check CONSTRAINTS=
gpu-check: $(VENV)/.dev
	@$(BIN)/python bench/cuda_device.py --check
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --force-reinstall . \
	    -C cmake.define.ASI_EVOLVE_CUDA=ON -C cmake.define.ASI_EVOLVE_CUDA_ARCHITECTURES=native
	ASI_EVOLVE_SANITIZER=$$(command -v compute-sanitizer) && export ASI_EVOLVE_SANITIZER; \
	    $(BIN)/python -m pytest tests/native/test_cuda.py
	$(BIN)/python bench/cuda_device.py

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run -Werror $$(git ls-files '*.cpp' '*.h' '*.cu' '*.cuh')
	$(BIN)/mypy

format: $(VENV)/.dev
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $$(git ls-files '*.cpp' '*.h' '*.cu' '*.cuh')

$(VENV)/.run: $(SOURCES)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(CONSTRAINTS) ".[embedded]"
	touch $@

$(VENV)/.dev: $(SOURCES)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(CONSTRAINTS) ".[embedded,parquet,dev]"
	mkdir -p build
	touch $@ $(VENV)/.run

$(VENV)/.bench: $(VENV)/.dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(CONSTRAINTS) ".[bench]"
	touch $@

clean:
	rm -rf build dist .venv .pytest_cache .ruff_cache .mypy_cache .hypothesis
