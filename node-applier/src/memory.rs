//! Keeping the process small after large transactions.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

/// What glibc's allocator is told, as environment variables: buffers above 128 KiB go back to the system when they are
/// freed. By default it raises both limits with the first large buffer that is freed, and then keeps up to twice that
/// buffer's size for good; a node that wrote 10,000 Services once would stay 7 MB larger.
pub const ALLOCATOR: [(&str, &str); 2] =
    [("MALLOC_MMAP_THRESHOLD_", "131072"), ("MALLOC_TRIM_THRESHOLD_", "131072")];

/// Starts this program again with [`ALLOCATOR`], since glibc reads that at start only. Does nothing when somebody has
/// chosen already, or when the program cannot be started again.
pub fn settle() {
    if ALLOCATOR.iter().any(|(name, _)| std::env::var_os(name).is_some()) {
        return;
    }
    if let Ok(program) = std::env::current_exe() {
        let _stays_as_it_is = Command::new(program).args(std::env::args_os().skip(1)).envs(ALLOCATOR).exec();
    }
}
