//! PNG. Pixels go through the `png` crate row by row, so that a truncated file gives the rows it has; metadata chunks
//! are taken from and put into the container as they are.

use std::borrow::Cow;
use std::io::{Cursor, ErrorKind, Write};

use png::{BitDepth, ColorType, DecodingError, InterlaceInfo, Transformations};

use super::decode::{Decoded, Source};
use super::metadata::{MAX_BLOCK, Metadata};
use super::photo::Samples;
use super::{ImageError, Photo, SourceFormat, raw_profile};

const SIGNATURE: usize = 8;
/// Text that is kept in all; more is a bomb, or nothing anybody reads.
const MAX_TEXT: usize = 8 << 20;
/// Chunks that say how to show the pixels; the others either describe the stored encoding or are handled apart.
const COLOUR_CHUNKS: [&[u8; 4]; 7] = [b"gAMA", b"cHRM", b"sRGB", b"cICP", b"mDCV", b"cLLI", b"pHYs"];
const XMP_KEYWORD: &[u8] = b"XML:com.adobe.xmp";
/// Deflate cannot shrink more than this.
const MAX_RATIO: u64 = 1032;

/// The chunks that are complete, checksums not yet verified.
fn chunks(bytes: &[u8]) -> impl Iterator<Item = ([u8; 4], &[u8])> {
    let mut rest = bytes.get(SIGNATURE..).unwrap_or(&[]);
    std::iter::from_fn(move || {
        let length = u32::from_be_bytes(rest.get(..4)?.try_into().ok()?) as usize;
        let kind: [u8; 4] = rest.get(4..8)?.try_into().ok()?;
        let data = rest.get(8..8usize.checked_add(length)?)?;
        // What follows IEND is not part of the image.
        rest = if kind == *b"IEND" { &[] } else { rest.get(length + 12..).unwrap_or(&[]) };
        Some((kind, data))
    })
}

fn is_text(kind: [u8; 4]) -> bool {
    matches!(&kind, b"tEXt" | b"zTXt" | b"iTXt")
}

/// What the chunks beside the pixels say.
#[derive(Default)]
struct Survey {
    metadata: Metadata,
    text_bytes: usize,
    has_profile: bool,
    profile_bytes: usize,
    has_c2pa: bool,
    has_end: bool,
}

fn survey(bytes: &[u8]) -> Survey {
    let mut survey = Survey::default();
    for (kind, data) in chunks(bytes) {
        match &kind {
            b"iCCP" => {
                survey.has_profile = true;
                survey.profile_bytes = survey.profile_bytes.max(data.len());
            }
            b"caBX" => survey.has_c2pa = true,
            b"IEND" => survey.has_end = true,
            kind if is_text(*kind) => {
                survey.text_bytes += data.len();
                if survey.text_bytes <= MAX_TEXT && !data.starts_with(XMP_KEYWORD) {
                    survey.metadata.png_text.push((*kind, data.to_vec()));
                }
            }
            kind if COLOUR_CHUNKS.contains(&kind) && data.len() <= 64 => {
                survey.metadata.png_colour.push((*kind, data.to_vec()));
            }
            _ => {}
        }
    }
    survey
}

