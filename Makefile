# Everything a fresh machine needs: `make train`, `make test`; `make teachers` for configs/distillation/.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
SITE ?= site
CONFIG ?= configs/driving/three_tasks.yaml
# pdoc goes no further than `__all__`, and so is told all packages but the command line's.
DOCUMENTED = lit_mtdqn $(filter-out lit_mtdqn/cli,$(patsubst %/__init__.py,%,$(wildcard lit_mtdqn/*/__init__.py)))

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

# Constructors of named tuples do not say where their annotations come from, which then stay text.
docs: $(VENV)/.installed-dev
	$(BIN)/python -W error::UserWarning -W "ignore:Error parsing type annotation" -m pdoc $(DOCUMENTED) --docformat google --output-directory $(SITE)

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/pip install --quiet --editable '.[box2d,minatar,solvers,export,video,docs,dev]'
	touch $@

# EnvPool takes 0.75 GB; rliable needs an older pandas.
$(VENV)/.installed-slow: $(VENV)/.installed-dev
	$(BIN)/pip install --quiet --editable '.[envpool,rliable]'
	touch $@
