#!/usr/bin/env bash
# Runs all tests: first those of one crate each, then the others in two lanes side by side, as they wait more than they work.
# What the second lane prints is shown when it has ended. Everything is run, whatever fails.
set -euo pipefail
cd "$(dirname "$0")/.."

# Both are chosen from the whole workspace: with fewer packages Cargo would choose other features, and build anew.
first=(--test cli --test cluster --test gitops --test rules --test promises --test migration --test ipvs)
second=(--test differential)
for folder in tests/tests/*/; do
  name=$(basename "$folder")
  [[ " ${first[*]} ${second[*]} " == *" --test $name "* ]] || { echo "tests/all.sh: $name is in no lane" >&2; exit 1; }
done

cargo test --workspace --no-run
# The programs are built with their packages' tests.
RULECAST_BIN_DIR=$(cd "${CARGO_TARGET_DIR:-target}" && pwd)/debug
export RULECAST_BIN_DIR
status=0
cargo test --workspace --exclude rulecast-tests --exclude rulecast-simulation --no-fail-fast || status=$?

scratch=$(mktemp -d)
printed=$scratch/second.txt
# In a group of its own, to end all of it. The old iptables' lock is for the whole machine, although each namespace has its own
# rules: who waits for it in one lane would fail for the other's sake.
XTABLES_LOCKFILE=$scratch/xtables.lock setsid cargo test --workspace --no-fail-fast "${second[@]}" >"$printed" 2>&1 &
lane=$!
trap 'kill -- "-$lane" 2>/dev/null; cat "$printed"; rm -rf "$scratch"' EXIT
cargo test --workspace --no-fail-fast "${first[@]}" || status=$?
wait "$lane" || status=$?
trap 'rm -rf "$scratch"' EXIT
cat "$printed"
exit "$status"
