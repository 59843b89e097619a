#!/usr/bin/env bash
# Tries the definitions, the RBAC and the admission policy on a real API server. See --help.
set -euo pipefail

if [ $# != 0 ]; then
  cat <<'U'
usage: KUBECONFIG=FILE manifests/check.sh

Applies manifests/ and the sample pool to the API server of KUBECONFIG, as an administrator, and then tries what must be
accepted and what must be refused, and why. Meant for a throw-away one without nodes (tests/cluster/control-plane.sh):
it makes Nodes and Pods of its own, and leaves them there. KUBECTL names the kubectl to use.
U
  [ "$1" = --help ] && exit 0 || exit 2
fi
: "${KUBECONFIG:?names the API server to try this on}"
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
K=${KUBECTL:-kubectl}
TMP=$(mktemp -d)
trap 'rm -rf "$TMP"' EXIT
passed=0 failed=0

# as TOKEN ARGS...: kubectl with a bearer token in place of the administrator's.
as() {
  local token=$1
  shift
  sed "s/token: .*/token: $token}}]/" "$KUBECONFIG" >"$TMP/kubeconfig"
  "$K" --kubeconfig "$TMP/kubeconfig" "$@"
}
verdict() { # OK WHAT DETAIL
  if [ "$1" = 0 ]; then passed=$((passed + 1)); else failed=$((failed + 1)); echo "FAILED: $2"; sed 's/^/    /' <<<"$3"; fi
}
accepted() { # WHAT COMMAND... <stdin
  local what=$1 out rc=0
  shift
  out=$("$@" 2>&1) || rc=$?
  ! grep -q ^Warning <<<"$out" || rc=1
  verdict "$rc" "$what should be accepted" "$out"
}
refused() { # WHAT REASON COMMAND... <stdin
  local what=$1 reason=$2 out rc=0
  shift 2
  if out=$("$@" 2>&1); then rc=1; fi
  grep -qF -- "$reason" <<<"$out" || rc=1
  [ -z "${VERBOSE:-}" ] || echo "$what: $out"
  verdict "$rc" "$what should be refused with '$reason'" "$out"
}
apply() { "$K" apply --server-side --force-conflicts -f -; }
pool() { printf '{"apiVersion":"rulecast.dev/v1alpha1","kind":"RulePool","metadata":{"name":"%s"},"spec":%s}' "$1" "$2"; }
bundle() { # EPOCH SEQUENCE
  printf '{"apiVersion":"rulecast.dev/v1alpha1","kind":"RuleBundle","metadata":{"name":"check"},"spec":{"epoch":%d,"sequence":%d,"digest":"%s","checkpoint":"%s"}}' \
    "$1" "$2" "$(printf 'd%.0s' {1..27})" "$CHUNK"
}
chunk() { # NAME DATA
  printf '{"apiVersion":"rulecast.dev/v1alpha1","kind":"RuleChunk","metadata":{"name":"%s"},"spec":{"kind":"delta","pool":"check","data":"%s"}}' "$1" "$2"
}
revision() { # DIGEST-CHARACTER
  printf '{"apiVersion":"rulecast.dev/v1alpha1","kind":"RuleRevision","metadata":{"name":"check-1"},"spec":{"pool":"check","number":1,"digest":"%s","created":"2026-01-01T00:00:00Z","chunks":["%s"],"summary":["+ prod/web"],"sizeBytes":3}}' \
    "$(printf "$1%.0s" {1..27})" "$CHUNK"
}
node() { printf '{"apiVersion":"rulecast.dev/v1alpha1","kind":"RuleNode","metadata":{"name":"%s"}}' "$1"; }
CHUNK=$(printf 'a%.0s' {1..32})

echo "--- installing"
accepted "the manifests" "$K" apply --server-side --force-conflicts -k "$HERE"
"$K" wait --for condition=Established --timeout 30s crd --all >/dev/null
accepted "the sample pool" "$K" apply --server-side --force-conflicts -k "$HERE/samples"

echo "--- RulePool"
accepted "an empty spec" apply <<<"$(pool check '{}')"
accepted "an ipvs pool as kubeadm would write it" apply <<<"$(pool check '{"mode":"ipvs","clusterCIDR":"10.244.0.0/16,fd00::/56",
  "detectLocal":{"bridgeInterface":"","interfaceNamePrefix":""},"ipvs":{"scheduler":"","strictARP":false,"tcpTimeout":"0s"},
  "conntrack":{"maxPerCore":0,"tcpEstablishedTimeout":"24h0m0s"}}')"
