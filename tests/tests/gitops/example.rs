//! Runs what `docs/gitops.md` tells people to type, and compares what they are told to see.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail, ensure};
use rulecast_tests::cluster::Cluster;
use rulecast_tests::programs::{self, CLI, CONTROLLER};

use crate::document::{self, Step};

/// How long all of it may take, in seconds: some of it waits for what has to come.
const LIMIT: &str = "240";
/// Between the outputs of the steps.
const MARK: char = '\u{1e}';

pub(crate) fn the_document_does_what_it_says(c: &mut Cluster) -> anyhow::Result<()> {
    document::self_check()?;
    let path = programs::repository().join("docs/gitops.md");
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let steps = document::steps(&text)?;
    ensure!(steps.len() > 10, "{}: {} blocks only", path.display(), steps.len());
    let (output, succeeded) = run(c, &steps)?;
    let mut outputs: Vec<&str> = output.split(MARK).collect();
    let rest = outputs.pop().unwrap_or_default();
    for (step, output) in steps.iter().zip(&outputs) {
        for expected in &step.expected {
            document::check(expected, output)
                .with_context(|| format!("docs/gitops.md, line {}; it printed\n{output}\n", step.line))?;
        }
    }
    match steps.get(outputs.len()) {
        Some(failed) => bail!("docs/gitops.md, line {}: it failed and printed\n{rest}", failed.line),
        None => ensure!(succeeded, "what the document starts did not end well:\n{rest}"),
    }
    Ok(())
}

/// Everything in one shell, as one would type it: its output, and whether it succeeded.
fn run(c: &Cluster, steps: &[Step]) -> anyhow::Result<(String, bool)> {
    let dir = tempfile::Builder::new().prefix("rc-git-").tempdir()?;
    let path = |name: &str| dir.path().join(name);
    // What is started in the background ends with the shell, also when that fails half-way.
    let mut script =
        "set -eu -o pipefail\nexec 2>&1\ntrap 'kill $(jobs -p) 2>/dev/null || :' EXIT\n".to_owned();
    for step in steps {
        writeln!(script, "{}\nprintf '\\036'", step.script)?;
    }
    fs::write(path("script"), script)?;
    fs::create_dir(path("bin"))?;
    for program in [CLI, CONTROLLER] {
        symlink(programs::folder()?.join(program), path("bin").join(program))?;
    }
    symlink(c.kubectl_program(), path("bin/kubectl"))?;
    for folder in ["home", "work"] {
        fs::create_dir(path(folder))?;
    }
    let output = c.network.hub.run(|| shell(dir.path(), &c.control_plane.kubeconfig()).output())??;
    Ok((String::from_utf8(output.stdout)?, output.status.success()))
}

/// Nothing of the user's: neither Git's settings nor credentials.
fn shell(dir: &Path, kubeconfig: &Path) -> Command {
    let found = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new("timeout");
    command
        .args(["--kill-after", "10", LIMIT, "bash"])
        .arg(dir.join("script"))
        .current_dir(dir.join("work"))
        .env("PATH", format!("{}:{found}", dir.join("bin").display()))
        .env("HOME", dir.join("home"))
        .env("XDG_CONFIG_HOME", dir.join("home"))
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", dir.join("home/gitconfig"))
        .env("KUBECONFIG", kubeconfig)
        .env("NO_PROXY", "*")
        .env("no_proxy", "*")
        // The cluster's controller has the usual port.
        .env("RULECAST_BIND", "127.0.0.1:0")
        .stdin(Stdio::null())
        .stderr(Stdio::null());
    for variable in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"] {
        command.env_remove(variable);
    }
    command
}
