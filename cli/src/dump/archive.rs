//! Writes a dump as a tar archive.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use k8s_openapi::jiff::Timestamp;
use tar::{Builder, Header};

use super::collect::Dump;

/// All files lie in this folder, so that unpacking does not litter.
const FOLDER: &str = "rulecast-support";

/// Writes it into a new file that only its owner can read: what it says of a cluster is nobody else's business.
pub(super) fn write(path: &Path, dump: &Dump, at: Timestamp) -> std::io::Result<()> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    let mut archive = Builder::new(GzEncoder::new(file, Compression::default()));
    for (name, content) in &dump.files {
        let mut header = Header::new_gnu();
        header.set_mode(0o644);
        header.set_mtime(u64::try_from(at.as_second()).unwrap_or(0));
        header.set_size(content.len() as u64);
        archive.append_data(&mut header, format!("{FOLDER}/{name}"), content.as_bytes())?;
    }
    archive.into_inner()?.finish()?.flush()
}
