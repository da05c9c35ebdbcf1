# The environment .venv is made from requirements.lock before the first target that needs it.
# Another Python than the first suitable one: make book PYTHON=/path/to/python3.12

PYTHON ?=
WORKERS ?= 2
PORT ?= 8000
LOCK_OPTIONS ?=
RUN := .venv/bin/python

.DEFAULT_GOAL := help
.PHONY: help book class teacher test notebooks lint serve clean lock environment

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-12s%s\n", $$1, $$2 }' Makefile

book: environment ## build the book into _build/html (run every page, fail on any warning)
	@$(RUN) -m tools.build

class: environment ## build the class edition, without solutions, into _build/class
	@$(RUN) -m tools.editions class

teacher: environment ## build the teacher's edition, solutions open, into _build/teacher
	@$(RUN) -m tools.editions teacher

test: environment ## run the whole test suite, the notebooks' stored outputs included
	@$(RUN) -m pytest tests notebooks/exercises --nbval -n $(WORKERS) \
	  --dist loadfile --no-loadscope-reorder

notebooks: environment ## run the changed sources in book/ and store them in notebooks/
	@$(RUN) -m tools.notebooks
	@$(RUN) -m tools.scoreboard
	@$(RUN) -m tools.sources

lint: environment ## check style and formatting of the code
	@$(RUN) -m ruff check .
	@$(RUN) -m ruff format --check .

serve: book ## build the book and show it at http://127.0.0.1:8000 (PORT=... for another port)
	@echo "The book is at http://127.0.0.1:$(PORT) (stop with Ctrl-C)"
	@$(RUN) -m http.server --bind 127.0.0.1 --directory _build/html $(PORT)

clean: ## remove what was built (the environment .venv stays)
	rm -rf _build build .pytest_cache .ruff_cache .hypothesis *.egg-info
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

lock: ## pin all versions anew from pyproject.toml (LOCK_OPTIONS=--upgrade for the newest)
	@command -v uv >/dev/null || { echo "make lock needs uv: install it with pip install uv"; exit 1; }
	UV_CUSTOM_COMPILE_COMMAND="make lock" uv pip compile pyproject.toml --all-extras --universal \
	  --python-version 3.11 --fork-strategy fewest --no-emit-index-url --no-annotate --quiet \
	  $(LOCK_OPTIONS) --output-file requirements.lock

# Any Python 3 can look for a suitable one; nothing happens when .venv fits the lock.
environment:
	@for python in "$(PYTHON)" python3 python3.13 python3.12 python3.11 python; do \
	  if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 6))' >/dev/null 2>&1; then \
	    exec "$$python" tools/bootstrap.py "$(PYTHON)"; \
	  fi; \
	done; \
	echo "This course needs Python 3.11 to 3.13, but no Python was found: install Python 3.11, 3.12 or 3.13, or name one: make book PYTHON=/path/to/python3.12" >&2; \
	exit 1
