#!/usr/bin/env bash
# Measures tollgate against bare Pingora side by side: same build, same threads, same mock behind both, in alternating
# rounds; and against nginx and HAProxy as plain proxies where they are installed, and LiteLLM's proxy where LITELLM
# names its command. Prints medians and ratios; writes bench/results/latest.md and .svg.
#
#   bench/run.sh            full run, about ten minutes
#   bench/run.sh smoke      a few seconds, to see that it works
#
# CPU is what the process itself used (/proc), so that it can be compared on a noisy machine; THREADS sets the threads.
set -euo pipefail
cd "$(dirname "$0")/.."
mode=${1:-full}
threads=${THREADS:-1}
profile=${PROFILE:-release}
bin=target/$profile/tollgate
bare=target/$profile/examples/bare
oha=$(command -v oha || true)
[ -n "$oha" ] || oha=$PWD/target/tools/bin/oha
[ -x "$oha" ] || { echo "oha is missing: cargo install --debug --locked oha --root target/tools"; exit 1; }
[ -x "$bin" ] && [ -x "$bare" ] && [ -x "${bare%bare}probe" ] ||
  cargo build --locked $([ "$profile" = release ] && echo --release) --bins --examples
exec python3 bench/run.py "$mode" "$bin" "$bare" "$oha" "$threads"
