//! Tables: a header, and rows whose cells stand below each other.

use std::borrow::Cow;
use std::io;

use crate::outputs::text::line::cut;
use crate::outputs::text::style::{Paint, Tone};

/// A column's heading, and on which side its cells are aligned.
#[derive(Clone)]
pub(super) enum Column {
    /// Text, aligned to the left.
    Text(Cow<'static, str>),
    /// A number, aligned to the right.
    Number(Cow<'static, str>),
}

impl Column {
    fn heading(&self) -> &str {
        match self {
            Self::Text(heading) | Self::Number(heading) => heading,
        }
    }

    fn align(&self, cell: &str, width: usize) -> String {
        match self {
            Self::Text(_) => format!("{cell:<width$}"),
            Self::Number(_) => format!("{cell:>width$}"),
        }
    }
}

/// What stands between two columns.
const GAP: &str = "  ";
/// Text in fewer columns would say nothing.
const LEAST: usize = 8;

/// Takes room from the widest text until all columns fit into `most`.
fn shrink(columns: &[Column], widths: &mut [usize], most: usize) {
    let gaps = GAP.len() * columns.len().saturating_sub(1);
    let excess = (widths.iter().sum::<usize>() + gaps).saturating_sub(most);
    for _ in 0..excess {
        let texts = columns.iter().zip(widths.iter_mut());
        let texts =
            texts.filter(|(column, width)| matches!(column, Column::Text(_)) && **width > LEAST);
        match texts.max_by_key(|(_, width)| **width) {
            Some((_, width)) => *width -= 1,
            None => return,
        }
    }
}

/// Writes the header and the rows, each with a cell for each column, within `most` columns if text
/// can be cut for that.
pub(super) fn write(
    out: &mut impl io::Write,
    paint: Paint,
    columns: &[Column],
    rows: &[Vec<String>],
    most: Option<usize>,
) -> io::Result<()> {
    let header: Vec<String> = columns.iter().map(|column| column.heading().to_owned()).collect();
    let mut widths: Vec<usize> = (0..columns.len())
        .map(|index| {
            let cells = std::iter::once(&header).chain(rows).filter_map(|row| row.get(index));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        })
        .collect();
    shrink(columns, &mut widths, most.unwrap_or(usize::MAX));
    let line = |row: &[String]| {
        let cells = columns.iter().zip(row).zip(&widths);
        let cells: Vec<_> =
            cells.map(|((column, cell), &width)| column.align(&cut(cell, width), width)).collect();
        cells.join(GAP).trim_end().to_owned()
    };
    writeln!(out, "{}", paint.tone(Tone::Strong, &line(&header)))?;
    rows.iter().try_for_each(|row| writeln!(out, "{}", line(row)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_where_it_does_not_fit_and_numbers_are_not() {
        let columns = [Column::Text("SERVER".into()), Column::Number("OPEN".into())];
        let rows = [vec!["db.example.com:5432".to_owned(), "123456".to_owned()]];
        let written = |most| {
            let mut out = Vec::new();
            write(&mut out, Paint::new(false), &columns, &rows, most).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert_eq!(written(None), "SERVER                 OPEN\ndb.example.com:5432  123456\n");
        assert_eq!(written(Some(20)), "SERVER          OPEN\n…le.com:5432  123456\n");
        assert_eq!(written(Some(4)), "SERVER      OPEN\n…om:5432  123456\n");
    }
}
