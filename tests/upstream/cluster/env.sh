# Shared settings; every value can be overridden from the environment.
KVER=${KVER:-v1.36.3}                   # Kubernetes; src/kube/go.mod pins the same
W=${W:-${RULECAST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/rulecast}/upstream/$KVER}   # work folder: binaries, state, logs
BIN=${BIN:-$W/bin}
RUN=${RUN:-$W/run}                      # state of the running cluster
PORT=${PORT:-6543}                      # kube-apiserver
EP=${EP:-2479}                          # etcd client port (peer port is EP+1)
NODE_NET=${NODE_NET:-172.30.0}          # node network, /24; .1 is the control plane, .11, .12 ... the nodes
POD_NET=${POD_NET:-10.244}              # pod network, /16; node i gets POD_NET.i.0/24
SVC_CIDR=${SVC_CIDR:-10.96.0.0/16}
DUAL=${DUAL:-0}                         # 1: dual-stack, IPv4 first
NODE_NET6=${NODE_NET6:-fd00:172:30}     # node network, /64; ::1 is the control plane, ::11, ::12 ... the nodes
POD_NET6=${POD_NET6:-fd00:10:244}       # node i gets POD_NET6:i::/64
SVC_CIDR6=${SVC_CIDR6:-fd00:10:96::/112}
LB_NET=${LB_NET:-172.30.200.0/24}      # addresses handed to Services of type LoadBalancer (LB=0: no load balancer)
LB=${LB:-1}
LB_SRC=${LB_SRC:-198.18.0.1}            # source address of the machine's own connections to those
DNS_IP=${DNS_IP:-10.96.0.10}
BR=${BR:-cl0}                           # bridge that carries the node network
PROXY=${PROXY:-kube-proxy}              # kube-proxy | none | path to a script started once per node
PROXY_MODE=${PROXY_MODE:-nftables}      # kube-proxy's mode
LOGV=${LOGV:-2}
KUBECONFIG_ADMIN=$RUN/admin.kubeconfig
kc() { "$BIN/kubectl" --kubeconfig "$KUBECONFIG_ADMIN" "$@"; }
