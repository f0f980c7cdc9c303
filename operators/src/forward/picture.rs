//! Pictures that are settings of an operator.

use std::path::Path;

use image::{DynamicImage, ImageReader};

use crate::registry::Site;
use crate::{Error, Result};

/// Reads a picture as large as the image of the site; a relative name starts at its folder.
///
/// # Errors
/// [`Error::Config`], in the name of `operator`, if it cannot be read or has another size.
pub(super) fn open(operator: &str, path: &Path, site: Site<'_>) -> Result<DynamicImage> {
    let path = site.folder.join(path);
    let unreadable = |error: &dyn std::fmt::Display| {
        Error::config(operator, format!("file {} cannot be read: {error}", path.display()))
    };
    let reader = || {
        let reader = ImageReader::open(&path).map_err(|error| unreadable(&error))?;
        reader.with_guessed_format().map_err(|error| unreadable(&error))
    };
    // The size is judged before anything is decoded.
    let (width, height) = reader()?.into_dimensions().map_err(|error| unreadable(&error))?;
    let (_, rows, columns) = site.image;
    if (width as usize, height as usize) != (columns, rows) {
        let reason = format!("file {} is {width}x{height}, expected {columns}x{rows}, as the image", path.display());
        return Err(Error::config(operator, reason));
    }
    reader()?.decode().map_err(|error| unreadable(&error))
}
