# Two commands do all the set-up on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Tests wait more than they compute, so there are more workers than cores.
TEST_WORKERS ?= 4
export PIP_DISABLE_PIP_VERSION_CHECK = 1
# Tests start hundreds of processes; each would compile the package again without its bytecode.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo demo-collector demo-service test engines lint matrix backends bench exits fuzz mutants clean

demo: $(VENV)/.runnable  ## index the running Python's standard library, no server needed
	$(BIN)/python -m examples.stdlib_index --out demo-out

demo-collector: $(VENV)/.installed backends  ## the same through the real Collector, Jaeger and Prometheus
	$(BIN)/python -m examples.through_collector --out demo-out

demo-service: $(VENV)/.serving  ## a service, what it depends on broken, and the alerts; servers if they are there
	$(BIN)/python -m examples.service --out demo-out

test: $(VENV)/.installed  ## every test; those of real servers need `make backends` (CI has them)
	$(BIN)/python -m pytest -n $(TEST_WORKERS) --dist loadgroup -m "not engines" $(PYTEST_ARGS)

engines: $(VENV)-engines/.installed  ## the tests of Ray, PySpark (which needs Java), RabbitMQ, Airflow, Prefect and Dagster
	.ci/backends/rabbitmq.sh
	$(VENV)-engines/bin/python -m pytest -m engines -n 2 --dist loadgroup $(PYTEST_ARGS)

lint: $(VENV)/.linted  ## ruff, mypy --strict, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

matrix:  ## Python 3.10 to 3.13, the oldest and the newest OpenTelemetry
	$(PYTHON) .ci/matrix.py

backends:  ## build the real servers once, outside the checkout
	$(PYTHON) .ci/backends/build.py

bench: $(VENV)-bench/.installed  ## what a call costs, beside its peers
	$(VENV)-bench/bin/python -m benchmarks
	$(VENV)-bench/bin/python -m benchmarks.queues
	$(VENV)-bench/bin/python -m benchmarks.collecting
	$(VENV)-bench/bin/python -m benchmarks.contention
	@which valgrind >/dev/null && $(VENV)-bench/bin/python -m benchmarks.instructions || echo "no valgrind: instructions are not counted"

exits:  ## end 1,000 programs that record, with a silent collector, on the newest Python
	$(PYTHON) .ci/exits.py

fuzz: $(VENV)/.installed  ## 10,000 random programs of the public API, with hostile values
	OPM_FUZZ=10000 $(BIN)/python -m pytest -q tests/system/faults/test_fuzz.py

mutants: $(VENV)/.mutable  ## change the code at random places and see whether a test fails
	$(BIN)/python .ci/mutation/mutants.py $(MUTANTS_ARGS)

clean:
	rm -rf $(VENV) $(VENV)-bench $(VENV)-engines demo-out .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"

$(VENV)/.runnable: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/.serving: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable . --group service
	@touch $@

$(VENV)/.installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable ".[all,logs,file-config]" --group test --group engines --group dashboards
	@touch $@

$(VENV)-engines/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)-engines
	$(VENV)-engines/bin/python -m pip install --quiet --upgrade "pip>=25.1"
	$(VENV)-engines/bin/python -m pip install --quiet --editable ".[all]" --group test --group engines --group clusters
	@touch $@

$(VENV)-bench/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)-bench
	$(VENV)-bench/bin/python -m pip install --quiet --upgrade "pip>=25.1"
	$(VENV)-bench/bin/python -m pip install --quiet --editable ".[instrument,cachetools,cli]" --group bench
	@touch $@

$(VENV)/.mutable: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --group mutants
	@touch $@

$(VENV)/.linted: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --group lint
	@touch $@
