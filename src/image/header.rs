//! How large a picture is, before it is decoded.

use super::sniff::{SourceFormat, sniff};
use super::{ImageError, Photo};
use image::{ImageFormat, ImageReader};
use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

impl Photo {
    /// Pixels that the header of a file's `bytes` announces, width times height; see
    /// [`announced_size`](Self::announced_size).
    ///
    /// # Errors
    /// As that.
    pub fn announced_pixels(bytes: &[u8], name: &Path) -> Result<Option<u64>, ImageError> {
        let size = Self::announced_size(bytes, name)?;
        Ok(size.map(|(width, height)| u64::from(width) * u64::from(height)))
    }

    /// Width and height that the header of a file's `bytes` announces, as stored, before the picture is turned; `None`
    /// where the header cannot be read, which decoding will then say.
    ///
    /// # Errors
    /// If the content is of no format that is read here.
    pub fn announced_size(bytes: &[u8], name: &Path) -> Result<Option<(u32, u32)>, ImageError> {
        let format = match sniff(bytes, name)? {
            SourceFormat::Png => ImageFormat::Png,
            SourceFormat::Jpeg => ImageFormat::Jpeg,
            SourceFormat::WebP => ImageFormat::WebP,
            SourceFormat::Tiff => ImageFormat::Tiff,
            SourceFormat::Gif => ImageFormat::Gif,
            SourceFormat::Bmp => ImageFormat::Bmp,
            SourceFormat::Pnm => ImageFormat::Pnm,
            SourceFormat::Qoi => ImageFormat::Qoi,
            SourceFormat::Memory => return Ok(None),
        };
        // As in decoding: hostile bytes cost this file, not the program.
        let read = || ImageReader::with_format(Cursor::new(bytes), format).into_dimensions();
        Ok(catch_unwind(AssertUnwindSafe(read)).ok().and_then(Result::ok))
    }
}