refused "a null" 'must be of type array' apply <<<"$(pool check '{"nodePortAddresses":null}')"
refused "userspace" 'supported values: "nftables", "iptables", "ipvs"' apply <<<"$(pool check '{"mode":"userspace"}')"
refused "half a CIDR" 'must be one CIDR' apply <<<"$(pool check '{"clusterCIDR":"10.244.0.0"}')"
refused "two CIDRs of a family" 'an IPv4 and an IPv6 one' apply <<<"$(pool check '{"clusterCIDR":"10.0.0.0/8,11.0.0.0/8"}')"
refused "bit 32" 'should be less than or equal to 31' apply <<<"$(pool check '{"masqueradeBit":32}')"
refused "a day" 'publishInterval must be from 100ms to 10s' apply <<<"$(pool check '{"publishInterval":"24h"}')"
refused "no unit" 'should match' apply <<<"$(pool check '{"publishInterval":"1"}')"
refused "no bridge" 'needs detectLocal.bridgeInterface' apply <<<"$(pool check '{"detectLocalMode":"BridgeInterface"}')"
refused "primary and more" 'must be "primary" alone' apply <<<"$(pool check '{"nodePortAddresses":["primary","10.0.0.0/8"]}')"
refused "a pool that follows itself" 'must be another pool' apply <<<"$(pool check '{"promotion":{"from":"check","soak":"1h"}}')"
refused "no history" 'should be greater than or equal to 1' apply <<<"$(pool check '{"revisionHistoryLimit":0}')"
refused "a misspelt option" 'field not declared in schema' apply <<<"$(pool check '{"clusterCidr":"10.0.0.0/8"}')"
refused "a name with dots" 'must be a DNS label' apply <<<"$(pool a.b '{}')"

