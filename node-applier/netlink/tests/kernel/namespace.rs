//! A fresh network namespace for each test, and nft as its witness.

use std::io::Write;
use std::process::{Command, Stdio};

use rustix::thread::UnshareFlags;

/// Runs a test on its own thread in its own network namespace, which ends with it. Fails when not root: a skipped test
/// looks like a passed one.
pub(crate) fn in_namespace(test: impl FnOnce() + Send + 'static) {
    let thread = std::thread::spawn(|| {
        #[expect(deprecated, reason = "unsafe for CLONE_FILES, which this is not")]
        rustix::thread::unshare(UnshareFlags::NEWNET).expect("these tests need root, for network namespaces");
        test();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Runs the nft tool, which must succeed.
pub(crate) fn nft(arguments: &[&str], input: &str) -> String {
    let mut nft = Command::new("nft")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("these tests need the nft tool");
    nft.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = nft.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "nft {arguments:?}: {} {stderr}\n{input}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

/// Runs the ip tool, which must succeed.
pub(crate) fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status().expect("these tests need iproute2");
    assert!(status.success(), "ip {arguments}");
}

/// `nft list ruleset`.
pub(crate) fn listing() -> String {
    nft(&["list", "ruleset"], "")
}
