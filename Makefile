# Everything a fresh machine needs: `make train`, `make test`; `make teachers` for configs/distillation/.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
CONFIG ?= configs/driving/three_tasks.yaml

.PHONY: train teachers test test-slow check docs clean

train: $(VENV)/.installed
	$(BIN)/lit-mtdqn fit --config $(CONFIG)

teachers: $(VENV)/.installed
	$(BIN)/lit-mtdqn sequence configs/sequences/teachers.yaml --run_dir runs/teachers

test: check
	$(BIN)/pytest -n 2 --dist loadfile

test-slow: $(VENV)/.installed-slow
	$(BIN)/pytest -m slow

check: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

docs: $(VENV)/.installed-dev
	$(BIN)/python -W error -m pdoc lit_mtdqn --docformat google --output-directory site

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/pip install --quiet --editable '.[box2d,minatar,solvers,export,video,docs,dev]'
	touch $@

# EnvPool's tests are among the slow ones, because it takes 0.75 GB.
$(VENV)/.installed-slow: $(VENV)/.installed-dev
	$(BIN)/pip install --quiet --editable '.[envpool]'
	touch $@
