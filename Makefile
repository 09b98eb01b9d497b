# Which commands does a developer run? This file is the only list of them; `make` alone prints it.
# Everything is built into .venv and target/; nothing outside the checkout is changed.

PYTHON ?= python3
BIN := .venv/bin
PIP := -m pip --disable-pip-version-check --quiet

# Exactly these versions, by hash, and nothing that is not listed; pyproject.toml says what is admitted, `make lock` picks.
# Only wheels: what has to be built first would fetch tools that nobody listed.
LOCKED := python/locked
INSTALL := $(PIP) install --only-binary :all: --require-hashes --requirement

# pyo3's build script is told one interpreter by every target, or each would rebuild it for its own.
export PYO3_PYTHON := $(CURDIR)/$(BIN)/python

HOST := $(shell rustc -vV 2>/dev/null | sed -n 's/^host: //p')
ARCHITECTURE := $(patsubst x86_64,amd64,$(patsubst aarch64,arm64,$(firstword $(subst -, ,$(HOST)))))
HELPER := target/$(HOST)/helper/bot-bottle-sidecar

EGRESS := target/$(HOST)/release/bot-bottle-egress

# push is in no list of python/locked, because http_ece, which it needs, comes as source alone: only `make test-latest`
# builds it and runs tests/notify/test_push.py.
EXTRAS := supervise serve git-gate tui push

RUST_SOURCES := .cargo/config.toml Cargo.toml Cargo.lock $(shell find rust migrations -name '*.rs' -o -name '*.sql' -o -name Cargo.toml)

.DEFAULT_GOAL := help
.PHONY: help build man demo browser test test-latest lint lock bench bench-full sdist-check wheel dist dist-check clean tools
.DELETE_ON_ERROR:

help: ## print this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1|\2/p' $(MAKEFILE_LIST) | column -t -s '|'

build: $(BIN)/.extension $(BIN)/bot-bottle-sidecar $(BIN)/bot-bottle-egress ## build everything into .venv: the programs are in .venv/bin

man: $(BIN)/.extension ## the pages of the manual, in target/man (man -M target/man bot-bottle)
	$(BIN)/python -m bot_bottle.cli.man target/man/man1

demo: build ## play a bottle, its agent and its operator with real processes in a throw-away root
	$(BIN)/python examples/demo.py

test: build browser ## all tests; those of containers where a Docker Engine can be had
	cargo test --workspace --locked --quiet
	$(BIN)/python -m pytest

test-latest: build browser ## Python's tests with the newest version of every package, in .venv-latest, and which of them moved
	rm -rf .venv-latest && $(PYTHON) -m venv .venv-latest
	$(BIN)/uv pip install --system-certs --quiet --python .venv-latest --requirement pyproject.toml $(EXTRAS:%=--extra %) --group dev
	VIRTUAL_ENV='$(CURDIR)/.venv-latest' PIP_NO_INDEX=1 $(BIN)/maturin develop --release --locked --quiet
	cp -p $(BIN)/bot-bottle-sidecar $(BIN)/bot-bottle-egress .venv-latest/bin/
	$(BIN)/uv pip freeze --quiet --python .venv --exclude-editable >.venv-latest/locked
	$(BIN)/uv pip freeze --quiet --python .venv-latest --exclude-editable >.venv-latest/newest
	.venv-latest/bin/python -m pytest; passed=$$?; \
	diff .venv-latest/locked .venv-latest/newest | sed -n 's/^</locked:/p; s/^>/newest:/p'; \
	exit $$passed

lint: build ## formatting, clippy, ruff, mypy, the stub against the extension, and which way imports run
	cargo fmt --check
	cargo clippy --workspace --all-targets --locked --quiet -- --deny warnings
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/stubtest bot_bottle._native
	$(BIN)/python tests/house/rust_rooms.py
	$(BIN)/python tests/house/python_rooms.py
	$(BIN)/python tests/house/stub_docs.py

# One list for every supported Python on Linux and macOS.
LOCK := $(BIN)/uv pip compile --system-certs --universal --upgrade --generate-hashes --no-annotate --no-emit-package bot-bottle --quiet \
    --custom-compile-command 'make lock'
lock: $(BIN)/.installed ## the newest versions that pyproject.toml admits, into python/locked
	echo '.' | $(LOCK) --python-version 3.10 --output-file $(LOCKED)/package.txt -
	echo '.[supervise,serve,git-gate,tui]' | \
	    $(LOCK) --python-version 3.10 --group dev --constraint $(LOCKED)/package.txt --output-file $(LOCKED)/development.txt -
	echo '.[supervise,git-gate]' | $(LOCK) --python-version 3.13 --constraint $(LOCKED)/development.txt \
	    --output-file python/bot_bottle/image/sidecars.txt -
	$(LOCK) --python-version 3.10 --group tools --output-file $(LOCKED)/tools.txt
	$(LOCK) --python-version 3.10 --group release --output-file $(LOCKED)/release.txt
	$(LOCK) --python-version 3.11 --group peers --output-file benchmarks/requirements.txt

