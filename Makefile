# Two commands do everything: `make demo` and `make test`. Each first makes the environment it needs.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
JOBS ?= 3# tests at a time: many wait, so three keep two cores busy
export PIP_DISABLE_PIP_VERSION_CHECK = 1
export ORT_DISABLE_TELEMETRY = 1

.PHONY: demo test results bench lint format clean

# Passes options on: make demo ARGS="--preset mult --broker mosquitto"
demo: $(VENV)/.run
	@$(BIN)/megace2 demo $(ARGS)

test: $(VENV)/.dev mqttjs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/python -m pytest -n $(JOBS) --dist worksteal $(ARGS)

# Runs the paper's experiments and rebuilds docs/results.md: make results ARGS="--data mosi.npz"
results: $(VENV)/.run
	$(BIN)/megace2 experiment all --page docs/results.md $(ARGS)

bench: $(VENV)/.dev brokers
	$(BIN)/python -m benchmarks $(ARGS)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The environment of a user: the locked versions, then this folder itself.
$(VENV)/.run: requirements.lock pyproject.toml
	@echo "Making $(VENV): some 300 MB of packages, once."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -q -r requirements.lock
	@$(BIN)/python -m pip install -q --no-deps --no-build-isolation -e .
	@touch $@

# The same and the tools of development.
$(VENV)/.dev: $(VENV)/.run requirements-dev.lock
	@$(BIN)/python -m pip install -q -r requirements-dev.lock
	@touch $@

# The brokers of the tests from Debian, where they are missing and may be installed.
.PHONY: brokers
brokers:
	@sh deploy/get-debian.sh

# MQTT.js, a foreign client of the broker's tests, where npm is there.
.PHONY: mqttjs
mqttjs: brokers
	@sh deploy/get-mqttjs.sh $(VENV)/mqttjs

clean:
	rm -rf $(VENV) dist build .mypy_cache .ruff_cache .pytest_cache
