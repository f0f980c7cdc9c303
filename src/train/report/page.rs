//! The page itself.

use super::axis::Spread;
use super::curve::{Chart, Series};
use super::data_uri::data_uri;
use super::escape;
use super::gallery::milestones;
use crate::Result;
use crate::image::write_atomically;
use crate::train::config::TrainConfig;
use crate::train::journal::{Line, Progress, Validation, machine_seconds};
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// What the page is made of.
#[derive(Clone, Copy, Debug)]
pub(in crate::train) struct Page<'a> {
    /// The run.
    pub(in crate::train) config: &'a TrainConfig,
    /// Family of the network.
    pub(in crate::train) family: &'a str,
    /// Photos that are validated on.
    pub(in crate::train) held_out: usize,
    /// Files that are not trained on, with the reason.
    pub(in crate::train) skipped: &'a [(PathBuf, String)],
    /// The log.
    pub(in crate::train) lines: &'a [Line],
    /// Where the pictures are.
    pub(in crate::train) folder: &'a Path,
}

/// Files that are named among those passed over.
const NAMED: usize = 20;

impl Page<'_> {
    /// Writes `report.html`, whole or not at all.
    ///
    /// # Errors
    /// `Image` if it cannot be written.
    pub(in crate::train) fn write(&self) -> Result<()> {
        Ok(write_atomically(&self.folder.join("report.html"), self.html().as_bytes(), true)?)
    }

    fn html(&self) -> String {
        let name = escape(&self.config.name);
        let style = include_str!("style.css");
        format!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" \
             content=\"width=device-width, initial-scale=1\">\n<title>{name}</title>\n<style>\n{style}</style>\n</head>\n\
             <body>\n{}{}{}{}{}</body>\n</html>\n",
            self.head(),
            self.figures(),
            self.curves(),
            self.pictures(),
            self.details()
        )
    }

    fn steps(&self) -> impl DoubleEndedIterator<Item = &Progress> {
        self.lines.iter().filter_map(|line| match line {
            Line::Step(progress) => Some(progress),
            _ => None,
        })
    }

    fn validations(&self) -> impl DoubleEndedIterator<Item = &Validation> {
        self.lines.iter().filter_map(|line| match line {
            Line::Validation(validation) => Some(validation),
            _ => None,
        })
    }

    /// Name, how far it is, what is trained on what.
    fn head(&self) -> String {
        let config = self.config;
        let step = self.lines.last().map_or(0, Line::step);
        let share = step as f64 / config.steps as f64;
        let state = match self.lines.last() {
            Some(Line::End { why, .. }) => why.clone(),
            _ => self.left(step).map_or_else(|| "begun".into(), |seconds| format!("about {} left", time(seconds))),
        };
        let processes = self.lines.iter().filter(|line| matches!(line, Line::Start { .. })).count();
        let sittings = if processes > 1 { format!(" in {processes} sittings") } else { String::new() };
        let mut html = format!(
            "<h1>{}</h1>\n<p>step {} of {} · {:.1} % · {} of machine time{sittings} · {state}</p>\n<div class=\"done\"><div \
             style=\"width:{:.2}%\"></div></div>\n<dl>\n",
            escape(&config.name),
            grouped(step),
            grouped(config.steps),
            100.0 * share,
            time(machine_seconds(self.lines)),
            100.0 * share
        );
        let mut row = |name: &str, text: String| {
            let _ = writeln!(html, "<dt>{name}</dt><dd>{}</dd>", escape(&text));
        };
        if let Some(Line::Start { parameters, photos, pixels, .. }) =
            self.lines.iter().rfind(|line| matches!(line, Line::Start { .. }))
        {
            let megapixels = *pixels as f64 / 1e6;
            row("data", format!("{photos} photos, {megapixels:.1} megapixels; {} more held out", self.held_out));
            row("network", format!("{}, {} parameters", self.family, grouped(*parameters as u64)));
        }
        if let Some(progress) = self.steps().next_back() {
            let (optimiser, side) = (&config.optimiser, config.data.patch);
            let batch = optimiser.batch * optimiser.accumulate;
            row("step", format!("{batch} patches of {side}×{side}, {} seen so far", grouped(progress.images)));
            let (rate, waiting) = (progress.images_per_second, 100.0 * progress.waiting);
            row("speed", format!("{rate:.1} patches a second, {waiting:.1} % of the time waiting for data"));
        }
        html.push_str("</dl>\n");
        html
    }

    /// Seconds of the steps that are to come, at the speed of the last ones.
    fn left(&self, step: u64) -> Option<f64> {
        let progress = self.steps().next_back()?;
        let each = progress.images as f64 / progress.step as f64 / progress.images_per_second;
        Some(self.config.steps.saturating_sub(step) as f64 * each)
    }

    /// What was measured last, beside the best.
    fn figures(&self) -> String {
        let Some(last) = self.validations().next_back().filter(|last| !last.psnr.is_empty()) else {
            return String::new();
        };
        let mut html = String::from(
            "<h2>Denoising of held-out photos</h2>\n<table>\n<tr><th>σ</th><th>of 255</th><th>noisy, dB</th><th>denoised, \
             dB</th><th>best so far</th><th>at step</th></tr>\n",
        );
        for (sigma, psnr) in &last.psnr {
            let all = self.validations().filter_map(|validation| Some((at(validation, *sigma)?, validation.step)));
            let (best, step) = all.max_by(|a, b| a.0.total_cmp(&b.0)).unwrap_or((*psnr, last.step));
            let noisy = 20.0 * (2.0 / sigma).log10();
            let levels = sigma * 127.5;
            let _ = writeln!(
                html,
                "<tr><td>{sigma:.3}</td><td>{levels:.0}</td><td>{noisy:.2}</td><td>{psnr:.2}</td><td>{best:.2}</td>\
                 <td>{}</td></tr>",
                grouped(step)
            );
        }
        html.push_str("</table>\n");
        html
    }

    fn curves(&self) -> String {
        let of = |value: fn(&Progress) -> f64| self.steps().map(|p| (p.step as f64, value(p))).collect();
        let alone = |value: fn(&Progress) -> f64| vec![Series { name: String::new(), points: of(value) }];
        let (linear, logarithmic) = (Spread::Linear, Spread::Logarithmic);
        let mut loss = alone(|p| p.loss);
        let validated: Vec<(f64, f64)> = self.validations().map(|v| (v.step as f64, v.loss)).collect();
        if !validated.is_empty() {
            loss[0].name = "train".into();
            loss.push(Series { name: "held out".into(), points: validated });
        }
        let charts = [
            Chart { title: "loss", unit: "", x: logarithmic, y: logarithmic, zero: false, series: loss },
            Chart {
                title: "loss per quarter of the noise levels",
                unit: "named by the largest σ of each",
                x: logarithmic,
                y: logarithmic,
                zero: false,
                series: self.quarters(),
            },
            Chart {
                title: "PSNR of held-out photos, denoised",
                unit: "dB, at σ/255",
                x: logarithmic,
                y: linear,
                zero: false,
                series: self.psnr(),
            },
            Chart {
                title: "norm of the gradient",
                unit: "before it is shortened",
                x: logarithmic,
                y: logarithmic,
                zero: false,
                series: alone(|p| p.gradient_norm),
            },
            Chart {
                title: "learning rate",
                unit: "",
                x: linear,
                y: linear,
                zero: true,
                series: alone(|p| p.learning_rate),
            },
            Chart {
                title: "speed",
                unit: "patches a second",
                x: linear,
                y: linear,
                zero: true,
                series: alone(|p| p.images_per_second),
            },
        ];
        let mut html = String::new();
        for chart in &charts {
            if let Some(svg) = chart.svg() {
                let _ = writeln!(
                    html,
                    "<figure><figcaption>{} <small>{}</small></figcaption>{svg}</figure>",
                    escape(chart.title),
                    escape(chart.unit)
                );
            }
        }
        if html.is_empty() { html } else { format!("<h2>Curves</h2>\n<div class=\"charts\">\n{html}</div>\n") }
    }

    /// Loss of the quarters, each under the bound that it had last.
    fn quarters(&self) -> Vec<Series> {
        let count = self.steps().map(|progress| progress.quarters.len()).max().unwrap_or(0);
        let series = |index: usize| {
            let bound = self.steps().next_back().and_then(|p| p.quarters.get(index)).map(|(sigma, _)| *sigma);
            let points = self.steps().filter_map(|p| Some((p.step as f64, p.quarters.get(index)?.1))).collect();
            // The last quarter has no bound of interest: the largest σ that happened to be drawn.
            let name = if index + 1 == count { "above".into() } else { format!("≤{:.2}", bound.unwrap_or(f64::NAN)) };
            Series { name, points }
        };
        (0..count).map(series).collect()
    }

    fn psnr(&self) -> Vec<Series> {
        let Some(last) = self.validations().next_back() else { return Vec::new() };
        let series = |&(sigma, _): &(f64, f64)| {
            let point = |validation: &Validation| Some((validation.step as f64, at(validation, sigma)?));
            Series { name: format!("{:.0}:", sigma * 127.5), points: self.validations().filter_map(point).collect() }
        };
        last.psnr.iter().map(series).collect()
    }

    fn pictures(&self) -> String {
        let embedded = |name: &Option<String>| {
            let bytes = std::fs::read(self.folder.join(name.as_ref()?)).ok()?;
            Some(data_uri(&bytes))
        };
        let mut html = String::new();
        if let Some((step, uri)) = self.validations().rev().find_map(|v| Some((v.step, embedded(&v.picture)?))) {
            let step = grouped(step);
            let _ = writeln!(
                html,
                "<h2>Held-out photos at step {step}</h2>\n<p class=\"soft\">The middle of each, with noise that is the same every \
                 time, and what the network makes of it.</p>\n<figure class=\"pictures\"><img alt=\"held-out photos, noisy \
                 and denoised\" src=\"{uri}\"></figure>"
            );
        }
        let mut samples =
            milestones(self.lines).into_iter().rev().filter_map(|v| Some((v.step, embedded(&v.samples)?)));
        if let Some(first) = samples.next() {
            html.push_str(
                "<h2>Samples of the prior</h2>\n<p class=\"soft\">From the same noise each time, by Heun's method with 18 noise \
                 levels; the newest first.</p>\n",
            );
            for (step, uri) in std::iter::once(first).chain(samples) {
                let step = grouped(step);
                let _ = writeln!(
                    html,
                    "<figure class=\"pictures\"><figcaption>step {step}</figcaption><img alt=\"samples at step {step}\" \
                     src=\"{uri}\"></figure>"
                );
            }
        }
        html
    }

    fn details(&self) -> String {
        let mut html = String::new();
        if !self.skipped.is_empty() {
            let count = self.skipped.len();
            let _ = writeln!(html, "<details><summary>files that are not trained on: {count}</summary>\n<ul>");
            for (path, reason) in self.skipped.iter().take(NAMED) {
                let _ = writeln!(html, "<li>{}: {}</li>", escape(&path.to_string_lossy()), escape(reason));
            }
            if count > NAMED {
                let _ = writeln!(html, "<li>and {} more</li>", count - NAMED);
            }
            html.push_str("</ul></details>\n");
        }
        if let Ok(text) = toml::to_string(self.config) {
            let _ = writeln!(html, "<details><summary>configuration</summary><pre>{}</pre></details>", escape(&text));
        }
        html
    }
}

