# Strata: from a PyTorch ResNet to an INT8 TensorRT engine, proven layer by layer.
# Every stage is a file target: a changed input remakes only what follows from it.

DEPTH     ?= 50
WEIGHTS   ?= fashion-mnist
IMAGES    ?= 512
PRECISION ?= int8
METHOD    ?= auto
BATCH     ?= 1,8,32
FLAVOUR   ?= auto
OUT       ?= build/resnet$(DEPTH)
PYTHON    ?= python3
# More options of `strata train` and `strata export`, such as --width 16 or --shortcut none.
MODEL     ?=

# ImageNet's weights need ImageNet's images: no default could be right for them.
ifneq ($(filter imagenet%,$(WEIGHTS)),)
DATA      ?=
TEST      ?=
else
DATA      ?= fashion-mnist:train
TEST      ?= fashion-mnist:test
endif

# make splits a text at its blanks, and an empty OUT would be the root of the disk.
$(foreach name,DEPTH WEIGHTS OUT,$(if $(filter-out 1,$(words $($(name)))),$(error $(name)='$($(name))': give one word, without blanks)))
$(if $(filter-out int8 fp16 fp32,$(or $(PRECISION),none)),$(error PRECISION=$(PRECISION): choose int8, fp16 or fp32))

STRATA  := .venv/bin/strata
STAMPS  := $(OUT)/.options

# `fashion-mnist` is trained here; a path is a file that model.onnx depends on; any other
# name (imagenet, random:0) is left to `strata export`.
ifeq ($(WEIGHTS),fashion-mnist)
WEIGHTS_FILE := build/weights/fashion-mnist-resnet$(DEPTH).safetensors
else
WEIGHTS_FILE := $(wildcard $(WEIGHTS))
endif

ifeq ($(PRECISION),fp32)
CANDIDATE := $(OUT)/optimized.onnx
REFERENCE := $(OUT)/model.onnx
else
CANDIDATE := $(OUT)/$(PRECISION).onnx
REFERENCE := $(OUT)/optimized.onnx
endif
ENGINE := $(OUT)/$(PRECISION).engine

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup export weights bundle report test test-slow test-ray test-soak test-gpu check check-baseline check-model lint format degradation bench-peers bench-calibration bench-compare bench-compare-large bench-trt clean FORCE

help: ## say what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-20s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@echo
	@echo "  variables: DEPTH=$(DEPTH) WEIGHTS=$(WEIGHTS) PRECISION=$(PRECISION) METHOD=$(METHOD)"
	@echo "             IMAGES=$(IMAGES) BATCH=$(BATCH) FLAVOUR=$(FLAVOUR) OUT=$(OUT)"
	@echo "             DATA=$(DATA) TEST=$(TEST)"

# ------------------------------------------------------------------------------ the stages

# Run a stage and note its seconds for the summary: $(call stage,NAME,COMMAND)
define stage
	@echo "── $(1)" >&2
	@mkdir -p $(@D) $(OUT)/.times
	@start=$$(date +%s%N) && $(2) && end=$$(date +%s%N) && \
	  echo "$$(( (end - start) / 1000000 ))" | sed 's/\([0-9]\{3\}\)$$/.\1/' > $(OUT)/.times/$(1)
endef

# A file that changes when the options of a stage change: $(call options,STAGE,TEXT)
define options
$(STAMPS)/$(1): FORCE
	@mkdir -p $$(@D); echo '$(2)' | cmp -s - $$@ || echo '$(2)' > $$@
endef
$(eval $(call options,export,$(DEPTH) $(WEIGHTS) $(MODEL)))
$(eval $(call options,calibrate,$(DATA) $(IMAGES)))
$(eval $(call options,quantize,$(METHOD) $(DATA)))
$(eval $(call options,build,$(BATCH) $(FLAVOUR)))
$(eval $(call options,compare,$(PRECISION) $(TEST) $(DATA)))
FORCE:

export: $(OUT)/optimized.onnx $(ENGINE) $(OUT)/report.html $(OUT)/accuracy.json ## PyTorch to a TensorRT engine, compared and evaluated
	@$(STRATA) summary $(OUT)

weights: $(WEIGHTS_FILE) ## train the reference network (or check WEIGHTS)

build/weights/fashion-mnist-resnet$(DEPTH).safetensors: | .venv/.ready
	@mkdir -p $(@D)
	$(call stage,train,$(STRATA) train --depth $(DEPTH) $(MODEL) -o $@)

$(OUT)/model.onnx: $(WEIGHTS_FILE) $(STAMPS)/export | .venv/.ready
	$(call stage,export,$(STRATA) export --depth $(DEPTH) $(MODEL) --weights $(or $(WEIGHTS_FILE),$(WEIGHTS)) -o $@)

$(OUT)/optimized.onnx: $(OUT)/model.onnx | .venv/.ready
	$(call stage,optimize,$(STRATA) optimize $< -o $@)

$(OUT)/statistics.npz: $(OUT)/optimized.onnx $(STAMPS)/calibrate | .venv/.ready
	$(call stage,calibrate,$(STRATA) calibrate $< --data '$(DATA)' --images $(IMAGES) -o $@)

