//! Where a mask comes from: a file, the photo's transparency, a colour painted on the photo.

use std::collections::HashSet;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{DecodeOptions, ImageError, Mask, Photo};

/// Values of a mask between these are neither black nor white.
const AMBIGUOUS: std::ops::RangeInclusive<u8> = 6..=249;
/// A painted mask has few colours; a photo soon has more.
const MANY_COLORS: usize = 256;
/// Colours are counted up to here.
const MAX_COLORS: usize = 1 << 16;
/// Difference of channels from which a pixel counts as coloured.
const COLORED: u8 = 64;

/// Where a mask comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MaskSource {
    /// An image file; white is filled.
    File(PathBuf),
    /// The photo's own transparency: what is more transparent than opaque is filled. [`Photo::make_opaque`] then lets
    /// [`Photo::paint`] write there.
    Alpha,
    /// The pixels of the photo that have this colour.
    Color {
        /// The colour.
        rgb: [u8; 3],
        /// Largest difference per channel, on the scale 0–255.
        tolerance: u8,
    },
}

impl FromStr for MaskSource {
    type Err = ImageError;

    /// `alpha`, `color:#RRGGBB[,tolerance]`, or a path; `./alpha` is a path.
    fn from_str(text: &str) -> Result<Self, ImageError> {
        if text == "alpha" {
            return Ok(Self::Alpha);
        }
        let Some(color) = text.strip_prefix("color:") else { return Ok(Self::File(text.into())) };
        let refuse = |reason| ImageError::MaskSource { given: text.into(), reason };
        let (color, tolerance) = color.split_once(',').unwrap_or((color, "0"));
        let digits = color.strip_prefix('#').unwrap_or(color);
        if digits.len() != 6 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(refuse("the colour is not six hexadecimal digits"));
        }
        let value = u32::from_str_radix(digits, 16).expect("six hexadecimal digits are a number");
        let [_, rgb @ ..] = value.to_be_bytes();
        let tolerance = tolerance.trim().parse().map_err(|_| refuse("the tolerance is not a number from 0 to 255"))?;
        Ok(Self::Color { rgb, tolerance })
    }
}

/// Which channel of a mask's file says what is filled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MaskChannel {
    /// Alpha if it varies; red if what is coloured is red paint; else luma. A choice other than luma is reported.
    #[default]
    Auto,
    /// Rec. 601 luma.
    Luma,
    /// Opacity: what is opaque is filled.
    Alpha,
    /// Red paint: red minus the larger of green and blue, so that white is not red.
    Red,
}

impl FromStr for MaskChannel {
    type Err = ImageError;

    fn from_str(name: &str) -> Result<Self, ImageError> {
        match name {
            "auto" => Ok(Self::Auto),
            "luma" => Ok(Self::Luma),
            "alpha" => Ok(Self::Alpha),
            "red" => Ok(Self::Red),
            _ => Err(ImageError::Setting {
                name: "mask channel",
                got: name.into(),
                expected: "auto, luma, alpha or red",
            }),
        }
    }
}

/// How a mask is read.
#[derive(Clone, Debug, PartialEq)]
pub struct MaskOptions {
    /// What is above is filled, on the scale 0–255; default 127.
    pub threshold: u8,
    /// Where a file has the values; default automatic.
    pub channel: MaskChannel,
    /// Fill what would be kept; default false.
    pub invert: bool,
    /// Pixels to grow by, after inversion; default 0.
    pub grow: f64,
    /// Scale a mask of another size by nearest neighbour; default false.
    pub resize_nearest: bool,
    /// How much is accepted of a mask's file.
    pub decode: DecodeOptions,
}

impl Default for MaskOptions {
    fn default() -> Self {
        Self {
            threshold: 127,
            channel: MaskChannel::Auto,
            invert: false,
            grow: 0.0,
            resize_nearest: false,
            decode: DecodeOptions::default(),
        }
    }
}

