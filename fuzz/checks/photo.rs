//! A photo from a stranger: decoded or refused, and what was decoded is written as it was.

use std::path::Path;

use tweedie::image::{DecodeOptions, Depth, EncodeOptions, ImageError, OutputFormat, Photo, Strip};

/// Small enough for thousands of photos a second.
const MAX_PIXELS: u64 = 1 << 16;
/// Larger ones are decoded only.
const MAX_WRITTEN: usize = 1 << 11;

/// Decodes `data` as a file, whole and as a truncated one.
/// # Panics
/// If a decoder does, or if a decoded photo contradicts itself or what is read back of it.
pub(crate) fn check(data: &[u8]) {
    let options = DecodeOptions { max_pixels: MAX_PIXELS, allow_truncated: false };
    match Photo::decode(data, Path::new("photo"), &options) {
        Ok(photo) => examine(&photo),
        Err(ImageError::Truncated { .. }) => {
            if let Ok(photo) =
                Photo::decode(data, Path::new("photo"), &DecodeOptions { allow_truncated: true, ..options })
            {
                examine(&photo);
            }
        }
        Err(error) => accept(&error),
    }
}

/// Every refusal is of the content of the file, but for a panic, which is a fault of the decoder.
fn accept(error: &ImageError) {
    assert!(!matches!(error, ImageError::DecoderPanicked { .. }), "{error}");
    assert!(!error.is_usage() && !error.is_resource(), "{error}");
    assert!(!error.to_string().is_empty());
}

fn examine(photo: &Photo) {
    let (width, height, channels) = (photo.width(), photo.height(), photo.channels());
    assert!(width > 0 && height > 0 && (1..=4).contains(&channels));
    assert!((width * height) as u64 <= MAX_PIXELS);
    let count = match photo.depth() {
        Depth::Eight => photo.samples_u8().map(<[u8]>::len),
        Depth::Sixteen => photo.samples_u16().map(<[u16]>::len),
    };
    assert_eq!(count, Some(width * height * channels));
    for mask in [photo.unknown(), photo.missing()].into_iter().flatten() {
        assert_eq!((mask.width(), mask.height()), (width, height));
    }
    if width * height > MAX_WRITTEN {
        return;
    }
    for format in ["png", "tiff", "webp", "qoi", "bmp", "ppm", "jpg"] {
        let format: OutputFormat = format.parse().expect("a name of a format");
        let listed = Strip::of(Some("exif,icc,iptc"), None).expect("a list of kinds");
        let kept = Strip::of(None, Some("xmp,text")).expect("a list of kinds");
        for strip in [Strip::None, Strip::Gps, listed, kept] {
            let options = EncodeOptions { strip, ..EncodeOptions::default() };
            if photo.check_encode(format, &options).is_err() {
                continue;
            }
            let file = photo.encode(format, &options).expect("what was checked is written");
            let back = Photo::decode(&file, Path::new("photo"), &DecodeOptions::default());
            let back = back.unwrap_or_else(|error| panic!("{format:?}: {error}"));
            assert_eq!((back.width(), back.height()), (width, height), "{format:?}");
            if matches!(format, OutputFormat::Png | OutputFormat::Tiff) {
                assert_eq!(back.samples_u8(), photo.samples_u8(), "{format:?}");
                assert_eq!(back.samples_u16(), photo.samples_u16(), "{format:?}");
                let profile = photo.icc_profile().filter(|_| !strip.kinds().icc);
                assert_eq!(back.icc_profile(), profile, "{format:?}");
            }
        }
    }
}
