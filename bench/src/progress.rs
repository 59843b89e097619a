//! What is going on, on stderr: a line that renews itself on a terminal, a line now and then elsewhere.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

/// Elsewhere than on a terminal, silence until this much time has passed.
const PATIENCE: Duration = Duration::from_secs(10);

/// Tells what is going on.
pub struct Progress {
    terminal: bool,
    said: Instant,
}

impl Default for Progress {
    fn default() -> Self {
        Self { terminal: std::io::stderr().is_terminal(), said: Instant::now() }
    }
}

impl Progress {
    /// Begins a step.
    pub fn step(&mut self, what: &str) {
        if self.terminal {
            eprint!("\r\x1b[K{what} …");
            // Nobody is hurt when progress cannot be shown.
            let _ = std::io::stderr().flush();
        } else if self.said.elapsed() > PATIENCE {
            eprintln!("{what} …");
            self.said = Instant::now();
        }
    }

    /// Makes room for output.
    pub fn clear(&self) {
        if self.terminal {
            eprint!("\r\x1b[K");
        }
    }
}
