//! A photo in memory.

use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};

use super::exif;
use super::metadata::Metadata;
use super::orientation::Orientation;
use super::{EncodeOptions, ImageError, Mask, OutputFormat, SourceFormat, write_atomically};

/// A rectangle of pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Region {
    /// Left edge.
    pub x: usize,
    /// Top edge.
    pub y: usize,
    /// Width.
    pub width: usize,
    /// Height.
    pub height: usize,
}

impl Region {
    /// Whether it lies inside an image of this size and is not empty.
    pub fn fits(&self, width: usize, height: usize) -> bool {
        let is_inside = |start: usize, length: usize, size: usize| {
            length > 0 && start.checked_add(length).is_some_and(|end| end <= size)
        };
        is_inside(self.x, self.width, width) && is_inside(self.y, self.height, height)
    }
}

/// Bits of a sample, by the file's declaration, never by its largest value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Depth {
    /// 0 to 255.
    Eight,
    /// 0 to 65535.
    Sixteen,
}

/// Interleaved samples.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Samples {
    U8(Vec<u8>),
    U16(Vec<u16>),
}

/// A decoded photo, upright, with the samples its file had: 8 or 16 bits; grey, grey and alpha, RGB or RGBA.
///
/// Two photos that come from the same file are equal in every sample that was not painted.
#[derive(Clone, Debug)]
pub struct Photo {
    pub(super) path: PathBuf,
    pub(super) format: SourceFormat,
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) channels: usize,
    pub(super) samples: Samples,
    pub(super) metadata: Metadata,
    /// How the stored pixels were turned.
    pub(super) orientation: Orientation,
    /// One flag per pixel that the file lacks.
    pub(super) missing: Option<Vec<bool>>,
    pub(super) warnings: Vec<String>,
}

impl Photo {
    /// A photo of 8-bit samples: interleaved, row by row, `channels` of grey, grey + alpha, RGB or RGBA.
    /// # Errors
    /// [`ImageError::Shape`] if the number of samples is not `width · height · channels`, or zero.
    pub fn from_u8(width: usize, height: usize, channels: usize, samples: Vec<u8>) -> Result<Self, ImageError> {
        Self::from_samples(width, height, channels, samples.len(), Samples::U8(samples))
    }

    /// A photo of 16-bit samples; see [`Photo::from_u8`].
    /// # Errors
    /// As [`Photo::from_u8`].
    pub fn from_u16(width: usize, height: usize, channels: usize, samples: Vec<u16>) -> Result<Self, ImageError> {
        Self::from_samples(width, height, channels, samples.len(), Samples::U16(samples))
    }

    fn from_samples(
        width: usize,
        height: usize,
        channels: usize,
        got: usize,
        samples: Samples,
    ) -> Result<Self, ImageError> {
        let expected = width.saturating_mul(height).saturating_mul(channels);
        if got != expected || got == 0 || !(1..=4).contains(&channels) {
            return Err(ImageError::Shape { width, height, channels, expected, got });
        }
        Ok(Self {
            path: "photo".into(),
            format: SourceFormat::Memory,
            width,
            height,
            channels,
            samples,
            metadata: Metadata::default(),
            orientation: Orientation::UPRIGHT,
            missing: None,
            warnings: Vec::new(),
        })
    }

    /// Width in pixels, upright.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Height in pixels, upright.
    pub fn height(&self) -> usize {
        self.height
    }

    /// Samples per pixel: 1 grey, 2 grey and alpha, 3 RGB, 4 RGBA.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// Samples per pixel without alpha: 1 or 3.
    pub fn color_channels(&self) -> usize {
        if self.channels < 3 { 1 } else { 3 }
    }

    /// Whether the last sample of a pixel is its opacity.
    pub fn has_alpha(&self) -> bool {
        matches!(self.channels, 2 | 4)
    }

    /// Bits per sample.
    pub fn depth(&self) -> Depth {
        match self.samples {
            Samples::U8(_) => Depth::Eight,
            Samples::U16(_) => Depth::Sixteen,
        }
    }

    /// The format of the file it came from.
    pub fn format(&self) -> SourceFormat {
        self.format
    }