impl Mask {
    /// Reads the mask for a photo. What looks wrong but can be used is in [`Mask::warnings`].
    ///
    /// A file is turned by its own orientation tag. Equal size means that it is in the photo's upright frame; a file
    /// without a tag that has the photo's stored size is turned with the photo.
    /// # Errors
    /// As [`Photo::open`] for a file; [`ImageError::MaskSize`], [`ImageError::MaskIsPhoto`] or [`ImageError::NoAlpha`] if
    /// it cannot be the mask of this photo.
    pub fn open(source: &MaskSource, photo: &Photo, options: &MaskOptions) -> Result<Self, ImageError> {
        options.check()?;
        Ok(options.finish(match source {
            MaskSource::File(path) => from_file(&Photo::open(path, &options.decode)?, photo, options)?,
            MaskSource::Alpha => from_alpha(photo, options.threshold)?,
            MaskSource::Color { rgb, tolerance } => from_color(photo, *rgb, *tolerance),
        }))
    }

    /// The mask that a decoded `file` is for a photo; see [`Mask::open`].
    /// # Errors
    /// As [`Mask::open`].
    pub fn of(file: &Photo, photo: &Photo, options: &MaskOptions) -> Result<Self, ImageError> {
        options.check()?;
        Ok(options.finish(from_file(file, photo, options)?))
    }
}

impl MaskOptions {
    fn check(&self) -> Result<(), ImageError> {
        if !self.grow.is_finite() || self.grow < 0.0 {
            let got = self.grow.to_string();
            return Err(ImageError::Setting { name: "mask grow", got, expected: "a number of pixels, 0 or more" });
        }
        Ok(())
    }

    /// What is done to a mask wherever it came from.
    fn finish(&self, mut mask: Mask) -> Mask {
        if self.invert {
            mask = mask.invert();
        }
        mask = mask.grow(self.grow);
        mask.remark_on_extent();
        mask
    }
}

fn from_alpha(photo: &Photo, threshold: u8) -> Result<Mask, ImageError> {
    if !photo.has_alpha() {
        return Err(ImageError::NoAlpha { path: photo.path.clone(), advice: "give a mask file" });
    }
    Ok(Mask::from_fn(photo.width, photo.height, |x, y| {
        let alpha = (y * photo.width + x) * photo.channels + photo.channels - 1;
        255 - photo.value_8bit(alpha) > threshold
    }))
}

fn from_color(photo: &Photo, rgb: [u8; 3], tolerance: u8) -> Mask {
    Mask::from_fn(photo.width, photo.height, |x, y| {
        let found = color(photo, y * photo.width + x);
        found.iter().zip(rgb).all(|(found, wanted)| found.abs_diff(wanted) <= tolerance)
    })
}

/// The colour of a pixel on the scale 0–255.
fn color(photo: &Photo, pixel: usize) -> [u8; 3] {
    let first = pixel * photo.channels;
    if photo.channels < 3 {
        [photo.value_8bit(first); 3]
    } else {
        [0, 1, 2].map(|channel| photo.value_8bit(first + channel))
    }
}

fn from_file(file: &Photo, photo: &Photo, options: &MaskOptions) -> Result<Mask, ImageError> {
    // A mask of one bit or with a palette is as good as any.
    let matters = |warning: &&String| !warning.contains("converted to 8-bit");
    let mut warnings: Vec<_> = file.warnings.iter().filter(matters).map(|warning| format!("mask: {warning}")).collect();
    let colors = count_colors(file);
    let is_same_size = (file.width, file.height) == (photo.width, photo.height);
    if is_same_size && file.samples == photo.samples && colors > 2 {
        return Err(ImageError::MaskIsPhoto { path: file.path.clone(), colors });
    }
    let channel = match options.channel {
        MaskChannel::Auto => {
            let channel = guess_channel(file);
            match channel {
                MaskChannel::Alpha => warnings.push("mask taken from its alpha channel; --mask-channel decides".into()),
                MaskChannel::Red => warnings.push("mask taken from its red paint; --mask-channel decides".into()),
                _ => {}
            }
            channel
        }
        MaskChannel::Alpha if !file.has_alpha() => {
            return Err(ImageError::NoAlpha { path: file.path.clone(), advice: "use --mask-channel luma" });
        }
        channel => channel,
    };
    if channel == MaskChannel::Luma && colors > MANY_COLORS && is_colored(file) {
        let more = if colors == MAX_COLORS { "more than " } else { "" };
        warnings.push(format!("mask has {more}{colors} colours; is it the photo?"));
    }
    let values: Vec<u8> = (0..file.width * file.height).map(|pixel| value(file, pixel, channel)).collect();
    let ambiguous = values.iter().filter(|value| AMBIGUOUS.contains(value)).count();
    if ambiguous > 0 {
        warnings.push(format!(
            "{:.2} % of the mask's pixels are neither black nor white; above {} is filled (--mask-threshold)",
            100.0 * ambiguous as f64 / values.len() as f64,
            options.threshold
        ));
    }

    let (values, width, height) = fit(file, values, photo, options, &mut warnings)?;
    let mut mask = if (width, height) == (photo.width, photo.height) {
        Mask::from_fn(width, height, |x, y| values[y * width + x] > options.threshold)
    } else {
        let (photo_width, photo_height) = (photo.width, photo.height);
        warnings.push(format!("mask scaled from {width}x{height} to {photo_width}x{photo_height}"));
        // The source pixel under the centre of the target pixel.
        let nearest = |at: usize, from: usize, to: usize| (2 * at + 1) * from / (2 * to);
        Mask::from_fn(photo_width, photo_height, |x, y| {
            values[nearest(y, height, photo_height) * width + nearest(x, width, photo_width)] > options.threshold
        })
    };
    mask.warnings = warnings;
    Ok(mask)
}

