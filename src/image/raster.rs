//! GIF, BMP, PNM and QOI: formats without metadata worth keeping, through the `image` crate.

use std::io::{Cursor, ErrorKind};

use image::codecs::bmp::{BmpDecoder, BmpEncoder};
use image::codecs::gif::GifDecoder;
use image::codecs::pnm::PnmDecoder;
use image::codecs::qoi::{QoiDecoder, QoiEncoder};
use image::{
    AnimationDecoder, ColorType, ExtendedColorType, ImageDecoder, ImageEncoder, ImageError as CodecError, Limits,
};

use super::decode::{Decoded, Source};
use super::metadata::Metadata;
use super::photo::Samples;
use super::{ImageError, OutputFormat, Photo, SourceFormat};

pub(super) fn decode(source: Source<'_>, format: SourceFormat) -> Result<Decoded, ImageError> {
    let reader = Cursor::new(source.bytes);
    let refuse = |error| refuse(source, format, error);
    match format {
        SourceFormat::Gif => {
            let mut decoded = read(source, format, GifDecoder::new(reader.clone()).map_err(refuse)?)?;
            drop_full_alpha(&mut decoded);
            decoded.warnings.push("palette converted to 8-bit colour".into());
            let mut limits = Limits::no_limits();
            limits.max_alloc = Some(source.memory_limit());
            let mut animation = GifDecoder::new(reader).map_err(refuse)?;
            animation.set_limits(limits).map_err(refuse)?;
            if animation.into_frames().take(2).filter(Result::is_ok).count() > 1 {
                decoded.warnings.push("animation; only the first frame is used".into());
            }
            Ok(decoded)
        }
        SourceFormat::Bmp => read(source, format, BmpDecoder::new(reader).map_err(refuse)?),
        SourceFormat::Pnm => read(source, format, PnmDecoder::new(reader).map_err(refuse)?),
        _ => read(source, format, QoiDecoder::new(reader).map_err(refuse)?),
    }
}

fn read(source: Source<'_>, format: SourceFormat, mut decoder: impl ImageDecoder) -> Result<Decoded, ImageError> {
    let refuse = |error| refuse(source, format, error);
    let (width, height) = decoder.dimensions();
    let (width, height) = source.check_size(width.into(), height.into())?;
    let mut limits = Limits::no_limits();
    limits.max_image_width = Some(width as u32);
    limits.max_image_height = Some(height as u32);
    limits.max_alloc = Some(source.memory_limit());
    decoder.set_limits(limits).map_err(refuse)?;
    let color = decoder.color_type();
    let channels = usize::from(color.channel_count());
    let count = width * height * channels;
    let is_16bit = match color {
        ColorType::L8 | ColorType::La8 | ColorType::Rgb8 | ColorType::Rgba8 => false,
        ColorType::L16 | ColorType::La16 | ColorType::Rgb16 | ColorType::Rgba16 => true,
        other => return Err(source.unsupported(format!("{} with {other:?} pixels", format.name()))),
    };
    if decoder.total_bytes() != count as u64 * if is_16bit { 2 } else { 1 } {
        return Err(source.too_much_memory());
    }
    let metadata = Metadata {
        icc: decoder.icc_profile().map_err(refuse)?,
        xmp: decoder.xmp_metadata().map_err(refuse)?,
        ..Default::default()
    };
    // A short file that announces a large image is found out before memory is taken for it.
    if format == SourceFormat::Pnm && (count as u64) > (source.bytes.len() as u64).saturating_mul(8) {
        return Err(source.truncated(format!("{} bytes cannot hold {width}x{height} pixels", source.bytes.len())));
    }
    let mut bytes = vec![0; decoder.total_bytes() as usize];
    decoder.read_image(&mut bytes).map_err(refuse)?;
    let samples = if is_16bit {
        Samples::U16(bytes.chunks_exact(2).map(|b| u16::from_ne_bytes([b[0], b[1]])).collect())
    } else {
        Samples::U8(bytes)
    };
    Ok(Decoded { width, height, channels, samples, metadata, orientation: None, missing: None, warnings: Vec::new() })
}

/// GIFs are decoded with alpha whether they use it or not.
fn drop_full_alpha(decoded: &mut Decoded) {
    if let Samples::U8(samples) = &mut decoded.samples
        && decoded.channels == 4
        && samples.chunks_exact(4).all(|pixel| pixel[3] == u8::MAX)
    {
        *samples = samples.chunks_exact(4).flat_map(|pixel| [pixel[0], pixel[1], pixel[2]]).collect();
        decoded.channels = 3;
    }
}

fn refuse(source: Source<'_>, format: SourceFormat, error: CodecError) -> ImageError {
    match error {
        CodecError::IoError(e) if e.kind() == ErrorKind::UnexpectedEof => source.truncated("the pixels are incomplete"),
        CodecError::Limits(_) => source.too_much_memory(),
        CodecError::Unsupported(what) => source.unsupported(format!("this {} ({what})", format.name())),
        other => {
            let reason = other.to_string();
            if reason.contains("unexpected EOF") || reason.contains("unexpected end of file") {
                return source.truncated("the pixels are incomplete");
            }
            source.corrupt(format, reason)
        }
    }
}

/// A BMP, PNM or QOI with the photo's samples.
pub(super) fn encode(photo: &Photo, format: OutputFormat) -> Result<Vec<u8>, ImageError> {
    let refuse = |error: CodecError| ImageError::Encode { format: format.name(), reason: error.to_string() };
    let (width, height) = (photo.width as u32, photo.height as u32);
    let mut out = Vec::new();
    match (format, &photo.samples) {
        (OutputFormat::Pnm, samples) => {
            let kind = if photo.channels == 1 { "P5" } else { "P6" };
            out = format!("{kind}\n{width} {height}\n{}\n", photo.max_value()).into_bytes();
            match samples {
                Samples::U8(samples) => out.extend_from_slice(samples),
                Samples::U16(samples) => out.extend(samples.iter().flat_map(|sample| sample.to_be_bytes())),
            }
            Ok(())
        }
        (OutputFormat::Bmp, Samples::U8(samples)) => {
            BmpEncoder::new(&mut out).write_image(samples, width, height, color(photo.channels))
        }
        (_, Samples::U8(samples)) => {
            let encoder = QoiEncoder::new(&mut out);
            match photo.channels {
                1 | 2 => {
                    let spread: Vec<u8> = samples
                        .chunks_exact(photo.channels)
                        .flat_map(|pixel| [pixel[0]; 3].into_iter().chain(pixel[1..].iter().copied()))
                        .collect();
                    encoder.write_image(&spread, width, height, color(photo.channels + 2))
                }
                _ => encoder.write_image(samples, width, height, color(photo.channels)),
            }
        }
        (_, Samples::U16(_)) => unreachable!("encode() refuses 16 bits for {format:?}"),
    }
    .map_err(refuse)?;
    Ok(out)
}

fn color(channels: usize) -> ExtendedColorType {
    match channels {
        1 => ExtendedColorType::L8,
        2 => ExtendedColorType::La8,
        3 => ExtendedColorType::Rgb8,
        _ => ExtendedColorType::Rgba8,
    }
}
