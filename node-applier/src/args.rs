//! The command line.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use lexopt::prelude::*;

/// kube-proxy's ports.
const HEALTHZ_PORT: u16 = 10256;
const METRICS_PORT: u16 = 10249;

/// What `--help` prints.
pub(crate) const HELP: &str = "\
rulecast-node: applies one pool's rule bundle to this node's kernel

It watches the RuleBundle of its pool (or a directory that a controller writes), verifies every version,
keeps the last good one on disk and writes it to nf_tables in one transaction. Without an API server it
serves from disk.

USAGE
  rulecast-node run [OPTIONS]       apply and follow
  rulecast-node cleanup             remove all rules that rulecast wrote, and exit
  rulecast-node version

OPTIONS
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

EXAMPLES
  rulecast-node run --pool workers --kubeconfig /etc/rulecast/kubeconfig
  rulecast-node run --bundle-dir ./bundles --state-dir /tmp/rulecast --once

EXIT CODES
  0 stopped as asked   1 failed   2 wrong usage   77 CAP_NET_ADMIN is missing
";

/// What to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// Print the help.
    Help,
    /// Print the version.
    Version,
    /// Remove all rules.
    Cleanup,
    /// Apply and follow.
    Run(Box<Options>),
}

/// Options of `run`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Options {
    /// `--pool`.
    pub(crate) pool: String,
    /// `--hostname-override`.
    pub(crate) node: Option<String>,
    /// `--bundle-dir`.
    pub(crate) bundle_dir: Option<PathBuf>,
    /// `--kubeconfig`.
    pub(crate) kubeconfig: Option<PathBuf>,
    /// `--state-dir`.
    pub(crate) state_dir: PathBuf,
    /// `--healthz-bind-address`.
    pub(crate) healthz: Option<SocketAddr>,
    /// `--metrics-bind-address`.
    pub(crate) metrics: Option<SocketAddr>,
    /// `--bind-address-hard-fail`.
    pub(crate) hard_fail: bool,
    /// `--report-interval`.
    pub(crate) report_interval: Duration,
    /// `--once`.
    pub(crate) once: bool,
    /// `--log-level`.
    pub(crate) log_level: tracing::Level,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            pool: "default".to_owned(),
            node: None,
            bundle_dir: None,
            kubeconfig: None,
            state_dir: "/var/lib/rulecast".into(),
            healthz: Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), HEALTHZ_PORT)),
            metrics: Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), METRICS_PORT)),
            hard_fail: false,
            report_interval: Duration::from_secs(10),
            once: false,
            log_level: tracing::Level::INFO,
        }
    }
}

/// Reads the command line.
pub(crate) fn parse(mut parser: lexopt::Parser) -> Result<Command, lexopt::Error> {
    let mut options = Options::default();
    let mut command = None;
    while let Some(arg) = parser.next()? {
        match arg {
            Short('h') | Long("help") => return Ok(Command::Help),
            Short('V') | Long("version") => return Ok(Command::Version),
            Value(word) if command.is_none() => command = Some(word.string()?),
            Long("pool") => options.pool = pool(parser.value()?.string()?)?,
            Long("hostname-override" | "node-name") => options.node = Some(parser.value()?.string()?),
            Long("bundle-dir") => options.bundle_dir = Some(parser.value()?.into()),
            Long("kubeconfig") => options.kubeconfig = Some(parser.value()?.into()),
            Long("state-dir") => options.state_dir = parser.value()?.into(),
            Long("healthz-bind-address") => {
                options.healthz = address("healthz", &parser.value()?.string()?, HEALTHZ_PORT)?;
            }
            Long("metrics-bind-address") => {
                options.metrics = address("metrics", &parser.value()?.string()?, METRICS_PORT)?;
            }
            Long("bind-address-hard-fail") => options.hard_fail = true,
            Long("report-interval") => {
                options.report_interval = Duration::from_secs(parser.value()?.parse()?);
            }
            Long("once") => options.once = true,
            Long("log-level") => options.log_level = parser.value()?.parse()?,
            other => return Err(other.unexpected()),
        }
    }
    match command.as_deref() {
        Some("run") => Ok(Command::Run(Box::new(options))),
        Some("cleanup") => Ok(Command::Cleanup),
        Some("version") => Ok(Command::Version),
        Some("help") | None => Ok(Command::Help),
        Some(other) => Err(format!("unknown command {other:?}: run, cleanup or version").into()),
    }
}

/// A pool's name becomes a folder's, and with a dot behind it another bundle's: it is a DNS label, as Kubernetes would have it.
fn pool(name: String) -> Result<String, lexopt::Error> {
    let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let edge = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = name.as_bytes();
    if bytes.len() <= 63 && bytes.iter().copied().all(good) && edge(bytes.first()) && edge(bytes.last()) {
        Ok(name)
    } else {
        Err(format!("--pool {name:?} is not a name of a RulePool").into())
    }
}

/// An address to listen on; none for an empty text. kube-proxy's flags take addresses without a port too.
fn address(what: &str, text: &str, port: u16) -> Result<Option<SocketAddr>, lexopt::Error> {
    if text.is_empty() {
        return Ok(None);
    }
    let ip = |_| text.parse().map(|ip| SocketAddr::new(ip, port));
    let refused =
        |_| format!("--{what}-bind-address {text:?}: ADDRESS:PORT is wanted, such as 127.0.0.1:{port}");
    Ok(Some(text.parse().or_else(ip).map_err(refused)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(words: &[&str]) -> Result<Command, String> {
        parse(lexopt::Parser::from_args(words)).map_err(|e| e.to_string())
    }

    #[test]
    fn options_are_read_and_refused() {
        let expected = Options { pool: "w".into(), healthz: None, once: true, ..Options::default() };
        let read = args(&["run", "--pool", "w", "--healthz-bind-address", "", "--once"]);
        assert_eq!(read, Ok(Command::Run(Box::new(expected))));
        assert_eq!(args(&[]), Ok(Command::Help));
        let addr = |option, text| match args(&["run", option, text]) {
            Ok(Command::Run(options)) => Ok((options.healthz, options.metrics)),
            other => Err(format!("{other:?}")),
        };
        let (healthz, metrics) = (Options::default().healthz, Options::default().metrics);
        let at = |text: &str| Some(text.parse().unwrap());
        assert_eq!(addr("--metrics-bind-address", "[::1]:9"), Ok((healthz, at("[::1]:9"))));
        assert_eq!(addr("--metrics-bind-address", "0.0.0.0"), Ok((healthz, at("0.0.0.0:10249"))));
        assert_eq!(addr("--metrics-bind-address", ""), Ok((healthz, None)));
        assert_eq!(addr("--healthz-bind-address", "::"), Ok((at("[::]:10256"), metrics)));
        assert!(addr("--healthz-bind-address", "here:1").unwrap_err().contains("ADDRESS:PORT"));
        let pools =
            [&["run", "--pool", "../x"][..], &["run", "--pool", "A"], &["run", "--pool", "default.next"]];
        for bad in [&["run", "--nope"][..], &["fly"]].into_iter().chain(pools) {
            assert!(args(bad).is_err(), "{bad:?}");
        }
        for option in HELP.lines().filter_map(|l| l.trim().strip_prefix("--")?.split(' ').next()) {
            let known = args(&["run", &format!("--{option}"), "1"]).map_err(|e| e.contains("invalid option"));
            assert_ne!(known.err(), Some(true), "--{option} is in the help and unknown");
        }
    }
}
