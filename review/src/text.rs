//! Differences for a terminal.

use std::fmt::Write as _;

use crate::plain::plain;
use crate::{ChangeKind, Difference, FieldChange, MembershipDifference, ServiceChange};

/// The most lines for one Service, its name included: with the heading and what may follow, a change of one Service fits
/// in 20.
const SERVICE_LINES: usize = 17;
/// The most lines for the pool's own part.
const POOL_LINES: usize = 60;

const GREEN: &str = "\x1b[32m";
const RED: &str = "\x1b[31m";
const YELLOW: &str = "\x1b[33m";
const OFF: &str = "\x1b[0m";

impl Difference {
    /// The difference, for people: a heading, and for each Service its changed fields. Of very many fields the first are
    /// shown and the rest are counted. `colour`: with the escapes of terminals.
    #[must_use]
    pub fn text(&self, colour: bool) -> String {
        let mut out = self.heading();
        out.push('\n');
        if !self.pool.is_empty() {
            out.push_str("RulePool options\n");
            fields(&mut out, &self.pool, POOL_LINES, colour);
        }
        for change in &self.services {
            service(&mut out, change, colour);
        }
        out
    }
}

fn service(out: &mut String, change: &ServiceChange, colour: bool) {
    let (mark, tint) = match change.kind {
        ChangeKind::Added => ('+', GREEN),
        ChangeKind::Removed => ('-', RED),
        ChangeKind::Changed => ('~', YELLOW),
    };
    out.push_str(&tinted(&format!("{mark} {}", plain(&change.service)), tint, colour));
    out.push('\n');
    // What a Service had that is gone is in the other shape; its name says enough.
    if change.kind != ChangeKind::Removed {
        fields(out, &change.fields, SERVICE_LINES - 1, colour);
    }
}

fn fields(out: &mut String, changes: &[FieldChange], most: usize, colour: bool) {
    let shown = if changes.len() > most { most - 1 } else { changes.len() };
    for change in &changes[..shown] {
        let place = change.place();
        let line = match (&change.before, &change.after) {
            (Some(before), Some(after)) => format!("{place}: {} -> {}", plain(before), plain(after)),
            (Some(before), None) => tinted(&format!("{place}: -{}", plain(before)), RED, colour),
            (None, Some(after)) => tinted(&format!("{place}: +{}", plain(after)), GREEN, colour),
            (None, None) => place,
        };
        let _ = writeln!(out, "    {line}");
    }
    if shown < changes.len() {
        let _ = writeln!(out, "    … and {} more", changes.len() - shown);
    }
}

fn tinted(text: &str, tint: &str, colour: bool) -> String {
    if colour { format!("{tint}{text}{OFF}") } else { text.to_owned() }
}

impl MembershipDifference {
    /// The difference, for people: for each Service its endpoints that came and went.
    #[must_use]
    pub fn text(&self, colour: bool) -> String {
        let mut out = String::new();
        for change in &self.services {
            let _ = writeln!(out, "{}", tinted(&format!("~ {}", plain(&change.service)), YELLOW, colour));
            let shown = if change.endpoints.len() < SERVICE_LINES {
                change.endpoints.len()
            } else {
                SERVICE_LINES - 2
            };
            for endpoint in &change.endpoints[..shown] {
                let tint = match (&endpoint.before, &endpoint.after) {
                    (None, _) => GREEN,
                    (_, None) => RED,
                    _ => YELLOW,
                };
                let _ = writeln!(out, "    {}", tinted(&endpoint.line(), tint, colour));
            }
            if shown < change.endpoints.len() {
                let _ = writeln!(out, "    … and {} more", change.endpoints.len() - shown);
            }
        }
        out
    }
}
