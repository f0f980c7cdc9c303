//! Photos and masks: the only place that knows bytes.
//!
//! A [`Photo`] keeps the samples that its file had (8 or 16 bits, one to four channels), turned upright, together with
//! its metadata; the rest of the crate sees tensors of `[-1, 1]` through [`Photo::tensor`] and writes back through
//! [`Photo::paint`]. A sample that is not painted leaves in a lossless file as it came.
//!
//! | format | read | written | depth | alpha | metadata kept | notes |
//! | --- | --- | --- | --- | --- | --- | --- |
//! | PNG | yes | yes | 8, 16 | yes | ICC, EXIF, XMP, IPTC, text, colour chunks | palettes and 1–4 bit grey become 8-bit |
//! | JPEG | yes | yes | 8 | no | ICC, EXIF, XMP, IPTC | baseline and progressive; CMYK and YCCK become sRGB; arithmetic coding, 12 bits and the lossless process are refused by name; written files are lossy |
//! | WebP | yes | yes, lossless | 8 | yes | ICC, EXIF, XMP | grey comes back as RGB |
//! | TIFF | yes | yes | 8, 16 | yes | ICC, EXIF, XMP, IPTC | first page; strips, tiles and planes; float becomes 16-bit; EXIF of a BigTIFF is not kept |
//! | GIF | yes | no | 8 | yes | ICC, XMP | first frame |
//! | BMP | yes | yes | 8 | read only | none | palettes, grey ones too, become colour |
//! | PNM | yes | yes | 8, 16 | no | none | grey is written as P5, colour as P6 |
//! | QOI | yes | yes | 8 | yes | none | grey comes back as RGB |
//!
//! **Colour.** Pixels are processed on encoded values, in the space of the file's own ICC profile, which is kept byte
//! for byte: the working space is the photo's own. A conversion to sRGB and back would change pixels that nobody asked to
//! change, by rounding everywhere and by clipping where the photo has colours that sRGB has not, and pixels outside a mask
//! are promised to be equal. The prior is trained on encoded values of whatever programs write, and a hole is filled from
//! its surroundings, which are in the same space. A damaged profile, or one of another colour space than the pixels, is
//! dropped with a warning, and the photo then counts as sRGB. Only CMYK is converted, through its profile.
//!
//! **Strictness.** A file that is damaged or truncated is an error, never a partly grey photo;
//! [`DecodeOptions::allow_truncated`] accepts a truncated PNG, whose missing pixels are then [`Photo::unknown`].

mod atomic;
mod cmyk;
mod decode;
mod directory;
mod distance;
mod encode;
mod error;
mod exif;
mod header;
mod icc;
mod jpeg;
pub(crate) mod lettering;
mod mask;
mod mask_source;
mod metadata;
mod orientation;
mod photo;
mod png;
mod raster;
mod raw_profile;
mod sniff;
mod strip;
mod tiff;
mod webp;

pub use atomic::{write_atomically, write_atomically_with};
pub use decode::DecodeOptions;
pub use encode::{EncodeOptions, OutputFormat};
pub use error::ImageError;
pub use mask::Mask;
pub use mask_source::{MaskChannel, MaskOptions, MaskSource};
pub use photo::{Depth, Photo, Region};
pub use sniff::SourceFormat;
pub use strip::{Kinds, Strip};
