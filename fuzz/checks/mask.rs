//! A mask from a stranger for a photo: as large as the photo, or refused.
//!
//! The first six bytes are the settings and the size of the photo, the rest is the file of the mask or, where the first
//! byte says so, a description of it as `--mask` takes one.

use std::path::Path;

use tweedie::image::{DecodeOptions, ImageError, Mask, MaskChannel, MaskOptions, MaskSource, Photo};

/// Reads a mask with settings.
/// # Panics
/// If a decoder does, or if a mask does not fit its photo.
pub(crate) fn check(data: &[u8]) {
    let Some((&[settings, threshold, grow, width, height, channels], rest)) = data.split_first_chunk() else { return };
    let decode = DecodeOptions { max_pixels: 1 << 14, allow_truncated: false };
    let channel = [MaskChannel::Auto, MaskChannel::Luma, MaskChannel::Alpha, MaskChannel::Red];
    let options = MaskOptions {
        threshold,
        channel: channel[usize::from(settings & 3)],
        invert: settings & 4 != 0,
        grow: f64::from(grow) / 8.0,
        resize_nearest: settings & 8 != 0,
        decode,
    };
    let (width, height) = (usize::from(width % 64) + 1, usize::from(height % 64) + 1);
    if settings & 16 != 0 {
        let Ok(text) = std::str::from_utf8(rest) else { return };
        // A file is not looked for: the name of one is whatever it is.
        if let Ok(source @ (MaskSource::Alpha | MaskSource::Color { .. })) = text.parse() {
            let photo = photo(width, height, channels);
            judge(Mask::open(&source, &photo, &options), &photo, &options);
        }
        return;
    }
    let file = match Photo::decode(rest, Path::new("mask"), &decode) {
        Ok(file) => file,
        Err(error) => {
            assert!(!matches!(error, ImageError::DecoderPanicked { .. }), "{error}");
            return;
        }
    };
    // A photo of the mask's size, one turned on its side, and one of another size.
    for (width, height) in [(file.width(), file.height()), (file.height(), file.width()), (width, height)] {
        let photo = photo(width, height, channels);
        judge(Mask::of(&file, &photo, &options), &photo, &options);
    }
    judge(Mask::of(&file, &file, &options), &file, &options);
}

fn photo(width: usize, height: usize, channels: u8) -> Photo {
    let channels = usize::from(channels % 4) + 1;
    let samples = (0..width * height * channels).map(|i| (i * 37 + 11) as u8).collect();
    Photo::from_u8(width, height, channels, samples).expect("as many samples as the size says")
}

fn judge(mask: Result<Mask, ImageError>, photo: &Photo, options: &MaskOptions) {
    match mask {
        Ok(mask) => {
            assert_eq!((mask.width(), mask.height()), (photo.width(), photo.height()));
            let pixels = mask.width() * mask.height();
            assert_eq!(mask.clone().invert().count(), pixels - mask.count());
            assert_eq!(mask.bounding_box().is_none(), mask.count() == 0);
            if mask.count() == 0 {
                assert!(mask.warnings().iter().any(|warning| warning == "nothing masked"));
            }
            assert!(mask.clone().grow(options.grow).count() >= mask.count());
        }
        Err(error) => assert!(error.is_usage(), "{error}"),
    }
}
