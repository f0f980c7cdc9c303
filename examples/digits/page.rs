//! One HTML page with pictures inside.

use image::codecs::png::PngEncoder;
use image::{GrayImage, Luma};
use std::fmt::Write;

use super::{Outcome, SIDE};

/// Digits side by side.
pub(super) struct Sheet(GrayImage);

impl Sheet {
    /// `columns` digits in a row, a pixel between them.
    pub(super) fn of(digits: &[Vec<f32>], columns: usize) -> Self {
        let rows = digits.len().div_ceil(columns.max(1));
        let step = SIDE + 1;
        let mut image = GrayImage::from_pixel((columns * step) as u32, (rows * step) as u32, Luma([64]));
        for (k, digit) in digits.iter().enumerate() {
            for (p, value) in digit.iter().enumerate() {
                let (x, y) = (k % columns * step + p % SIDE, k / columns * step + p / SIDE);
                image.put_pixel(x as u32, y as u32, Luma([*value as u8]));
            }
        }
        Self(image)
    }

    pub(super) fn png(&self) -> Outcome<Vec<u8>> {
        let mut bytes = Vec::new();
        self.0.write_with_encoder(PngEncoder::new(&mut bytes))?;
        Ok(bytes)
    }
}

/// The page, and the same in words for a terminal.
pub(super) struct Page {
    html: String,
    text: String,
}

const STYLE: &str = "\
:root{color-scheme:light dark}body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}
img{image-rendering:pixelated;width:100%;max-width:56rem;background:#404040}
table{border-collapse:collapse}td{padding:.2rem 1.5rem .2rem 0;border-bottom:1px solid #8884}
td+td{font-variant-numeric:tabular-nums}h2{margin-top:2.5rem}";

impl Page {
    pub(super) fn new(name: &str) -> Self {
        let html = format!(
            "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width\">\
             <title>{name}</title><style>{STYLE}</style><h1>What {name} knows of digits</h1>\n"
        );
        Self { html, text: String::new() }
    }

    pub(super) fn section(&mut self, title: &str, words: &str, sheet: &Sheet) -> Outcome<()> {
        let uri = tweedie::train::data_uri(&sheet.png()?);
        writeln!(self.html, "<h2>{title}</h2><p>{words}</p><img alt=\"{title}\" src=\"{uri}\">")?;
        Ok(())
    }

    pub(super) fn table(&mut self, title: &str, words: &str, rows: &[[String; 2]]) {
        let cells: String = rows.iter().map(|[name, value]| format!("<tr><td>{name}<td>{value}")).collect();
        let _ = writeln!(self.html, "<h2>{title}</h2><p>{words}</p><table>{cells}</table>");
        let _ = writeln!(self.text, "{title}");
        for [name, value] in rows {
            let _ = writeln!(self.text, "  {name}: {value}");
        }
    }

    pub(super) fn html(&self) -> &str {
        &self.html
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }
}