    /// The file it came from, or a placeholder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Remarks of the decoder, one line each, without the path.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The interleaved samples of an 8-bit photo.
    pub fn samples_u8(&self) -> Option<&[u8]> {
        match &self.samples {
            Samples::U8(samples) => Some(samples),
            Samples::U16(_) => None,
        }
    }

    /// The interleaved samples of a 16-bit photo.
    pub fn samples_u16(&self) -> Option<&[u16]> {
        match &self.samples {
            Samples::U8(_) => None,
            Samples::U16(samples) => Some(samples),
        }
    }

    /// Sample `channel` of pixel `(x, y)` in the photo's own depth.
    /// # Panics
    /// Outside the photo.
    pub fn sample(&self, x: usize, y: usize, channel: usize) -> u16 {
        assert!(x < self.width && y < self.height && channel < self.channels, "({x}, {y}, {channel}) is outside");
        self.value((y * self.width + x) * self.channels + channel)
    }

    /// The ICC profile.
    pub fn icc_profile(&self) -> Option<&[u8]> {
        self.metadata.icc.as_deref()
    }

    /// The EXIF block, a TIFF structure, with orientation 1 and no thumbnail.
    pub fn exif(&self) -> Option<&[u8]> {
        self.metadata.exif.as_deref()
    }

    /// The XMP packet.
    pub fn xmp(&self) -> Option<&[u8]> {
        self.metadata.xmp.as_deref()
    }

    pub(super) fn value(&self, index: usize) -> u16 {
        match &self.samples {
            Samples::U8(samples) => samples[index].into(),
            Samples::U16(samples) => samples[index],
        }
    }

    /// The largest value of a sample.
    pub fn max_value(&self) -> u16 {
        match self.depth() {
            Depth::Eight => u8::MAX.into(),
            Depth::Sixteen => u16::MAX,
        }
    }

    /// Sample `index` on the scale 0–255, rounded.
    pub(super) fn value_8bit(&self, index: usize) -> u8 {
        match &self.samples {
            Samples::U8(samples) => samples[index],
            Samples::U16(samples) => to_8bit(samples[index]),
        }
    }

    /// Whether the pixel (by its number, row by row) has alpha 0.
    fn is_transparent(&self, pixel: usize) -> bool {
        self.has_alpha() && self.value(pixel * self.channels + self.channels - 1) == 0
    }

    /// Pixels whose colour says nothing: those with alpha 0, and those missing from a truncated file.
    ///
    /// A sampler must not take them as known. [`Photo::paint`] writes missing pixels, but never those with alpha 0.
    pub fn unknown(&self) -> Option<Mask> {
        let mask = Mask::from_fn(self.width, self.height, |x, y| {
            let pixel = y * self.width + x;
            self.is_transparent(pixel) || self.missing.as_ref().is_some_and(|missing| missing[pixel])
        });
        (mask.count() > 0).then_some(mask)
    }

    /// Pixels missing from a truncated file: these must be painted, whatever else is.
    pub fn missing(&self) -> Option<Mask> {
        let missing = self.missing.as_ref()?;
        Some(Mask::from_fn(self.width, self.height, |x, y| missing[y * self.width + x]))
    }

    /// Makes the pixels of `mask` fully opaque, so that [`Photo::paint`] writes them; for masks taken from the photo's
    /// own transparency, whose holes are to be filled. Until then their colour is as unknown as before: call
    /// [`Photo::unknown`] first, or treat the mask as unknown.
    /// # Panics
    /// If the sizes differ.
    pub fn make_opaque(&mut self, mask: &Mask) {
        assert_eq!((mask.width(), mask.height()), (self.width, self.height), "mask and photo differ in size");
        if !self.has_alpha() {
            return;
        }
        for pixel in 0..self.width * self.height {
            if mask.is_pixel_set(pixel) {
                let alpha = pixel * self.channels + self.channels - 1;
                match &mut self.samples {
                    Samples::U8(samples) => samples[alpha] = u8::MAX,
                    Samples::U16(samples) => samples[alpha] = u16::MAX,
                }
            }
        }
    }

    /// The opaque pixels: those with an alpha above half.
    pub fn opaque_pixels(&self) -> Mask {
        let half = self.max_value() / 2;
        Mask::from_fn(self.width, self.height, |x, y| !self.has_alpha() || self.sample(x, y, self.channels - 1) > half)
    }