$(OUT)/int8.onnx $(OUT)/calibration.json &: $(OUT)/optimized.onnx $(OUT)/statistics.npz $(STAMPS)/quantize | .venv/.ready
	$(call stage,quantize,$(STRATA) quantize $< --statistics $(OUT)/statistics.npz --method $(METHOD) --data '$(DATA)' -o $(OUT)/int8.onnx)

$(OUT)/fp16.onnx: $(OUT)/optimized.onnx | .venv/.ready
	$(call stage,quantize,$(STRATA) quantize $< --precision fp16 -o $@)

$(ENGINE) $(ENGINE).json &: $(CANDIDATE) $(STAMPS)/build | .venv/.ready
	$(call stage,build,$(STRATA) build $< --flavour $(FLAVOUR) --batch $(BATCH) -o $(ENGINE))

# After the engine and the evaluation: the page shows both. Where a layer is at fault (7) the table
# and the page that say so are made all the same, and the summary, which comes last, fails.
COMPARISON := $(OUT)/layers.json $(OUT)/report.html
$(COMPARISON) &: $(REFERENCE) $(CANDIDATE) $(ENGINE) $(if $(TEST),$(OUT)/accuracy.json) $(STAMPS)/compare | .venv/.ready
	$(call stage,compare,{ $(STRATA) compare $(REFERENCE) $(CANDIDATE) --data '$(or $(TEST),$(DATA))' --json $(OUT)/layers.json --html $(OUT)/report.html || test $$? -eq 7; })

# --fast: INT8 by the float kernels that ONNX Runtime is quickest with; only float rounding differs.
# With no labelled set (TEST=) there is nothing to evaluate, and the summary says so.
$(OUT)/accuracy.json: $(REFERENCE) $(CANDIDATE) $(STAMPS)/compare | .venv/.ready
ifneq ($(TEST),)
	$(call stage,evaluate,$(STRATA) evaluate --fast $(REFERENCE) $(CANDIDATE) --data '$(TEST)' --json $@)
endif

BUNDLE := $(OUT)/$(notdir $(OUT)).strata.zip

bundle: $(BUNDLE) ## what an edge machine or a server needs, in one file

$(BUNDLE): $(CANDIDATE) $(ENGINE) $(OUT)/layers.json $(OUT)/accuracy.json
	$(call stage,bundle,$(STRATA) bundle $(OUT) --model $(CANDIDATE) -o $@)

report: $(OUT)/report.html ## the page to look at, the worst layers of the candidate, and the summary
	@$(STRATA) compare $(REFERENCE) $(CANDIDATE) --data '$(or $(TEST),$(DATA))'
	@$(STRATA) summary $(OUT)

# ------------------------------------------------------------------------- the environment

setup: .venv/.ready ## make .venv with the locked packages

# torch goes first: its pinned version is the CPU build the rest was resolved against.
.venv/.ready: requirements.lock pyproject.toml
	@echo "── setup" >&2
	$(PYTHON) -m venv .venv
	.venv/bin/pip install --quiet --disable-pip-version-check $$(grep '^torch==' requirements.lock)
	.venv/bin/pip install --quiet --disable-pip-version-check -r requirements.lock
	.venv/bin/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

# ----------------------------------------------------------------------------- development

test: .venv/.ready ## the tests (no GPU needed)
	.venv/bin/pytest

test-slow: .venv/.ready ## the tests that take minutes
	.venv/bin/pytest -m slow

test-ray: .venv/.ready ## the tests that need Ray, which is installed first
	.venv/bin/pip install --quiet --disable-pip-version-check -c requirements.lock -e '.[ray]'
	.venv/bin/pytest -m ray

test-soak: .venv/.ready ## the tests that look for counterexamples, for 50 times as long
	.venv/bin/pytest -m 'hypothesis and not gpu and not slow and not ray' --hypothesis-profile soak

test-gpu: .venv/.ready ## the tests that need a GPU
	.venv/bin/pytest -m gpu

# The whole chain on the small network of tests/accuracy, always anew: its code is what is tested.
CHECK         ?= build/check
CHECK_WEIGHTS ?= tests/accuracy/resnet18-width16.safetensors
CHECK_HELD    := tests/accuracy/baseline.json
# More options of `strata check`, such as --images 2000.
CHECK_OPTIONS ?=
CHECK_MODELS  := $(CHECK)/optimized.onnx $(CHECK)/int8.onnx

define check_models
	@mkdir -p $(CHECK)
	@$(STRATA) export --depth 18 --width 16 --weights $(CHECK_WEIGHTS) -o $(CHECK)/model.onnx
	@$(STRATA) optimize $(CHECK)/model.onnx -o $(CHECK)/optimized.onnx
	@$(STRATA) calibrate $(CHECK)/optimized.onnx --images 256 -o $(CHECK)/statistics.npz
	@$(STRATA) quantize $(CHECK)/optimized.onnx --statistics $(CHECK)/statistics.npz --method mse --full-range on -o $(CHECK)/int8.onnx
endef

