# Two commands: `make run` serves on embedded defaults, `make test` passes all tests. Both fetch cmake, which Pingora's
# zlib needs to build, where it is missing: by apt as root, else into a private venv.

CARGO ?= cargo
VENV := target/cmake
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

.PHONY: run build test soak lint bench cmake

run: build
	target/release/tollgate

build: cmake
	$(CARGO) build --release --locked

test: cmake
	$(CARGO) test --locked

# Minutes of kill -9, upgrades and bad neighbours under load, and a million fuzzed inputs; short forms are part of CI.
soak: build
	python3 tests/crash.py target/release/tollgate 300
	python3 tests/upgrade.py target/release/tollgate 10
	python3 tests/chaos.py target/release/tollgate 600
	TOLLGATE_FUZZ_CASES=1000000 $(CARGO) test --locked --test properties

lint:
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings

bench: build
	bench/run.sh

cmake:
	@command -v cmake >/dev/null || { \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then apt-get update -qq && apt-get install -y -qq cmake >/dev/null; \
	  else python3 -m venv $(VENV) && $(VENV)/bin/pip install -q cmake; fi; }
