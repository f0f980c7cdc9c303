//! TIFF, through the `tiff` crate.

use std::io::{Cursor, ErrorKind};

use tiff::decoder::{ChunkType, Decoder, DecodingResult, Limits};
use tiff::encoder::colortype as stored;
use tiff::encoder::{TiffEncoder, TiffValue};
use tiff::tags::{ExtraSamples, PlanarConfiguration, Tag};
use tiff::{ColorType, TiffError, TiffFormatError};

use super::cmyk;
use super::decode::{Decoded, Source};
use super::metadata::{MAX_BLOCK, Metadata};
use super::photo::Samples;
use super::png::C2PA_WARNING;
use super::{ImageError, Photo, SourceFormat, directory, exif};

const XMP: Tag = Tag::Unknown(700);
const IPTC: Tag = Tag::Unknown(33723);
const C2PA: Tag = Tag::Unknown(0xcd41);
const DNG_VERSION: Tag = Tag::Unknown(50706);
const PALETTE: u16 = 3;
const EXIF_DIRECTORIES: [Tag; 2] = [Tag::Unknown(0x8769), Tag::Unknown(0x8825)];

pub(super) fn decode(source: Source<'_>) -> Result<Decoded, ImageError> {
    let refuse = |error| refuse(source, error);
    let mut as_grey = Vec::new();
    let mut decoder = Decoder::new(Cursor::new(source.bytes)).map_err(refuse)?;
    if decoder.find_tag_unsigned(Tag::PhotometricInterpretation).ok().flatten() == Some(PALETTE) {
        // The crate reads no palettes, but it reads their indices as if they were grey.
        as_grey.extend_from_slice(source.bytes);
        if !exif::palette_to_grey(&mut as_grey) {
            return Err(source.unsupported("BigTIFF with a palette"));
        }
        decoder = Decoder::new(Cursor::new(as_grey.as_slice())).map_err(refuse)?;
    }
    let is_palette = !as_grey.is_empty();
    let (width, height) = decoder.dimensions().map_err(refuse)?;
    let (width, height) = source.check_size(width.into(), height.into())?;
    let mut limits = Limits::default();
    limits.decoding_buffer_size = usize::try_from(source.memory_limit().saturating_mul(2)).unwrap_or(usize::MAX);
    limits.intermediate_buffer_size = limits.decoding_buffer_size;
    limits.ifd_value_size = MAX_BLOCK;
    decoder = decoder.with_limits(limits);

    if decoder.find_tag(DNG_VERSION).is_ok_and(|version| version.is_some()) {
        return Err(ImageError::UnsupportedFormat { path: source.path.into(), format: "RAW" });
    }
    let color = decoder.colortype().map_err(refuse)?;
    let orientation = decoder.find_tag_unsigned(Tag::Orientation).ok().flatten();
    let mut warnings = Vec::new();
    if decoder.more_images() {
        warnings.push("several pages; only the first is used".into());
    }
    if decoder.find_tag(C2PA).is_ok_and(|tag| tag.is_some()) {
        warnings.push(C2PA_WARNING.into());
    }
    let exif = directory::exif_of_tiff(source.bytes);
    if exif.is_none() && EXIF_DIRECTORIES.into_iter().any(|tag| decoder.find_tag(tag).is_ok_and(|tag| tag.is_some())) {
        warnings.push("EXIF dropped: it is damaged, too large, or of a BigTIFF".into());
    }
    let block = |decoder: &mut Decoder<_>, tag| decoder.get_tag_u8_vec(tag).ok().filter(|block| !block.is_empty());
    let mut metadata = Metadata {
        exif,
        icc: block(&mut decoder, Tag::IccProfile),
        xmp: block(&mut decoder, XMP),
        iptc: block(&mut decoder, IPTC),
        ..Default::default()
    };
    let extra: Vec<u16> = decoder.find_tag_unsigned_vec(Tag::ExtraSamples).ok().flatten().unwrap_or_default();
    let has_premultiplied_alpha = extra.first() == Some(&ExtraSamples::AssociatedAlpha.to_u16());
    let palette: Option<Vec<u16>> = decoder.find_tag_unsigned_vec(Tag::ColorMap).ok().flatten();

    let per_pixel = match color {
        ColorType::Gray(_) => 1,
        ColorType::GrayA(_) => 2,
        ColorType::RGB(_) => 3,
        ColorType::RGBA(_) | ColorType::CMYK(_) => 4,
        ColorType::Multiband { num_samples: 2, .. } => 2,
        other => return Err(source.unsupported(format!("TIFF with {other:?} pixels"))),
    };
    // Before memory is taken for pixels that the file cannot contain.
    let strips: Option<Vec<u64>> = [Tag::StripByteCounts, Tag::TileByteCounts]
        .into_iter()
        .find_map(|tag| decoder.find_tag_unsigned_vec(tag).ok().flatten());
    if strips.is_some_and(|counts| counts.iter().any(|&count| count > source.bytes.len() as u64)) {
        return Err(source.truncated("a strip of pixels is longer than the file"));
    }
    let has_planes = per_pixel > 1
        && decoder.find_tag_unsigned(Tag::PlanarConfiguration).ok().flatten()
            == Some(PlanarConfiguration::Planar.to_u16());
    let (buffer, planes) = if has_planes && decoder.get_chunk_type() == ChunkType::Tile {
        (tiled_planes(&mut decoder, (width, height), per_pixel).map_err(refuse)?, per_pixel)
    } else {
        let mut buffer = DecodingResult::U8(Vec::new());
        let layout = decoder.read_image_to_buffer(&mut buffer).map_err(refuse)?;
        if buffer.as_buffer(0).as_bytes().len() < layout.complete_len {
            return Err(source.too_much_memory());
        }
        (buffer, layout.planes)
    };
    let bits = color.bit_depth();
    let count = width * height * per_pixel;
    let wrong_count = || source.corrupt(SourceFormat::Tiff, "the number of samples does not fit the size");
    let mut samples = match buffer {
        DecodingResult::U8(values) if bits < 8 && per_pixel == 1 && matches!(bits, 1 | 2 | 4) => {
            if !is_palette {
                warnings.push(format!("{bits}-bit grey converted to 8-bit grey"));
            }
            Samples::U8(unpack(&values, width, height, bits, is_palette).ok_or_else(wrong_count)?)
        }
        DecodingResult::U8(values) if bits == 8 => Samples::U8(interleave(values, planes, per_pixel)),
        DecodingResult::U16(values) if bits == 16 => Samples::U16(interleave(values, planes, per_pixel)),
        DecodingResult::F16(values) => {
            Samples::U16(from_float(source, &interleave(values, planes, per_pixel), &mut warnings)?)
        }
        DecodingResult::F32(values) => {
            Samples::U16(from_float(source, &interleave(values, planes, per_pixel), &mut warnings)?)
        }
        DecodingResult::F64(values) => {
            Samples::U16(from_float(source, &interleave(values, planes, per_pixel), &mut warnings)?)
        }
        _ => return Err(source.unsupported(format!("TIFF with {color:?} pixels of {bits} bits"))),
    };
    let got = match &samples {
        Samples::U8(samples) => samples.len(),
        Samples::U16(samples) => samples.len(),
    };
    if got != count {
        return Err(wrong_count());
    }

    let mut channels = per_pixel;
    match (color, &mut samples) {
        (ColorType::Gray(_), Samples::U8(indices)) if is_palette => {
            let palette = palette.ok_or_else(|| source.corrupt(SourceFormat::Tiff, "the palette is missing"))?;
            *indices = look_up(indices, &palette)
                .ok_or_else(|| source.corrupt(SourceFormat::Tiff, "a pixel is outside the palette"))?;
            channels = 3;
            warnings.push("palette converted to 8-bit colour".into());
        }
        (ColorType::Gray(_), _) if is_palette => return Err(source.unsupported("TIFF with a 16-bit palette")),
        (ColorType::CMYK(_), samples) => {
            let inks: Vec<u8> = match samples {
                Samples::U8(inks) => std::mem::take(inks),
                Samples::U16(inks) => inks.iter().map(|&ink| super::photo::to_8bit(ink)).collect(),
            };
            let (rgb, how) = cmyk::to_srgb(&inks, width, metadata.icc.take().as_deref());
            *samples = Samples::U8(rgb);
            channels = 3;
            warnings.push(format!("CMYK converted to 8-bit sRGB {how}"));
        }
        (_, samples) if has_premultiplied_alpha && channels % 2 == 0 => {
            match samples {
                Samples::U8(samples) => unmultiply(samples, channels, 255),
                Samples::U16(samples) => unmultiply(samples, channels, 65535),
            }
            warnings.push("premultiplied alpha converted to plain alpha".into());
        }
        _ => {}
    }
    Ok(Decoded { width, height, channels, samples, metadata, orientation, missing: None, warnings })
}

