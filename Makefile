# Every target works on a bare machine: what is missing is installed into .venv first.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
DEMO := outputs/demo
# Processes of make test.
JOBS ?= 2
# Trainings of make evidence-gpu at once.
GPU_JOBS ?= 4
# Of make chaos.
SEED ?= 0
# Threads that wait must not take a core from the other processes of a test run.
export OMP_WAIT_POLICY ?= passive
export GOMP_SPINCOUNT ?= 1000
export IDD_SEG_CACHE ?= $(CURDIR)/outputs/cache
# Containers often set it. Without stored byte code each process compiles 4,500 files anew: 20 seconds before its work.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup demo evidence evidence-lite evidence-gpu docs test test-full test-cluster lint bench gpu dist clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# --no-compile: what is imported is compiled then, and the packages hold much that never is.
setup: $(VENV)/.installed ## make .venv and install the project with what its tests need

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --upgrade pip
	$(PY) -m pip install --quiet --no-compile --editable '.[dev]'
	touch $@

demo: setup ## distil a small student on generated scenes; ends with a table, a picture and a report (about 8 minutes on 2 cores)
	$(PY) -m idd_seg.train hydra.run.dir=$(DEMO)/student resume=auto
	$(PY) -m idd_seg.train loss=ce hydra.run.dir=$(DEMO)/twin resume=auto
	$(PY) -m idd_seg.compare 'runs={twin: $(DEMO)/twin, student: $(DEMO)/student}' hydra.run.dir=$(DEMO)/comparison
	$(PY) -m idd_seg.report $(DEMO) --out $(DEMO)/report.html

evidence: setup ## all methods side by side on CamVid (IDD_SEG_CAMVID) and generated scenes, small and ours option by option (a day on 2 cores; goes on where it was stopped)
	$(PY) -m idd_seg.study study=camvid_small results=docs/results/camvid_small
	$(PY) -m idd_seg.study study=camvid_quarter results=docs/results/camvid_quarter
	$(PY) -m idd_seg.study study=shapes results=docs/results/shapes
	$(PY) -m idd_seg.study study=shapes_leaders results=docs/results/shapes_leaders
	$(PY) -m idd_seg.study study=camvid_leaders results=docs/results/camvid_leaders
	$(PY) -m idd_seg.study study=camvid_mass results=docs/results/camvid_mass
	$(PY) -m idd_seg.study study=camvid_mbv2 results=docs/results/camvid_mbv2
	$(PY) -m idd_seg.study study=camvid_effb0 results=docs/results/camvid_effb0
	$(PY) -m idd_seg.study study=shapes_ablations results=docs/results/shapes_ablations
	$(PY) -m idd_seg.study study=shapes_fair probe_steps=0 results=docs/results/shapes_fair
	$(MAKE) evidence-lite

# Of evidence-lite: an eighth and half of the labels.
SHORT := study.steps=250 study.every=125 study.teacher_steps=800 study.clock=cpu 'only=[twin,kd+cwd,kd+cwd_27,kd+cwd+rest,twin_as_long]' probe_steps=0

evidence-lite: setup ## from ImageNet weights, a part of the labels: CamVid and LabelMeFacade (IDD_SEG_CAMVID, IDD_SEG_FACADE, IDD_SEG_LITE0 and IDD_SEG_LITE2, docs/unlabelled.md; a day on 2 cores)
	$(PY) -m idd_seg.study study=facade_unlabelled probe_steps=0 results=docs/results/facade_unlabelled
	$(PY) -m idd_seg.study study=camvid_labels study.share=0.25 probe_steps=0 results=docs/results/camvid_labels_quarter
	$(PY) -m idd_seg.study study=camvid_labels_long $(SHORT) study.share=0.125 study.name=camvid_labels_eighth_250 results=docs/results/camvid_labels_eighth
	$(PY) -m idd_seg.study study=camvid_labels_long $(SHORT) study.share=0.5 study.name=camvid_labels_half_250 results=docs/results/camvid_labels_half
	$(PY) -m idd_seg.study study=camvid_short probe_steps=0 results=docs/results/camvid_short
	$(PY) -m idd_seg.study study=camvid_scratch probe_steps=0 results=docs/results/camvid_scratch
	$(PY) -m idd_seg.study study=facade_rare probe_steps=0 results=docs/results/facade_rare

evidence-gpu: setup ## trained for long, and by the defaults alone, with the same variables (GPU_JOBS trainings at once, 4; about an hour of a GPU of the class of an H200, unmeasured)
	$(PY) -m idd_seg.study study=camvid_long_small jobs=$(GPU_JOBS) probe_steps=0 results=docs/results/camvid_long_small
	$(PY) -m idd_seg.study study=camvid_long jobs=$(GPU_JOBS) probe_steps=0 results=docs/results/camvid_long
	$(PY) -m idd_seg.study study=camvid_labels_long_small jobs=$(GPU_JOBS) probe_steps=0 results=docs/results/camvid_labels_quarter_long_small
	$(PY) -m idd_seg.study study=camvid_labels_long jobs=$(GPU_JOBS) probe_steps=0 results=docs/results/camvid_labels_quarter_long
	$(PY) -m idd_seg.study study=facade_defaults jobs=$(GPU_JOBS) probe_steps=0 results=docs/results/facade_defaults_adamw

docs: $(VENV)/.docs ## build docs/ and the reference of src/ as a site with search: build/docs/index.html (half a minute)
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict --quiet

$(VENV)/.docs: $(VENV)/.installed
	$(PY) -m pip install --quiet --editable '.[docs]'
	touch $@

test: setup lint ## the quick tests, with ruff and mypy (about 10 minutes on 2 cores)
	OMP_NUM_THREADS=1 $(PY) -m pytest -m 'not slow' -n $(JOBS) --dist loadfile --no-loadscope-reorder

test-full: setup lint ## all tests, the slow ones too
	$(PY) -m pytest

test-cluster: setup ## runs on a real SLURM of its own, stopped in every way (root; installs Debian's packages; about an hour on 2 cores)
	IDD_SEG_TEST_CLUSTER=1 $(PY) -m pytest tests/cluster

lint: setup ## ruff and mypy
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

bench: setup ## how fast this machine does it, as ratios within one run (about 25 minutes; leave the machine alone)
	$(PY) -m idd_seg.benchmark data device=cpu
	$(PY) -m idd_seg.benchmark eval device=cpu
	$(PY) -m idd_seg.benchmark losses device=cpu
	$(PY) -m idd_seg.benchmark step device=cpu

# With the Python of the machine, unless make setup has made one: a GPU machine may have PyTorch, and no network.
gpu: ## tests, speed, memory, determinism and a short study on a GPU, in 9 minutes (LIMIT=540; DEVICE=cpu TINY=1 tries it; docs/gpu.md)
	PYTHON=$(if $(wildcard $(VENV)/.installed),$(PY),$(PYTHON)) bash scripts/gpu.sh

chaos: setup ## runs killed at 50 moments, a thousand damaged inputs, full disks: a table of what came of it (about 10 minutes; SEED=0)
	$(PY) -m tests.chaos --seed $(SEED)

dist: setup ## build wheel and sdist
	$(PY) -m build

clean: ## remove what was built, and the demo's results; .venv stays
	rm -rf dist build $(DEMO) .pytest_cache .ruff_cache .mypy_cache
