//! What a file says beside its pixels.

use super::exif;
use super::strip::Strip;

/// Larger blocks of metadata are dropped with a warning.
pub(super) const MAX_BLOCK: usize = 16 << 20;

/// Metadata of a photo, each in the form that is independent of the container.
#[derive(Clone, Debug, Default)]
pub(super) struct Metadata {
    /// The colour profile.
    pub(super) icc: Option<Vec<u8>>,
    /// A TIFF structure, without the `Exif\0\0` of JPEG.
    pub(super) exif: Option<Vec<u8>>,
    /// The XML packet.
    pub(super) xmp: Option<Vec<u8>>,
    /// The IPTC records, without Photoshop's container.
    pub(super) iptc: Option<Vec<u8>>,
    /// PNG chunks that say how to show the pixels (gamma, primaries, physical size).
    pub(super) png_colour: Vec<([u8; 4], Vec<u8>)>,
    /// PNG text chunks, as stored.
    pub(super) png_text: Vec<([u8; 4], Vec<u8>)>,
}

impl Metadata {
    /// What is left after stripping.
    pub(super) fn stripped(&self, strip: Strip) -> Self {
        let mut kept = self.clone();
        let kinds = strip.kinds();
        for (goes, block, raw) in [
            (kinds.exif, &mut kept.exif, &["exif", "APP1"][..]),
            (kinds.icc, &mut kept.icc, &["icc", "icm"]),
            (kinds.iptc, &mut kept.iptc, &["iptc", "8bim"]),
            (kinds.xmp, &mut kept.xmp, &["xmp", "APP1"]),
        ] {
            if goes {
                *block = None;
                kept.png_text.retain(|(_, text)| raw.iter().all(|name| !is_raw_profile(text, name)));
            }
        }
        if kinds.icc {
            kept.png_colour.retain(|(name, _)| name == b"pHYs");
        }
        if kinds.text {
            kept.png_text.clear();
        }
        if kinds.gps {
            if let Some(exif) = &mut kept.exif {
                exif::erase_gps(exif);
            }
            // A packet that names a position goes as a whole: cutting XML by hand may leave half of it.
            kept.xmp = kept.xmp.filter(|xmp| !has_position(xmp));
            kept.png_text.retain(|(kind, text)| {
                !is_compressed(*kind, text) && !text.starts_with(RAW_PROFILE) && !has_position(text)
            });
        }
        kept
    }

    /// Sets the orientation that the XMP packet repeats to 1.
    pub(super) fn make_xmp_upright(&mut self) {
        let Some(xmp) = &mut self.xmp else { return };
        let name = b"tiff:Orientation";
        let mut at = 0;
        while let Some(found) = xmp[at..].windows(name.len()).position(|window| window == name) {
            at += found + name.len();
            // `tiff:Orientation="6"` and `<tiff:Orientation>6</…>`; a closing tag has no digit.
            let value = xmp[at..].iter().take(8).position(u8::is_ascii_digit).map(|digit| at + digit);
            if let Some(value) = value
                && xmp[at..value].iter().all(|c| b"=\"'> \t\n".contains(c))
            {
                xmp[value] = b'1';
            }
        }
    }
}

/// Keyword under which some programs keep other metadata in a text chunk, followed by its name.
const RAW_PROFILE: &[u8] = b"Raw profile type ";

fn is_raw_profile(text: &[u8], name: &str) -> bool {
    text.strip_prefix(RAW_PROFILE).is_some_and(|rest| rest.starts_with(name.as_bytes()))
}

/// Whether a text chunk hides what it says, a position perhaps.
fn is_compressed(kind: [u8; 4], text: &[u8]) -> bool {
    let flag = || text.iter().position(|&byte| byte == 0).and_then(|end| text.get(end + 1));
    kind == *b"zTXt" || kind == *b"iTXt" && flag() != Some(&0)
}

fn has_position(text: &[u8]) -> bool {
    text.windows(3).any(|window| window == b"GPS")
}
