VENV ?= .venv
PYTHON ?= python3
.PHONY: setup
setup: $(VENV)/.ready
$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(VENV)/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[all]' --group dev
	touch $@
