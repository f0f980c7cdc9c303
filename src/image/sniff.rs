//! What a file is, by its content.

use std::path::Path;

use super::ImageError;

/// Where the samples of a photo come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SourceFormat {
    /// Portable Network Graphics.
    Png,
    /// JPEG.
    Jpeg,
    /// WebP, lossy or lossless.
    WebP,
    /// TIFF.
    Tiff,
    /// GIF.
    Gif,
    /// Windows bitmap.
    Bmp,
    /// Portable anymap: PBM, PGM, PPM, PAM.
    Pnm,
    /// Quite OK Image.
    Qoi,
    /// No file: the samples were given by the program.
    Memory,
}

impl SourceFormat {
    /// The name as users know it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Png => "PNG",
            Self::Jpeg => "JPEG",
            Self::WebP => "WebP",
            Self::Tiff => "TIFF",
            Self::Gif => "GIF",
            Self::Bmp => "BMP",
            Self::Pnm => "PNM",
            Self::Qoi => "QOI",
            Self::Memory => "memory",
        }
    }

    fn extensions(self) -> &'static [&'static str] {
        match self {
            Self::Png => &["png", "apng"],
            Self::Jpeg => &["jpg", "jpeg", "jpe", "jfif"],
            Self::WebP => &["webp"],
            Self::Tiff => &["tif", "tiff"],
            Self::Gif => &["gif"],
            Self::Bmp => &["bmp", "dib"],
            Self::Pnm => &["pnm", "pbm", "pgm", "ppm", "pam"],
            Self::Qoi => &["qoi"],
            Self::Memory => &[],
        }
    }
}

const READABLE: [SourceFormat; 8] = {
    use SourceFormat::{Bmp, Gif, Jpeg, Png, Pnm, Qoi, Tiff, WebP};
    [Png, Jpeg, WebP, Tiff, Gif, Bmp, Pnm, Qoi]
};

/// Extensions of raw formats whose content is a TIFF with the preview as its first page.
const TIFF_RAW: [&str; 12] = ["3fr", "arw", "cr2", "dcr", "dng", "iiq", "kdc", "nef", "nrw", "pef", "srw", "erf"];

fn extension(path: &Path) -> Option<String> {
    Some(path.extension()?.to_str()?.to_ascii_lowercase())
}

/// The line for a name that promises another format; `None` for one that fits or promises nothing.
pub(super) fn extension_warning(path: &Path, format: SourceFormat) -> Option<String> {
    let extension = extension(path)?;
    let promised = READABLE.into_iter().find(|format| format.extensions().contains(&&*extension))?;
    (promised != format).then(|| format!("named .{extension} but is a {} file", format.name()))
}

/// The format of `bytes`.
/// # Errors
/// Says what else the content is, as far as that can be told.
pub(super) fn sniff(bytes: &[u8], path: &Path) -> Result<SourceFormat, ImageError> {
    if bytes.is_empty() {
        return Err(ImageError::Empty { path: path.into() });
    }
    let unsupported = |format| Err(ImageError::UnsupportedFormat { path: path.into(), format });
    let not_an_image = |looks_like| Err(ImageError::NotAnImage { path: path.into(), looks_like });
    let starts = |magic: &[u8]| bytes.starts_with(magic);
    let at = |offset: usize, magic: &[u8]| bytes.get(offset..offset + magic.len()) == Some(magic);

    if starts(b"\x89PNG\r\n\x1a\n") {
        return Ok(SourceFormat::Png);
    }
    if starts(&[0xff, 0xd8, 0xff]) {
        return Ok(SourceFormat::Jpeg);
    }
    if starts(b"RIFF") && at(8, b"WEBP") {
        return Ok(SourceFormat::WebP);
    }
    if starts(b"II*\0") || starts(b"MM\0*") || starts(b"II+\0") || starts(b"MM\0+") {
        let is_raw = at(8, b"CR") || extension(path).is_some_and(|extension| TIFF_RAW.contains(&&*extension));
        return if is_raw { unsupported("RAW") } else { Ok(SourceFormat::Tiff) };
    }
    if starts(b"GIF87a") || starts(b"GIF89a") {
        return Ok(SourceFormat::Gif);
    }
    if starts(b"qoif") {
        return Ok(SourceFormat::Qoi);
    }
    if let [b'P', b'1'..=b'7', space, ..] = bytes
        && space.is_ascii_whitespace()
    {
        return Ok(SourceFormat::Pnm);
    }
    // A bitmap's header has a known size, which text that begins with BM has not.
    if starts(b"BM") && matches!(bytes.get(14..18), Some([12 | 16 | 40 | 52 | 56 | 64 | 108 | 124, 0, 0, 0])) {
        return Ok(SourceFormat::Bmp);
    }

    if at(4, b"ftyp") {
        return match bytes.get(8..12) {
            Some(b"avif" | b"avis") => unsupported("AVIF"),
            Some(b"heic" | b"heix" | b"hevc" | b"heim" | b"heis" | b"mif1" | b"msf1") => unsupported("HEIC"),
            Some(b"crx ") => unsupported("RAW"),
            _ => not_an_image("a video"),
        };
    }
    if starts(&[0xff, 0x0a]) || starts(b"\0\0\0\x0cJXL ") {
        return unsupported("JPEG XL");
    }
    if starts(b"\0\0\0\x0cjP  ") || starts(&[0xff, 0x4f, 0xff, 0x51]) {
        return unsupported("JPEG 2000");
    }
    if starts(b"FUJIFILMCCD-RAW") || starts(b"IIU\0") || starts(b"IIRO") || starts(b"IIRS") || starts(b"FOVb") {
        return unsupported("RAW");
    }
    if starts(b"8BPS") {
        return unsupported("PSD");
    }
    if starts(&[0x76, 0x2f, 0x31, 0x01]) {
        return unsupported("OpenEXR");
    }
    if starts(b"#?RADIANCE") || starts(b"#?RGBE") {
        return unsupported("Radiance HDR");
    }
    if starts(b"DDS ") {
        return unsupported("DDS");
    }
    if starts(&[0, 0, 1, 0]) {
        return unsupported("ICO");
    }
    if starts(b"%PDF") {
        return unsupported("PDF");
    }
    if starts(b"%!PS") || starts(&[0xc5, 0xd0, 0xd3, 0xc6]) {
        return unsupported("PostScript");
    }
    if starts(b"PK\x03\x04") {
        return not_an_image("a ZIP archive");
    }
    if starts(&[0x1f, 0x8b]) {
        return not_an_image("gzip data");
    }

    let head = &bytes[..bytes.len().min(4096)];
    let text = String::from_utf8_lossy(head).trim_start_matches('\u{feff}').trim_start().to_ascii_lowercase();
    if text.starts_with("<svg") || (text.starts_with("<?xml") || text.starts_with("<!")) && text.contains("<svg") {
        return unsupported("SVG");
    }
    if text.starts_with("<!doctype html") || text.contains("<html") {
        return not_an_image("HTML");
    }
    if text.starts_with("<?xml") {
        return not_an_image("XML");
    }
    if head.iter().all(|&byte| byte == 0) {
        return not_an_image("an empty disk area: all zeros");
    }
    let is_text = head.iter().all(|&byte| byte >= 0x20 || matches!(byte, b'\t' | b'\n' | b'\r'))
        && (std::str::from_utf8(head).is_ok() || bytes.len() > head.len() && !text.contains('\u{fffd}'));
    not_an_image(if is_text { "text" } else { "no known format" })
}
