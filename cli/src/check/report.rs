//! What was checked, and what came of it.

use serde::Serialize;

use crate::cluster::Problem;
use crate::output::{Page, Show, Tone, plural};

/// What came of one check.
#[derive(Serialize, Debug, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verdict {
    /// As it should be.
    Good,
    /// Neither good nor bad; somebody may want to know.
    Note,
    /// Not as it should be.
    Bad,
    /// It could not be found out.
    Unknown,
}

/// One check.
#[derive(Serialize, Debug, Clone, PartialEq, Eq)]
pub(crate) struct Item {
    pub(crate) verdict: Verdict,
    pub(crate) what: String,
    /// What to do.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) fix: String,
}

/// Checks that belong together.
#[derive(Serialize, Debug, Clone, PartialEq, Eq)]
pub(crate) struct Section {
    pub(crate) title: String,
    pub(crate) checks: Vec<Item>,
}

impl Section {
    /// An empty one.
    pub(crate) fn new(title: impl Into<String>) -> Self {
        Self { title: title.into(), checks: Vec::new() }
    }

    fn add(&mut self, verdict: Verdict, what: impl Into<String>, fix: impl Into<String>) {
        self.checks.push(Item { verdict, what: what.into(), fix: fix.into() });
    }

    /// Something is as it should be.
    pub(crate) fn good(&mut self, what: impl Into<String>) {
        self.add(Verdict::Good, what, "");
    }

    /// Something that is no failure.
    pub(crate) fn note(&mut self, what: impl Into<String>) {
        self.add(Verdict::Note, what, "");
    }

    /// The same with a next step.
    pub(crate) fn advise(&mut self, what: impl Into<String>, fix: impl Into<String>) {
        self.add(Verdict::Note, what, fix);
    }

    /// Something is wrong, and what to do.
    pub(crate) fn bad(&mut self, what: impl Into<String>, fix: impl Into<String>) {
        self.add(Verdict::Bad, what, fix);
    }

    /// Good or bad.
    pub(crate) fn judge(&mut self, holds: bool, what: impl Into<String>, fix: impl Into<String>) {
        if holds { self.good(what) } else { self.bad(what, fix) }
    }

    /// An answer; one that was refused is a check that could not be made. Without any connection there is no report.
    pub(crate) fn take<T>(&mut self, what: &str, answer: Result<T, Problem>) -> Result<Option<T>, Problem> {
        match answer {
            Ok(answer) => Ok(Some(answer)),
            Err(
                problem @ (Problem::Unreachable { .. }
                | Problem::Silent { .. }
                | Problem::Unauthorized { .. }),
            ) => Err(problem),
            Err(Problem::Forbidden { what: refused, rule, can_i, .. }) => {
                let fix = format!("needed: a rule {rule}; check: kubectl auth can-i {can_i}");
                self.add(Verdict::Unknown, format!("{what}: you may not {refused}"), fix);
                Ok(None)
            }
            Err(other) => {
                self.add(Verdict::Unknown, format!("{what}: {other}"), "");
                Ok(None)
            }
        }
    }

    /// Whether nothing in it is bad or unknown.
    pub(crate) fn passed(&self) -> bool {
        self.checks.iter().all(|check| matches!(check.verdict, Verdict::Good | Verdict::Note))
    }
}

/// All of it.
#[derive(Serialize, Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Report {
    sections: Vec<Section>,
}

impl Report {
    pub(crate) fn add(&mut self, section: Section) {
        self.sections.push(section);
    }

    /// Whether every check was made and is good.
    pub(crate) fn passed(&self) -> bool {
        self.sections.iter().all(Section::passed)
    }

    /// How many there are of which kind.
    pub(crate) fn summary(&self) -> String {
        let all = || self.sections.iter().flat_map(|section| &section.checks);
        let count = |verdict| all().filter(|check| check.verdict == verdict).count();
        let (bad, unknown) = (count(Verdict::Bad), count(Verdict::Unknown));
        let mut text = format!("{} passed", plural(count(Verdict::Good), "check"));
        for (count, what) in [(bad, "failed"), (unknown, "could not be made")] {
            if count > 0 {
                text = format!("{text}, {count} {what}");
            }
        }
        text
    }
}

impl Show for Report {
    fn show(&self, page: &mut Page, _wide: bool) {
        for section in &self.sections {
            page.gap();
            page.toned(Tone::Strong, &section.title);
            for check in &section.checks {
                let (mark, tone) = match check.verdict {
                    Verdict::Good => ("✓", Tone::Good),
                    Verdict::Note => ("-", Tone::Plain),
                    Verdict::Bad => ("✗", Tone::Bad),
                    Verdict::Unknown => ("?", Tone::Attention),
                };
                page.toned(tone, &format!("  {mark} {}", check.what));
                if !check.fix.is_empty() {
                    page.line(&format!("      next: {}", check.fix));
                }
            }
        }
        page.gap();
        page.toned(if self.passed() { Tone::Good } else { Tone::Bad }, &self.summary());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_not_be_checked_is_not_passed() {
        let mut section = Section::new("a");
        section.good("x");
        section.note("y");
        assert!(section.passed());
        let refused = Problem::Forbidden {
            what: "list pods".into(),
            said: String::new(),
            rule: "{}".into(),
            can_i: "list pods".into(),
        };
        assert_eq!(section.take::<()>("pods", Err(refused)), Ok(None));
        assert!(!section.passed());
        let mut report = Report::default();
        report.add(section);
        assert_eq!(report.summary(), "1 check passed, 1 could not be made");
    }

    #[test]
    fn without_a_connection_there_is_no_report() {
        let mut section = Section::new("a");
        let silent = Problem::Silent { address: "x".into(), seconds: 30 };
        assert!(section.take::<()>("pods", Err(silent)).is_err());
    }
}
