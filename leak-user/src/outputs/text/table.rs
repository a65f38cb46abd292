//! Tables: a header, and rows whose cells stand below each other.

use std::io;

use crate::outputs::text::style::{Paint, Tone};

/// A column's heading, and on which side its cells are aligned.
#[derive(Clone, Copy)]
pub(super) enum Column {
    /// Text, aligned to the left.
    Text(&'static str),
    /// A number, aligned to the right.
    Number(&'static str),
}

impl Column {
    fn heading(self) -> &'static str {
        match self {
            Self::Text(heading) | Self::Number(heading) => heading,
        }
    }

    fn align(self, cell: &str, width: usize) -> String {
        match self {
            Self::Text(_) => format!("{cell:<width$}"),
            Self::Number(_) => format!("{cell:>width$}"),
        }
    }
}

/// Writes the header and the rows, each with a cell for each column.
pub(super) fn write(
    out: &mut impl io::Write,
    paint: Paint,
    columns: &[Column],
    rows: &[Vec<String>],
) -> io::Result<()> {
    let header: Vec<String> = columns.iter().map(|column| column.heading().to_owned()).collect();
    let widths: Vec<usize> = (0..columns.len())
        .map(|index| {
            let cells = std::iter::once(&header).chain(rows).filter_map(|row| row.get(index));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        })
        .collect();
    let line = |row: &[String]| {
        let cells = columns.iter().zip(row).zip(&widths);
        let cells: Vec<_> =
            cells.map(|((column, cell), &width)| column.align(cell, width)).collect();
        cells.join("  ").trim_end().to_owned()
    };
    writeln!(out, "{}", paint.tone(Tone::Strong, &line(&header)))?;
    rows.iter().try_for_each(|row| writeln!(out, "{}", line(row)))
}
