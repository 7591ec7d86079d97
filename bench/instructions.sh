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
# The profile of the tests is the one whose dependencies are built already.
target=$PWD/target
build() { (cd "$1" && cargo build --quiet --locked --profile test --example paths --target-dir "$target") && cp "$target/debug/examples/paths" "$2"; }
build "$scratch/tree" "$scratch/before"
build . "$scratch/after"

count() { valgrind --tool=callgrind --callgrind-out-file=/dev/null "$@" 2>&1 >/dev/null | sed -n 's/.*Collected : //p'; }
# What one time takes: the difference between many and few, without the start. Both run at once: counts do not mind.
each() {
  local few many
  count "$1" "$2" 50 >"$scratch/few" &
  many=$(count "$1" "$2" 250)
  wait $!
  few=$(cat "$scratch/few")
  echo $(((many - few) / 200))
}

failed=0
printf '%-10s %12s %12s %8s\n' path before after change
for path in $("$scratch/after"); do
  after=$(each "$scratch/after" "$path")
  if ! "$scratch/before" | grep -qx "$path"; then
    printf '%-10s %12s %12d\n' "$path" - "$after"
    continue
  fi
  before=$(each "$scratch/before" "$path")
  printf '%-10s %12d %12d %7s%%\n' "$path" "$before" "$after" "$(awk "BEGIN {printf \"%+.2f\", 100 * ($after - $before) / $before}")"
  if [ $((after * 100)) -gt $((before * (100 + percent))) ]; then failed=1; fi
done
[ "$failed" = 0 ] || { echo "more than $percent % above $commit"; exit 1; }
