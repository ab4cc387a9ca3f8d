# Two commands on a fresh machine: `make demo` and `make test`. Both ask for nothing but Rust, and install the rest.
PITR := $${CARGO_TARGET_DIR:-target}/release/pitr

.PHONY: help build demo lint test test-long
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

# What is long about them stands at the head of each. PITR_TEST_SEED gives the random ones another beginning.
test-long: lint ## the same with an hour of kills, 10,000 waiting segments, stalls of 10 s, 300,000 files: some hours, 40 GB
	tests/tools/install.sh
	PITR_TEST_KILL_SECONDS=3600 PITR_TEST_BACKLOG=10000 PITR_TEST_STALL_SECONDS=10 PITR_TEST_TARGETS=240 PITR_TEST_LONG=1 \
		tests/tools/run.sh long