echo "--- RuleBundle, RuleChunk, RuleRevision"
"$K" delete rulebundle/check rulechunk/"$CHUNK" rulerevision/check-1 --ignore-not-found >/dev/null
accepted "a bundle" apply <<<"$(bundle 0 7)"
accepted "the next sequence" apply <<<"$(bundle 0 8)"
refused "a lower sequence" 'sequence must not decrease' apply <<<"$(bundle 0 7)"
accepted "a new epoch" apply <<<"$(bundle 1 1)"
refused "an older epoch" 'epoch must not decrease' apply <<<"$(bundle 0 9)"
refused "sequence 0" 'should be greater than or equal to 1' apply <<<"$(bundle 1 0)"
refused "a sequence near the end of all sequences" 'should be less than or equal to' apply <<<"$(bundle 1 9223372036854775807)"
accepted "a chunk" apply <<<"$(chunk "$CHUNK" AAAA)"
refused "another content" 'is immutable' apply <<<"$(chunk "$CHUNK" AAAB)"
refused "a chunk that is not named by its content" 'hash of the content' apply <<<"$(chunk delta-1 AAAA)"
accepted "a full chunk" "$K" create --dry-run=server -f - <<<"$(chunk "${CHUNK//a/b}" "$(head -c 524288 /dev/zero | base64 -w0 | tr -d =)")"
refused "a chunk of more than 512 KiB" 'may not be more than 699051' "$K" create --dry-run=server -f - \
  <<<"$(chunk "${CHUNK//a/b}" "$(head -c 524300 /dev/zero | base64 -w0 | tr -d =)")"
accepted "a revision" apply <<<"$(revision d)"
refused "another digest" 'is immutable' apply <<<"$(revision e)"

echo "--- what a node may do"
can() { # SERVICEACCOUNT VERB RESOURCE [NAMESPACE [FLAG...]]
  "$K" auth can-i --as "system:serviceaccount:rulecast-system:$1" "$2" "$3" ${4:+-n "$4"} "${@:5}" 2>&1 |
    grep -v -e 'is not namespace scoped' -e '^$' # said of every cluster-wide resource
}
may() { accepted "$*" can "$@"; }
may_not() { refused "$*" no can "$@"; }
may rulecast-node watch rulebundles.rulecast.dev/default
may rulecast-node watch rulebundles.rulecast.dev/default.next
may rulecast-node get rulechunks.rulecast.dev
may rulecast-node patch rulenodes.rulecast.dev "" --subresource status
for what in services endpointslices.discovery.k8s.io nodes secrets pods configmaps; do
  may_not rulecast-node get $what
  may_not rulecast-node list $what
done
may_not rulecast-node get rulebundles.rulecast.dev/other
may_not rulecast-node get rulebundles.rulecast.dev/other.next
may_not rulecast-node list rulechunks.rulecast.dev
may_not rulecast-node update rulebundles.rulecast.dev/default
may_not rulecast-node update rulebundles.rulecast.dev/default.next
may_not rulecast-node delete rulenodes.rulecast.dev
may rulecast-controller update rulebundles.rulecast.dev
may rulecast-controller update leases.coordination.k8s.io/rulecast-controller rulecast-system
for what in secrets configmaps pods; do may_not rulecast-controller get $what; done
may_not rulecast-controller delete rulebundles.rulecast.dev
may_not rulecast-controller update rulechunks.rulecast.dev
may_not rulecast-controller update rulepools.rulecast.dev
may_not rulecast-controller update rulenodes.rulecast.dev "" --subresource status
may_not rulecast-controller update leases.coordination.k8s.io/another rulecast-system

echo "--- a RuleNode is its node's own"
for n in check-a check-b; do
  apply >/dev/null <<<"{\"apiVersion\":\"v1\",\"kind\":\"Node\",\"metadata\":{\"name\":\"$n\"}}"
  "$K" get pod -n rulecast-system "$n" >/dev/null 2>&1 || "$K" create -f - >/dev/null <<<"{\"apiVersion\":\"v1\",\"kind\":\"Pod\",
    \"metadata\":{\"name\":\"$n\",\"namespace\":\"rulecast-system\"},\"spec\":{\"serviceAccountName\":\"rulecast-node\",
    \"nodeName\":\"$n\",\"automountServiceAccountToken\":false,\"containers\":[{\"name\":\"c\",\"image\":\"none\"}]}}"
done
token() { "$K" create token rulecast-node -n rulecast-system "$@"; }
a=$(token --bound-object-kind Pod --bound-object-name check-a)
b=$(token --bound-object-kind Pod --bound-object-name check-b)
loose=$(token)
"$K" delete rulenode check-a check-b --ignore-not-found >/dev/null
status() { # NODE SEQUENCE
  echo --subresource=status --type=merge -p "{\"status\":{\"pool\":\"default\",\"mode\":\"nftables\",\"sequence\":$2,\"appliedAt\":\"2026-01-01T00:00:00.123456Z\",\"version\":\"0.1.0\"}}" rulenode "$1"
}
# Until a policy is in force takes the API server a moment.
for _ in {1..50}; do
  as "$loose" create --dry-run=server -f - <<<"$(node check-a)" >/dev/null 2>&1 || break
  sleep .2
done
accepted "its own report" as "$a" create -f - <<<"$(node check-a)"
accepted "its own status" as "$a" patch $(status check-a 5)
refused "a foreign report" 'not by one on check-a' as "$a" create -f - <<<"$(node check-b)"
refused "a foreign status" 'not by one on check-b' as "$b" patch $(status check-a 6)
refused "a foreign object" 'not by one on check-b' as "$b" label rulenode check-a x=y
refused "a token that names no node" 'names no node' as "$loose" patch $(status check-a 6)
refused "an administrator's word for a node" 'names no node' "$K" patch $(status check-a 6)
refused "deleting, which RBAC does not allow" 'cannot delete' as "$a" delete rulenode check-a
"$K" create clusterrolebinding check-nodes --clusterrole cluster-admin --serviceaccount rulecast-system:rulecast-node >/dev/null
sleep 1
refused "deleting a foreign report even if RBAC allowed it" 'not by one on check-b' as "$b" delete rulenode check-a
refused "deleting all reports" 'not by one on check-b' as "$b" delete --raw /apis/rulecast.dev/v1alpha1/rulenodes
refused "deleting with a token that names no node" 'names no node' as "$loose" delete rulenode check-a
"$K" delete clusterrolebinding check-nodes >/dev/null
"$K" get rulenodes,rulepools,rulebundles,rulerevisions,rulechunks -o wide
accepted "an administrator who removes the report of a lost node" "$K" delete rulenode check-a

echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