pub(super) fn decode(source: Source<'_>) -> Result<Decoded, ImageError> {
    let Source { bytes, options, .. } = source;
    let (width, height) = match chunks(bytes).next() {
        Some((kind, header)) if kind == *b"IHDR" && header.len() == 13 => {
            let side =
                |at: usize| u64::from(u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]));
            source.check_size(side(0), side(4))?
        }
        Some((kind, _)) => {
            let found = String::from_utf8_lossy(&kind).into_owned();
            return Err(source.corrupt(SourceFormat::Png, format!("the first chunk is {found:?}, expected \"IHDR\"")));
        }
        None => return Err(source.truncated("it ends before the header does")),
    };
    let Survey { mut metadata, text_bytes, has_profile, profile_bytes, has_c2pa, has_end } = survey(bytes);
    let mut warnings = Vec::new();
    if text_bytes > MAX_TEXT {
        warnings.push(format!("{text_bytes} bytes of text chunks dropped, at most {MAX_TEXT} are kept"));
        metadata.png_text.clear();
    }
    if has_c2pa {
        warnings.push(C2PA_WARNING.into());
    }

    let mut decode_options = png::DecodeOptions::default();
    // By default a damaged ancillary chunk is skipped and the checksum of the pixels is not looked at.
    decode_options.set_skip_ancillary_crc_failures(false);
    decode_options.set_ignore_adler32(false);
    decode_options.set_ignore_text_chunk(text_bytes > MAX_TEXT);
    decode_options.set_ignore_iccp_chunk(profile_bytes > MAX_BLOCK);
    let mut decoder = png::Decoder::new_with_options(Cursor::new(bytes), decode_options);
    decoder.set_limits(png::Limits { bytes: (4 * MAX_BLOCK).saturating_add(width.saturating_mul(32)) });
    decoder.set_transformations(Transformations::EXPAND);
    let refuse = |error| refuse(source, error, "");
    let mut reader = decoder.read_info().map_err(refuse)?;

    let stored = reader.info();
    if stored.frame_control.is_some_and(|frame| (frame.width as usize, frame.height as usize) != (width, height)) {
        return Err(source.corrupt(SourceFormat::Png, "the first frame has another size than the image"));
    }
    if let Some(animation) = stored.animation_control.filter(|animation| animation.num_frames > 1) {
        warnings.push(format!("animation of {} frames; only the first is used", animation.num_frames));
    }
    match (stored.color_type, stored.bit_depth) {
        (ColorType::Indexed, _) => warnings.push("palette converted to 8-bit colour".into()),
        (_, depth @ (BitDepth::One | BitDepth::Two | BitDepth::Four)) => {
            warnings.push(format!("{}-bit grey converted to 8-bit grey", depth as u8));
        }
        _ => {}
    }
    let is_interlaced = stored.interlaced;
    let raw_bits = stored.bits_per_pixel() as u64 * (width * height) as u64;
    metadata.icc = stored.icc_profile.as_ref().map(|profile| profile.to_vec());
    if has_profile && metadata.icc.is_none() {
        warnings.push("ICC profile dropped, sRGB assumed: it is damaged or too large".into());
    }
    let (color, depth) = reader.output_color_type();
    let channels = color.samples();
    let is_16bit = depth == BitDepth::Sixteen;
    // Before memory is taken for pixels that the file cannot contain.
    if !options.allow_truncated && raw_bits / 8 > (bytes.len() as u64 + 1024) * MAX_RATIO {
        return Err(source.truncated(format!("{} bytes cannot hold {width}x{height} pixels", bytes.len())));
    }

    let line = width * channels * if is_16bit { 2 } else { 1 };
    let mut pixels = Pixels::new(is_16bit, is_interlaced, line, height);
    let mut known = options.allow_truncated.then(|| vec![0u8; width * height]);
    let all_known = vec![255; width];
    let mut row = vec![0; line];
    let mut rows = 0;
    let mut failure = None;
    loop {
        match reader.read_row(&mut row) {
            Ok(None) => break,
            Ok(Some(InterlaceInfo::Adam7(pass))) => {
                let bits = (line / width * 8) as u8;
                pixels.expand(&row, line, |image, row| png::expand_interlaced_row(image, line, row, &pass, bits));
                if let Some(known) = &mut known {
                    png::expand_interlaced_row(known, width, &all_known, &pass, 8);
                }
            }
            Ok(Some(InterlaceInfo::Null(_))) => {
                pixels.push(&row);
                if let Some(known) = &mut known {
                    known[rows * width..][..width].fill(255);
                }
                rows += 1;
            }
            Err(error) => {
                failure = Some(error);
                break;
            }
        }
    }
    if failure.is_none() {
        failure = reader.finish().err();
    }

    let mut missing = None;
    if let Some(error) = failure {
        let detail = match is_interlaced {
            false => format!("{rows} of {height} rows are there"),
            true => "some of its interlaced rows are there".into(),
        };
        let error = self::refuse(source, error, &detail);
        match (&error, known) {
            (ImageError::Truncated { detail, .. }, Some(known)) => {
                let gone: Vec<bool> = known.iter().map(|&known| known == 0).collect();
                let count = gone.iter().filter(|&&gone| gone).count();
                warnings.push(format!("truncated: {detail}; {count} pixels are unknown"));
                missing = (count > 0).then_some(gone);
            }
            _ => return Err(error),
        }
    } else if !has_end {
        return Err(source.truncated("the end chunk is missing"));
    }
    // Late chunks (after the pixels) are known only now.
    let late = reader.info();
    metadata.exif = late.exif_metadata.as_ref().map(|exif| exif.to_vec());
    if let Some(mut chunk) = late.utf8_text.iter().find(|chunk| chunk.keyword.as_bytes() == XMP_KEYWORD).cloned() {
        match chunk.decompress_text_with_limit(MAX_BLOCK).and_then(|()| chunk.get_text()) {
            Ok(text) => metadata.xmp = Some(text.into_bytes()),
            Err(_) => warnings.push("XMP dropped: it is damaged or too large".into()),
        }
    }
    take_iptc(&mut metadata, late);

    let mut samples = pixels.into_samples(width * height * channels);
    if let Some(missing) = &missing
        && channels % 2 == 0
    {
        // Missing pixels are to be painted, and nothing with alpha 0 ever is.
        for pixel in missing.iter().enumerate().filter(|(_, missing)| **missing).map(|(pixel, _)| pixel) {
            match &mut samples {
                Samples::U8(samples) => samples[pixel * channels + channels - 1] = u8::MAX,
                Samples::U16(samples) => samples[pixel * channels + channels - 1] = u16::MAX,
            }
        }
    }
    Ok(Decoded { width, height, channels, samples, metadata, orientation: None, missing, warnings })
}