/// All planes one after another of a file that keeps each in tiles of its own, which the crate does not put together.
fn tiled_planes(
    decoder: &mut Decoder<Cursor<&[u8]>>,
    (width, height): (usize, usize),
    planes: usize,
) -> Result<DecodingResult, TiffError> {
    let (tile_width, tile_height) = decoder.chunk_dimensions();
    let tile = (tile_width.max(1) as usize, tile_height.max(1) as usize);
    let tiles = planes * width.div_ceil(tile.0) * height.div_ceil(tile.1);
    let tiles = u32::try_from(tiles).map_err(|_| TiffError::IntSizeError)?;
    let parts: Vec<DecodingResult> = (0..tiles).map(|number| decoder.read_chunk(number)).collect::<Result<_, _>>()?;
    /// The tiles of each of the given kinds as planes of that kind; others are left to whoever refuses them.
    macro_rules! planes_of {
        ($($kind:ident),*) => {
            match parts.first() {
                $(Some(DecodingResult::$kind(_)) => {
                    let parts = parts.into_iter().map_while(|part| match part {
                        DecodingResult::$kind(part) => Some(part),
                        _ => None,
                    });
                    joined(parts, (width, height), tile, planes).map(DecodingResult::$kind)
                })*
                _ => parts.into_iter().next(),
            }
        };
    }
    planes_of!(U8, U16, F16, F32, F64).ok_or(TiffError::FormatError(TiffFormatError::InconsistentSizesEncountered))
}

