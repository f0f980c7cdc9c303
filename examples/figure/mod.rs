//! Drawings that explain themselves, as SVG: a title, a few sentences, and panels on a grid.
//!
//! Text and coordinates of one seed are the same bytes on every run, so that a committed picture changes when what it shows
//! does.
#![allow(dead_code, unused_imports, reason = "every example draws with a part of this")]

mod axis;
mod color;
mod panel;
mod space;

pub(crate) use axis::Axis;
pub(crate) use color::{BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, RED, Ramp, SKY};
pub(crate) use panel::{Mark, Panel, cells};
pub(crate) use space::View;

use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Room around the plot of a panel, in pixels.
const LEFT: f64 = 62.0;
const RIGHT: f64 = 20.0;
const ABOVE: f64 = 64.0;
const BELOW: f64 = 54.0;
/// Width of the plot of a panel that spans one column.
const PLOT: f64 = 300.0;
/// Side of the page that stays free.
const EDGE: f64 = 14.0;
/// Width of a letter in units of its size, of the widest of the fonts that are asked for.
const LETTER: f64 = 0.58;

/// A page of panels.
pub(crate) struct Figure {
    columns: usize,
    /// Heights of the plots of each row.
    rows: Vec<f64>,
    /// Where the first row begins.
    top: f64,
    /// Panels so far.
    panels: usize,
    body: String,
}

/// Where a panel is.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    /// From 0.
    pub(crate) row: usize,
    /// From 0.
    pub(crate) column: usize,
    /// Columns that it takes.
    pub(crate) span: usize,
}

/// One cell of the grid.
pub(crate) fn at(row: usize, column: usize) -> Place {
    Place { row, column, span: 1 }
}

impl Figure {
    /// A page of so many columns and of rows whose plots have these heights, in pixels.
    pub(crate) fn new(title: &str, about: &str, columns: usize, rows: &[f64]) -> Self {
        let mut figure = Self { columns, rows: rows.to_vec(), top: 0.0, panels: 0, body: String::new() };
        let width = figure.width() - 2.0 * EDGE - 12.0;
        let mut y = EDGE + 24.0;
        text(&mut figure.body, [EDGE + 6.0, y], title, &Letters { size: 20.0, bold: true, ..Letters::default() });
        for line in wrapped(about, width, 13.5) {
            y += 19.0;
            text(&mut figure.body, [EDGE + 6.0, y], &line, &Letters { size: 13.5, ..Letters::default() });
        }
        figure.top = y + 14.0;
        figure
    }

    fn width(&self) -> f64 {
        2.0 * EDGE + self.columns as f64 * (LEFT + PLOT + RIGHT)
    }

    fn height(&self) -> f64 {
        self.top + self.rows.iter().map(|height| ABOVE + height + BELOW).sum::<f64>() + EDGE
    }

    /// Draws a panel: `note` stands small under its `title`, and what `draw` draws is clipped to the axes.
    pub(crate) fn panel(
        &mut self,
        place: Place,
        (title, note): (&str, &str),
        (x, y): (Axis, Axis),
        draw: impl FnOnce(&mut Panel<'_>),
    ) {
        let left = EDGE + place.column as f64 * (LEFT + PLOT + RIGHT) + LEFT;
        let above: f64 = self.rows[..place.row].iter().map(|height| ABOVE + height + BELOW).sum();
        let top = self.top + above + ABOVE;
        let width = place.span as f64 * (LEFT + PLOT + RIGHT) - LEFT - RIGHT;
        let height = self.rows[place.row];
        let lines = wrapped(note, width + 0.5 * RIGHT, 12.0);
        // Room for two lines, so that the titles of a row are on one line.
        let first = top - 40.0;
        text(&mut self.body, [left, first], title, &Letters { size: 14.5, bold: true, ..Letters::default() });
        for (index, line) in lines.iter().enumerate() {
            let at = [left, first + 16.5 + 15.0 * index as f64];
            text(&mut self.body, at, line, &Letters { size: 12.0, color: GREY, ..Letters::default() });
        }
        let mut panel = Panel::new(&mut self.body, self.panels, [left, top, width, height], x, y);
        draw(&mut panel);
        panel.finish();
        self.panels += 1;
    }

    /// The whole as text.
    pub(crate) fn svg(&self) -> String {
        let (width, height) = (self.width(), self.height());
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" width=\"{width:.0}\" \
             height=\"{height:.0}\" font-family=\"Helvetica, Arial, 'DejaVu Sans', sans-serif\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n{}</svg>\n",
            self.body
        )
    }

    /// Writes the file that the first argument of the program names, or `out/NAME.svg`, and says so.
    pub(crate) fn save(&self, name: &str) -> std::io::Result<()> {
        let path =
            std::env::args_os().nth(1).map_or_else(|| Path::new("out").join(format!("{name}.svg")), PathBuf::from);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(&path, self.svg())?;
        println!("{} shows it", path.display());
        Ok(())
    }
}

/// How text looks.
struct Letters<'a> {
    size: f64,
    bold: bool,
    color: &'a str,
    /// `start`, `middle` or `end`.
    anchor: &'a str,
    /// Turned by a quarter to the left.
    upwards: bool,
}

impl Default for Letters<'_> {
    fn default() -> Self {
        Self { size: 12.0, bold: false, color: BLACK, anchor: "start", upwards: false }
    }
}

fn text(body: &mut String, [x, y]: [f64; 2], words: &str, letters: &Letters<'_>) {
    let Letters { size, bold, color, anchor, upwards } = letters;
    let words = words.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let weight = if *bold { " font-weight=\"bold\"" } else { "" };
    let turn = if *upwards { format!(" transform=\"rotate(-90 {x:.1} {y:.1})\"") } else { String::new() };
    let _ = writeln!(
        body,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" font-size=\"{size}\" fill=\"{color}\" text-anchor=\"{anchor}\"{weight}{turn}>{words}</text>"
    );
}

/// Lines of words that fit into `width` pixels.
fn wrapped(words: &str, width: f64, size: f64) -> Vec<String> {
    let most = (width / (LETTER * size)) as usize;
    let mut lines: Vec<String> = Vec::new();
    for word in words.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= most => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}
