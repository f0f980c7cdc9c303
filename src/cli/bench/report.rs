//! What is told about a measurement.

use super::layers::Layers;
use super::times::Times;
use crate::cli::models::table;
use crate::cli::terminal::{bytes, count};
use serde::Serialize;

/// What the machine can do at best.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ceilings {
    pub(super) operations_per_second: f64,
    /// Read and written together.
    pub(super) bytes_per_second: f64,
}

/// One measurement; every figure has its unit in its name.
#[derive(Debug, Serialize)]
pub(super) struct Report<'a> {
    #[serde(flatten)]
    pub(super) settings: Settings<'a>,
    #[serde(flatten)]
    pub(super) figures: Figures,
    /// Reading, checking and packing the model.
    pub(super) open_ms: f64,
    /// From the beginning of `main` to the end of the first evaluation of an image of 64 × 64.
    pub(super) startup_ms: f64,
    /// The first call of the size that is timed, which finds its memory.
    pub(super) first_call_ms: f64,
    /// Largest resident memory before the ceilings were measured; `null` where the system does not say.
    pub(super) peak_memory_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) layers: Option<Layers>,
}

/// What was measured.
#[derive(Debug, Serialize)]
pub(super) struct Settings<'a> {
    pub(super) version: &'static str,
    pub(super) command: &'static str,
    pub(super) what: &'static str,
    pub(super) model: &'a str,
    pub(super) model_hash: &'a str,
    pub(super) device: String,
    pub(super) instruction_set: String,
    pub(super) precision: String,
    pub(super) threads: usize,
    /// Side of the images in pixels.
    pub(super) size: usize,
    /// Images in a call.
    pub(super) batch: usize,
    pub(super) sigma: f64,
}

/// What was found.
#[derive(Debug, Serialize)]
pub(super) struct Figures {
    /// Timed calls, without the first.
    calls: usize,
    median_ms: f64,
    min_ms: f64,
    lower_quartile_ms: f64,
    upper_quartile_ms: f64,
    max_ms: f64,
    /// Multiplications and additions of convolutions and attentions as they are written down; `null` for a formula.
    operations_per_call: Option<f64>,
    gflop_per_second: Option<f64>,
    /// `null` where the device is no CPU, as are the other two.
    peak_gflop_per_second: Option<f64>,
    share_of_peak: Option<f64>,
    /// Read and written together.
    copy_gbyte_per_second: Option<f64>,
}

impl Figures {
    pub(super) fn new(times: &Times, operations: Option<f64>, ceilings: Option<Ceilings>) -> Self {
        let rate = operations.map(|operations| operations / (1e-3 * times.median()));
        let peak = ceilings.map(|ceilings| ceilings.operations_per_second);
        Self {
            calls: times.calls(),
            median_ms: times.median(),
            min_ms: times.quantile(0.0),
            lower_quartile_ms: times.quantile(0.25),
            upper_quartile_ms: times.quantile(0.75),
            max_ms: times.quantile(1.0),
            operations_per_call: operations,
            gflop_per_second: rate.map(|rate| 1e-9 * rate),
            peak_gflop_per_second: peak.map(|peak| 1e-9 * peak),
            share_of_peak: rate.zip(peak).map(|(rate, peak)| rate / peak),
            copy_gbyte_per_second: ceilings.map(|ceilings| 1e-9 * ceilings.bytes_per_second),
        }
    }
}

impl Report<'_> {
    /// The measurement as people read it.
    pub(super) fn text(&self) -> String {
        let Self { settings, figures, .. } = self;
        let Settings { device, threads, precision, instruction_set, size, batch, .. } = settings;
        let images = if *batch == 1 { String::new() } else { format!("{batch} images of ") };
        let spread = |below, above| format!("{} and {}", time(below), time(above));
        let mut rows = vec![
            ("model", settings.model.to_owned()),
            ("device", format!("{device}, {}, {precision} with {instruction_set}", count(*threads, "thread"))),
            ("call", format!("{}, {images}{size}x{size}", settings.what)),
            ("median", format!("{} of {}", time(figures.median_ms), count(figures.calls, "call"))),
            ("quartiles", spread(figures.lower_quartile_ms, figures.upper_quartile_ms)),
            ("extremes", spread(figures.min_ms, figures.max_ms)),
        ];
        if let (Some(operations), Some(rate)) = (figures.operations_per_call, figures.gflop_per_second) {
            rows.push(("operations", format!("{:.2} GFLOP as written down", 1e-9 * operations)));
            let share = figures.share_of_peak.map(|share| format!(", {:.0} % of the peak", 100.0 * share));
            rows.push(("rate", format!("{rate:.1} GFLOP/s{}", share.unwrap_or_default())));
        }
        if let (Some(peak), Some(copy)) = (figures.peak_gflop_per_second, figures.copy_gbyte_per_second) {
            rows.push(("peak", format!("{peak:.1} GFLOP/s, products in registers")));
            rows.push(("memory copy", format!("{copy:.1} GB/s, read and written")));
        }
        rows.push(("opening", time(self.open_ms)));
        rows.push(("start", format!("{} to the end of a first evaluation of 64x64", time(self.startup_ms))));
        rows.push(("first call", time(self.first_call_ms)));
        if let Some(memory) = self.peak_memory_bytes {
            rows.push(("peak memory", bytes(memory)));
        }
        let mut text = table(&rows);
        if let Some(layers) = &self.layers {
            text += "\n";
            text += &layers.text();
        }
        text
    }
}

/// Milliseconds with three or four digits that count.
fn time(milliseconds: f64) -> String {
    match milliseconds {
        t if t < 10.0 => format!("{t:.3} ms"),
        t if t < 100.0 => format!("{t:.2} ms"),
        t => format!("{t:.1} ms"),
    }
}
