//! Curves over the steps of a run, as SVG.

use super::axis::{Axis, Spread, number};
use super::escape;
use std::fmt::Write;

/// A curve.
#[derive(Clone, Debug)]
pub(super) struct Series {
    /// What it is, in a few letters.
    pub(super) name: String,
    /// `(step, value)` in the order of the steps.
    pub(super) points: Vec<(f64, f64)>,
}

/// Curves of one quantity.
#[derive(Clone, Debug)]
pub(super) struct Chart {
    /// What is drawn.
    pub(super) title: &'static str,
    /// Its unit; empty for a number without one.
    pub(super) unit: &'static str,
    /// How steps are spread.
    pub(super) x: Spread,
    /// How values are spread.
    pub(super) y: Spread,
    /// Whether 0 is on the axis of values.
    pub(super) zero: bool,
    /// The curves.
    pub(super) series: Vec<Series>,
}

// The drawing's own units; a page that is a phone wide shows them a little smaller than CSS pixels.
const WIDTH: f64 = 400.0;
const HEIGHT: f64 = 216.0;
const LEFT: f64 = 42.0;
/// Room for the names of curves.
const RIGHT: f64 = 94.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 32.0;
/// Height of a line of text.
const LINE: f64 = 12.0;
/// Points nearer to one another than this are drawn as their mean.
const BIN: f64 = 2.0;
/// Curves of no more points than this show each of them.
const FEW: usize = 40;
/// Colours that the style sheet has.
const COLOURS: usize = 6;

impl Chart {
    /// The drawing; `None` if there is nothing to draw.
    pub(super) fn svg(&self) -> Option<String> {
        let points = || self.series.iter().flat_map(|series| &series.points);
        let x = Axis::holding(self.x, points().map(|(step, _)| *step), (LEFT, WIDTH - RIGHT), 0.0)?;
        let zero = self.zero.then_some(0.0);
        let values = points().map(|(_, value)| *value).chain(zero);
        let y = Axis::holding(self.y, values, (HEIGHT - BOTTOM, TOP), if self.zero { 0.0 } else { 0.04 })?;
        let mut svg = String::new();
        let label = escape(self.title);
        let _ = write!(svg, "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{label}\">");
        axes(&mut svg, &x, &y);
        let mut ends = Vec::new();
        for (index, series) in self.series.iter().enumerate() {
            let bins = bins(&series.points, &x, &y);
            let colour = index % COLOURS;
            if self.series.len() == 1 {
                band(&mut svg, &bins);
            }
            let line: Vec<String> = bins.iter().map(|bin| format!("{:.1},{:.1}", bin.x, bin.mean)).collect();
            let _ = write!(svg, "<polyline class=\"line s{colour}\" points=\"{}\"/>", line.join(" "));
            if series.points.len() <= FEW {
                for &(step, value) in &series.points {
                    if let (Some(x), Some(y)) = (x.place(step), y.place(value)) {
                        let unit = self.unit;
                        let _ = write!(
                            svg,
                            "<circle class=\"dot s{colour}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2\"><title>step {step}: {value:.4} \
                             {unit}</title></circle>"
                        );
                    }
                }
            }
            if let (Some(bin), Some((_, value))) = (bins.last(), series.points.last()) {
                ends.push((bin.mean, colour, format!("{} {}", escape(&series.name), last(*value)).trim().to_owned()));
            }
        }
        name(&mut svg, ends);
        svg.push_str("</svg>");
        Some(svg)
    }
}

/// The value that a curve ends with: 4 digits.
fn last(value: f64) -> String {
    match value.abs() {
        size if (1e-3..1e4).contains(&size) => {
            let decimals = (3.0 - size.log10().floor()).clamp(0.0, 6.0) as usize;
            format!("{value:.decimals$}")
        }
        _ => number(value),
    }
}

/// Points of a curve that are drawn at the same place.
#[derive(Clone, Copy, Debug)]
struct Bin {
    x: f64,
    mean: f64,
    least: f64,
    most: f64,
    count: f64,
}

fn bins(points: &[(f64, f64)], x: &Axis, y: &Axis) -> Vec<Bin> {
    let mut bins: Vec<Bin> = Vec::new();
    for &(step, value) in points {
        let (Some(x), Some(y)) = (x.place(step), y.place(value)) else { continue };
        match bins.last_mut() {
            Some(bin) if x - bin.x < BIN => {
                bin.mean = (bin.mean * bin.count + y) / (bin.count + 1.0);
                bin.count += 1.0;
                (bin.least, bin.most) = (bin.least.min(y), bin.most.max(y));
            }
            _ => bins.push(Bin { x, mean: y, least: y, most: y, count: 1.0 }),
        }
    }
    bins
}

