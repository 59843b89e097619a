#!/usr/bin/env bash
# rulecast as the Service proxy of one node of cluster/: run by cluster/proxy.sh inside the node's namespaces, in the
# foreground, until SIGTERM. Then it removes the rules, so that the next proxy finds none.
#
# RULECAST_NODE is the program. KUBECONFIG tells only where the state of the cluster lies: the applier has a kubeconfig of
# its own (run.sh makes it), with the rights of the ServiceAccount rulecast-node on this node and no more.
set -uo pipefail
state=$(dirname "$KUBECONFIG")
mkdir -p "$state/$NODE_NAME/rulecast"
"$RULECAST_NODE" run --pool default --hostname-override "$NODE_NAME" --kubeconfig "$state/rulecast/$NODE_NAME.kubeconfig" \
  --state-dir "$state/$NODE_NAME/rulecast" &
applier=$!
trap 'kill "$applier" 2>/dev/null' TERM INT
# A trapped signal ends `wait` early: wait once more for the program's own end.
wait "$applier"; wait "$applier" 2>/dev/null; rc=$?
"$RULECAST_NODE" cleanup
exit "$rc"
