# The commands that people need; each sets up .venv by itself. `make help` lists them.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Where the demo writes, and the real data it prefers when MSRF_DATA_DIR holds Kvasir-SEG.
DEMO_DIR ?= demo
# Two busy test processes with one thread each beat one process with two threads on small networks.
TEST_JOBS ?= 2

.PHONY: help demo test test-label lint format bench clean
.DEFAULT_GOAL := help

help:  ## list the commands
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -c 'import torch' 2>/dev/null || $(BIN)/pip install -q 'torch==2.13.0'
	$(BIN)/pip install -q -c constraints.txt -e '.[dev]'
	@touch $(STAMP)

BUNDLE := bundles/msrf_net_polyp_segmentation/configs
# A quarter of the published width on small images, so that two cores are done in minutes.
# One thread: two that share busy cores wait for each other far longer than they gain.
DEMO_SIZE := --network_def::features 8 --network_def::norm_momentum 0.1 --image_size '[96,96]' --patch_size '[96,96]'
# Two hundred updates are too few for an average of the weights, and for strong augmentation.
DEMO_PLAN := --max_epochs 15 --batch_size 4 --learning_rate 0.002 --train_limit 64 --use_ema False \
	--train::random_transforms::4::prob 0.1 --train::random_transforms::5::prob 0.1

demo: $(STAMP)  ## the main job in about five minutes: train, evaluate, segment images, show where the pictures are
	rm -rf $(addprefix $(DEMO_DIR)/,data training evaluation masks models) && mkdir -p $(DEMO_DIR)
	@if [ -n "$$MSRF_DATA_DIR" ] && [ -d "$$MSRF_DATA_DIR/Kvasir-SEG" ]; then \
		set -x; $(BIN)/msrf-monai data prepare kvasir_seg --source "$$MSRF_DATA_DIR/Kvasir-SEG" --out $(DEMO_DIR)/data; \
	else \
		set -x; $(BIN)/msrf-monai data synthesize lesion --out $(DEMO_DIR)/data --count 64,12,16 --size 160x192; \
	fi
	OMP_NUM_THREADS=1 $(BIN)/python -m monai.bundle run training --config_file $(BUNDLE)/train.json \
		--bundle_root $(DEMO_DIR) --dataset_dir $(DEMO_DIR)/data --output_dir $(DEMO_DIR)/training $(DEMO_SIZE) $(DEMO_PLAN)
	OMP_NUM_THREADS=1 $(BIN)/python -m monai.bundle run evaluating --config_file "['$(BUNDLE)/train.json','$(BUNDLE)/evaluate.json']" \
		--bundle_root $(DEMO_DIR) --dataset_dir $(DEMO_DIR)/data --output_dir $(DEMO_DIR)/evaluation $(DEMO_SIZE)
	OMP_NUM_THREADS=1 $(BIN)/python -m monai.bundle run evaluating --config_file $(BUNDLE)/inference.json \
		--bundle_root $(DEMO_DIR) --dataset_dir $(DEMO_DIR)/data/images --output_dir $(DEMO_DIR)/masks --save_overlays True \
		--dataset::data "\$$msrf_monai.data.load_datalist('$(DEMO_DIR)/data', 'test', limit=16)" $(DEMO_SIZE)
	@$(BIN)/python -c "import json; s = json.load(open('$(DEMO_DIR)/evaluation/summary.json')); \
		print(f\"mean Dice of {s['images']} test images: {s['paper']['macro_dsc']:.3f}\")"
	@echo "learning curves     $(DEMO_DIR)/training/curves.png"
	@echo "pictures of the test set, worst to best   $(DEMO_DIR)/evaluation/gallery.png"
	@echo "masks and overlays  $(DEMO_DIR)/masks/"
	@echo "weights             $(DEMO_DIR)/models/model.pt"

test: $(STAMP)  ## the whole test suite with coverage
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(TEST_JOBS) --dist worksteal --cov --cov-report=term

# MONAI Label's environment is made once (4 GB, in the user's cache folder, or where MSRF_LABEL_ENV says) and kept.
# Where it cannot be made these tests are skipped; with MSRF_LABEL_REQUIRED=1 they fail.
test-label: $(STAMP)  ## the tests on a real MONAI Label server, which has an environment of its own
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/label -m 'label and not extended' -n $(TEST_JOBS) --dist loadfile

lint: $(STAMP)  ## ruff, ruff format and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)  ## let ruff mend and format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP)  ## speed as ratios taken in one run
	for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

clean:  ## remove the environment and the demo's results
	rm -rf $(VENV) $(addprefix $(DEMO_DIR)/,data training evaluation masks models)