    /// A black photo of another size, with depth, channels and metadata of this one; alpha is interpolated between the
    /// nearest pixels.
    pub fn resized(&self, width: usize, height: usize) -> Self {
        let mut resized = self.clone();
        let area = width * height * self.channels;
        resized.samples = match self.samples {
            Samples::U8(_) => Samples::U8(vec![0; area]),
            Samples::U16(_) => Samples::U16(vec![0; area]),
        };
        (resized.width, resized.height, resized.missing) = (width, height, None);
        if let Some(exif) = &mut resized.metadata.exif {
            exif::set_size(exif, width, height);
        }
        if self.has_alpha() {
            let last = self.channels - 1;
            for y in 0..height {
                let (top, bottom, down) = between(y, height, self.height);
                for x in 0..width {
                    let (left, right, across) = between(x, width, self.width);
                    let row = |y| {
                        let of = |x| f32::from(self.sample(x, y, last));
                        of(left) * (1.0 - across) + of(right) * across
                    };
                    let alpha = row(top) * (1.0 - down) + row(bottom) * down;
                    resized.set((y * width + x) * self.channels + last, alpha.round());
                }
            }
        }
        resized
    }

    /// The photo with three channels of colour, grey repeated; a profile for grey is left out.
    pub fn in_colour(&self) -> Self {
        if self.color_channels() == 3 {
            return self.clone();
        }
        self.with_channels(self.channels + 2, |sample, channel| if channel < 3 { sample[0] } else { sample[1] })
    }

    /// The photo with one channel of colour, the luma of rec. 601; a profile for colour is left out.
    pub fn in_grey(&self) -> Self {
        if self.color_channels() == 1 {
            return self.clone();
        }
        self.with_channels(self.channels - 2, |sample, channel| match channel {
            0 => {
                let [red, green, blue] = [sample[0], sample[1], sample[2]].map(f64::from);
                (0.299 * red + 0.587 * green + 0.114 * blue).round() as u16
            }
            _ => sample[3],
        })
    }

    /// Every pixel anew: `of` gets its samples and the number of a channel.
    fn with_channels(&self, channels: usize, of: impl Fn(&[u16], usize) -> u16) -> Self {
        let mut samples = Vec::with_capacity(self.width * self.height * channels);
        let mut pixel = vec![0; self.channels];
        for first in (0..self.width * self.height).map(|pixel| pixel * self.channels) {
            (0..self.channels).for_each(|channel| pixel[channel] = self.value(first + channel));
            samples.extend((0..channels).map(|channel| of(&pixel, channel)));
        }
        let samples = match self.samples {
            Samples::U8(_) => Samples::U8(samples.into_iter().map(|sample| sample as u8).collect()),
            Samples::U16(_) => Samples::U16(samples),
        };
        let mut metadata = self.metadata.clone();
        let mut warnings = self.warnings.clone();
        if metadata.icc.take().is_some() {
            let kinds = if channels < 3 { ("colour", "grey") } else { ("grey", "colour") };
            warnings.push(format!("the colour profile is for {}, the result is in {}: left out", kinds.0, kinds.1));
        }
        metadata.png_colour.retain(|(name, _)| name == b"pHYs");
        Self { channels, samples, metadata, warnings, ..self.clone() }
    }

    /// Colour of a region, on the encoded values: `2 v / 255 − 1`, or `2 v / 65535 − 1`.
    ///
    /// # Shapes
    /// Returns `[1, 3, h, w]`, `f32`, in `[-1, 1]`; grey is replicated, alpha left out.
    /// # Errors
    /// If the region is empty or leaves the photo.
    pub fn tensor(&self, region: Region, device: &Device) -> candle_core::Result<Tensor> {
        self.check(region)?;
        let scale = 2.0 / f32::from(self.max_value());
        let area = region.width * region.height;
        let mut values = vec![0f32; 3 * area];
        for y in 0..region.height {
            for x in 0..region.width {
                let pixel = (region.y + y) * self.width + region.x + x;
                for channel in 0..3 {
                    let index = pixel * self.channels + if self.channels < 3 { 0 } else { channel };
                    values[channel * area + y * region.width + x] = f32::from(self.value(index)) * scale - 1.0;
                }
            }
        }
        Tensor::from_vec(values, (1, 3, region.height, region.width), device)
    }

