//! From the bytes of a file to an upright photo.

use std::fs::{self, File};
use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use super::icc::{self, Space};
use super::metadata::Metadata;
use super::orientation::Orientation;
use super::photo::{Photo, Samples};
use super::sniff::{SourceFormat, extension_warning, sniff};
use super::{ImageError, exif, jpeg, png, raster, tiff, webp};

/// How much is accepted of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeOptions {
    /// Largest number of pixels, width · height; default 268 402 689 (16383²).
    pub max_pixels: u64,
    /// Accept a truncated PNG, whose missing pixels become [`Photo::unknown`]; default false.
    pub allow_truncated: bool,
}

impl Default for DecodeOptions {
    fn default() -> Self {
        Self { max_pixels: 268_402_689, allow_truncated: false }
    }
}

/// What a format's decoder returns: pixels as stored, not yet upright.
#[derive(Debug)]
pub(super) struct Decoded {
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) channels: usize,
    pub(super) samples: Samples,
    pub(super) metadata: Metadata,
    /// The container's own orientation tag, where it has one beside EXIF.
    pub(super) orientation: Option<u32>,
    /// One flag per pixel that the file lacks.
    pub(super) missing: Option<Vec<bool>>,
    pub(super) warnings: Vec<String>,
}

/// One file being decoded: what the decoders of all formats need.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) path: &'a Path,
    pub(super) options: DecodeOptions,
}

impl DecodeOptions {
    /// Bytes of the largest file that is read: twice what the pixels take with 16 bits and four channels.
    pub(crate) fn max_file(&self) -> u64 {
        self.max_pixels.saturating_mul(16).saturating_add(64 << 20)
    }

    /// # Errors
    /// [`ImageError::FileTooLarge`].
    pub(crate) fn check_length(&self, name: &Path, length: u64) -> Result<(), ImageError> {
        let limit = self.max_file();
        if length > limit {
            return Err(ImageError::FileTooLarge { path: name.into(), length, limit });
        }
        Ok(())
    }
}

/// Bytes from which the format is known.
const HEAD: u64 = 8192;

const EXPORT_AGAIN: &str = "get the whole file again";

impl Source<'_> {
    /// The size of an image in its header, as `usize`.
    /// # Errors
    /// If it is zero or more than allowed; called before anything is allocated.
    pub(super) fn check_size(&self, width: u64, height: u64) -> Result<(usize, usize), ImageError> {
        if width == 0 || height == 0 {
            return Err(ImageError::NoPixels { path: self.path.into(), width, height });
        }
        let pixels = width.saturating_mul(height);
        let limit = self.options.max_pixels;
        if pixels > limit || pixels.checked_mul(8).is_none_or(|bytes| bytes > isize::MAX as u64) {
            return Err(ImageError::TooLarge { path: self.path.into(), width, height, pixels, limit });
        }
        Ok((width as usize, height as usize))
    }

    /// Bytes that a decoder may allocate beside the samples.
    pub(super) fn memory_limit(&self) -> u64 {
        self.options.max_pixels.saturating_mul(8).saturating_add(64 << 20)
    }

    pub(super) fn truncated(&self, detail: impl Into<String>) -> ImageError {
        ImageError::Truncated { path: self.path.into(), detail: detail.into(), advice: EXPORT_AGAIN }
    }

    pub(super) fn corrupt(&self, format: SourceFormat, reason: impl ToString) -> ImageError {
        let reason = reason.to_string();
        ImageError::Corrupt {
            path: self.path.into(),
            format: format.name(),
            reason: reason.trim_end_matches('.').into(),
        }
    }

    pub(super) fn unsupported(&self, what: impl Into<String>) -> ImageError {
        ImageError::UnsupportedVariant { path: self.path.into(), what: what.into() }
    }

    pub(super) fn too_much_memory(&self) -> ImageError {
        ImageError::TooMuchMemory { path: self.path.into() }
    }
}

