# make demo   the whole story on this machine      make test   every test, as CI runs them
# make check  what a commit must pass, under 60 s   make lock   write the locks anew
# make bench  the figures of docs/benchmarks.md      make soak   random stories in random weather (SECONDS=600 SEED=…)
.PHONY: demo test check bench soak format lock clean
.DELETE_ON_ERROR:

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
COMPILE = $(BIN)/pip-compile --quiet --generate-hashes --allow-unsafe --strip-extras --no-emit-options --no-header \
  --no-emit-index-url --no-emit-trusted-host --no-emit-find-links

demo: $(READY)
	@$(BIN)/python -m sandbox demo

# Three workers on two cores. Tests that boot real servers come first, so that none is waited for at the end.
test: $(READY)
	@sh tests/in_memory.sh $(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder

check: $(READY)
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/shellcheck sandbox/prepare.sh sandbox/hosts/scripts/*.sh tests/in_memory.sh
	@$(BIN)/shellcheck --shell=sh bot/workstation/files/*.sh
	@$(BIN)/lint-imports --no-cache > build/imports.log || { cat build/imports.log; exit 1; }
	@$(BIN)/pytest tests/unit --quiet -n 2

bench: $(READY)
	@$(BIN)/python -m tests.bench

SECONDS ?= 600
soak: $(READY)
	@$(BIN)/python -m tests.soak --seconds $(SECONDS) $(if $(SEED),--seed $(SEED))

format: $(READY)
	@$(BIN)/passport documents template > build/template && mv build/template deploy/passport-documents.json
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

lock: $(READY)
	$(COMPILE) -o requirements.lock pyproject.toml
	$(COMPILE) --extra dev -c requirements.lock -o requirements-dev.lock pyproject.toml

$(READY): requirements-dev.lock pyproject.toml sandbox/prepare.sh
	@sh sandbox/prepare.sh
	@mkdir -p build
	@test -x $(BIN)/python || python3 -m venv $(VENV)
	@echo "Installing Python packages into $(VENV) (once, about a minute) …"
	@$(BIN)/pip install -qq --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@$(BIN)/pip install -qq --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

clean:
	rm -rf $(VENV) build
