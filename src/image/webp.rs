//! WebP, through the `image-webp` crate.

use std::io::{Cursor, ErrorKind};

use image_webp::{ColorType, DecodingError, WebPDecoder, WebPEncoder};

use super::decode::{Decoded, Source};
use super::metadata::{MAX_BLOCK, Metadata};
use super::photo::Samples;
use super::png::C2PA_WARNING;
use super::{ImageError, Photo, SourceFormat};

/// Largest side that the format can hold.
const MAX_SIDE: usize = 16384;

pub(super) fn decode(source: Source<'_>) -> Result<Decoded, ImageError> {
    let bytes = source.bytes;
    let announced = bytes.get(4..8).map_or(0, |b| u64::from(u32::from_le_bytes([b[0], b[1], b[2], b[3]])) + 8);
    if announced > bytes.len() as u64 {
        return Err(source.truncated(format!("{} of {announced} bytes are there", bytes.len())));
    }
    let refuse = |error| refuse(source, error);
    let mut decoder = WebPDecoder::new(Cursor::new(bytes)).map_err(refuse)?;
    let (width, height) = decoder.dimensions();
    let (width, height) = source.check_size(width.into(), height.into())?;
    decoder.set_memory_limit(MAX_BLOCK);
    let mut warnings = Vec::new();
    if decoder.is_animated() {
        warnings.push(format!("animation of {} frames; only the first is used", decoder.num_frames()));
    }
    if chunk_kinds(bytes).any(|kind| kind == *b"C2PA") {
        warnings.push(C2PA_WARNING.into());
    }
    let mut block = |name: &str, block: Result<Option<Vec<u8>>, DecodingError>| {
        block.unwrap_or_else(|_| {
            warnings.push(format!("{name} dropped: it is damaged or too large"));
            None
        })
    };
    let metadata = Metadata {
        icc: block("ICC profile", decoder.icc_profile()),
        // Some programs copy the block with the header it has in JPEG.
        exif: block("EXIF", decoder.exif_metadata())
            .map(|exif| exif.strip_prefix(b"Exif\0\0").map(<[u8]>::to_vec).unwrap_or(exif)),
        xmp: block("XMP", decoder.xmp_metadata()),
        ..Default::default()
    };
    let channels = if decoder.has_alpha() { 4 } else { 3 };
    let mut samples = vec![0; width * height * channels];
    decoder.read_image(&mut samples).map_err(refuse)?;
    let samples = Samples::U8(samples);
    Ok(Decoded { width, height, channels, samples, metadata, orientation: None, missing: None, warnings })
}

/// Kinds of the chunks of the file, in order.
fn chunk_kinds(bytes: &[u8]) -> impl Iterator<Item = [u8; 4]> {
    let mut rest = bytes.get(12..).unwrap_or(&[]);
    std::iter::from_fn(move || {
        let kind = rest.get(..4)?.try_into().ok()?;
        let size = u32::from_le_bytes(rest.get(4..8)?.try_into().ok()?) as usize;
        rest = size.checked_next_multiple_of(2).and_then(|size| rest.get(8..)?.get(size..)).unwrap_or(&[]);
        Some(kind)
    })
}

fn refuse(source: Source<'_>, error: DecodingError) -> ImageError {
    match error {
        DecodingError::IoError(e) if e.kind() == ErrorKind::UnexpectedEof => {
            source.truncated("the pixels are incomplete")
        }
        DecodingError::BitStreamError => source.corrupt(SourceFormat::WebP, "the pixels are damaged or incomplete"),
        DecodingError::MemoryLimitExceeded | DecodingError::ImageTooLarge => source.too_much_memory(),
        other => source.corrupt(SourceFormat::WebP, other),
    }
}

/// A lossless WebP with the photo's 8-bit samples and the given metadata.
pub(super) fn encode(photo: &Photo, samples: &[u8], metadata: &Metadata) -> Result<Vec<u8>, ImageError> {
    let refuse = |reason: String| ImageError::Encode { format: "WebP", reason };
    if photo.width.max(photo.height) > MAX_SIDE {
        return Err(refuse(format!("{}x{}, at most {MAX_SIDE} on a side", photo.width, photo.height)));
    }
    let color = match photo.channels {
        1 => ColorType::L8,
        2 => ColorType::La8,
        3 => ColorType::Rgb8,
        _ => ColorType::Rgba8,
    };
    let mut out = Vec::new();
    let mut encoder = WebPEncoder::new(&mut out);
    encoder.set_icc_profile(metadata.icc.clone().unwrap_or_default());
    encoder.set_exif_metadata(metadata.exif.clone().unwrap_or_default());
    encoder.set_xmp_metadata(metadata.xmp.clone().unwrap_or_default());
    encoder
        .encode(samples, photo.width as u32, photo.height as u32, color)
        .map_err(|error| refuse(error.to_string()))?;
    Ok(out)
}