/// Planes of `(width, height)` from their tiles, row by row of each plane, those at the edges cut to what lies inside.
fn joined<T: Copy + Default>(
    mut tiles: impl Iterator<Item = Vec<T>>,
    (width, height): (usize, usize),
    (tile_width, tile_height): (usize, usize),
    planes: usize,
) -> Option<Vec<T>> {
    let mut values = vec![T::default(); planes * width * height];
    for plane in values.chunks_exact_mut(width * height) {
        for top in (0..height).step_by(tile_height) {
            for left in (0..width).step_by(tile_width) {
                let tile = tiles.next()?;
                let across = tile_width.min(width - left);
                for (row, y) in (top..height.min(top + tile_height)).enumerate() {
                    let from = tile.get(row * across..(row + 1) * across)?;
                    plane[y * width + left..][..across].copy_from_slice(from);
                }
            }
        }
    }
    Some(values)
}

/// Rows of packed small samples; grey is stretched to 0–255, indices are not.
fn unpack(packed: &[u8], width: usize, height: usize, bits: u8, are_indices: bool) -> Option<Vec<u8>> {
    let per_byte = usize::from(8 / bits);
    let stride = width.div_ceil(per_byte);
    let mask = (1u8 << bits) - 1;
    let scale = if are_indices { 1 } else { 255 / mask };
    let mut samples = Vec::with_capacity(width * height);
    for y in 0..height {
        let row = packed.get(y * stride..(y + 1) * stride)?;
        samples.extend((0..width).map(|x| {
            let shift = 8 - bits as usize * (x % per_byte + 1);
            (row[x / per_byte] >> shift & mask) * scale
        }));
    }
    Some(samples)
}

fn interleave<T: Copy>(values: Vec<T>, planes: usize, per_pixel: usize) -> Vec<T> {
    if planes < 2 || planes != per_pixel {
        return values;
    }
    let plane = values.len() / planes;
    (0..plane).flat_map(|i| (0..planes).map(move |p| p * plane + i)).map(|i| values[i]).collect()
}

