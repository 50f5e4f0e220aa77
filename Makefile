# make quickstart   installs, collects demonstrations, trains pi0 in small, evaluates, draws: 8 minutes on 2 idle cores
# make test         installs what the tests need and runs them
# make install      prepares .venv only

PYTHON ?= python3
DEMONSTRATIONS ?= 40
STEPS ?= 700
EPISODES ?= 50
DATA ?= data/metaworld_button_press/1.0.0
RUN ?= runs/quickstart

BIN := .venv/bin
# Huge pages for large blocks: a quarter less CPU time per training step (Linux, glibc 2.35 or later).
export GLIBC_TUNABLES := glibc.malloc.hugetlb=1
# Every command would compile TensorFlow's and JAX's sources again, for 15 seconds.
unexport PYTHONDONTWRITEBYTECODE
.PHONY: quickstart test install rendering lint

quickstart: rendering .venv/installed
	$(BIN)/python -m launch.collect --config=configs/collect_metaworld.py --resume \
	  --config.path=$(DATA) --config.demonstrations=$(DEMONSTRATIONS)
	$(BIN)/python -m launch.train --config=configs/pi0_metaworld.py --workdir=$(RUN) --resume \
	  --config.data.path=$(DATA) --config.steps=$(STEPS) --config.optimizer.decay_steps=$(STEPS)
	$(BIN)/python -m launch.evaluate --checkpoint=$(RUN) --episodes=$(EPISODES)
	@echo "demonstrations: $(DATA)/contact_sheet.png; metrics: $(RUN)/metrics.jsonl, $(RUN)/curves.png"
	@echo "checkpoint: $(RUN)/checkpoints; evaluation: $(RUN)/{evaluation.json,success.png,episodes.png,episodes.gif}"

test: rendering .venv/installed-dev
	$(BIN)/python -m pytest --numprocesses=auto --maxprocesses=4 --dist=loadfile

lint: .venv/installed-dev
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

install: .venv/installed

# Before anything slow: MuJoCo draws without a screen through EGL.
rendering:
	@$(PYTHON) -c "import ctypes; ctypes.CDLL('libEGL.so.1')" 2>/dev/null || { \
	  echo "error: libEGL.so.1, which draws without a screen, is missing: apt-get install libegl1 libgl1-mesa-dri" >&2; \
	  exit 2; }

.venv/installed: pyproject.toml
	$(PYTHON) -c "import sys; assert sys.version_info >= (3, 11), 'Python 3.11 or later is needed; set PYTHON=...'"
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade uv  # resolves and installs in seconds what takes pip a minute
	$(BIN)/uv pip install --quiet --python $(BIN)/python --editable '.[metaworld,tf]'
	touch $@

.venv/installed-dev: .venv/installed
	$(BIN)/uv pip install --quiet --python $(BIN)/python --editable '.[metaworld,tf,dev]'
	touch $@
