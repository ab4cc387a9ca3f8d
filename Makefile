# Two commands on a fresh machine: `make demo` and `make test`. Both ask for nothing but Rust, and install the rest.
PITR := $${CARGO_TARGET_DIR:-target}/release/pitr

.PHONY: help build demo lint test
help: ## this text
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

build: ## the release binary
	@tests/tools/install-compiler.sh
	cargo build --release --locked

demo: build ## an accident and its recovery, on a throw-away PostgreSQL (installed where there is none)
	@tests/tools/install-postgres.sh --any
	$(PITR) demo

lint: ## formatting, lints, documentation, scripts, licences
	@tests/tools/install-compiler.sh
	tests/tools/lint.sh

test: lint ## installs what the tests need, and runs them all
	tests/tools/install.sh
	tests/tools/run.sh