    /// Writes the colour of those pixels of `mask` that lie inside `region`, rounded and clamped to the depth; a grey
    /// photo takes the mean of the three channels. All other samples, alpha, and pixels with alpha 0 stay as they are.
    ///
    /// # Shapes
    /// `mask`: the size of the region, or of the photo; `x`: `[1, 3, h, w]` or `[3, h, w]` of the region's size, in `[-1, 1]`
    /// # Errors
    /// If a shape does not fit, or a value to be written is not finite; the photo is then unchanged.
    pub fn paint(&mut self, region: Region, mask: &Mask, x: &Tensor) -> candle_core::Result<()> {
        self.check(region)?;
        let of_region = (mask.width(), mask.height()) == (region.width, region.height);
        if !of_region && (mask.width(), mask.height()) != (self.width, self.height) {
            candle_core::bail!(
                "mask is {}x{}, the photo is {}x{}, the region {}x{}",
                mask.width(),
                mask.height(),
                self.width,
                self.height,
                region.width,
                region.height
            );
        }
        let (h, w) = (region.height, region.width);
        if !matches!(x.dims(), [1, 3, rows, columns] | [3, rows, columns] if (*rows, *columns) == (h, w)) {
            candle_core::bail!("expected [1, 3, {h}, {w}] or [3, {h}, {w}], got {:?}", x.dims());
        }
        let values = x.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
        let area = w * h;
        let photo_width = self.width;
        let pixel_at = |i: usize| (region.y + i / w) * photo_width + region.x + i % w;
        let is_target = |photo: &Self, i: usize| {
            let pixel = pixel_at(i);
            mask.is_pixel_set(if of_region { i } else { pixel }) && !photo.is_transparent(pixel)
        };
        let is_finite = |i: usize| (0..3).all(|channel| values[channel * area + i].is_finite());
        if let Some(i) = (0..area).find(|&i| !is_finite(i) && is_target(self, i)) {
            candle_core::bail!("value at ({}, {}) is not finite", region.x + i % w, region.y + i / w);
        }
        let max = f32::from(self.max_value());
        let level = |value: f32| ((value + 1.0) * 0.5 * max).round().clamp(0.0, max);
        for i in 0..area {
            if !is_target(self, i) {
                continue;
            }
            let pixel = pixel_at(i);
            let color = [values[i], values[area + i], values[2 * area + i]];
            let first = pixel * self.channels;
            if self.channels < 3 {
                self.set(first, level((color[0] + color[1] + color[2]) / 3.0));
            } else {
                for (channel, value) in color.into_iter().enumerate() {
                    self.set(first + channel, level(value));
                }
            }
            if let Some(missing) = &mut self.missing {
                missing[pixel] = false;
            }
        }
        Ok(())
    }

    fn set(&mut self, index: usize, level: f32) {
        match &mut self.samples {
            Samples::U8(samples) => samples[index] = level as u8,
            Samples::U16(samples) => samples[index] = level as u16,
        }
    }

    fn check(&self, region: Region) -> candle_core::Result<()> {
        if !region.fits(self.width, self.height) {
            candle_core::bail!("region {region:?} is not inside the photo, {}x{}", self.width, self.height);
        }
        Ok(())
    }

    /// Encodes and writes a file, see [`Photo::encode`] and [`write_atomically`].
    /// # Errors
    /// As those.
    pub fn save(
        &self,
        path: &Path,
        format: OutputFormat,
        options: &EncodeOptions,
        replace: bool,
    ) -> Result<(), ImageError> {
        write_atomically(path, &self.encode(format, options)?, replace)
    }
}

/// The two pixels of a line of `from` between which pixel `at` of a line of `to` lies, and how far it is from the first.
fn between(at: usize, to: usize, from: usize) -> (usize, usize, f32) {
    let place = ((at as f32 + 0.5) * from as f32 / to as f32 - 0.5).clamp(0.0, from as f32 - 1.0);
    let first = place as usize;
    (first, (first + 1).min(from - 1), place - first as f32)
}

/// A 16-bit value on the scale 0–255, rounded.
pub(super) fn to_8bit(value: u16) -> u8 {
    ((u32::from(value) * 255 + 32767) / 65535) as u8
}
