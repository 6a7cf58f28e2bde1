# `make` lists the targets. Whatever a target needs on Debian or Ubuntu, apart from Rust, it installs.

CARGO ?= cargo
# More arguments for demo, bench, drivers and regress: make demo ARGS=--once
ARGS ?=

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: setup
setup: ## Install what is missing to build, to test and for the demo
	@.ci/setup build postgresql

.PHONY: demo
demo: setup ## PostgreSQL in several simulated regions, and the proxy at work
	$(CARGO) run -- demo $(ARGS)

.PHONY: test
test: setup ## All tests
	@.ci/setup keystore
	$(CARGO) test

# How many checks of consistency soak makes.
CHECKS ?= 1000000
# How long each of its endless parts takes, in seconds.
SOAK ?= 90

.PHONY: soak
soak: setup ## Checks of consistency under faults, random conversations, abusive clients, new cases for properties
	$(CARGO) test --no-run
	CAUSEWAY_SOAK_CHECKS=$(CHECKS) $(CARGO) test --test it soak::what_the_levels_promise -- --nocapture
	CAUSEWAY_SOAK=$(SOAK) $(CARGO) test --test it conversations:: -- --nocapture
	CAUSEWAY_SOAK=$(SOAK) $(CARGO) test --test it abuse:: -- --nocapture
	PROPTEST_RNG_SEED=$$(od -An -N7 -tu8 /dev/urandom | tr -d ' ') PROPTEST_CASES=5000 \
		$(CARGO) test --lib --test it -- sql:: routing:: fold:: fuzz::

.PHONY: ci
ci: setup ## All that must hold before a change is merged
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets -- -D warnings
	$(MAKE) test
	RUSTDOCFLAGS="-D warnings -A rustdoc::private-intra-doc-links" $(CARGO) doc --no-deps --document-private-items

.PHONY: snippets
snippets: setup ## The code of docs/consistency.md, against two proxies
	@.ci/setup drivers
	$(CARGO) build
	tests/drivers/snippets/run.py

.PHONY: drivers
drivers: setup $(if $(ARGS),,snippets) ## The suites of drivers and frameworks, directly and through the proxy, compared
	@.ci/setup drivers
	$(CARGO) build
	tests/drivers/run.py $(ARGS)

.PHONY: bench
bench: ## Compare with PgBouncer on this machine
	@.ci/setup build bench
	benches/compare.sh $(ARGS)

# A directory with src/test/regress of PostgreSQL's sources. Default: the installed version's, fetched.
SUITE ?=

.PHONY: regress
regress: setup ## PostgreSQL's own regression suite, directly and through the proxy, compared
	@.ci/setup regress
	$(CARGO) build
	tests/regress/setup.sh $(SUITE)
	tests/regress/run.py $(ARGS)

.PHONY: differential
differential: setup ## The classifier against real servers, over PostgreSQL's own regression suite
	@.ci/setup regress
	tests/regress/setup.sh $(SUITE)
	$(CARGO) test --test it -- --ignored --nocapture differential::