impl Photo {
    /// Reads a file; see [`Photo::decode`].
    /// # Errors
    /// As [`Photo::decode`]; [`ImageError::Read`] or [`ImageError::NotAFile`] if there is nothing to read.
    pub fn open(path: &Path, options: &DecodeOptions) -> Result<Self, ImageError> {
        let unreadable = |source| ImageError::Read { path: path.into(), source };
        let kind = fs::metadata(path).map_err(unreadable)?.file_type();
        if !kind.is_file() {
            let kind = if kind.is_dir() { "a folder" } else { "a pipe, a socket or a device" };
            return Err(ImageError::NotAFile { path: path.into(), kind });
        }
        let mut file = File::open(path).map_err(unreadable)?;
        let mut bytes = Vec::new();
        // What a video or an archive is, its first bytes say: the rest is not read.
        file.by_ref().take(HEAD).read_to_end(&mut bytes).map_err(unreadable)?;
        sniff(&bytes, path)?;
        options.check_length(path, file.metadata().map_err(unreadable)?.len())?;
        // A file that grows meanwhile is read up to the limit.
        file.take(options.max_file()).read_to_end(&mut bytes).map_err(unreadable)?;
        Self::decode(&bytes, path, options)
    }

    /// Decodes the first image of a file's `bytes` and turns it upright. `name` stands in messages, and its extension
    /// is compared with the content; the content decides.
    ///
    /// What is accepted with a remark is in [`Photo::warnings`].
    /// # Errors
    /// If the content is no readable image, damaged, truncated, or larger than `options` allows.
    pub fn decode(bytes: &[u8], name: &Path, options: &DecodeOptions) -> Result<Self, ImageError> {
        let source = Source { bytes, path: name, options: *options };
        let format = sniff(bytes, name)?;
        // Decoders are other people's code fed with hostile bytes: a panic there costs this file, not the program.
        catch_unwind(AssertUnwindSafe(|| {
            let decoded = match format {
                SourceFormat::Png => png::decode(source),
                SourceFormat::Jpeg => jpeg::decode(source),
                SourceFormat::WebP => webp::decode(source),
                SourceFormat::Tiff => tiff::decode(source),
                _ => raster::decode(source, format),
            }?;
            Ok(upright(decoded, format, name))
        }))
        .unwrap_or_else(|panic| {
            let reason = panic
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string))
                .unwrap_or_default();
            Err(ImageError::DecoderPanicked { path: name.into(), reason })
        })
    }
}

/// Turns pixels and metadata upright.
fn upright(decoded: Decoded, format: SourceFormat, path: &Path) -> Photo {
    let Decoded { width, height, channels, samples, mut metadata, orientation, missing, mut warnings } = decoded;
    let mut tag = orientation;
    if let Some(block) = &mut metadata.exif {
        match exif::make_upright(block) {
            Some(findings) => {
                tag = tag.or(findings.orientation);
                if findings.is_looped {
                    warnings.push("EXIF directories form a loop; the loop is ignored".into());
                }
            }
            None => {
                warnings.push("EXIF block is damaged; dropped".into());
                metadata.exif = None;
            }
        }
    }
    metadata.make_xmp_upright();
    let orientation = tag.map_or(Orientation::UPRIGHT, |tag| {
        Orientation::from_tag(tag).unwrap_or_else(|| {
            warnings.push(format!("orientation is {tag}, expected 1 to 8; ignored"));
            Orientation::UPRIGHT
        })
    });
    let space = if channels < 3 { Space::Grey } else { Space::Rgb };
    if let Some(profile) = &metadata.icc
        && let Some(objection) = icc::objection(profile, space)
    {
        warnings.push(format!("ICC profile dropped, sRGB assumed: {objection}"));
        metadata.icc = None;
    }
    if let Some(warning) = extension_warning(path, format) {
        warnings.insert(0, warning);
    }
    let samples = match samples {
        Samples::U8(samples) => Samples::U8(orientation.turn(samples, width, height, channels)),
        Samples::U16(samples) => Samples::U16(orientation.turn(samples, width, height, channels)),
    };
    let missing = missing.map(|missing| orientation.turn(missing, width, height, 1));
    let (width, height) = orientation.size(width, height);
    if orientation.swaps_sides()
        && let Some(block) = &mut metadata.exif
    {
        exif::set_size(block, width, height);
    }
    Photo { path: path.into(), format, width, height, channels, samples, metadata, orientation, missing, warnings }
}