/// Moves IPTC out of the text chunks: what is not found in it stays text.
fn take_iptc(metadata: &mut Metadata, info: &png::Info<'_>) {
    for keyword in raw_profile::IPTC_KEYWORDS {
        let plain = info.uncompressed_latin1_text.iter().find(|chunk| chunk.keyword == keyword);
        let deflated = || {
            let mut chunk = info.compressed_latin1_text.iter().find(|chunk| chunk.keyword == keyword)?.clone();
            chunk.decompress_text_with_limit(MAX_BLOCK).and_then(|()| chunk.get_text()).ok()
        };
        let text = plain.map(|chunk| chunk.text.clone()).or_else(deflated);
        if let Some(iptc) = text.and_then(|text| raw_profile::iptc(&text)) {
            metadata.iptc.get_or_insert(iptc);
            let start = [keyword.as_bytes(), b"\0"].concat();
            metadata.png_text.retain(|(_, data)| !data.starts_with(&start));
        }
    }
}

pub(super) const C2PA_WARNING: &str = "C2PA content credentials are dropped: the signature would not be valid any more";

fn refuse(source: Source<'_>, error: DecodingError, detail: &str) -> ImageError {
    match error {
        DecodingError::IoError(e) if e.kind() == ErrorKind::UnexpectedEof => {
            let detail = if detail.is_empty() { "it ends before the pixels" } else { detail };
            let mut error = source.truncated(detail);
            if let ImageError::Truncated { advice, .. } = &mut error {
                *advice = "--allow-truncated fills the missing pixels";
            }
            error
        }
        DecodingError::LimitsExceeded => source.too_much_memory(),
        other => source.corrupt(SourceFormat::Png, other),
    }
}

/// Rows being collected: at once in their final form, but for interlaced ones, which are spread over the image.
enum Pixels {
    U8(Vec<u8>),
    U16(Vec<u16>),
    Interlaced16(Vec<u8>),
}

impl Pixels {
    fn new(is_16bit: bool, is_interlaced: bool, line: usize, height: usize) -> Self {
        match (is_16bit, is_interlaced) {
            (false, false) => Self::U8(Vec::with_capacity(line * height)),
            (true, false) => Self::U16(Vec::with_capacity(line / 2 * height)),
            (false, true) => Self::U8(vec![0; line * height]),
            (true, true) => Self::Interlaced16(vec![0; line * height]),
        }
    }

    fn push(&mut self, row: &[u8]) {
        match self {
            Self::U8(samples) => samples.extend_from_slice(row),
            Self::U16(samples) => samples.extend(row.chunks_exact(2).map(|b| u16::from_be_bytes([b[0], b[1]]))),
            Self::Interlaced16(_) => unreachable!("an interlaced image has no plain rows"),
        }
    }

