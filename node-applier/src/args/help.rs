//! What `--help` prints.

pub(crate) const HELP: &str = "\
rulecast-node: applies one pool's rule bundle to this node's kernel

It watches the RuleBundle of its pool (or a directory that a controller writes), verifies every version,
keeps the last good one on disk and writes it to nf_tables in one transaction. Without an API server it
serves from disk.

USAGE
  rulecast-node run [OPTIONS]       apply and follow
  rulecast-node cleanup             remove all rules that rulecast wrote, and exit
  rulecast-node version

ON A NODE, without an API server; all need the right to enter --state-dir
  rulecast-node status              what is in force, since when, and why not something newer
  rulecast-node show                how much is in force; with --service, one Service as this node serves it
  rulecast-node hold                keep the present shape of the rules, whatever the pool says; endpoints are
                                    followed as ever
  rulecast-node use-previous        go back to the shape before its last change, and keep that
  rulecast-node resume              follow the pool again
  rulecast-node verify              compare the kernel with what it should hold: every chain, rule and element
They ask the applier that runs. Where none does, status and show say what its disk has, hold,
use-previous and resume are for the next one that starts, and verify fails.

OPTIONS of run
  --pool NAME                       the pool to follow (default: default)
  --hostname-override NAME          this node's name (default: $NODE_NAME, else the host name)
  --bundle-dir DIR                  follow a directory instead of an API server
  --kubeconfig FILE                 how to reach the API server (default: $KUBECONFIG, else the pod's own)
  --state-dir DIR                   where the last good bundle is kept (default: /var/lib/rulecast)
  --healthz-bind-address ADDR       /healthz, /livez, /metrics (default: 0.0.0.0:10256; '' for none)
  --metrics-bind-address ADDR       /metrics, /proxyMode (default: 127.0.0.1:10249; '' for none)
  --bind-address-hard-fail          end when one of these addresses is taken, instead of trying again
  --report-interval SECONDS         least time between reports of new versions, of thousands of
                                    nodes longer (default: 10)
  --once                            apply one version and exit
  --log-level LEVEL                 error, warn, info, debug or trace (default: info)

OPTIONS on a node
  --state-dir DIR                   as the applier's (default: /var/lib/rulecast)
  --pool NAME                       where no applier runs and the folder has several
  --hostname-override NAME          where no applier runs, as the applier's
  -o, --output table|json           (default: table)
  --service NAMESPACE/NAME          of show
  --reason TEXT                     of hold and use-previous: for whoever finds it later

EXAMPLES
  rulecast-node run --pool workers --kubeconfig /etc/rulecast/kubeconfig
  rulecast-node run --bundle-dir ./bundles --state-dir /tmp/rulecast --once
  rulecast-node status -o json
  rulecast-node show --service prod/web
  rulecast-node hold --reason 'tcpdump runs here until Tuesday, ask Kim'
  rulecast-node use-previous --reason 'INC-1234: prod/web unreachable since 14:02'
  rulecast-node resume
  rulecast-node verify || rulecast-node verify -o json | jq '.differences[]'

EXIT CODES
  0 done, stopped as asked, or it was so already   1 failed   2 wrong usage
  3 what was asked for is not there: the Service, a shape to go back to
  of verify: 0 the same   1 something differs   2 it cannot be told, as where no applier runs
  77 CAP_NET_ADMIN, or the right to enter --state-dir, is missing
";
