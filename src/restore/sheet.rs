//! A labelled contact sheet: before, mask, after, side by side, small enough for a screen.

use super::Restored;
use crate::Result;
use crate::image::{ImageError, Mask, Photo, lettering};
use embedded_graphics::mono_font::MonoTextStyle;
use embedded_graphics::mono_font::ascii::FONT_10X20;
use embedded_graphics::pixelcolor::Rgb888;
use image::codecs::png::PngEncoder;
use image::imageops::{self, FilterType};
use image::{ImageEncoder, Rgb, RgbImage};

/// Width of the sheet at most, in pixels.
const WIDTH: u32 = 1600;
/// Height of one picture at most, in pixels.
const HEIGHT: u32 = 1200;
/// Pictures smaller than this are magnified by a whole factor.
const SMALL: u32 = 240;
/// Pictures in a row, unless another number is asked for.
const COLUMNS: u32 = 3;
const MARGIN: u32 = 24;
const GAP: u32 = 16;
/// Height of a label with the space below it.
const LABEL: u32 = 28;
const PAPER: Rgb<u8> = Rgb([238, 238, 236]);
const INK: Rgb888 = Rgb888::new(46, 52, 54);
/// Marks masked pixels: a colour that photos seldom have.
const MARK: Rgb<u8> = Rgb([255, 0, 144]);

/// More samples than this are not put on a sheet.
const SAMPLES: usize = 9;

impl Restored {
    /// The photo, the mask and the samples (at most nine), side by side under their names, as the bytes of a PNG; with their
    /// mean and their standard deviation if asked for and there are several.
    ///
    /// # Errors
    /// `Tensor` if memory runs out.
    pub fn sheet(&self, photo: &Photo, mask: Option<&Mask>, mean: bool, std: bool) -> Result<Vec<u8>> {
        let mut sheet = Sheet::default();
        sheet.add("before", picture(photo));
        if let Some(mask) = mask {
            sheet.add("mask", overlay(photo, mask));
        }
        let samples = self.len();
        if samples == 1 {
            sheet.add("after", picture(self.sample(0)));
        } else {
            for k in 0..samples.min(SAMPLES) {
                sheet.add(format!("after, sample {k}"), picture(self.sample(k)));
            }
            if mean {
                sheet.add("mean", picture(&self.mean()?));
            }
            if std {
                sheet.add("std", picture(&self.std()?));
            }
        }
        let mut content = Vec::new();
        let mut encoder = PngEncoder::new(&mut content);
        // The colours are the photo's own; a profile for grey has no place in a file in colour.
        if let Some(profile) = photo.icc_profile().filter(|_| photo.color_channels() == 3) {
            let _ = encoder.set_icc_profile(profile.to_vec());
        }
        let drawn = sheet.draw();
        let encoded = encoder.write_image(&drawn, drawn.width(), drawn.height(), image::ExtendedColorType::Rgb8);
        encoded.map_err(|error| ImageError::Encode { format: "PNG", reason: error.to_string() })?;
        Ok(content)
    }
}

/// A sheet that grows picture by picture.
#[derive(Debug)]
pub(crate) struct Sheet {
    columns: u32,
    pictures: Vec<(String, RgbImage)>,
}

impl Default for Sheet {
    fn default() -> Self {
        Self::with_columns(COLUMNS)
    }
}

impl Sheet {
    /// With so many pictures in a row, at least one.
    pub(crate) fn with_columns(columns: u32) -> Self {
        Self { columns: columns.max(1), pictures: Vec::new() }
    }

    /// Adds a picture under a label.
    pub(crate) fn add(&mut self, label: impl Into<String>, picture: RgbImage) {
        // Shrunk at once, so that a sheet of large photos stays small in memory.
        self.pictures.push((label.into(), fit(picture, self.columns)));
    }

    /// Draws all pictures in rows.
    pub(crate) fn draw(&self) -> RgbImage {
        let columns = self.pictures.len().min(self.columns as usize).max(1);
        let rows: Vec<_> = self.pictures.chunks(columns).collect();
        let column_width =
            |k: usize| rows.iter().filter_map(|row| row.get(k)).map(|(label, picture)| width(label, picture)).max();
        let widths: Vec<u32> = (0..columns).map_while(column_width).collect();
        let heights: Vec<u32> =
            rows.iter().map(|row| LABEL + row.iter().map(|(_, picture)| picture.height()).max().unwrap_or(0)).collect();
        let total =
            |sizes: &[u32]| 2 * MARGIN + sizes.iter().sum::<u32>() + GAP * (sizes.len() as u32).saturating_sub(1);
        let mut canvas = RgbImage::from_pixel(total(&widths), total(&heights), PAPER);
        let mut top = MARGIN;
        for (row, height) in rows.iter().zip(&heights) {
            let mut left = MARGIN;
            for ((label, picture), width) in row.iter().zip(&widths) {
                lettering::write(&mut canvas, label, (left, top), MonoTextStyle::new(&FONT_10X20, INK));
                imageops::replace(&mut canvas, picture, left.into(), (top + LABEL).into());
                left += width + GAP;
            }
            top += height + GAP;
        }
        canvas
    }
}

fn width(label: &str, picture: &RgbImage) -> u32 {
    let letters = label.chars().count() as u32 * FONT_10X20.character_size.width;
    picture.width().max(letters)
}

/// The picture at the size it has on a sheet of so many columns.
fn fit(picture: RgbImage, columns: u32) -> RgbImage {
    let room = (WIDTH - 2 * MARGIN - (columns - 1) * GAP) / columns;
    let (width, height) = picture.dimensions();
    let shrink = (f64::from(room) / f64::from(width)).min(f64::from(HEIGHT) / f64::from(height));
    if shrink < 1.0 {
        let scaled = |side: u32| ((f64::from(side) * shrink).round() as u32).max(1);
        return imageops::resize(&picture, scaled(width), scaled(height), FilterType::Triangle);
    }
    let factor = (SMALL.min(room) / width.max(height)).max(1);
    if factor == 1 { picture } else { imageops::resize(&picture, width * factor, height * factor, FilterType::Nearest) }
}

/// The photo in 8 bits; where it is transparent, the sheet's paper shines through.
pub(crate) fn picture(photo: &Photo) -> RgbImage {
    let most = u32::from(photo.max_value());
    RgbImage::from_fn(photo.width() as u32, photo.height() as u32, |x, y| {
        let sample = |channel| u32::from(photo.sample(x as usize, y as usize, channel));
        let opacity = if photo.has_alpha() { sample(photo.channels() - 1) } else { most };
        let over = |colour: usize| {
            let ink = sample(colour.min(photo.color_channels() - 1)) * 255 / most;
            ((ink * opacity + u32::from(PAPER.0[colour]) * (most - opacity)) / most) as u8
        };
        Rgb([over(0), over(1), over(2)])
    })
}

/// The photo with its masked pixels marked.
pub(crate) fn overlay(photo: &Photo, mask: &Mask) -> RgbImage {
    let mut picture = picture(photo);
    for (x, y, pixel) in picture.enumerate_pixels_mut() {
        if mask.is_set(x as usize, y as usize) {
            *pixel = MARK;
        }
    }
    picture
}
