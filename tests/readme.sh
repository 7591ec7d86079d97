#!/usr/bin/env bash
# Follows the README's first minutes with a given binary: starts the gateway on its embedded defaults, streams, and
# reads the bill. Every command is taken from the README itself.
set -euo pipefail
binary=$(realpath "${1:-target/debug/tollgate}")
readme=$(realpath "$(dirname "$0")/../README.md")
scratch=$(mktemp -d)
trap 'kill "$gateway" 2>/dev/null || true; rm -rf "$scratch"' EXIT
cd "$scratch"
"$binary" >access.log 2>greeting.txt &
gateway=$!
for _ in $(seq 200); do curl -s -o /dev/null http://127.0.0.1:9090/healthz && break; sleep 0.05; done

# The shell blocks of the README that are marked as to be run here.
commands=$(awk '/^<!-- run -->$/{want=1; next} /^```/{if(inside){inside=0; print ""} else if(want){inside=1; want=0} next} inside{print}' "$readme")
[ -n "$commands" ] || { echo 'the README has nothing to run'; exit 1; }
mkdir -p target/release && ln -s "$binary" target/release/tollgate
echo "$commands" | bash -euo pipefail >output.txt
cat output.txt
grep -q '"content":"The quick br"' output.txt
grep -q 'data: \[DONE\]' output.txt
grep -qE '^mock-small +1 ' output.txt
# The access log is written a few milliseconds after the answer.
for _ in $(seq 100); do grep -q '"outcome":"ok"' access.log && break; sleep 0.05; done
grep -q '"outcome":"ok"' access.log
echo 'the README works'
