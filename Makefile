# The whole habit: `make demo`, `make test`, `make check`, `make test-all`, `make bench`, `make docs`.
# Everything runs from a bare clone: the first target makes the virtual environment.

PYTHON ?= python3
VENV ?= .venv
# Where PyTorch's wheels come from, beside the default index. For example:
#   make demo TORCH_INDEX=https://download.pytorch.org/whl/cpu      (small, no GPU)
#   make demo TORCH_INDEX=https://download.pytorch.org/whl/cu130    (CUDA 13.0)
TORCH_INDEX ?=

BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
INDEX := $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX),)
PACKAGES := eval finetune_baselines grun guard unlearn

.PHONY: demo install test test-slow test-all check format bench docs clean

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; choose one with: make PYTHON=python3.12 ..."; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $(INDEX) -c constraints.txt -e '.[dev,encoder]'
	@touch $@

demo: $(STAMP)
	$(BIN)/unlearn compare

# One thread: on tensors this small, threads mostly wait for each other.
test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest

test-slow: $(STAMP)
	$(BIN)/python -m pytest -m 'slow and not gpu and not network' --durations=10

test-all: test test-slow

check: $(STAMP)
	$(BIN)/ruff format --check $(PACKAGES) tests benchmarks scripts
	$(BIN)/ruff check $(PACKAGES) tests benchmarks scripts
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python scripts/check_documented.py $(PACKAGES)

format: $(STAMP)
	$(BIN)/ruff format $(PACKAGES) tests benchmarks scripts
	$(BIN)/ruff check --fix $(PACKAGES) tests benchmarks scripts

bench: $(STAMP)
	$(BIN)/python benchmarks/run.py

docs: $(STAMP)
	$(BIN)/python scripts/write_docs.py

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
