# The two commands: `make demo` and `make test`. Both build .venv when the requirements change.
# `make rehearse-image` runs the digits kernel under the versions of Kaggle's image.
PYTHON ?= python3
PYTHON_IMAGE ?= python3.12
IMAGE := .venv-image
VENV ?= .venv
BIN := $(VENV)/bin
CLIENT_TESTS := tests/kaggle/kernel/test_push.py $(addprefix tests/kaggle/test_,\
  answers.py client.py credentials.py datasets.py download.py retry.py submit.py)

.PHONY: demo test test-slow test-clients gpu soak lint rehearse-image clean-venv
.DELETE_ON_ERROR:

demo: $(VENV)/.installed
	$(BIN)/python -m kit run configs/digits.yaml

# A file's tests run in one process, which makes their fixtures once. In the order of the files: sorted by how
# many tests they hold, those of one long test would come last, while another process idles. Bytecode is kept:
# tests begin some hundred processes that import the kit.
test: $(VENV)/.installed-dev lint
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

test-slow: $(VENV)/.installed-dev
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -m slow -n auto --maxprocesses 4 --dist loadfile

# What a CPU cannot show; without a GPU it says so and fails.
gpu: $(VENV)/.installed-dev
	PYTHONPATH=. $(BIN)/python benchmarks/gpu.py --need
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -m gpu
	PYTHONPATH=. $(BIN)/python benchmarks/gpu.py

soak: $(VENV)/.installed-dev
	PYTHONPATH=.:tests $(BIN)/python -m faults.soak

# The client of Kaggle's image, in a folder of its own; then the newest, as pip finds it.
test-clients: $(VENV)/.installed-dev
	for client in kaggle==2.0.2 kaggle; do \
	  folder=$$(mktemp -d) && $(BIN)/python -m pip install -q --target $$folder $$client six && \
	  PYTHONPATH=$$folder $(BIN)/python -m pytest -q $(CLIENT_TESTS); code=$$?; \
	  rm -rf $$folder; [ $$code -eq 0 ] || exit $$code; \
	done

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "The kit needs Python 3.11 or newer; $(PYTHON) is older. Try: make demo PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: requirements.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install -r requirements.txt
	@touch $@

$(VENV)/.installed-dev: requirements-dev.txt $(VENV)/.installed
	$(BIN)/python -m pip install -r requirements-dev.txt
	@touch $@

rehearse-image: $(VENV)/.installed $(IMAGE)/.installed
	$(BIN)/python -m kit kernel build configs/digits.yaml --kind train
	$(BIN)/python -m kit kernel rehearse kernels/build/digits-train --python $(IMAGE)/bin/python

$(IMAGE)/bin/python:
	@$(PYTHON_IMAGE) -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 12), (3, 13)))' 2> /dev/null || \
	  { echo "Kaggle's image has Python 3.12 or 3.13; say where one is: make rehearse-image PYTHON_IMAGE=/path/to/python3.13"; exit 1; }
	$(PYTHON_IMAGE) -m venv $(IMAGE)

$(IMAGE)/.installed: requirements.txt kernels/image.txt | $(IMAGE)/bin/python
	$(IMAGE)/bin/python -m pip install -r requirements.txt -c kernels/image.txt
	@touch $@

clean-venv:
	rm -rf $(VENV) $(IMAGE)
