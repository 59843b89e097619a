//! What became of each field.

use std::fmt::Write as _;

use super::leaves::Leaf;

/// What can become of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is in the RulePool.
    Carried,
    /// Leaving it out changes nothing.
    NotNeeded,
    /// Leaving it out changes something.
    NotCarried,
    /// Nobody knows it; kube-proxy ignores such fields as well.
    NotUnderstood,
}

const HEADINGS: [(Fate, &str); 4] = [
    (Fate::Carried, "Carried over"),
    (Fate::NotNeeded, "Not needed"),
    (Fate::NotCarried, "Not carried over"),
    (Fate::NotUnderstood, "Not understood"),
];

/// What became of all fields.
#[derive(Debug, Default)]
pub(super) struct Report(Vec<Line>);

#[derive(Debug)]
struct Line {
    fate: Fate,
    path: String,
    text: String,
}

impl Report {
    /// Notes what became of the field at `path`, whether or not it is in the file.
    pub(super) fn add(&mut self, fate: Fate, path: impl Into<String>, text: impl Into<String>) {
        self.0.push(Line { fate, path: path.into(), text: text.into() });
    }

    /// Notes what became of a field that is in the file; its value is shown before `text`.
    pub(super) fn leaf(&mut self, fate: Fate, leaf: &Leaf, text: &str) {
        let between = if text.is_empty() { "" } else { ": " };
        self.add(fate, &leaf.path, format!("{}{between}{text}", leaf.shown()));
    }

    /// Whether every field was one that we know.
    pub(super) fn all_understood(&self) -> bool {
        self.0.iter().all(|line| line.fate != Fate::NotUnderstood)
    }

    /// The list, for people.
    pub(super) fn text(&self, place: &str, pool: &str) -> String {
        let mut text = format!("{place}, as RulePool {pool}\n");
        let width = self.0.iter().map(|line| line.path.len()).max().unwrap_or(0);
        for (fate, heading) in HEADINGS {
            let mut lines: Vec<&Line> = self.0.iter().filter(|line| line.fate == fate).collect();
            if lines.is_empty() {
                continue;
            }
            lines.sort_by(|a, b| a.path.cmp(&b.path));
            let _ = writeln!(text, "\n{heading}:");
            for line in lines {
                let _ = writeln!(text, "  {:width$}  {}", line.path, line.text);
            }
        }
        text
    }
}