bench: build ## ours beside peers and limits, into docs/performance.md; about five minutes
	$(BIN)/python -m benchmarks

bench-full: build ## the same with more rounds, 10^7 audit entries and a backup of 1 GiB
	$(BIN)/python -m benchmarks --full

sdist-check: tools $(BIN)/python ## a wheel built from the sdist alone installs and works
	rm -rf target/sdist-check && mkdir -p target/sdist-check
	$(BIN)/maturin sdist --out target/sdist-check
	PATH='$(CURDIR)/$(BIN)':"$$PATH" CARGO_TARGET_DIR='$(CURDIR)/target' $(BIN)/python $(PIP) wheel \
	    --no-build-isolation --no-deps --wheel-dir target/sdist-check target/sdist-check/*.tar.gz
	$(PYTHON) -m venv target/sdist-check/venv
	target/sdist-check/venv/bin/python $(INSTALL) $(LOCKED)/package.txt
	target/sdist-check/venv/bin/python $(PIP) install --no-index target/sdist-check/*.whl
	cd target/sdist-check && BOT_BOTTLE_ROOT="$$PWD/root" venv/bin/bot-bottle db migrate
	cd target/sdist-check && BOT_BOTTLE_ROOT="$$PWD/root" venv/bin/bot-bottle pending

# The wheel carries the static programs for its own architecture, by the name that Docker has for it.
wheel: build ## a wheel for machines like this one, which images of the sidecars can be built from, into dist
	rm -rf python/bot_bottle/programs && mkdir -p python/bot_bottle/programs/$(ARCHITECTURE) dist
	cp $(HELPER) $(EGRESS) python/bot_bottle/programs/$(ARCHITECTURE)
	PIP_NO_INDEX=1 $(BIN)/maturin build --release --locked --quiet --out dist; built=$$?; \
	    rm -rf python/bot_bottle/programs; exit $$built

dist: .venv-release/.installed ## a release, cross-built for every supported machine, into dist (docs/releasing.md)
	.venv-release/bin/python python/release/dist.py

dist-check: .venv-release/.installed ## install what `make dist` made into every Python at hand and clean Debian systems, and use it
	.venv-release/bin/python python/release/check.py

.venv-release/.installed: $(LOCKED)/release.txt | tools
	rm -rf .venv-release && $(PYTHON) -m venv .venv-release
	.venv-release/bin/python $(INSTALL) $(LOCKED)/release.txt
	@touch $@

clean: ## remove what the targets above made
	rm -rf .venv .venv-latest .venv-release target

# One line for each thing that is missing, all of them at once.
tools:
	@missing=0; \
	lacks() { echo "make: $$1 is missing: $$2" >&2; missing=1; }; \
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null \
	    || lacks 'Python 3.10 or newer' 'install it (apt install python3, brew install python3), or name one: make PYTHON=/path/to/python3'; \
	$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
	    || lacks "Python's venv module" 'install it (apt install python3-venv)'; \
	command -v cargo >/dev/null \
	    || lacks 'the Rust toolchain' 'install it from https://rustup.rs'; \
	command -v cc >/dev/null \
	    || lacks 'a C compiler' 'install one (apt install build-essential, xcode-select --install)'; \
	exit $$missing

$(BIN)/python: | tools
	$(PYTHON) -m venv .venv
	$@ $(INSTALL) $(LOCKED)/tools.txt

$(BIN)/.installed: $(LOCKED)/tools.txt $(LOCKED)/development.txt | $(BIN)/python
	$(BIN)/python $(INSTALL) $(LOCKED)/tools.txt
	$(BIN)/python $(INSTALL) $(LOCKED)/development.txt
	@touch $@

# Without an index: what the package depends on is there, or the lock is wrong.
$(BIN)/.extension: pyproject.toml $(RUST_SOURCES) $(BIN)/.installed
	PIP_NO_INDEX=1 $(BIN)/maturin develop --release --locked --quiet
	@touch $@

$(HELPER): rust/sidecar/static.toml rust/sidecar/no_unwinding.ld $(RUST_SOURCES) | tools
	cargo build --locked --quiet --config rust/sidecar/static.toml --target '$(HOST)' \
	    --profile helper --package bot-bottle-sidecar

$(EGRESS): rust/egress/static.toml $(RUST_SOURCES) | tools
	cargo build --locked --quiet --config rust/egress/static.toml --target '$(HOST)' \
	    --release --package bot-bottle-egress

# Copied aside and renamed: a program that runs meanwhile keeps its file.
$(BIN)/bot-bottle-sidecar: $(HELPER)
$(BIN)/bot-bottle-egress: $(EGRESS)
$(BIN)/bot-bottle-sidecar $(BIN)/bot-bottle-egress: | $(BIN)/python
	@if command -v ldd >/dev/null && ldd $< 2>&1 | grep -q '=>'; then \
	    echo 'make: $< is linked against shared libraries; install the static C library (apt install libc6-dev)' >&2; \
	    exit 1; \
	fi
	install -m 755 $< $@.new && mv -f $@.new $@
