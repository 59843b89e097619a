//! What commands print: for people as text, for programs as JSON or YAML, from the same values.

mod age;
mod page;
mod table;

use std::io::{self, Write as _};

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use serde::Serialize;

pub(crate) use age::{age, now, since};
pub(crate) use page::{Page, Tone, clean, plural};
pub(crate) use table::{Cell, Table};

/// The flag that all commands with output share.
#[derive(Args, Debug, Clone, Copy, Default)]
pub(crate) struct OutputArgs {
    /// The form of the output.
    #[arg(short, long, value_enum, default_value_t, help_heading = "Output")]
    pub(crate) output: Format,
}

/// A form of output.
#[derive(ValueEnum, Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Table,
    /// The same with more columns.
    Wide,
    /// For programs.
    Json,
    /// For programs and people.
    Yaml,
}

impl Format {
    /// Whether a person reads it.
    pub(crate) fn is_text(self) -> bool {
        matches!(self, Self::Table | Self::Wide)
    }
}

/// What has a form for people beside the one that serde gives it.
pub(crate) trait Show: Serialize {
    /// Writes it for people; `wide` asks for more columns.
    fn show(&self, page: &mut Page, wide: bool);
}

/// Prints a value in the form that is asked for.
pub(crate) fn print<T: Show>(value: &T, format: Format) -> anyhow::Result<()> {
    let text = match format {
        Format::Table | Format::Wide => {
            let mut page = Page::default();
            value.show(&mut page, format == Format::Wide);
            page.into_text()
        }
        Format::Json => serde_json::to_string_pretty(value)? + "\n",
        Format::Yaml => serde_saphyr::to_string(value)?,
    };
    write(&text)
}

/// Writes to standard output, without colours where that is no terminal or `NO_COLOR` is set. A reader that has seen enough
/// and closed the pipe is no failure.
pub(crate) fn write(text: &str) -> anyhow::Result<()> {
    let mut out = anstream::stdout();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error).context("standard output"),
        _ => Ok(()),
    }
}

/// Writes a line about the work itself to standard error, which programs that read the output do not see.
pub(crate) fn note(text: &str) {
    let _closed = writeln!(anstream::stderr(), "{text}");
}