check: .venv/.ready ## the accuracy gate, on the small network of tests/accuracy
	$(check_models)
	@$(STRATA) check $(CHECK_MODELS) --baseline $(CHECK_HELD) --other-weights --json $(CHECK)/check.json \
	  --junit $(CHECK)/junit.xml --markdown $(CHECK)/check.md $(CHECK_OPTIONS)

check-baseline: .venv/.ready ## measure anew what make check holds (YES=--yes does not ask)
	$(check_models)
	@$(STRATA) baseline $(CHECK_MODELS) -o $(CHECK_HELD) --update $(YES)

check-model: .venv/.ready ## train the small network anew; make check-baseline follows
	$(STRATA) train --depth 18 --width 16 --passes 160000 -o $(CHECK_WEIGHTS)

lint: .venv/.ready ## ruff and mypy
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

format: .venv/.ready ## put the code in its usual form
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

degradation: .venv/.ready ## plain against residual networks: the reason for ResNet, measured
	.venv/bin/python bench/degradation.py -o build/degradation

# Strata's calibration against other tools', each in an environment made from its lock file.
# BENCH takes more options of the benchmark, such as --rounds 5; its folder keeps the tables.
BENCH    ?=
PEERS    := build/peers/modelopt/.ready build/peers/nncf/.ready
BENCHING := build/bench/resnet$(DEPTH)
BENCH_224 := build/bench/resnet$(DEPTH)-224

bench-peers: $(OUT)/optimized.onnx $(PEERS) | .venv/.ready ## quality, time and memory of INT8 by Strata and by other tools
	@.venv/bin/python -m bench.calibration $< --data '$(DATA)' --images $(IMAGES) --test '$(TEST)' --method $(METHOD) --held-out 96 -o $(BENCHING) $(BENCH)

bench-calibration: $(BENCH_224)/optimized.onnx | .venv/.ready ## time and memory of calibration at 224×224, against plain inference
	@.venv/bin/python -m bench.calibration $< --data '$(DATA)' --tools strata --flat 64,1024 --method $(METHOD) -o $(BENCH_224) $(BENCH)

$(BENCH_224)/model.onnx: $(WEIGHTS_FILE) | .venv/.ready
	@mkdir -p $(@D)
	$(STRATA) export --depth $(DEPTH) $(MODEL) --weights $(or $(WEIGHTS_FILE),$(WEIGHTS)) --preprocess imagenet-v1 -o $@

bench-compare: $(BENCH_224)/optimized.onnx $(BENCH_224)/int8.onnx | .venv/.ready ## time and memory of strata compare at 224×224, against plain inference and Polygraphy
	@.venv/bin/python -m bench.compare $(BENCH_224)/optimized.onnx $(BENCH_224)/int8.onnx --data '$(DATA)' -o $(BENCH_224) $(BENCH)

# Random weights do here: the numbers of a large image are not asked for, only their memory.
BENCH_LARGE := build/bench/resnet$(DEPTH)-1024x2048

bench-compare-large: $(BENCH_LARGE)/optimized.onnx $(BENCH_LARGE)/int8.onnx | .venv/.ready ## its memory at 1024×2048, two images a batch
	@.venv/bin/python -m bench.compare $(BENCH_LARGE)/optimized.onnx $(BENCH_LARGE)/int8.onnx --data '$(DATA)' -o $(BENCH_LARGE) \
	  --images 2 --batch 2 --rounds 0 --no-polygraphy $(BENCH)

$(BENCH_LARGE)/model.onnx: | .venv/.ready
	@mkdir -p $(@D)
	$(STRATA) export --depth $(DEPTH) $(MODEL) --weights random:0 --preprocess imagenet-v1 --size 1024x2048 -o $@

build/bench/%/optimized.onnx: build/bench/%/model.onnx
	$(STRATA) optimize $< -o $@

build/bench/%/int8.onnx: build/bench/%/optimized.onnx
	$(STRATA) calibrate $< --data '$(DATA)' --images 16 -o $(@D)/int8-statistics.npz
	$(STRATA) quantize $< --statistics $(@D)/int8-statistics.npz -o $@

BENCH_TRT := build/bench/trt

bench-trt: $(OUT)/int8.onnx | .venv/.ready ## engines built without a GPU, TensorRT's networks on the CPU: time, memory, agreement
	@.venv/bin/python -m bench.trt -o $(BENCH_TRT) --trained $(OUT) --data '$(TEST)' $(BENCH)

# torch goes first, as in .venv; the rest is complete, and ModelOpt asks for more than it needs.
build/peers/%/.ready: bench/peers/%.txt
	@echo "── environment $*" >&2
	$(PYTHON) -m venv build/peers/$*
	build/peers/$*/bin/pip install --quiet --disable-pip-version-check $$(grep '^torch==' $< || echo pip)
	build/peers/$*/bin/pip install --quiet --disable-pip-version-check --no-deps -r $<
	@touch $@

clean: ## remove everything that was made (the trained weights stay; build/weights holds them)
	rm -rf $(filter-out build/weights,$(wildcard build/*)) .mypy_cache .ruff_cache .pytest_cache
