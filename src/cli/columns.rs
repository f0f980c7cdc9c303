//! Tables on standard output.

use super::terminal::escape;
use std::io::IsTerminal;

/// Columns between two cells.
const GAP: usize = 2;

/// Below this many columns a cell is not wrapped any more.
const LEAST: usize = 20;

/// Columns of the terminal that reads standard output, else of the variable COLUMNS; `None` for files and pipes, whose
/// lines are not broken.
pub(crate) fn width() -> Option<usize> {
    let stdout = std::io::stdout();
    let terminal = stdout.is_terminal().then(|| terminal_size::terminal_size_of(&stdout)).flatten();
    match terminal {
        Some((terminal_size::Width(width), _)) => Some(usize::from(width)),
        None => std::env::var("COLUMNS").ok()?.parse().ok(),
    }
}

/// Rows in aligned columns behind `indent` spaces; the last column is wrapped at spaces so that lines fit `width`.
pub(crate) fn aligned<const N: usize>(rows: &[[&str; N]], indent: usize, width: Option<usize>) -> String {
    let rows: Vec<[_; N]> = rows.iter().map(|row| row.map(escape)).collect();
    let widths: [usize; N] =
        std::array::from_fn(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0));
    let start = indent + widths[..N - 1].iter().map(|width| width + GAP).sum::<usize>();
    let room = width.map_or(usize::MAX, |width| width.saturating_sub(start).max(LEAST));
    let mut text = String::new();
    for row in &rows {
        let mut line = " ".repeat(indent);
        for (cell, width) in row.iter().zip(widths).take(N - 1) {
            line += cell;
            line += &" ".repeat(width - cell.chars().count() + GAP);
        }
        for part in wrapped(&row[N - 1], room) {
            text += (line + &part).trim_end();
            text += "\n";
            line = " ".repeat(start);
        }
    }
    text
}

/// `text` in lines of at most `room` characters, but for words that are longer; at least one line.
fn wrapped(text: &str, room: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut length = 0;
    for word in text.split(' ') {
        let letters = word.chars().count();
        if length > 0 && length + 1 + letters > room {
            lines.push(String::new());
            length = 0;
        }
        if let Some(line) = lines.last_mut() {
            if length > 0 {
                line.push(' ');
                length += 1;
            }
            line.push_str(word);
            length += letters;
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_column_is_wrapped_below_its_beginning() {
        let rows = [["name", "about"], ["σ", "a deviation of twenty-one"], ["empty", ""]];
        assert_eq!(
            aligned(&rows, 1, Some(29)),
            " name   about\n σ      a deviation of\n        twenty-one\n empty\n",
            "21 columns are left"
        );
        assert_eq!(aligned(&rows, 0, None), "name   about\nσ      a deviation of twenty-one\nempty\n");
        assert_eq!(aligned(&rows, 0, Some(3)), "name   about\nσ      a deviation of\n       twenty-one\nempty\n");
    }

    #[test]
    fn words_that_fit_nowhere_stay_whole() {
        assert_eq!(wrapped("a abcdefghij b", 4), ["a", "abcdefghij", "b"]);
        assert_eq!(wrapped("", 4), [""]);
        assert_eq!(wrapped("ab cd", 5), ["ab cd"]);
    }
}
