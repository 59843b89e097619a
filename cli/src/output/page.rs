//! Text for people, line by line.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};

use super::Table;

/// How a text is meant.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Tone {
    /// Neither.
    #[default]
    Plain,
    /// As it should be.
    Good,
    /// Worth a look.
    Attention,
    /// Wrong.
    Bad,
    /// Beside the point.
    Faint,
    /// A heading.
    Strong,
}

impl Tone {
    fn style(self) -> Style {
        match self {
            Self::Plain => Style::new(),
            Self::Good => AnsiColor::Green.on_default(),
            Self::Attention => AnsiColor::Yellow.on_default(),
            Self::Bad => AnsiColor::Red.on_default(),
            Self::Faint => Style::new().dimmed(),
            Self::Strong => Style::new().bold(),
        }
    }

    /// The text in its colour.
    pub(crate) fn paint(self, text: &str) -> String {
        let style = self.style();
        if text.is_empty() || style == Style::new() {
            return text.to_owned();
        }
        format!("{style}{text}{style:#}")
    }
}

/// A growing text.
#[derive(Debug, Default)]
pub(crate) struct Page {
    text: String,
}

impl Page {
    /// Adds a line. What is in it may come from the cluster.
    pub(crate) fn line(&mut self, text: &str) {
        self.toned(Tone::Plain, text);
    }

    /// Adds a line in a colour.
    pub(crate) fn toned(&mut self, tone: Tone, text: &str) {
        self.text += &tone.paint(&clean(text));
        self.text.push('\n');
    }

    /// Adds `NAME:  VALUE`, with the values in one column.
    pub(crate) fn field(&mut self, name: &str, value: &str) {
        self.toned_field(name, Tone::Plain, value);
    }

    /// The same in a colour.
    pub(crate) fn toned_field(&mut self, name: &str, tone: Tone, value: &str) {
        const WIDTH: usize = 13;
        let name = format!("{name}:");
        let _infallible = writeln!(self.text, "{name:WIDTH$} {}", tone.paint(&clean(value)));
    }

    /// Adds an empty line, but not at the top.
    pub(crate) fn gap(&mut self) {
        if !self.text.is_empty() {
            self.text.push('\n');
        }
    }

    /// Adds a table.
    pub(crate) fn table(&mut self, table: &Table) {
        table.write(&mut self.text);
    }

    /// The whole text, with colours.
    pub(crate) fn into_text(self) -> String {
        self.text
    }
}

/// Makes text of the cluster harmless: a message must not move the cursor of whoever reads it, nor make lines of its own.
pub(crate) fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// `1 node`, `2 nodes`.
pub(crate) fn plural(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_cannot_steer_the_terminal() {
        let mut page = Page::default();
        page.line("a\u{1b}[2Jb\r\nc\u{9b}1m");
        assert_eq!(page.into_text(), "a [2Jb  c 1m\n");
    }

    #[test]
    fn only_a_tone_adds_escapes() {
        assert_eq!(Tone::Plain.paint("x"), "x");
        assert_eq!(Tone::Bad.paint(""), "");
        assert_eq!(Tone::Bad.paint("x"), "\u{1b}[31mx\u{1b}[0m");
    }
}