/// What was measured at a noise level; one that was read from a file may differ in its last digit.
fn at(validation: &Validation, sigma: f64) -> Option<f64> {
    let same = |level: f64| (level - sigma).abs() <= 1e-9 * sigma;
    validation.psnr.iter().find(|(level, _)| same(*level)).map(|(_, psnr)| *psnr)
}

/// A whole number with its digits in groups of three.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            // A narrow space that does not break.
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

/// A length of time: the two largest units of it.
fn time(seconds: f64) -> String {
    let whole = seconds.max(0.0).round() as u64;
    match whole {
        0..60 => format!("{whole} s"),
        60..3600 => format!("{} min {} s", whole / 60, whole % 60),
        3600..172_800 => format!("{} h {} min", whole / 3600, whole / 60 % 60),
        _ => format!("{} d {} h", whole / 86_400, whole / 3600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_times_are_readable() {
        assert_eq!(grouped(7), "7");
        assert_eq!(grouped(123_456), "123\u{202f}456");
        assert_eq!(grouped(1_234_567), "1\u{202f}234\u{202f}567");
        for (seconds, text) in [(59.4, "59 s"), (61.0, "1 min 1 s"), (7_325.0, "2 h 2 min"), (180_000.0, "2 d 2 h")] {
            assert_eq!(time(seconds), text);
        }
    }
}
