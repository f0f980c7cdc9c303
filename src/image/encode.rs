//! From a photo to the bytes of a file.

use std::path::Path;
use std::str::FromStr;

use super::metadata::Metadata;
use super::photo::{Depth, Photo, Samples};
use super::strip::Strip;
use super::{ImageError, jpeg, png, raster, tiff, webp};

/// A format that photos are written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OutputFormat {
    /// PNG: 8 and 16 bits, alpha, all metadata.
    Png,
    /// JPEG: 8 bits, no alpha; the only lossy format.
    Jpeg,
    /// WebP, lossless: 8 bits, alpha.
    WebP,
    /// TIFF, deflate: 8 and 16 bits, alpha.
    Tiff,
    /// Windows bitmap: 8 bits, no alpha, no metadata.
    Bmp,
    /// Portable anymap: 8 and 16 bits, no alpha, no metadata; grey as P5, colour as P6.
    Pnm,
    /// Quite OK Image: 8 bits, alpha, no metadata.
    Qoi,
}

const ALL: [OutputFormat; 7] = {
    use OutputFormat::{Bmp, Jpeg, Png, Pnm, Qoi, Tiff, WebP};
    [Png, Jpeg, WebP, Tiff, Bmp, Pnm, Qoi]
};

impl OutputFormat {
    /// The name as users know it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Png => "PNG",
            Self::Jpeg => "JPEG",
            Self::WebP => "WebP",
            Self::Tiff => "TIFF",
            Self::Bmp => "BMP",
            Self::Pnm => "PNM",
            Self::Qoi => "QOI",
        }
    }

    /// Its extensions, the usual one first.
    pub fn extensions(self) -> &'static [&'static str] {
        match self {
            Self::Png => &["png"],
            Self::Jpeg => &["jpg", "jpeg"],
            Self::WebP => &["webp"],
            Self::Tiff => &["tiff", "tif"],
            Self::Bmp => &["bmp"],
            Self::Pnm => &["ppm", "pgm", "pnm"],
            Self::Qoi => &["qoi"],
        }
    }

    /// The format that the extension of `path` names.
    /// # Errors
    /// [`ImageError::UnknownOutputFormat`] with the known extensions.
    pub fn from_path(path: &Path) -> Result<Self, ImageError> {
        path.extension().unwrap_or_default().to_string_lossy().parse()
    }

    /// Whether decoded samples differ from encoded ones.
    pub fn is_lossy(self) -> bool {
        self == Self::Jpeg
    }

    fn holds_16_bits(self) -> bool {
        matches!(self, Self::Png | Self::Tiff | Self::Pnm)
    }

    fn holds_alpha(self) -> bool {
        matches!(self, Self::Png | Self::WebP | Self::Tiff | Self::Qoi)
    }

    fn refuse(self, what: &str, can: impl Fn(Self) -> bool) -> ImageError {
        let formats: Vec<_> = ALL.into_iter().filter(|&format| can(format)).map(Self::name).collect();
        ImageError::CannotHold { format: self.name(), what: what.into(), formats: formats.join(", ") }
    }
}

impl FromStr for OutputFormat {
    type Err = ImageError;

    /// An extension, in any case.
    fn from_str(name: &str) -> Result<Self, ImageError> {
        let wanted = name.to_ascii_lowercase();
        ALL.into_iter().find(|format| format.extensions().contains(&&*wanted)).ok_or_else(|| {
            let known: Vec<_> = ALL.into_iter().flat_map(|format| format.extensions()).copied().collect();
            ImageError::UnknownOutputFormat { name: name.into(), known: known.join(", ") }
        })
    }
}

/// How to encode.
#[derive(Clone, Debug, PartialEq)]
pub struct EncodeOptions {
    /// Quality of JPEG, 1 to 100; default 95.
    pub quality: u8,
    /// What is left out of the metadata; default nothing.
    pub strip: Strip,
    /// Provenance for the `Software` text of a PNG; default none. EXIF's own tag stays as it is.
    pub software: Option<String>,
}

