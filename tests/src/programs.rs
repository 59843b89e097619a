//! The programs under test, built from the same sources as the tests.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context as _, ensure};

/// The controller.
pub const CONTROLLER: &str = "rulecast-controller";
/// The node applier.
pub const APPLIER: &str = "rulecast-node";
/// The command line.
pub const CLI: &str = "kubectl-rulecast";

/// The repository.
#[must_use]
pub fn repository() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().expect("the package lies in the workspace").to_owned()
}

/// The folder for what is slow to build, as `tests/peers/build.sh` has it.
pub fn cache() -> anyhow::Result<PathBuf> {
    let folder = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let base = || folder("XDG_CACHE_HOME").or_else(|| Some(folder("HOME")?.join(".cache")));
    folder("RULECAST_CACHE")
        .or_else(|| Some(base()?.join("rulecast")))
        .context("neither HOME nor RULECAST_CACHE is set")
}

/// The folder with the programs. They are built first, in the profile of this program, unless `RULECAST_BIN_DIR` names
/// a folder that has them: Cargo does not build other packages' programs for a test.
pub fn folder() -> anyhow::Result<&'static Path> {
    static FOLDER: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let built = FOLDER.get_or_init(|| build(&[CONTROLLER, APPLIER, CLI]).map_err(|e| format!("{e:#}")));
    built.as_deref().map_err(|e| anyhow::anyhow!("{e}"))
}

/// The command line, built or found in the same way.
pub fn command_line() -> anyhow::Result<PathBuf> {
    Ok(folder()?.join(CLI))
}

fn build(programs: &[&str]) -> anyhow::Result<PathBuf> {
    if let Some(folder) = std::env::var_os("RULECAST_BIN_DIR").map(PathBuf::from) {
        for program in programs {
            ensure!(
                folder.join(program).is_file(),
                "RULECAST_BIN_DIR: there is no {program} in {}",
                folder.display()
            );
        }
        return Ok(folder);
    }
    let this = std::env::current_exe()?;
    let here = this.parent().context("a program lies in a folder")?;
    // Tests lie in `deps` below the profile's folder.
    let folder = if here.ends_with("deps") { here.parent().unwrap_or(here) } else { here };
    let profile = match folder.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(name) => name,
    };
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["build", "--quiet", "--profile", profile])
        .args(programs.iter().flat_map(|program| ["-p", program]))
        .current_dir(repository())
        .status()
        .context("cargo is needed to build the programs under test; or set RULECAST_BIN_DIR")?;
    ensure!(status.success(), "the programs under test cannot be built (see above)");
    Ok(folder.to_owned())
}

/// A command that runs one of them.
pub fn command(program: &str) -> anyhow::Result<Command> {
    Ok(Command::new(folder()?.join(program)))
}