    fn expand(&mut self, row: &[u8], line: usize, expand: impl FnOnce(&mut [u8], &[u8])) {
        match self {
            Self::U8(image) | Self::Interlaced16(image) => expand(image, &row[..line]),
            Self::U16(_) => unreachable!("a plain image has no interlaced rows"),
        }
    }

    /// All samples, zeros where rows are missing.
    fn into_samples(self, length: usize) -> Samples {
        match self {
            Self::U8(mut samples) => {
                samples.resize(length, 0);
                Samples::U8(samples)
            }
            Self::U16(mut samples) => {
                samples.resize(length, 0);
                Samples::U16(samples)
            }
            Self::Interlaced16(bytes) => {
                Samples::U16(bytes.chunks_exact(2).map(|b| u16::from_be_bytes([b[0], b[1]])).collect())
            }
        }
    }
}

/// A PNG with the photo's samples and the given metadata.
pub(super) fn encode(photo: &Photo, metadata: &Metadata, software: Option<&str>) -> Result<Vec<u8>, ImageError> {
    let refuse = |error: png::EncodingError| ImageError::Encode { format: "PNG", reason: error.to_string() };
    let mut info = png::Info::with_size(photo.width as u32, photo.height as u32);
    info.icc_profile = metadata.icc.as_deref().map(Cow::Borrowed);
    info.exif_metadata = metadata.exif.as_deref().map(Cow::Borrowed);
    let mut out = Vec::new();
    let mut encoder = png::Encoder::with_info(&mut out, info).map_err(refuse)?;
    encoder.set_color(match photo.channels {
        1 => ColorType::Grayscale,
        2 => ColorType::GrayscaleAlpha,
        3 => ColorType::Rgb,
        _ => ColorType::Rgba,
    });
    encoder.set_depth(match photo.samples {
        Samples::U8(_) => BitDepth::Eight,
        Samples::U16(_) => BitDepth::Sixteen,
    });
    encoder.set_compression(png::Compression::Balanced);
    encoder.set_filter(png::Filter::Adaptive);
    let mut writer = encoder.write_header().map_err(refuse)?;
    for (kind, data) in &metadata.png_colour {
        // A profile and the sRGB chunk exclude each other.
        if !(kind == b"sRGB" && metadata.icc.is_some()) {
            writer.write_chunk(png::chunk::ChunkType(*kind), data).map_err(refuse)?;
        }
    }
    for (kind, data) in &metadata.png_text {
        if software.is_none() || !data.starts_with(b"Software\0") {
            writer.write_chunk(png::chunk::ChunkType(*kind), data).map_err(refuse)?;
        }
    }
    if let Some(software) = software {
        let text = international_text(b"Software", software.as_bytes());
        writer.write_chunk(png::chunk::iTXt, &text).map_err(refuse)?;
    }
    if let Some(xmp) = &metadata.xmp {
        writer.write_chunk(png::chunk::iTXt, &international_text(XMP_KEYWORD, xmp)).map_err(refuse)?;
    }
    if let Some(iptc) = &metadata.iptc {
        writer.write_chunk(png::chunk::tEXt, &raw_profile::of_iptc(iptc)).map_err(refuse)?;
    }
    let mut stream = writer.stream_writer_with_size(1 << 18).map_err(refuse)?;
    let line = photo.width * photo.channels;
    match &photo.samples {
        Samples::U8(samples) => stream.write_all(samples),
        Samples::U16(samples) => samples.chunks(line).try_for_each(|row| {
            let bytes: Vec<u8> = row.iter().flat_map(|sample| sample.to_be_bytes()).collect();
            stream.write_all(&bytes)
        }),
    }
    .map_err(|error| refuse(error.into()))?;
    stream.finish().map_err(refuse)?;
    writer.finish().map_err(refuse)?;
    Ok(out)
}

/// The content of an uncompressed iTXt chunk without language.
fn international_text(keyword: &[u8], text: &[u8]) -> Vec<u8> {
    [keyword, &[0, 0, 0, 0, 0], text].concat()
}
