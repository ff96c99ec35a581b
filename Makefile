# make demo: set up everything, remember a folder of documents, answer from memory in a second process.
# make scale-demo: one memory on several processes: a Postgres server, a double of S3, two workers, two servers.
# make test: set up everything, check (lint, types, contracts, docs) and run all tests, the real model included.
# make test-slow: the long form of the tests that kill, damage, load and fuzz.
# make test-lowest, make test-newest: the tests of every extra with the lowest and the newest versions that it allows.
# make docs: the manual, in build/manual.
# make pages: what of the manual is generated (commands, layers), after a change of the code.
# make wheel-test: install the built wheel and sdist in bare environments, and run `cmt` there.
# make bench: the timings of examples/benchmarks.

PYTHON ?= python3
VENV ?= .venv
TORCH ?= torch==2.13.0
BIN := $(VENV)/bin
DEMO := .demo

# Python keeps what it compiled, though an image says that it shall not: tests start hundreds of processes.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo scale-demo test test-slow test-lowest test-newest docs pages wheel-test check unit integration bench clean
.DELETE_ON_ERROR:

# torch comes first and by exact version: a looser request may take a build with several GB of CUDA libraries.
$(VENV)/torch.done:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet "$(TORCH)"
	@touch $@

$(VENV)/run.done: $(VENV)/torch.done pyproject.toml
	$(BIN)/python -m pip install --quiet -e ".[files]"
	@touch $@

# With all frameworks there is much to resolve: pip takes minutes for it, uv seconds.
$(VENV)/dev.done: $(VENV)/run.done
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python -e ".[all,dev]"
	@touch $@

demo: $(VENV)/run.done
	@$(BIN)/cmt model pull
	@echo "== first process: remember examples/documents"
	@$(BIN)/cmt add -m ./$(DEMO)/memory examples/documents
	@echo "== second process: answer from memory"
	@$(BIN)/python examples/demo.py ./$(DEMO)/memory examples/demo_questions.txt

scale-demo: $(VENV)/dev.done
	@$(BIN)/cmt model pull
	@$(BIN)/python examples/scale_demo.py

check: $(VENV)/dev.done
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python tests/docs/retired_words.py
	mkdir -p build/names && ln -sfn ../../cli build/names/cmt_cli && ln -sfn ../../adapters build/names/cmt_adapters
	$(BIN)/mypy
	$(BIN)/lint-imports

# Tiny models: a second thread only waits, a second process tests.
unit: $(VENV)/dev.done
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --dist worksteal

# Two processes of one thread do more than one of two; a file's tests share a memory. Other files are not even imported.
integration: $(VENV)/dev.done
	$(BIN)/cmt model pull
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile -m 'model and not slow' $$(grep -rl --include='test_*.py' 'mark\.model' tests)

test: check unit integration

# Guided fuzzing needs atheris, which has wheels for some systems and Pythons only.
test-slow: $(VENV)/dev.done
	-$(BIN)/uv pip install --quiet --python $(BIN)/python "atheris>=3.0"
	$(BIN)/cmt model pull
	$(BIN)/pytest -m slow

# Each extra in an environment of its own, in build/bounds: half an hour on two cores, some 2 GB.
test-lowest test-newest: test-%: $(VENV)/dev.done
	$(BIN)/python tests/bounds.py $* --torch "$(TORCH)"

$(VENV)/docs.done: $(VENV)/dev.done
	$(BIN)/uv pip install --quiet --python $(BIN)/python -e ".[docs]"
	@touch $@

# Material for MkDocs prints a notice about its own future unless this variable is set.
docs: $(VENV)/docs.done
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

pages: $(VENV)/dev.done
	$(BIN)/python tests/docs/cli_pages.py
	$(BIN)/python docs/generate.py

wheel-test: $(VENV)/dev.done
	$(BIN)/cmt model pull
	$(BIN)/python tests/wheel.py build/wheel

bench: $(VENV)/dev.done
	$(BIN)/cmt model pull
	$(BIN)/python examples/benchmarks/bench.py --out examples/benchmarks/bench.md

clean:
	rm -rf $(VENV) $(DEMO) build *.egg-info
