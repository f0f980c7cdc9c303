//! Pictures side by side, under a few words each.

use crate::Result;
use crate::image::{ImageError, lettering};
use candle_core::Tensor;
use embedded_graphics::mono_font::MonoTextStyle;
use embedded_graphics::mono_font::iso_8859_7::FONT_6X12;
use embedded_graphics::pixelcolor::Rgb888;
use image::codecs::png::PngEncoder;
use image::imageops::{self, FilterType};
use image::{ImageEncoder, RgbImage, RgbaImage};

/// Pictures whose side is smaller are magnified by a whole factor.
const SMALL: u32 = 48;
const GAP: u32 = 4;
/// Height of a line of words.
const LINE: u32 = 14;
/// Legible on white and on black, for there is no paper: the page's own shines through.
const INK: Rgb888 = Rgb888::new(128, 128, 128);

/// A place of a grid.
#[derive(Clone, Debug, Default)]
pub(super) struct Tile {
    /// Words above the picture, a line each.
    pub(super) words: Vec<String>,
    /// The picture.
    pub(super) picture: Option<RgbImage>,
}

impl Tile {
    /// A picture under words.
    pub(super) fn new(words: impl Into<String>, picture: RgbImage) -> Self {
        Self { words: vec![words.into()], picture: Some(picture) }
    }
}

/// Rows of tiles as the bytes of a PNG.
///
/// # Errors
/// `Image` if it cannot be encoded.
pub(super) fn png(rows: &[Vec<Tile>]) -> Result<Vec<u8>> {
    let tiles = || rows.iter().flatten();
    let side = tiles().filter_map(|tile| tile.picture.as_ref()).map(|p| p.width().max(p.height())).max().unwrap_or(1);
    let factor = SMALL.div_ceil(side).max(1);
    let side = side * factor;
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0) as u32;
    let words = |row: &[Tile]| {
        let lines = |tile: &Tile| if tile.picture.is_some() { tile.words.len() as u32 } else { 0 };
        LINE * row.iter().map(lines).max().unwrap_or(0)
    };
    let heights: Vec<u32> = rows.iter().map(|row| words(row) + side).collect();
    let total = heights.iter().sum::<u32>() + GAP * (rows.len() as u32).saturating_sub(1);
    let width = columns * side + GAP * columns.saturating_sub(1);
    let mut canvas = RgbaImage::new(width.max(1), total.max(1));
    let style = MonoTextStyle::new(&FONT_6X12, INK);
    let mut top = 0;
    for (row, height) in rows.iter().zip(heights) {
        for (column, tile) in (0..).zip(row) {
            let left = column * (side + GAP);
            for (line, text) in (0..).zip(&tile.words) {
                lettering::write(&mut canvas, text, (left, top + line * LINE), style);
            }
            if let Some(picture) = &tile.picture {
                let (width, height) = (picture.width() * factor, picture.height() * factor);
                let large = imageops::resize(picture, width, height, FilterType::Nearest);
                let large = image::DynamicImage::from(large).into_rgba8();
                imageops::replace(&mut canvas, &large, left.into(), (top + words(row)).into());
            }
        }
        top += height + GAP;
    }
    let (width, height) = canvas.dimensions();
    let mut content = Vec::new();
    let encoded = PngEncoder::new(&mut content).write_image(&canvas, width, height, image::ExtendedColorType::Rgba8);
    encoded.map_err(|error| ImageError::Encode { format: "PNG", reason: error.to_string() })?;
    Ok(content)
}

/// What the middle of an image shows: at most `side` pixels square; three channels in colour, the first one of another number
/// in grey.
///
/// # Shapes
/// `x`: `[1, C, H, W]`, pixels in [-1, 1]; what is outside is cut off
/// # Errors
/// Those of tensor operations.
pub(super) fn picture(x: &Tensor, side: usize) -> Result<RgbImage> {
    let (_, channels, height, width) = x.dims4()?;
    let (h, w) = (side.min(height), side.min(width));
    let middle = x.narrow(2, (height - h) / 2, h)?.narrow(3, (width - w) / 2, w)?;
    let shown = middle.narrow(1, 0, if channels == 3 { 3 } else { 1 })?.contiguous()?;
    let values = shown.affine(127.5, 127.5)?.flatten_all()?.to_vec1::<f32>()?;
    let plane = |channel: usize| if channels == 3 { channel * w * h } else { 0 };
    Ok(RgbImage::from_fn(w as u32, h as u32, |x, y| {
        let at = y as usize * w + x as usize;
        image::Rgb([0, 1, 2].map(|channel| values[plane(channel) + at].round() as u8))
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn pixels_are_what_they_are_and_small_pictures_are_magnified() {
        let x = Tensor::from_vec(vec![-1.0_f32, 0.0, 1.0, 7.0], (1, 1, 2, 2), &Device::Cpu).unwrap();
        let small = picture(&x, 2).unwrap();
        let grey = |x, y| small.get_pixel(x, y).0;
        assert_eq!((grey(0, 0), grey(1, 0), grey(0, 1), grey(1, 1)), ([0; 3], [128; 3], [255; 3], [255; 3]));
        let rows = [vec![Tile { words: Vec::new(), picture: Some(small) }, Tile::default()]];
        let drawn = image::load_from_memory(&png(&rows).unwrap()).unwrap().into_rgba8();
        assert_eq!(drawn.dimensions(), (2 * SMALL + GAP, SMALL));
        assert_eq!(drawn.get_pixel(SMALL - 1, 0).0, [128, 128, 128, 255]);
        assert_eq!(drawn.get_pixel(SMALL, 0).0[3], 0);
    }

    #[test]
    fn words_are_above_their_picture() {
        let rows = [vec![Tile::new("σ", RgbImage::new(SMALL, SMALL))]];
        let drawn = image::load_from_memory(&png(&rows).unwrap()).unwrap().into_rgba8();
        assert_eq!(drawn.dimensions(), (SMALL, SMALL + LINE));
        assert!(drawn.enumerate_pixels().any(|(_, y, pixel)| y < LINE && pixel.0[3] > 0));
    }
}
