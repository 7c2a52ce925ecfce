# Each target installs what it needs. The Python environment is .venv/, the data of `make run` is .gaia/.

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
TESTS ?= tests
# For the oldest Python supported: 3.11.0 needs what later ones have built in.
LOCK := $(BIN)/uv pip compile --quiet --upgrade --python-version 3.11.0 --generate-hashes --no-header

# Settings may be given to make as well: make run PORT=8080 NODES=3 DEMO=quiet, make test PG=16
export PORT NODES DEMO PG

.PHONY: run test soak bench check clean venv lock

run: venv
	@exec $(BIN)/python manage.py up

test: venv
	@sh .ci/browser
	@$(BIN)/python -m pytest -n 2 --dist loadgroup --cov --cov-report= $(TESTS)
	@$(BIN)/python -m coverage report --fail-under=85
	@$(BIN)/python -m coverage report --fail-under=98 --include='coordination/machine/*,usability/detection/*'

# 20,000 histories of the simulated cluster, an hour or two; SEEDS=A-B plays others.
SEEDS ?= 0-19999
soak: venv
	@GAIA_SIMULATION_SEEDS=$(SEEDS) $(BIN)/python -m pytest -q -n 2 tests/log/test_simulation.py

bench: venv
	@$(BIN)/python -m bench

check: venv
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/python -m pytest -q tests/house/test_doors.py

venv: $(INSTALLED)

$(INSTALLED): requirements.txt requirements-dev.txt
	@sh .ci/venv $(PYTHON)

# Pins every dependency with its hashes, from the direct ones in *.in.
lock: venv
	@$(LOCK) --output-file=requirements.txt requirements.in
	@$(LOCK) --output-file=requirements-dev.txt requirements-dev.in

clean:
	@rm -rf .venv .gaia .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage .coverage.* htmlcov
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
