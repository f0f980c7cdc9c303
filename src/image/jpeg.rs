//! JPEG. Pixels go through the `zune-jpeg` crate in its strict mode; the segments are walked here, for metadata and to
//! see whether the file is whole.

use zune_core::bytestream::ZCursor;
use zune_core::colorspace::ColorSpace;
use zune_core::options::DecoderOptions;
use zune_jpeg::JpegDecoder;
use zune_jpeg::errors::DecodeErrors;

use super::cmyk;
use super::decode::{Decoded, Source};
use super::metadata::Metadata;
use super::photo::{Samples, to_8bit};
use super::png::C2PA_WARNING;
use super::{ImageError, Photo, SourceFormat};

const EXIF: &[u8] = b"Exif\0\0";
const XMP: &[u8] = b"http://ns.adobe.com/xap/1.0/\0";
/// Parts of a packet that is too long for one segment; the first one has what programs look for.
const EXTENDED_XMP: &[u8] = b"http://ns.adobe.com/xmp/extension/\0";
const ICC: &[u8] = b"ICC_PROFILE\0";
const PHOTOSHOP: &[u8] = b"Photoshop 3.0\0";
const IPTC_RESOURCE: u16 = 0x0404;
/// Bytes of a segment beside its length field.
const MAX_SEGMENT: usize = 65533;

/// What the segments up to the end of the image say.
#[derive(Debug, Default)]
struct Survey {
    exif: Option<Vec<u8>>,
    xmp: Option<Vec<u8>>,
    iptc: Option<Vec<u8>>,
    /// Parts of the profile with their numbers.
    icc: Vec<(u8, Vec<u8>)>,
    /// Colour transform of Adobe's segment.
    adobe: Option<u8>,
    size: Option<(u64, u64)>,
    /// The number of the process in the frame's marker, and the bits of a sample.
    process: (u8, u8),
    has_c2pa: bool,
    has_extended_xmp: bool,
    is_whole: bool,
}

fn survey(bytes: &[u8]) -> Survey {
    let mut survey = Survey::default();
    let mut at = 2;
    let mut in_scan = false;
    // From marker to marker: entropy-coded data may contain FF 00 and restart markers.
    while let Some(skipped) = bytes.get(at..).and_then(|rest| rest.iter().position(|&byte| byte == 0xff)) {
        at += skipped + 1;
        let Some(&marker) = bytes.get(at) else { break };
        match marker {
            0xff => continue,
            0x00 | 0x01 | 0xd0..=0xd8 => {
                at += 1;
                continue;
            }
            0xd9 => {
                // An end before any scan belongs to garbage between segments.
                survey.is_whole = in_scan;
                break;
            }
            _ => {}
        }
        let Some(length) = bytes.get(at + 1..at + 3).map(|b| usize::from(u16::from_be_bytes([b[0], b[1]]))) else {
            break;
        };
        let Some(data) = length.checked_sub(2).and_then(|length| bytes.get(at + 3..at + 3 + length)) else { break };
        survey.segment(marker, data);
        in_scan |= marker == 0xda;
        at += 1 + length;
    }
    survey
}

impl Survey {
    fn segment(&mut self, marker: u8, data: &[u8]) {
        match marker {
            0xc0..=0xcf if !matches!(marker, 0xc4 | 0xc8 | 0xcc) && data.len() >= 5 => {
                let side = |at: usize| u64::from(u16::from_be_bytes([data[at], data[at + 1]]));
                self.size = Some((side(3), side(1)));
                self.process = (marker, data[0]);
            }
            0xe1 if self.exif.is_none() && data.starts_with(EXIF) => self.exif = Some(data[EXIF.len()..].into()),
            0xe1 if self.xmp.is_none() && data.starts_with(XMP) => self.xmp = Some(data[XMP.len()..].into()),
            0xe1 => self.has_extended_xmp |= data.starts_with(EXTENDED_XMP),
            0xe2 if data.starts_with(ICC) && data.len() > 14 => self.icc.push((data[12], data[14..].into())),
            0xeb => self.has_c2pa |= data.windows(4).any(|window| window == b"c2pa"),
            0xed if data.starts_with(PHOTOSHOP) => {
                self.iptc = self.iptc.take().or_else(|| find_iptc(&data[PHOTOSHOP.len()..]));
            }
            0xee if data.starts_with(b"Adobe") && data.len() >= 12 => self.adobe = Some(data[11]),
            _ => {}
        }
    }

    /// The name of a process that is not read here.
    fn foreign(&self) -> Option<String> {
        let (marker, bits) = self.process;
        match marker {
            0xc3 => Some("lossless JPEG".into()),
            0xc5..=0xc7 => Some("hierarchical JPEG".into()),
            0xc9 | 0xca => Some("JPEG with arithmetic coding".into()),
            0xcb => Some("lossless JPEG with arithmetic coding".into()),
            0xcd..=0xcf => Some("hierarchical JPEG with arithmetic coding".into()),
            _ => (bits != 8).then(|| format!("JPEG of {bits} bits")),
        }
    }

