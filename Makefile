SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)

.PHONY: help build lint test
help: ## this text
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

build: ## the release binary
	cargo build --release

lint: ## formatting and lints
	cargo fmt --check
	cargo clippy --all-targets --quiet -- -D warnings

test: lint ## installs what the tests need, and runs them all
	SUDO="$(SUDO)" tests/tools/install.sh
	tests/tools/run.sh
