//! `kubectl rulecast support-dump`.

mod archive;
mod collect;
mod redact;

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use k8s_openapi::jiff::Timestamp;
use serde::Serialize;

use crate::cluster::{Cluster, ClusterArgs, block_on};
use crate::exit::Outcome;
use crate::output::{OutputArgs, Page, Show, Tone, now, plural, print};

use collect::Dump;
use redact::Redactor;

pub(crate) const HELP: &str = "\
Examples:
  kubectl rulecast support-dump
  kubectl rulecast support-dump --output /tmp/dump.tar.gz
  tar -xzOf /tmp/dump.tar.gz rulecast-support/README

Names of Services, namespaces, Nodes and pods and all IP addresses are replaced by pseudonyms, the same one each time within a
dump and other ones in the next. Look it through all the same before you send it: what a message quotes cannot be
foreseen. No Secret is ever read.";

/// The options of `support-dump`.
#[derive(Args)]
pub(crate) struct Options {
    /// The file to write, which must not exist; none: rulecast-support-TIME.tar.gz here.
    #[arg(long = "output", id = "file", value_name = "FILE.tar.gz")]
    file: Option<PathBuf>,
    /// Leave names and addresses as they are.
    #[arg(long)]
    no_redact: bool,
    /// The namespace of controller and appliers.
    #[arg(long, value_name = "NAMESPACE", default_value = crate::check::SYSTEM)]
    system_namespace: String,
    /// How many lines of each pod's log.
    #[arg(long, value_name = "LINES", default_value_t = 2000)]
    log_lines: i64,
    /// How many appliers' logs; those of nodes with an error come first.
    #[arg(long, value_name = "PODS", default_value_t = 20)]
    log_pods: usize,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// Runs the command.
pub(crate) fn run(options: &Options) -> anyhow::Result<Outcome> {
    block_on(async {
        let cluster = Cluster::connect(&options.cluster).await?;
        let limits = collect::Limits {
            system: &options.system_namespace,
            log_lines: options.log_lines,
            log_pods: options.log_pods,
        };
        let mut dump = collect::collect(&cluster, &limits).await?;
        let replaced = if options.no_redact { None } else { Some(redact(&mut dump)?) };
        let at = now();
        dump.add("README", readme(&dump, replaced, at));
        let path = options.file.clone().unwrap_or_else(|| default_path(at));
        archive::write(&path, &dump, at).with_context(|| path.display().to_string())?;
        let written = Written {
            file: path.display().to_string(),
            files: dump.files.len(),
            redacted: replaced.is_some(),
            problems: dump.problems,
        };
        print(&written, OutputArgs::default().output)?;
        Ok(Outcome::Fine)
    })
}

fn default_path(at: Timestamp) -> PathBuf {
    PathBuf::from(format!("rulecast-support-{}.tar.gz", at.strftime("%Y%m%dT%H%M%SZ")))
}

/// Replaces names and addresses in everything, and says how many different ones there were.
fn redact(dump: &mut Dump) -> anyhow::Result<usize> {
    let mut redactor = Redactor::new(redact::random_key()?);
    for (kind, name) in &dump.names {
        redactor.learn(*kind, name);
    }
    // All of it before the first replacement: a name that is learnt late may stand in an early file.
    for text in dump.files.values().chain(&dump.problems) {
        redactor.learn_from(text);
    }
    for text in dump.files.values_mut().chain(&mut dump.problems) {
        *text = redactor.redact(text);
    }
    Ok(redactor.replaced())
}

fn readme(dump: &Dump, replaced: Option<usize>, at: Timestamp) -> String {
    let mut text = format!(
        "A support dump of rulecast, made {at} by kubectl-rulecast {}.\n\n",
        env!("CARGO_PKG_VERSION")
    );
    text += match replaced {
        None => "Names and addresses are as they are in the cluster (--no-redact).\n".to_owned(),
        Some(count) => format!(
            "{count} names and addresses are replaced by pseudonyms (node-..., ns-..., svc-..., pod-..., v4-..., v6-...), the \
             same one wherever the same name was. The key is not kept.\n"
        ),
    }
    .as_str();
    text += "Left out everywhere: annotations, managedFields, values of environment variables, bytes of deltas and chunks. \
             No Secret was read.\n\n";
    for (name, content) in &dump.files {
        let what = collect::describe(name);
        text = format!("{text}{name:32} {:>9} bytes  {what}\n", content.len());
    }
    if !dump.problems.is_empty() {
        text += "\nWhat could not be read:\n";
        for problem in &dump.problems {
            text = format!("{text}- {problem}\n");
        }
    }
    text
}

/// What the command prints.
#[derive(Serialize)]
struct Written {
    file: String,
    files: usize,
    redacted: bool,
    problems: Vec<String>,
}

impl Show for Written {
    fn show(&self, page: &mut Page, _wide: bool) {
        page.toned(Tone::Good, &format!("{}: {}", self.file, plural(self.files, "file")));
        if !self.redacted {
            page.toned(Tone::Attention, "It has names and addresses of the cluster in it.");
        }
        for problem in &self.problems {
            page.toned(Tone::Attention, &format!("not in it: {problem}"));
        }
    }
}
