# Every command that a developer or CI runs.

.DEFAULT_GOAL := help
.PHONY: help tools test-tools bench-tools build profile demo test test-dashboards check fmt clippy doc docs deb test-deb image bench bench-instructions bench-micro

CARGO ?= cargo
# What is shipped is optimised by a profile of how it is used. Cargo does not look into it; by the cfg it sees that it changed.
PROFILE = profile/tollgate.profdata
PROFILED = RUSTFLAGS="$$RUSTFLAGS -C profile-use=$(CURDIR)/$(PROFILE) --cfg profile_$$(sha256sum $(PROFILE) | cut -c1-12)"

help: ## List the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

tools: ## Install what the build needs: C and C++ compilers, cmake, perl
	@sh ci/install cc:gcc c++:g++ cmake:cmake perl:perl make:make

test-tools: tools ## Install what the tests need
	@sh ci/install curl:curl openssl:openssl bash:bash prometheus:prometheus promtool:prometheus systemd-analyze:systemd

build: tools ## Build the gateway
	$(PROFILED) $(CARGO) build --release

profile: tools ## Renew the profile that `build` optimises by
	ci/profile

demo: build ## Build and start the gateway with three mock origins
	target/release/tollgate demo

test: test-tools ## Run every test
	$(CARGO) test --quiet

test-dashboards: test-tools ## Try dashboard and alerts in a real Prometheus (make test does it too)
	$(CARGO) test --quiet --test it monitoring::

check: fmt clippy test doc ## Everything that must hold before a change lands

fmt: ## Check the formatting
	$(CARGO) fmt --check

clippy: tools ## Check the lints
	$(CARGO) clippy --all-targets --quiet -- -D warnings

doc: tools ## Build the API documentation, links checked
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --no-deps --document-private-items --quiet

docs: tools ## Write the generated pages and the JSON Schema anew; `check` fails if they are not current
	UPDATE=1 $(CARGO) test --quiet --test it generated::

deb: build ## Build the Debian package into target/debian
	@sh ci/install dpkg-shlibdeps:dpkg-dev lintian:lintian git:git
	ci/build-deb

test-deb: deb ## Install, run under systemd and purge the package on a clean root file system (as root)
	@sh ci/install mmdebstrap:mmdebstrap unshare:util-linux ip:iproute2 pgrep:procps
	ci/test-deb

image: ## Build the container image
	docker build --file docker/Dockerfile --tag tollgate .

bench-tools: tools
	@sh ci/install taskset:util-linux valgrind:valgrind

bench: bench-tools build ## Compare the gateway with bare Pingora: processor time, throughput, latency, memory
	$(CARGO) build --release --examples
	target/release/examples/gateway_bench

bench-instructions: bench-tools ## The same as user instructions for each request, which repeat within a few percent
	$(CARGO) build --release --no-default-features
	$(CARGO) build --release --no-default-features --examples
	target/release/examples/gateway_bench --instructions

bench-micro: tools ## Measure router, balancing, chain and compilation by themselves
	$(CARGO) bench --bench router --bench balancing --bench chain --bench compile