    fn profile(&mut self) -> Option<Vec<u8>> {
        self.icc.sort_by_key(|(number, _)| *number);
        let profile: Vec<u8> = self.icc.drain(..).flat_map(|(_, part)| part).collect();
        (!profile.is_empty()).then_some(profile)
    }
}

/// The IPTC records among Photoshop's resources.
pub(super) fn find_iptc(mut resources: &[u8]) -> Option<Vec<u8>> {
    while let [b'8', b'B', b'I', b'M', high, low, name, ..] = *resources {
        // The name with its length byte, and the data, are each padded to an even length.
        let data = 6 + (usize::from(name) + 2) / 2 * 2;
        let size = u32::from_be_bytes(resources.get(data..data + 4)?.try_into().ok()?) as usize;
        let content = resources.get(data + 4..(data + 4).checked_add(size)?)?;
        if u16::from_be_bytes([high, low]) == IPTC_RESOURCE {
            return Some(content.into());
        }
        resources = resources.get(data + 4 + size.next_multiple_of(2)..)?;
    }
    None
}

/// IPTC records as one of Photoshop's resources.
pub(super) fn photoshop_resource(iptc: &[u8]) -> Vec<u8> {
    let mut resource = b"8BIM\x04\x04\0\0".to_vec();
    resource.extend((iptc.len() as u32).to_be_bytes());
    resource.extend_from_slice(iptc);
    if iptc.len() % 2 == 1 {
        resource.push(0);
    }
    resource
}

pub(super) fn decode(source: Source<'_>) -> Result<Decoded, ImageError> {
    let mut survey = survey(source.bytes);
    // Zero height would mean that the height follows the first scan, which no camera writes.
    let (width, height) = match survey.size {
        Some((width, height)) => source.check_size(width, height)?,
        None if survey.is_whole => return Err(source.corrupt(SourceFormat::Jpeg, "no frame header")),
        None => return Err(source.truncated("it ends before the frame header")),
    };
    if !survey.is_whole {
        let mut error = source.truncated("the end of the image is missing");
        if let ImageError::Truncated { advice, .. } = &mut error {
            *advice = "save what an image viewer shows as PNG and mask the grey part";
        }
        return Err(error);
    }
    if let Some(what) = survey.foreign() {
        return Err(source.unsupported(what));
    }
    let mut warnings = Vec::new();
    if survey.has_c2pa {
        warnings.push(C2PA_WARNING.into());
    }
    if survey.has_extended_xmp {
        warnings.push("extended XMP dropped: only the main packet is kept".into());
    }
    let mut icc = survey.profile();

    // Bytes between segments are harmless and common in files of old cameras; strict mode would refuse them.
    let (pixels, space) = match pixels(source, width, height, true) {
        Err(DecodeErrors::FormatStatic(reason)) if reason.contains("Extra bytes between headers") => {
            pixels(source, width, height, false)
        }
        result => result,
    }
    .map_err(|error| refuse(source, error))?;

    let (channels, samples) = match space {
        ColorSpace::Luma => (1, pixels),
        ColorSpace::RGB => (3, pixels),
        _ => {
            // Adobe's programs store the complement of the ink, and say so by their segment.
            let mut inks = pixels;
            if space == ColorSpace::YCCK {
                inks.chunks_exact_mut(4).for_each(ycck_to_cmyk);
            }
            if survey.adobe.is_some() {
                inks.iter_mut().for_each(|ink| *ink = 255 - *ink);
            }
            let (rgb, how) = cmyk::to_srgb(&inks, width, icc.take().as_deref());
            let name = if space == ColorSpace::YCCK { "YCCK" } else { "CMYK" };
            warnings.push(format!("{name} converted to sRGB {how}"));
            (3, rgb)
        }
    };
    let metadata = Metadata { icc, exif: survey.exif, xmp: survey.xmp, iptc: survey.iptc, ..Default::default() };
    let samples = Samples::U8(samples);
    Ok(Decoded { width, height, channels, samples, metadata, orientation: None, missing: None, warnings })
}

/// Pixels in grey, RGB, CMYK or YCCK.
fn pixels(
    source: Source<'_>,
    width: usize,
    height: usize,
    strict: bool,
) -> Result<(Vec<u8>, ColorSpace), DecodeErrors> {
    let options = DecoderOptions::default().set_strict_mode(strict).set_max_width(width).set_max_height(height);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(source.bytes), options);
    decoder.decode_headers()?;
    let space = match decoder.input_colorspace() {
        Some(ColorSpace::Luma) => ColorSpace::Luma,
        Some(four @ (ColorSpace::CMYK | ColorSpace::YCCK)) => four,
        _ => ColorSpace::RGB,
    };
    decoder.set_options(options.jpeg_set_out_colorspace(space));
    let mut pixels = vec![0; width * height * space.num_components()];
    if decoder.output_buffer_size() != Some(pixels.len()) {
        return Err(DecodeErrors::FormatStatic("the frame header contradicts itself"));
    }
    decoder.decode_into(&mut pixels)?;
    Ok((pixels, space))
}

