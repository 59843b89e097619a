//! The tools iptables-save and iptables-restore.

use std::io::Write as _;
use std::process::{Command, Stdio};

use rulecast_bundle::nft::Family;

use crate::backend::BackendError;

/// What iptables-save prints of a family.
pub(super) fn save(family: Family) -> Result<String, BackendError> {
    run(&format!("{}-save", word(family)), &[], "")
}

/// Gives this to `iptables-restore --noflush`.
pub(super) fn restore(family: Family, text: &str) -> Result<(), BackendError> {
    if text.is_empty() {
        return Ok(());
    }
    run(&format!("{}-restore", word(family)), &["--noflush", "-w", "5"], text).map(drop)
}

fn word(family: Family) -> &'static str {
    match family {
        Family::V4 => "iptables",
        Family::V6 => "ip6tables",
    }
}

fn run(tool: &str, args: &[&str], input: &str) -> Result<String, BackendError> {
    let failed = |reason, message: String| BackendError::Unsupported { reason, message };
    let child = Command::new(tool)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child.map_err(|error| {
        failed(
            "MissingTool",
            format!("the tool {tool} cannot be run ({error}): install the package iptables"),
        )
    })?;
    if let Some(mut stdin) = child.stdin.take() {
        // A tool that ends early says why.
        let _closed = stdin.write_all(input.as_bytes());
    }
    let output = child
        .wait_with_output()
        .map_err(|error| failed("MissingTool", format!("the tool {tool} cannot be run: {error}")))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        return Err(failed("KernelRefused", format!("{tool} failed: {}", stderr.trim())));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
