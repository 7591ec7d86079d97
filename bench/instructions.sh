#!/usr/bin/env bash
# Counts the instructions of the core's paths (bench/paths.rs) by callgrind, here and at another commit in the same run, and
# fails if one takes more than the tolerance. Counts do not depend on what else the machine does.
#
#   bench/instructions.sh [COMMIT [PERCENT]]      the parent, 2
set -euo pipefail
cd "$(dirname "$0")/.."
commit=${1:-HEAD^} percent=${2:-2}
scratch=$(mktemp -d)
trap 'git worktree remove --force "$scratch/tree" 2>/dev/null || true; rm -rf "$scratch"' EXIT

if ! git worktree add --quiet --detach "$scratch/tree" "$commit" 2>/dev/null; then
  echo "$commit is not here: nothing to compare with"
  exit 0
fi
if ! [ -f "$scratch/tree/bench/paths.rs" ]; then
  echo "$commit has no paths to count: nothing to compare with"
  exit 0
fi
# The same work for both.
cp bench/paths.rs "$scratch/tree/bench/paths.rs"
# The profile of the tests is the one whose dependencies are built already.
target=$PWD/target
build() { (cd "$1" && cargo build --quiet --locked --profile test --example paths --target-dir "$target") && cp "$target/debug/examples/paths" "$2"; }
if ! build "$scratch/tree" "$scratch/before"; then
  echo "$commit cannot take these paths: nothing to compare with"
  exit 0
fi
build . "$scratch/after"

# What one time takes, without the start, which can differ by more than the tolerance.
times=200
count() { valgrind --tool=callgrind --callgrind-out-file=/dev/null --collect-atstart=no --toggle-collect='*paths::counted*' "$1" "$2" "$times" 2>&1 >/dev/null | sed -n 's/.*Collected : //p'; }

failed=0
printf '%-10s %12s %12s %8s\n' path before after change
for path in $("$scratch/after"); do
  # Both at once: counts do not mind.
  count "$scratch/before" "$path" >"$scratch/count" &
  after=$(($(count "$scratch/after" "$path") / times))
  wait $!
  before=$(($(cat "$scratch/count") / times))
  printf '%-10s %12d %12d %7s%%\n' "$path" "$before" "$after" "$(awk "BEGIN {printf \"%+.2f\", 100 * ($after - $before) / $before}")"
  [ "$before" -gt 0 ] && [ "$after" -gt 0 ] || { echo "$path was not counted"; exit 1; }
  if [ $((after * 100)) -gt $((before * (100 + percent))) ]; then failed=1; fi
done
[ "$failed" = 0 ] || { echo "more than $percent % above $commit"; exit 1; }