/// JFIF's YCbCr of the complement of CMY, in place.
fn ycck_to_cmyk(pixel: &mut [u8]) {
    let (y, cb, cr) = (f32::from(pixel[0]), f32::from(pixel[1]) - 128.0, f32::from(pixel[2]) - 128.0);
    let light = [y + 1.402 * cr, y - 0.344_136 * cb - 0.714_136 * cr, y + 1.772 * cb];
    for (ink, light) in pixel.iter_mut().zip(light) {
        *ink = 255 - light.round().clamp(0.0, 255.0) as u8;
    }
}

fn refuse(source: Source<'_>, error: DecodeErrors) -> ImageError {
    match error {
        DecodeErrors::Unsupported(what) => source.unsupported(format!("JPEG variant ({what:?})")),
        DecodeErrors::ExhaustedData => source.truncated("the pixels are incomplete"),
        DecodeErrors::FormatStatic(reason) => source.corrupt(SourceFormat::Jpeg, reason),
        other => source.corrupt(SourceFormat::Jpeg, format!("{other:?}").replace('"', "")),
    }
}

/// A JPEG with the photo's samples, reduced to 8 bits, and the given metadata.
pub(super) fn encode(photo: &Photo, metadata: &Metadata, quality: u8) -> Result<Vec<u8>, ImageError> {
    let refuse = |reason: String| ImageError::Encode { format: "JPEG", reason };
    let (Ok(width), Ok(height)) = (u16::try_from(photo.width), u16::try_from(photo.height)) else {
        return Err(refuse(format!("{}x{}, at most 65535 on a side", photo.width, photo.height)));
    };
    let reduced;
    let samples = match &photo.samples {
        Samples::U8(samples) => samples,
        Samples::U16(samples) => {
            reduced = samples.iter().map(|&sample| to_8bit(sample)).collect();
            &reduced
        }
    };
    let color = if photo.channels == 1 { image::ExtendedColorType::L8 } else { image::ExtendedColorType::Rgb8 };
    let mut plain = Vec::new();
    image::codecs::jpeg::JpegEncoder::new_with_quality(&mut plain, quality)
        .encode(samples, width.into(), height.into(), color)
        .map_err(|error| refuse(error.to_string()))?;

    // The segments go behind the start marker and JFIF's own segment.
    let jfif_end = match plain.get(2..6) {
        Some(&[0xff, 0xe0, high, low]) => 4 + usize::from(u16::from_be_bytes([high, low])),
        _ => 2,
    };
    let mut out = plain[..jfif_end].to_vec();
    for (marker, data) in segments(metadata) {
        out.extend([0xff, marker]);
        out.extend((data.len() as u16 + 2).to_be_bytes());
        out.extend(data);
    }
    out.extend_from_slice(&plain[jfif_end..]);
    Ok(out)
}

fn segments(metadata: &Metadata) -> Vec<(u8, Vec<u8>)> {
    let mut segments = Vec::new();
    for (header, block) in [(EXIF, &metadata.exif), (XMP, &metadata.xmp)] {
        if let Some(block) = block
            && fits(header, block)
        {
            segments.push((0xe1, [header, block].concat()));
        }
    }
    if let Some(icc) = &metadata.icc {
        let parts = icc.chunks(MAX_SEGMENT - ICC.len() - 2);
        let count = parts.len();
        // More parts cannot be numbered; `losses` has said so.
        if count <= 255 {
            segments
                .extend(parts.enumerate().map(|(i, part)| (0xe2, [ICC, &[i as u8 + 1, count as u8], part].concat())));
        }
    }
    if let Some(iptc) = &metadata.iptc
        && fits(PHOTOSHOP, iptc)
    {
        segments.push((0xed, [PHOTOSHOP, &photoshop_resource(iptc)].concat()));
    }
    segments
}

fn fits(header: &[u8], block: &[u8]) -> bool {
    header.len() + block.len() + 16 <= MAX_SEGMENT
}

/// Names of the blocks that are too long for the segments of a JPEG.
pub(super) fn losses(metadata: &Metadata) -> Vec<&'static str> {
    let mut losses = Vec::new();
    for (name, header, block) in
        [("EXIF", EXIF, &metadata.exif), ("XMP", XMP, &metadata.xmp), ("IPTC", PHOTOSHOP, &metadata.iptc)]
    {
        if block.as_ref().is_some_and(|block| !fits(header, block)) {
            losses.push(name);
        }
    }
    if metadata.icc.as_ref().is_some_and(|icc| icc.len() > 255 * (MAX_SEGMENT - ICC.len() - 2)) {
        losses.push("ICC profile");
    }
    losses
}
