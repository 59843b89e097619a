//! The command line.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use lexopt::prelude::*;

/// kube-proxy's ports.
const HEALTHZ_PORT: u16 = 10256;
const METRICS_PORT: u16 = 10249;

mod help;

pub(crate) use help::HELP;

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
    /// Ask the applier that runs on this node, or its disk.
    Ask(Question, Box<AskOptions>),
}

/// What is asked on the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Question {
    /// What is in force, and why not something newer.
    Status,
    /// Services as this node serves them.
    Show,
    /// Keep the shape.
    Hold,
    /// Go back to the shape before.
    UsePrevious,
    /// Follow the pool again.
    Resume,
    /// Compare the kernel with what it should hold.
    Verify,
}

/// How answers are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Output {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
}

/// Options of what is asked on the node.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct AskOptions {
    /// `--state-dir`.
    pub(crate) state_dir: PathBuf,
    /// `--pool`: only for a folder with several.
    pub(crate) pool: Option<String>,
    /// `--hostname-override`: only where no applier runs.
    pub(crate) node: Option<String>,
    /// `-o`.
    pub(crate) output: Output,
    /// `--service`.
    pub(crate) service: Option<String>,
    /// `--reason`.
    pub(crate) reason: String,
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
    let (mut given_pool, mut output, mut service, mut reason) = (None, None, None, None);
    let mut command = None;
    while let Some(arg) = parser.next()? {
        match arg {
            Short('h') | Long("help") => return Ok(Command::Help),
            Short('V') | Long("version") => return Ok(Command::Version),
            Value(word) if command.is_none() => command = Some(word.string()?),
            Long("pool") => given_pool = Some(pool(parser.value()?.string()?)?),
            Short('o') | Long("output") => output = Some(read_output(&parser.value()?.string()?)?),
            Long("service") => service = Some(read_service(parser.value()?.string()?)?),
            Long("reason") => reason = Some(parser.value()?.string()?),
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
    let question = match command.as_deref() {
        Some("status") => Some(Question::Status),
        Some("show") => Some(Question::Show),
        Some("hold") => Some(Question::Hold),
        Some("use-previous") => Some(Question::UsePrevious),
        Some("resume") => Some(Question::Resume),
        Some("verify") => Some(Question::Verify),
        _ => None,
    };
    let misplaced = [
        ("--output", output.is_some() && question.is_none()),
        ("--service", service.is_some() && question != Some(Question::Show)),
        ("--reason", reason.is_some() && !matches!(question, Some(Question::Hold | Question::UsePrevious))),
    ];
    if let Some((option, _)) = misplaced.into_iter().find(|(_, misplaced)| *misplaced) {
        return Err(
            format!("{option} does not go with {}", command.as_deref().unwrap_or("no command")).into()
        );
    }
    if let Some(question) = question {
        let Options { state_dir, node, .. } = options;
        let output = output.unwrap_or_default();
        let reason = reason.unwrap_or_default();
        let options = AskOptions { state_dir, pool: given_pool, node, output, service, reason };
        return Ok(Command::Ask(question, Box::new(options)));
    }
    options.pool = given_pool.unwrap_or(options.pool);
    match command.as_deref() {
        Some("run") => Ok(Command::Run(Box::new(options))),
        Some("cleanup") => Ok(Command::Cleanup),
        Some("version") => Ok(Command::Version),
        Some("help") | None => Ok(Command::Help),
        Some(other) => {
            let known = "run, status, show, hold, use-previous, resume, verify, cleanup or version";
            Err(format!("unknown command {other:?}: {known}").into())
        }
    }
}

fn read_output(text: &str) -> Result<Output, lexopt::Error> {
    match text {
        "table" => Ok(Output::Table),
        "json" => Ok(Output::Json),
        _ => Err(format!("--output {text:?}: table or json").into()),
    }
}

/// NAMESPACE/NAME, as Kubernetes would have them.
fn read_service(text: String) -> Result<String, lexopt::Error> {
    let good = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.".contains(&b))
    };
    match text.split_once('/') {
        Some((namespace, name)) if good(namespace) && good(name) => Ok(text),
        _ => Err(format!("--service {text:?}: NAMESPACE/NAME is wanted").into()),
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
