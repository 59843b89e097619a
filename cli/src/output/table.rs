//! Tables as kubectl prints them.

use super::{Tone, clean};

/// Between two columns.
const GAP: &str = "   ";

/// A cell.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    /// A cell in a colour.
    pub(crate) fn new(tone: Tone, text: impl AsRef<str>) -> Self {
        Self { text: clean(text.as_ref()), tone }
    }
}

impl<T: AsRef<str>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::new(Tone::Plain, text)
    }
}

/// Rows under headings.
#[derive(Debug)]
pub(crate) struct Table {
    headings: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// An empty one with these headings.
    pub(crate) fn new(headings: &[&'static str]) -> Self {
        Self { headings: headings.to_vec(), rows: Vec::new() }
    }

    /// Adds a row, with a cell for each heading.
    pub(crate) fn row(&mut self, cells: Vec<Cell>) {
        debug_assert_eq!(cells.len(), self.headings.len(), "a cell for each heading");
        self.rows.push(cells);
    }

    /// Whether there are no rows.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub(super) fn write(&self, out: &mut String) {
        let headings: Vec<Cell> = self.headings.iter().map(Cell::from).collect();
        let rows = || std::iter::once(&headings).chain(&self.rows);
        let width = |column: usize| rows().map(|row| length(&row[column])).max().unwrap_or(0);
        let widths: Vec<usize> = (0..self.headings.len()).map(width).collect();
        for row in rows() {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                line += &cell.tone.paint(shown(cell));
                line += &" ".repeat(width - length(cell));
                line += GAP;
            }
            *out += line.trim_end();
            out.push('\n');
        }
    }
}

/// An empty cell would look as if columns had moved.
fn shown(cell: &Cell) -> &str {
    if cell.text.is_empty() { "-" } else { &cell.text }
}

fn length(cell: &Cell) -> usize {
    shown(cell).chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_whatever_their_colour() {
        let mut table = Table::new(&["POOL", "STATE", "AGE"]);
        table.row(vec!["a".into(), Cell::new(Tone::Bad, "not ready"), "5m".into()]);
        table.row(vec!["a-long-name".into(), "".into(), "1d".into()]);
        let mut out = String::new();
        table.write(&mut out);
        assert_eq!(
            out,
            "POOL          STATE       AGE\n\
             a             \u{1b}[31mnot ready\u{1b}[0m   5m\n\
             a-long-name   -           1d\n"
        );
    }
}
