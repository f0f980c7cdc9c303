//! A plane with axes, and what is drawn on it.

use super::axis::Axis;
use super::color::{BLACK, Ramp};
use super::{LETTER, Letters, text};
use std::collections::BTreeMap;
use std::fmt::Write;

/// Colours that a map of values is rounded to.
const SHADES: f64 = 24.0;

/// What is drawn goes into the plane of the axes, in their units.
pub(crate) struct Panel<'a> {
    body: &'a mut String,
    left: f64,
    top: f64,
    width: f64,
    height: f64,
    x: Axis,
    y: Axis,
    /// What lies over everything.
    notes: String,
}

/// What stands for something in a legend.
#[derive(Clone, Copy)]
pub(crate) enum Mark<'a> {
    /// A dot of this colour.
    Dot(&'a str),
    /// A line of this colour.
    Line(&'a str),
    /// A broken line of this colour.
    Dashes(&'a str),
    /// A bar of this colour.
    Bar(&'a str),
}

/// The middles of `n × n` cells that fill a panel with these axes, row by row from below.
pub(crate) fn cells((x, y): &(Axis, Axis), n: usize) -> Vec<[f64; 2]> {
    let share = |k: usize| (k as f64 + 0.5) / n as f64;
    (0..n * n).map(|at| [x.value(share(at % n)), y.value(share(at / n))]).collect()
}

impl<'a> Panel<'a> {
    pub(super) fn new(
        body: &'a mut String,
        index: usize,
        [left, top, width, height]: [f64; 4],
        x: Axis,
        y: Axis,
    ) -> Self {
        let _ = writeln!(
            body,
            "<clipPath id=\"panel{index}\"><rect x=\"{left:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{height:.1}\"/></clipPath>\n\
             <g clip-path=\"url(#panel{index})\">"
        );
        Self { body, left, top, width, height, x, y, notes: String::new() }
    }

    /// The frame, its numbers and what lies over everything.
    pub(super) fn finish(self) {
        let Self { body, left, top, width, height, x, y, notes } = self;
        let _ = writeln!(
            body,
            "</g>\n<rect x=\"{left:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" fill=\"none\" stroke=\"#888\"/>"
        );
        for (place, number) in x.ticks() {
            let at = left + place * width;
            let _ = writeln!(body, "<path d=\"M{at:.1} {:.1}v4\" stroke=\"#888\"/>", top + height);
            let letters = Letters { size: 11.0, anchor: "middle", ..Letters::default() };
            text(body, [at, top + height + 17.0], &number, &letters);
        }
        for (place, number) in y.ticks() {
            let at = top + (1.0 - place) * height;
            let _ = writeln!(body, "<path d=\"M{left:.1} {at:.1}h-4\" stroke=\"#888\"/>");
            let letters = Letters { size: 11.0, anchor: "end", ..Letters::default() };
            text(body, [left - 7.0, at + 4.0], &number, &letters);
        }
        let letters = Letters { anchor: "middle", ..Letters::default() };
        text(body, [left + 0.5 * width, top + height + 36.0], &x.label, &letters);
        let at = [left - 44.0, top + 0.5 * height];
        text(body, at, &y.label, &Letters { anchor: "middle", upwards: true, ..Letters::default() });
        body.push_str(&notes);
    }

    fn at(&self, [x, y]: [f64; 2]) -> [f64; 2] {
        let limited = |place: f64| place.clamp(-100.0, 100.0);
        [self.left + limited(self.x.place(x)) * self.width, self.top + (1.0 - limited(self.y.place(y))) * self.height]
    }

    /// Colours of values from 0 to 1 at [`cells`].
    pub(crate) fn heat(&mut self, n: usize, values: &[f64], ramp: Ramp) {
        let mut shades: BTreeMap<u32, String> = BTreeMap::new();
        let shade = |at: usize| (values[at].clamp(0.0, 1.0) * SHADES).round() as u32;
        let (width, height) = (self.width / n as f64, self.height / n as f64);
        for row in 0..n {
            let mut column = 0;
            while column < n {
                let same = (column..n).take_while(|&k| shade(row * n + k) == shade(row * n + column)).count();
                let x = self.left + column as f64 * width;
                let y = self.top + self.height - (row as f64 + 0.5) * height;
                let path = shades.entry(shade(row * n + column)).or_default();
                // A little more than its share, so that no seam is seen.
                let _ = write!(path, "M{x:.1} {y:.1}h{:.1}", same as f64 * width + 0.3);
                column += same;
            }
        }
        for (shade, path) in shades {
            let color = ramp.at(f64::from(shade) / SHADES);
            if color != "#ffffff" {
                let _ =
                    writeln!(self.body, "<path d=\"{path}\" stroke=\"{color}\" stroke-width=\"{:.1}\"/>", height + 0.3);
            }
        }
    }

    /// Lines along which values at [`cells`] are `level`.
    pub(crate) fn contour(&mut self, n: usize, values: &[f64], level: f64, (color, width): (&str, f64)) {
        let place = |column: f64, row: f64| {
            let share = |k: f64| (k + 0.5) / n as f64;
            [self.left + share(column) * self.width, self.top + (1.0 - share(row)) * self.height]
        };
        let mut path = String::new();
        for (row, column) in (0..n - 1).flat_map(|row| (0..n - 1).map(move |column| (row, column))) {
            let value = |right: usize, up: usize| values[(row + up) * n + column + right] - level;
            // The four corners, round the cell; an edge with a change of sign has a point of the line.
            let corners = [(0, 0), (1, 0), (1, 1), (0, 1)];
            let mut crossings = Vec::new();
            for k in 0..4 {
                let ((a, b), (c, d)) = (corners[k], corners[(k + 1) % 4]);
                let (from, to) = (value(a, b), value(c, d));
                if (from > 0.0) != (to > 0.0) {
                    let part = from / (from - to);
                    let between = |from: usize, to: usize| from as f64 + part * (to as f64 - from as f64);
                    crossings.push(place(column as f64 + between(a, c), row as f64 + between(b, d)));
                }
            }
            for pair in crossings.chunks_exact(2) {
                let ([x, y], [u, v]) = (pair[0], pair[1]);
                let _ = write!(path, "M{x:.1} {y:.1}L{u:.1} {v:.1}");
            }
        }
        let _ = writeln!(
            self.body,
            "<path d=\"{path}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"{width}\" stroke-linecap=\"round\"/>"
        );
    }

    /// Dots of `size` pixels.
    pub(crate) fn dots(&mut self, points: &[[f64; 2]], (color, size, opacity): (&str, f64, f64)) {
        let mut path = String::new();
        for &point in points {
            let [x, y] = self.at(point);
            let _ = write!(path, "M{x:.1} {y:.1}h0");
        }
        let _ = writeln!(
            self.body,
            "<path d=\"{path}\" stroke=\"{color}\" stroke-width=\"{size}\" stroke-opacity=\"{opacity}\" stroke-linecap=\"round\"/>"
        );
    }

    /// Arrows from the first to the second point of each pair.
    pub(crate) fn arrows(&mut self, arrows: &[([f64; 2], [f64; 2])], color: &str) {
        let (mut shafts, mut heads) = (String::new(), String::new());
        for &(from, to) in arrows {
            let ([x, y], [u, v]) = (self.at(from), self.at(to));
            let (dx, dy) = (u - x, v - y);
            let length = dx.hypot(dy);
            let _ = write!(shafts, "M{x:.1} {y:.1}L{u:.1} {v:.1}");
            if length > 2.0 {
                let size = (0.4 * length).min(5.0) / length;
                let (bx, by) = (u - size * dx, v - size * dy);
                let (sx, sy) = (-0.5 * size * dy, 0.5 * size * dx);
                let _ = write!(heads, "M{u:.1} {v:.1}L{:.1} {:.1}L{:.1} {:.1}z", bx + sx, by + sy, bx - sx, by - sy);
            }
        }
        let _ = writeln!(
            self.body,
            "<path d=\"{shafts}\" stroke=\"{color}\" stroke-width=\"1.2\" stroke-linecap=\"round\"/>\n\
             <path d=\"{heads}\" fill=\"{color}\"/>"
        );
    }

    /// A line through points.
    pub(crate) fn line(&mut self, points: &[[f64; 2]], (color, width): (&str, f64)) {
        self.stroke(points, color, width, "");
    }

    /// A broken line through points.
    pub(crate) fn dashes(&mut self, points: &[[f64; 2]], (color, width): (&str, f64)) {
        self.stroke(points, color, width, " stroke-dasharray=\"6 4\"");
    }

    fn stroke(&mut self, points: &[[f64; 2]], color: &str, width: f64, dashes: &str) {
        let mut path = String::new();
        let mut pen = 'M';
        for &point in points {
            // A number that is none is a gap.
            if !(point[0].is_finite() && point[1].is_finite()) {
                pen = 'M';
                continue;
            }
            let [x, y] = self.at(point);
            let _ = write!(path, "{pen}{x:.1} {y:.1}");
            pen = 'L';
        }
        let _ = writeln!(
            self.body,
            "<path d=\"{path}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"{width}\" stroke-linejoin=\"round\"{dashes}/>"
        );
    }

    /// Bars from the lower edge, between two places, to a height.
    pub(crate) fn bars(&mut self, bars: &[(f64, f64, f64)], (color, opacity): (&str, f64)) {
        let bottom = self.top + self.height;
        let mut path = String::new();
        for &(from, to, value) in bars {
            let ([x, y], [u, _]) = (self.at([from, value]), self.at([to, value]));
            let _ = write!(path, "M{x:.1} {bottom:.1}V{y:.1}H{u:.1}V{bottom:.1}z");
        }
        let _ = writeln!(self.body, "<path d=\"{path}\" fill=\"{color}\" fill-opacity=\"{opacity}\"/>");
    }

    /// A filled polygon.
    pub(crate) fn area(&mut self, points: &[[f64; 2]], (color, opacity): (&str, f64)) {
        let mut path = String::new();
        for (index, &point) in points.iter().enumerate() {
            let [x, y] = self.at(point);
            let _ = write!(path, "{}{x:.1} {y:.1}", if index == 0 { 'M' } else { 'L' });
        }
        let _ = writeln!(self.body, "<path d=\"{path}z\" fill=\"{color}\" fill-opacity=\"{opacity}\"/>");
    }

    /// Words whose middle is at a point, on white.
    pub(crate) fn label(&mut self, point: [f64; 2], words: &str, color: &str) {
        let [x, y] = self.at(point);
        let width = LETTER * 11.5 * words.chars().count() as f64 + 4.0;
        let _ = writeln!(
            self.notes,
            "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"15\" rx=\"3\" fill=\"#fff\" fill-opacity=\"0.8\"/>",
            x - 0.5 * width,
            y - 7.5
        );
        let letters = Letters { size: 11.5, color, anchor: "middle", ..Letters::default() };
        text(&mut self.notes, [x, y + 4.0], words, &letters);
    }

    /// What is what, in the corner at the given share of the free width and height.
    pub(crate) fn legend(&mut self, [right, up]: [f64; 2], entries: &[(Mark<'_>, &str)]) {
        const SIZE: f64 = 11.5;
        let longest = entries.iter().map(|(_, words)| words.chars().count()).max().unwrap_or(0);
        let (width, height) = (36.0 + LETTER * SIZE * longest as f64, 17.0 * entries.len() as f64 + 6.0);
        let x = self.left + 6.0 + right * (self.width - 12.0 - width);
        let y = self.top + 6.0 + (1.0 - up) * (self.height - 12.0 - height);
        let _ = writeln!(
            self.notes,
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" rx=\"3\" fill=\"#fff\" fill-opacity=\"0.85\"/>"
        );
        for (index, (mark, words)) in entries.iter().enumerate() {
            let line = y + 11.5 + 17.0 * index as f64;
            let from = x + 6.0;
            let stroke = |color: &str, more: &str| {
                format!("<path d=\"M{from:.1} {line:.1}h20\" stroke=\"{color}\" stroke-width=\"2.2\"{more}/>\n")
            };
            self.notes.push_str(&match mark {
                Mark::Line(color) => stroke(color, ""),
                Mark::Dashes(color) => stroke(color, " stroke-dasharray=\"6 4\""),
                Mark::Dot(color) => {
                    format!("<circle cx=\"{:.1}\" cy=\"{line:.1}\" r=\"3.5\" fill=\"{color}\"/>\n", from + 10.0)
                }
                Mark::Bar(color) => {
                    format!(
                        "<rect x=\"{from:.1}\" y=\"{:.1}\" width=\"20\" height=\"10\" fill=\"{color}\"/>\n",
                        line - 5.0
                    )
                }
            });
            let letters = Letters { size: SIZE, color: BLACK, ..Letters::default() };
            text(&mut self.notes, [x + 31.0, line + 4.0], words, &letters);
        }
    }

    /// The colours of a map from 0 to 1, and what its ends and its middle stand for, along the lower edge.
    pub(crate) fn scale(&mut self, ramp: Ramp, words: [&str; 3]) {
        let (width, height) = (150.0, 36.0);
        let (x, y) = (self.left + self.width - width - 44.0, self.top + self.height - height - 6.0);
        let _ = writeln!(
            self.notes,
            "<rect x=\"{:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{height}\" rx=\"3\" fill=\"#fff\" fill-opacity=\"0.85\"/>",
            x - 22.0,
            width + 60.0
        );
        for k in 0..=SHADES as usize {
            let share = k as f64 / SHADES;
            let wide = width / (SHADES + 1.0);
            let _ = writeln!(
                self.notes,
                "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"10\" fill=\"{}\"/>",
                x + k as f64 * wide,
                y + 5.0,
                wide + 0.3,
                ramp.at(share)
            );
        }
        for (share, words) in [0.0, 0.5, 1.0].into_iter().zip(words) {
            let letters = Letters { size: 11.0, anchor: "middle", ..Letters::default() };
            text(&mut self.notes, [x + share * width, y + 29.0], words, &letters);
        }
    }
}