/// Samples of `[0, 1]` as 16-bit levels.
fn from_float<T: Copy + Into<f64>>(
    source: Source<'_>,
    values: &[T],
    warnings: &mut Vec<String>,
) -> Result<Vec<u16>, ImageError> {
    let numbers = || values.iter().map(|&value| value.into());
    let count = numbers().filter(|value| !value.is_finite()).count();
    if count > 0 {
        return Err(ImageError::NotFinite { path: source.path.into(), count, total: values.len() });
    }
    let outside = numbers().filter(|value| !(0.0..=1.0).contains(value)).count();
    warnings.push(format!(
        "floating-point samples converted to 16 bits; {outside} of {} outside [0, 1] were clipped",
        values.len()
    ));
    Ok(numbers().map(|value| (value.clamp(0.0, 1.0) * 65535.0).round() as u16).collect())
}

fn look_up(indices: &[u8], palette: &[u16]) -> Option<Vec<u8>> {
    let colors = palette.len() / 3;
    // Some old writers stored 8-bit values.
    let shift = if palette.iter().all(|&value| value < 256) { 0 } else { 8 };
    let mut rgb = Vec::with_capacity(indices.len() * 3);
    for &index in indices {
        let index = usize::from(index);
        if index >= colors {
            return None;
        }
        rgb.extend((0..3).map(|channel| (palette[channel * colors + index] >> shift) as u8));
    }
    Some(rgb)
}

fn unmultiply<T: Copy + Into<u32> + TryFrom<u32>>(samples: &mut [T], channels: usize, max: u32) {
    for pixel in samples.chunks_exact_mut(channels) {
        let (alpha, color) = pixel.split_last_mut().expect("a pixel has samples");
        let alpha: u32 = (*alpha).into();
        if alpha == 0 {
            continue;
        }
        for sample in color {
            let plain = ((*sample).into() * max + alpha / 2) / alpha;
            if let Ok(plain) = T::try_from(plain.min(max)) {
                *sample = plain;
            }
        }
    }
}

fn refuse(source: Source<'_>, error: TiffError) -> ImageError {
    match error {
        TiffError::IoError(e) if e.kind() == ErrorKind::UnexpectedEof => source.truncated("the pixels are incomplete"),
        TiffError::LimitsExceeded | TiffError::IntSizeError => source.too_much_memory(),
        TiffError::UnsupportedError(what) => source.unsupported(format!("this TIFF ({what})")),
        other => source.corrupt(SourceFormat::Tiff, other),
    }
}

/// A TIFF (deflate) with the photo's samples and the given metadata.
pub(super) fn encode(photo: &Photo, metadata: &Metadata) -> Result<Vec<u8>, ImageError> {
    let mut file = match (&photo.samples, photo.channels) {
        (Samples::U8(samples), 1 | 2) => write::<stored::Gray8>(photo, metadata, samples),
        (Samples::U8(samples), _) => write::<stored::RGB8>(photo, metadata, samples),
        (Samples::U16(samples), 1 | 2) => write::<stored::Gray16>(photo, metadata, samples),
        (Samples::U16(samples), _) => write::<stored::RGB16>(photo, metadata, samples),
    }
    .map_err(|error| ImageError::Encode { format: "TIFF", reason: error.to_string() })?;
    if let Some(exif) = &metadata.exif {
        directory::put_exif(&mut file, exif);
    }
    Ok(file)
}

fn write<C>(photo: &Photo, metadata: &Metadata, samples: &[C::Inner]) -> Result<Vec<u8>, TiffError>
where
    C: stored::ColorType,
    [C::Inner]: TiffValue,
{
    let mut out = Cursor::new(Vec::new());
    let mut encoder = TiffEncoder::new(&mut out)?
        .with_compression(tiff::encoder::Compression::Deflate(tiff::encoder::DeflateLevel::Balanced));
    let mut image = encoder.new_image::<C>(photo.width as u32, photo.height as u32)?;
    if photo.has_alpha() {
        image.extra_samples(&[ExtraSamples::UnassociatedAlpha])?;
    }
    for (tag, block) in [(Tag::IccProfile, &metadata.icc), (XMP, &metadata.xmp), (IPTC, &metadata.iptc)] {
        if let Some(block) = block {
            image.encoder().write_tag(tag, block.as_slice())?;
        }
    }
    image.encoder().write_tag(Tag::Orientation, 1u16)?;
    image.write_data(samples)?;
    Ok(out.into_inner())
}
