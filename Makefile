# Every command that a developer or CI runs.

.DEFAULT_GOAL := help
.PHONY: help tools test-tools build demo test check fmt clippy doc docs bench-router

CARGO ?= cargo

help: ## List the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

tools: ## Install what the build needs: a C compiler, cmake, perl
	@sh ci/install cc:gcc cmake:cmake perl:perl make:make

test-tools: tools ## Install what the tests need
	@sh ci/install curl:curl

build: tools ## Build the gateway
	$(CARGO) build --release

demo: tools ## Build and start the gateway with three mock origins
	$(CARGO) run --release -- demo

test: test-tools ## Run every test
	$(CARGO) test --quiet

check: fmt clippy test doc ## Everything that must hold before a change lands

fmt: ## Check the formatting
	$(CARGO) fmt --check

clippy: tools ## Check the lints
	$(CARGO) clippy --all-targets --quiet -- -D warnings

doc: tools ## Build the API documentation, links checked
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --no-deps --document-private-items --quiet

docs: tools ## Write the generated pages and the JSON Schema anew; `check` fails if they are not current
	UPDATE=1 $(CARGO) test --quiet --test it generated::

bench-router: tools ## Measure look-ups in routing tables of up to 10,000 routes
	$(CARGO) bench --bench router