/// What lies between the smallest and the largest of the points that are drawn as one.
fn band(svg: &mut String, bins: &[Bin]) {
    if bins.iter().all(|bin| bin.count < 2.0) {
        return;
    }
    let there = bins.iter().map(|bin| format!("{:.1},{:.1}", bin.x, bin.least));
    let back = bins.iter().rev().map(|bin| format!("{:.1},{:.1}", bin.x, bin.most));
    let _ = write!(svg, "<polygon class=\"band\" points=\"{}\"/>", there.chain(back).collect::<Vec<_>>().join(" "));
}

fn axes(svg: &mut String, x: &Axis, y: &Axis) {
    let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
    for (value, text) in y.ticks() {
        if let Some(y) = y.place(value) {
            let _ = write!(svg, "<line class=\"rule\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>");
            let (x, y) = (LEFT - 5.0, y + 3.5);
            let _ = write!(svg, "<text class=\"tick\" x=\"{x}\" y=\"{y:.1}\" text-anchor=\"end\">{text}</text>");
        }
    }
    let _ = write!(svg, "<line class=\"base\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{bottom}\" y2=\"{bottom}\"/>");
    for (value, text) in x.ticks() {
        if let Some(x) = x.place(value) {
            let (low, y) = (bottom + 4.0, bottom + 15.0);
            let _ = write!(svg, "<line class=\"base\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{bottom}\" y2=\"{low}\"/>");
            let _ = write!(svg, "<text class=\"tick\" x=\"{x:.1}\" y=\"{y}\" text-anchor=\"middle\">{text}</text>");
        }
    }
    let (x, y) = (f64::midpoint(LEFT, right), HEIGHT - 4.0);
    let _ = write!(svg, "<text class=\"tick\" x=\"{x}\" y=\"{y}\" text-anchor=\"middle\">step</text>");
}

/// Writes what curves are, and their last values, where they end; so far apart that all can be read.
fn name(svg: &mut String, mut ends: Vec<(f64, usize, String)>) {
    ends.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut lowest = TOP;
    for end in &mut ends {
        end.0 = end.0.max(lowest);
        lowest = end.0 + LINE;
    }
    let mut highest = HEIGHT - BOTTOM;
    for end in ends.iter_mut().rev() {
        end.0 = end.0.min(highest);
        highest = end.0 - LINE;
    }
    for (y, colour, text) in ends {
        let (x, y) = (WIDTH - RIGHT + 6.0, y + 3.5);
        let _ = write!(svg, "<text class=\"name n{colour}\" x=\"{x}\" y=\"{y:.1}\">{text}</text>");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(series: Vec<Series>) -> Chart {
        Chart { title: "loss", unit: "", x: Spread::Logarithmic, y: Spread::Linear, zero: false, series }
    }

    fn attribute(svg: &str, name: &str) -> Vec<f64> {
        let pattern = format!(" {name}=\"");
        svg.split("<text class=\"name")
            .skip(1)
            .map(|part| {
                let rest = &part[part.find(&pattern).unwrap() + pattern.len()..];
                rest[..rest.find('"').unwrap()].parse().unwrap()
            })
            .collect()
    }

    #[test]
    fn nothing_is_drawn_of_nothing() {
        assert!(chart(Vec::new()).svg().is_none());
        assert!(chart(vec![Series { name: "a".into(), points: vec![(1.0, f64::NAN)] }]).svg().is_none());
    }

    #[test]
    fn last_values_are_named_and_do_not_cover_one_another() {
        let end = |value: f64| Series { name: "σ".into(), points: vec![(1.0, 5.0), (100.0, value)] };
        let svg = chart([1.0, 1.001, 1.002, 9.0].map(end).to_vec()).svg().unwrap();
        for text in ["σ 1.000", "σ 1.001", "σ 1.002", "σ 9.000"] {
            assert!(svg.contains(text), "{text}: {svg}");
        }
        let mut places = attribute(&svg, "y");
        places.sort_by(f64::total_cmp);
        assert_eq!(places.len(), 4);
        assert!(places.windows(2).all(|pair| pair[1] - pair[0] >= LINE - 0.2), "{places:?}");
        assert!(places[0] >= TOP && places[3] <= HEIGHT, "{places:?}");
    }

    #[test]
    fn a_long_curve_is_drawn_by_means_of_neighbours() {
        let points = (1..100_000).map(|step| (f64::from(step), f64::from(step % 2))).collect();
        let svg = chart(vec![Series { name: String::new(), points }]).svg().unwrap();
        assert!(svg.len() < 20_000, "{} bytes", svg.len());
        assert!(svg.contains("class=\"band\""));
    }
}
