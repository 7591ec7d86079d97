# Two commands: `make run` serves on embedded defaults, `make test` passes all tests. Both fetch cmake, which Pingora's
# zlib needs to build, where it is missing: by apt as root, else into a private venv.

CARGO ?= cargo
VENV := target/cmake
# Made by tests/sdk/run.sh; without it WebSockets are left out.
SDK := $(shell test -x target/sdk/venv/bin/python && echo target/sdk/venv/bin/python || echo python3)
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

.PHONY: run build test soak lint bench deb cmake

run: build
	target/release/tollgate

build: cmake
	$(CARGO) build --release --locked

test: cmake
	$(CARGO) test --locked

# Minutes of kill -9, upgrades and bad neighbours under load, a million fuzzed inputs and a million simulated requests; short forms are part of CI.
soak: build
	python3 tests/crash.py target/release/tollgate 300
	$(SDK) tests/upgrade.py target/release/tollgate 10 500 $$(command -v oha)
	python3 tests/chaos.py target/release/tollgate 600
	TOLLGATE_SOAK=1 TOLLGATE_BINARY=target/release/tollgate $(SDK) -m pytest -q -p no:cacheprovider --rootdir tests/sdk --noconftest tests/sdk/test_shutdown.py
	TOLLGATE_FUZZ_CASES=1000000 $(CARGO) test --locked --test properties
	TOLLGATE_FUZZ_CASES=1000000 $(CARGO) test --locked --lib simulation

lint:
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings

bench: build
	bench/run.sh

# A Debian package in target/debian, by cargo-deb (`cargo install cargo-deb`). The unit and the configuration are those of conf/,
# with the package's paths.
deb: build
	mkdir -p target/deb
	sed -e 's,/usr/local/bin,/usr/bin,' conf/tollgate.service >target/deb/tollgate.service
	sed -e 's,^data: data$$,data: /var/lib/tollgate,' conf/tollgate.yaml >target/deb/tollgate.yaml
	rm -rf target/deb/man && mkdir target/deb/man
	target/release/tollgate man --into target/deb/man
	target/release/tollgate completions bash >target/deb/tollgate.bash
	target/release/tollgate completions zsh >target/deb/_tollgate
	target/release/tollgate completions fish >target/deb/tollgate.fish
	$(CARGO) deb --no-build

cmake:
	@command -v cmake >/dev/null || { \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then apt-get update -qq && apt-get install -y -qq cmake >/dev/null; \
	  else python3 -m venv $(VENV) && $(VENV)/bin/pip install -q cmake; fi; }
