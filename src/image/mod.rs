//! Photos and masks: the only place that knows bytes.
#![allow(missing_docs)]

use candle_core::{Device, Tensor};
use image::DynamicImage;
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    #[error("{path}: {reason}")]
    Bad { path: PathBuf, reason: String },
    #[error("unknown output format `{name}`")]
    Usage { name: String },
}
impl ImageError {
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::Usage { .. })
    }
    pub fn is_resource(&self) -> bool {
        false
    }
}
type R<T> = Result<T, ImageError>;
fn bad(path: &Path, reason: impl ToString) -> ImageError {
    ImageError::Bad { path: path.into(), reason: reason.to_string() }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    pub x: usize,
    pub y: usize,
    pub width: usize,
    pub height: usize,
}
#[derive(Clone, Debug)]
pub struct DecodeOptions {
    pub max_pixels: u64,
    pub allow_truncated: bool,
}
impl Default for DecodeOptions {
    fn default() -> Self {
        Self { max_pixels: 268_402_689, allow_truncated: false }
    }
}
#[derive(Clone, Copy, Debug)]
pub enum Strip {
    All,
    Gps,
}
#[derive(Clone, Debug, Default)]
pub struct EncodeOptions {
    pub quality: u8,
    pub strip: Option<Strip>,
    pub software: Option<String>,
}
#[derive(Clone, Copy, Debug)]
pub enum Depth {
    Eight,
    Sixteen,
}
impl Depth {
    pub fn bits(self) -> u32 {
        match self {
            Self::Eight => 8,
            Self::Sixteen => 16,
        }
    }
}
#[derive(Clone, Copy, Debug)]
pub enum OutputFormat {
    Png,
    Jpeg,
}
impl OutputFormat {
    pub fn from_path(path: &Path) -> R<Self> {
        match path.extension().and_then(|e| e.to_str()) {
            Some("png") => Ok(Self::Png),
            Some("jpg" | "jpeg") => Ok(Self::Jpeg),
            other => Err(ImageError::Usage { name: other.unwrap_or_default().into() }),
        }
    }
    pub fn is_lossy(self) -> bool {
        matches!(self, Self::Jpeg)
    }
}
#[derive(Clone, Debug)]
pub struct Photo {
    image: DynamicImage,
    warnings: Vec<String>,
}
impl Photo {
    pub fn open(path: &Path, options: &DecodeOptions) -> R<Self> {
        let bytes = std::fs::read(path).map_err(|e| bad(path, e))?;
        Self::decode(&bytes, path, options)
    }
    pub fn decode(bytes: &[u8], path: &Path, _: &DecodeOptions) -> R<Self> {
        if bytes.is_empty() {
            return Err(bad(path, "empty file"));
        }
        Ok(Self { image: image::load_from_memory(bytes).map_err(|e| bad(path, e))?, warnings: Vec::new() })
    }
    pub fn width(&self) -> usize {
        self.image.width() as usize
    }
    pub fn height(&self) -> usize {
        self.image.height() as usize
    }
    pub fn channels(&self) -> usize {
        self.image.color().channel_count().into()
    }
    pub fn has_alpha(&self) -> bool {
        self.image.color().has_alpha()
    }
    pub fn depth(&self) -> Depth {
        if self.image.color().bytes_per_pixel() / self.image.color().channel_count() == 2 {
            Depth::Sixteen
        } else {
            Depth::Eight
        }
    }
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }
    pub fn encode(&self, format: OutputFormat, _: &EncodeOptions) -> R<Vec<u8>> {
        let mut out = std::io::Cursor::new(Vec::new());
        let format = match format {
            OutputFormat::Png => image::ImageFormat::Png,
            OutputFormat::Jpeg => image::ImageFormat::Jpeg,
        };
        self.image.write_to(&mut out, format).map_err(|e| bad(Path::new("-"), e))?;
        Ok(out.into_inner())
    }
    pub fn tensor(&self, region: Region, device: &Device) -> candle_core::Result<Tensor> {
        let rgb = self
            .image
            .crop_imm(region.x as u32, region.y as u32, region.width as u32, region.height as u32)
            .to_rgb32f();
        Tensor::from_vec(rgb.into_raw(), (region.height, region.width, 3), device)?
            .permute((2, 0, 1))?
            .unsqueeze(0)?
            .affine(2.0, -1.0)?
            .contiguous()
    }
}
#[derive(Clone, Copy, Debug)]
pub enum MaskChannel {
    Auto,
    Luma,
    Alpha,
    Red,
}
#[derive(Clone, Debug)]
pub struct MaskOptions {
    pub threshold: u8,
    pub channel: MaskChannel,
    pub invert: bool,
    pub grow: f64,
    pub resize_nearest: bool,
}
#[derive(Clone, Debug)]
pub enum MaskSource {
    File(PathBuf),
    Alpha,
}
impl std::str::FromStr for MaskSource {
    type Err = ImageError;
    fn from_str(s: &str) -> R<Self> {
        Ok(if s == "alpha" { Self::Alpha } else { Self::File(s.into()) })
    }
}
#[derive(Clone, Debug)]
pub struct Mask {
    image: image::GrayImage,
    warnings: Vec<String>,
}
impl Mask {
    pub fn open(source: &MaskSource, _: &Photo, options: &MaskOptions) -> R<Self> {
        let MaskSource::File(path) = source else { return Err(bad(Path::new("alpha"), "later")) };
        let mut image = image::open(path).map_err(|e| bad(path, e))?.to_luma8();
        for p in image.pixels_mut() {
            p.0[0] = if (p.0[0] > options.threshold) != options.invert { 255 } else { 0 };
        }
        Ok(Self { image, warnings: Vec::new() })
    }
    pub fn count(&self) -> usize {
        self.image.pixels().filter(|p| p.0[0] > 0).count()
    }
    pub fn contains(&self, x: usize, y: usize) -> bool {
        self.image.get_pixel(x as u32, y as u32).0[0] > 0
    }
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }
}
pub fn write_atomically(path: &Path, bytes: &[u8], replace: bool) -> R<()> {
    assert!(replace || !path.exists());
    std::fs::write(path, bytes).map_err(|e| bad(path, e))
}
