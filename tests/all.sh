#!/usr/bin/env bash
# Runs all tests: first those of one crate each, then the others in two lanes side by side, as they wait more than they work.
# What the second lane prints is shown when it has ended. Everything is run, whatever fails.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo test --workspace --no-run
status=0
cargo test --workspace --exclude rulecast-tests --exclude rulecast-simulation --no-fail-fast || status=$?

# Whatever writes rules of iptables in network namespaces that share the machine's lock is in one lane.
printed=$(mktemp)
cargo test --no-fail-fast -p rulecast-tests --test differential --test ipvs --test migration >"$printed" 2>&1 &
second=$!
trap 'rm -f "$printed"; kill "$second" 2>/dev/null || true' EXIT
cargo test --no-fail-fast -p rulecast-tests -p rulecast-simulation --lib --bins \
  --test histories --test cli --test cluster --test gitops --test kernel || status=$?
wait "$second" || status=$?
cat "$printed"
exit "$status"
