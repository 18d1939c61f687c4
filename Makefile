PYTHON_BIN := .venv/bin
# Tiny models do not gain from a second thread, and two threads on busy cores are slower than one.
export OMP_NUM_THREADS ?= 1

.DEFAULT_GOAL := help
.PHONY: help setup demo test check format wheel default-model shipped-model target-table

help:
	@echo 'make demo     set everything up and find people in two pictures'
	@echo 'make test     set everything up and run the tests'
	@echo 'make check    format, lint and types'
	@echo 'make format   format and fix what ruff can fix'
	@echo 'make wheel    build dist/posesdk-*.whl'
	@echo 'make setup    system packages, .venv and Python packages'
	@echo 'make default-model CHECKPOINT=FILE DATA=FOLDER   measure and pack a checkpoint as the default model'
	@echo 'make shipped-model NAME=dac-nano CHECKPOINT=FILE DATA=FOLDER   the same for another model that ships'
	@echo 'make target-table DATA=FOLDER   convert the default model for every target and measure every variant'

setup:
	@scripts/setup.sh

demo: setup
	$(PYTHON_BIN)/python samples/demo.py

# Tests of a file share what they set up, so files go to processes as a whole.
test: setup
	$(PYTHON_BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

check: setup
	$(PYTHON_BIN)/ruff format --check .
	$(PYTHON_BIN)/ruff check .
	$(PYTHON_BIN)/mypy

format: setup
	$(PYTHON_BIN)/ruff format .
	$(PYTHON_BIN)/ruff check --fix .

wheel: setup
	$(PYTHON_BIN)/python -m build --wheel --no-isolation

# Thresholds come from training photos, figures from photos that were never trained on.
MODELS := sdk/posesdk/models
NAME ?= default
default-model shipped-model: setup
	mkdir -p $(MODELS) build
	$(PYTHON_BIN)/posesdk-train calibrate $(CHECKPOINT) --annotations $(DATA)/coco_train/keypoints_b.json \
		--images $(DATA)/coco_train/images --no-people $(DATA)/no_people_train/images --half \
		--output $(MODELS)/$(NAME).safetensors
	$(PYTHON_BIN)/posesdk-train evaluate $(MODELS)/$(NAME).safetensors --annotations $(DATA)/coco_eval/keypoints.json \
		--images $(DATA)/coco_eval/images --no-people $(DATA)/no_people_eval/images --accuracy build/$(NAME)-accuracy.json
	$(PYTHON_BIN)/posesdk-convert $(MODELS)/$(NAME).safetensors --target onnx --accuracy build/$(NAME)-accuracy.json \
		--report build/$(NAME)-report --output $(MODELS)/$(NAME).posebundle
	$(PYTHON_BIN)/posesdk selftest $(NAME)

# Sizes, accuracy, shifts and times of all variants: build/targets-report/report.md.
TARGETS := cpu:fp32,cpu:fp16,cpu:bf16,cpu:int8,onnx:int8,mobile:fp32,mobile:fp16,mobile:int8,jetson:fp16,jetson:int8,cuda:fp16,cuda:int8
target-table: setup
	mkdir -p build
	OMP_NUM_THREADS=$(shell nproc) $(PYTHON_BIN)/posesdk-convert default --target $(TARGETS) \
		--calibration $(DATA)/coco_train/keypoints_a.json --evaluate $(DATA)/coco_eval/keypoints.json \
		--output build/targets.posebundle