impl Default for EncodeOptions {
    fn default() -> Self {
        Self { quality: 95, strip: Strip::None, software: None }
    }
}

impl Photo {
    /// The photo as the bytes of a file. In a lossless format every sample decodes to what it is here.
    /// # Errors
    /// [`ImageError::CannotHold`] if the format has no alpha, or is lossless and has no 16 bits; an explicit lossy
    /// format reduces the depth, and [`Photo::encode_warnings`] says so.
    pub fn encode(&self, format: OutputFormat, options: &EncodeOptions) -> Result<Vec<u8>, ImageError> {
        self.check_encode(format, options)?;
        let metadata = self.metadata.stripped(options.strip);
        match (format, &self.samples) {
            (OutputFormat::Png, _) => png::encode(self, &metadata, options.software.as_deref()),
            (OutputFormat::Jpeg, _) => jpeg::encode(self, &metadata, options.quality),
            (OutputFormat::Tiff, _) => tiff::encode(self, &metadata),
            (OutputFormat::WebP, Samples::U8(samples)) => webp::encode(self, samples, &metadata),
            _ => raster::encode(self, format),
        }
    }

    /// Whether [`Photo::encode`] would refuse, known before any work.
    /// # Errors
    /// As [`Photo::encode`].
    pub fn check_encode(&self, format: OutputFormat, options: &EncodeOptions) -> Result<(), ImageError> {
        if !(1..=100).contains(&options.quality) {
            let got = options.quality.to_string();
            return Err(ImageError::Setting { name: "quality", got, expected: "1 to 100" });
        }
        if self.has_alpha() && !format.holds_alpha() {
            return Err(format.refuse("alpha", OutputFormat::holds_alpha));
        }
        if self.depth() == Depth::Sixteen && !format.holds_16_bits() && !format.is_lossy() {
            return Err(format.refuse("16 bits", OutputFormat::holds_16_bits));
        }
        Ok(())
    }

    /// What encoding in this format loses, one line each.
    pub fn encode_warnings(&self, format: OutputFormat, options: &EncodeOptions) -> Vec<String> {
        let mut warnings = Vec::new();
        if format.is_lossy() {
            warnings.push(format!("{} is lossy: every pixel changes a little, outside a mask too", format.name()));
            if self.depth() == Depth::Sixteen {
                warnings.push(format!("16 bits are reduced to 8 for {}", format.name()));
            }
        }
        let metadata = self.metadata.stripped(options.strip);
        let lost = lost_blocks(format, &metadata);
        if !lost.is_empty() {
            warnings.push(format!("{} cannot keep the photo's {}", format.name(), lost.join(", ")));
        }
        if options.strip.kinds().gps
            && !options.strip.kinds().xmp
            && self.metadata.xmp.is_some()
            && metadata.xmp.is_none()
        {
            warnings.push("the XMP packet mentions a position and is dropped as a whole".into());
        }
        warnings
    }
}

/// Names of the metadata that a format has no place for.
fn lost_blocks(format: OutputFormat, metadata: &Metadata) -> Vec<&'static str> {
    let keeps: &[&str] = match format {
        OutputFormat::Png => return Vec::new(),
        OutputFormat::Jpeg => return jpeg::losses(metadata),
        OutputFormat::WebP => &["ICC profile", "EXIF", "XMP"],
        OutputFormat::Tiff => &["ICC profile", "EXIF", "XMP", "IPTC"],
        OutputFormat::Bmp | OutputFormat::Pnm | OutputFormat::Qoi => &[],
    };
    [("ICC profile", &metadata.icc), ("EXIF", &metadata.exif), ("XMP", &metadata.xmp), ("IPTC", &metadata.iptc)]
        .into_iter()
        .filter(|(name, block)| block.is_some() && !keeps.contains(name))
        .map(|(name, _)| name)
        .collect()
}