/// The values in the photo's frame, or of another size if that is to be scaled.
fn fit(
    file: &Photo,
    values: Vec<u8>,
    photo: &Photo,
    options: &MaskOptions,
    warnings: &mut Vec<String>,
) -> Result<(Vec<u8>, usize, usize), ImageError> {
    let (width, height) = (file.width, file.height);
    if (width, height) == (photo.width, photo.height) {
        return Ok((values, width, height));
    }
    let stored_size = (photo.height, photo.width);
    if file.orientation.is_upright() && photo.orientation.swaps_sides() && (width, height) == stored_size {
        warnings.push(format!("mask has the photo's stored size {width}x{height}; turned with the photo"));
        let values = photo.orientation.turn(values, width, height, 1);
        return Ok((values, photo.width, photo.height));
    }
    if !options.resize_nearest {
        return Err(ImageError::MaskSize {
            path: file.path.clone(),
            width,
            height,
            photo_width: photo.width,
            photo_height: photo.height,
        });
    }
    Ok((values, width, height))
}

fn value(file: &Photo, pixel: usize, channel: MaskChannel) -> u8 {
    let [r, g, b] = color(file, pixel);
    match channel {
        MaskChannel::Alpha => file.value_8bit(pixel * file.channels + file.channels - 1),
        MaskChannel::Red => r.saturating_sub(g.max(b)),
        MaskChannel::Luma | MaskChannel::Auto => {
            ((299 * u32::from(r) + 587 * u32::from(g) + 114 * u32::from(b) + 500) / 1000) as u8
        }
    }
}

fn guess_channel(file: &Photo) -> MaskChannel {
    let pixels = 0..file.width * file.height;
    let alpha = |pixel: usize| file.value(pixel * file.channels + file.channels - 1);
    if file.has_alpha() && pixels.clone().any(|pixel| alpha(pixel) != alpha(0)) {
        return MaskChannel::Alpha;
    }
    let (mut colored, mut red) = (0, 0);
    for [r, g, b] in pixels.map(|pixel| color(file, pixel)) {
        if r.max(g).max(b) - r.min(g).min(b) > COLORED {
            colored += 1;
            if r.saturating_sub(g.max(b)) > COLORED && g.abs_diff(b) < COLORED {
                red += 1;
            }
        }
    }
    if colored > 0 && red * 10 >= colored * 9 { MaskChannel::Red } else { MaskChannel::Luma }
}

fn is_colored(file: &Photo) -> bool {
    (0..file.width * file.height).map(|pixel| color(file, pixel)).any(|[r, g, b]| r != g || g != b)
}

/// Distinct colours, counted up to a limit.
fn count_colors(file: &Photo) -> usize {
    let mut colors = HashSet::new();
    let mut last = None;
    for pixel in 0..file.width * file.height {
        let first = pixel * file.channels;
        let color = if file.channels < 3 {
            [file.value(first); 3]
        } else {
            [0, 1, 2].map(|channel| file.value(first + channel))
        };
        // Masks are mostly flat, and hashing every pixel of a large one takes a while.
        if last == Some(color) {
            continue;
        }
        last = Some(color);
        colors.insert(color);
        if colors.len() == MAX_COLORS {
            break;
        }
    }
    colors.len()
}
