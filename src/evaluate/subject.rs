//! A photo that is degraded and restored.

use super::config::refuse;
use crate::digest::hexadecimal;
use crate::image::{DecodeOptions, Depth, Photo, Region};
use crate::{Error, Result};
use candle_core::{Device, Tensor};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// Smallest side that SSIM is defined for.
const LEAST_SIDE: usize = 11;

/// What is to come back.
#[derive(Debug)]
pub(super) struct Subject {
    /// Name of its file.
    pub(super) name: String,
    /// The part that is used, in colour.
    pub(super) photo: Photo,
    /// `[1, 3, H, W]` on the host.
    pub(super) truth: Tensor,
    /// SHA-256 of size and samples.
    pub(super) hash: String,
}

impl Subject {
    /// Decodes a photo and cuts a square of `crop` pixels out of its middle.
    pub(super) fn open(path: &Path, crop: Option<usize>) -> Result<Self> {
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        let whole = Photo::open(path, &DecodeOptions::default())?;
        if whole.unknown().is_some() {
            return refuse(&format!("image {name}"), "a photo with transparent pixels".into(), "one that is opaque");
        }
        let (width, height) = (whole.width(), whole.height());
        let region = match crop {
            None => Region { x: 0, y: 0, width, height },
            Some(side) if side <= width.min(height) => {
                Region { x: (width - side) / 2, y: (height - side) / 2, width: side, height: side }
            }
            Some(side) => {
                let got = format!("{width}x{height}");
                return refuse(&format!("size of {name}"), got, &format!("at least the crop, {side}x{side}"));
            }
        };
        if region.width.min(region.height) < LEAST_SIDE {
            let got = format!("{width}x{height}");
            return refuse(
                &format!("size of {name}"),
                got,
                &format!("at least {LEAST_SIDE} pixels a side, SSIM's window"),
            );
        }
        let samples = colours(&whole, region);
        let mut hasher = Sha256::new();
        hasher.update(format!("{}x{} {}", region.width, region.height, whole.max_value()));
        samples.iter().for_each(|sample| hasher.update(sample.to_le_bytes()));
        let photo = match whole.depth() {
            Depth::Eight => {
                let samples = samples.into_iter().map(|sample| sample as u8).collect();
                Photo::from_u8(region.width, region.height, 3, samples)?
            }
            Depth::Sixteen => Photo::from_u16(region.width, region.height, 3, samples)?,
        };
        let truth = photo.tensor(Region { x: 0, y: 0, ..region }, &Device::Cpu)?;
        Ok(Self { name, photo, truth, hash: hexadecimal(&hasher.finalize()) })
    }

    /// `(C, H, W)`.
    pub(super) fn shape(&self) -> (usize, usize, usize) {
        (3, self.photo.height(), self.photo.width())
    }
}

/// Red, green and blue of a region, interleaved; grey three times.
fn colours(photo: &Photo, region: Region) -> Vec<u16> {
    let last = photo.color_channels() - 1;
    (region.y..region.y + region.height)
        .flat_map(|y| (region.x..region.x + region.width).map(move |x| (x, y)))
        .flat_map(|(x, y)| [0, 1, 2].map(|channel: usize| photo.sample(x, y, channel.min(last))))
        .collect()
}

/// The photos of a folder, by name; what is hidden or has no extension of a photo is left alone.
pub(super) fn pictures_of(folder: &Path) -> Result<Vec<PathBuf>> {
    const EXTENSIONS: [&str; 9] = ["png", "jpg", "jpeg", "webp", "tif", "tiff", "bmp", "ppm", "qoi"];
    let failed = |source| Error::Io { path: folder.into(), source };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let extension = path.extension().and_then(|extension| extension.to_str()).map(str::to_ascii_lowercase);
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden && path.is_file() && extension.is_some_and(|extension| EXTENSIONS.contains(&&*extension)) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}
