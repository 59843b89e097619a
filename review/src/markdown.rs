//! Differences for a review comment, in the Markdown of GitHub and GitLab.

use std::fmt::Write as _;

use crate::plain::plain;
use crate::{ChangeKind, Difference, FieldChange, MembershipDifference, ServiceChange};

/// Comments are limited to 65,536 characters; the rest is for who embeds this.
const LIMIT: usize = 60_000;
/// The most rows for one Service, or for the pool's own part.
const ROWS: usize = 100;

impl Difference {
    /// The difference as Markdown: a heading with counts, and for each Service a section that can be opened. Names and
    /// values are data: none of them can end a table or a section, or mention somebody. At most 60,000 bytes or so; what does not fit
    /// is counted.
    #[must_use]
    pub fn markdown(&self) -> String {
        let mut out = format!("### Service rules: {}\n", self.heading());
        if !self.pool.is_empty() {
            let rows: Vec<_> = self.pool.iter().map(row).collect();
            section(&mut out, "RulePool options", "changed", &rows);
        }
        for (done, change) in self.services.iter().enumerate() {
            if out.len() > LIMIT {
                let _ = writeln!(out, "\n… and {} more Services", self.services.len() - done);
                break;
            }
            service(&mut out, change);
        }
        out
    }
}

impl MembershipDifference {
    /// The difference as Markdown, as [`Difference::markdown`] has it.
    #[must_use]
    pub fn markdown(&self) -> String {
        let mut out = format!("### Endpoints: {} Services differ\n", self.services.len());
        for (done, change) in self.services.iter().enumerate() {
            if out.len() > LIMIT {
                let _ = writeln!(out, "\n… and {} more Services", self.services.len() - done);
                break;
            }
            let rows: Vec<_> = change
                .endpoints
                .iter()
                .map(|e| {
                    let scope = |scope: &Option<String>| scope.clone().unwrap_or_default();
                    [format!("port {} {}", e.port, e.endpoint), scope(&e.before), scope(&e.after)]
                })
                .collect();
            section(&mut out, &change.service, "endpoints", &rows);
        }
        out
    }
}

fn service(out: &mut String, change: &ServiceChange) {
    let what = match change.kind {
        ChangeKind::Added => "added",
        ChangeKind::Removed => "removed",
        ChangeKind::Changed => "changed",
    };
    section(out, &change.service, what, &change.fields.iter().map(row).collect::<Vec<_>>());
}

fn row(change: &FieldChange) -> [String; 3] {
    let value = |value: &Option<String>| value.clone().unwrap_or_default();
    [change.place(), value(&change.before), value(&change.after)]
}

fn section(out: &mut String, name: &str, what: &str, rows: &[[String; 3]]) {
    let _ = writeln!(out, "\n<details><summary>{} {what}</summary>\n", code(name));
    if !rows.is_empty() {
        out.push_str("| field | before | after |\n|---|---|---|\n");
    }
    for [field, before, after] in rows.iter().take(ROWS) {
        let _ = writeln!(out, "| {} | {} | {} |", code(field), code(before), code(after));
    }
    if rows.len() > ROWS {
        let _ = writeln!(out, "\n… and {} more", rows.len() - ROWS);
    }
    out.push_str("\n</details>\n");
}

/// Literal text. Inside an HTML tag Markdown is still Markdown, so everything that could be more than a letter is written
/// as its number.
fn code(text: &str) -> String {
    if text.is_empty() {
        return String::new();
    }
    let mut out = String::from("<code>");
    for c in plain(text).chars() {
        if c.is_ascii_punctuation() && !".,/-()+;".contains(c) {
            let _ = write!(out, "&#{};", u32::from(c));
        } else {
            out.push(c);
        }
    }
    out + "</code>"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_data() {
        let bad = "a|b`c\n</details>@you*x*[l](http://h)";
        let text = code(bad);
        let inner = text.strip_prefix("<code>").unwrap().strip_suffix("</code>").unwrap();
        for c in ['|', '`', '\n', '<', '>', '@', '*', '[', ':'] {
            assert!(!inner.contains(c), "{inner}");
        }
        assert!(inner.starts_with("a&#124;b&#96;c&#92;u&#123;a&#125;&#60;/details"), "{inner}");
    }
}
