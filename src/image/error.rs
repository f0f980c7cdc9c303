//! What can be wrong with photos, masks and their files.

use std::io;
use std::path::PathBuf;

/// What is wrong with a photo, a mask, or their files.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// There is nothing in the file.
    #[error("{path}: empty file")]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// The content is of no image format.
    #[error("{path}: not an image (looks like {looks_like})")]
    NotAnImage {
        /// The file.
        path: PathBuf,
        /// What the content seems to be.
        looks_like: &'static str,
    },
    /// An image, of a format that is not read here.
    #[error("{path}: format {format} not supported; convert it to PNG or JPEG first")]
    UnsupportedFormat {
        /// The file.
        path: PathBuf,
        /// Name of the format.
        format: &'static str,
    },
    /// A variant of a known format that is not read here.
    #[error("{path}: {what} not supported; convert it to PNG or JPEG first")]
    UnsupportedVariant {
        /// The file.
        path: PathBuf,
        /// The variant, with its numbers.
        what: String,
    },
    /// The content ends before the image does.
    #[error("{path}: truncated: {detail}; {advice}")]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Where it ended.
        detail: String,
        /// What to do.
        advice: &'static str,
    },
    /// The content contradicts its format or its checksums.
    #[error("{path}: damaged {format} file: {reason}")]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Name of the format.
        format: &'static str,
        /// What the decoder said.
        reason: String,
    },
    /// A side of the image is zero.
    #[error("{path}: the image has no pixels: {width}x{height}")]
    NoPixels {
        /// The file.
        path: PathBuf,
        /// Width in the header.
        width: u64,
        /// Height in the header.
        height: u64,
    },
    /// The header announces more pixels than allowed.
    #[error("{path}: {width}x{height} is {pixels} pixels, at most {limit} allowed; raise it with --max-pixels")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Width in the header.
        width: u64,
        /// Height in the header.
        height: u64,
        /// Their product.
        pixels: u64,
        /// [`DecodeOptions::max_pixels`](super::DecodeOptions::max_pixels).
        limit: u64,
    },
    /// The file is longer than a photo of the allowed size can be.
    #[error("{path}: {length} bytes, at most {limit} are read; --max-pixels raises that, too")]
    FileTooLarge {
        /// The file.
        path: PathBuf,
        /// Its length in bytes; of a stream, what was read before it was given up.
        length: u64,
        /// What [`DecodeOptions::max_pixels`](super::DecodeOptions::max_pixels) allows.
        limit: u64,
    },
    /// Decoding would need more memory than the size of the image explains.
    #[error("{path}: decoding needs more memory than an image of this size should; the file is refused")]
    TooMuchMemory {
        /// The file.
        path: PathBuf,
    },
    /// Floating-point samples that are not numbers.
    #[error("{path}: {count} of {total} samples are NaN or infinite")]
    NotFinite {
        /// The file.
        path: PathBuf,
        /// How many.
        count: usize,
        /// Of how many.
        total: usize,
    },
    /// A decoder panicked; the file is refused and the program goes on.
    #[error("{path}: the decoder failed on this file ({reason}); it is probably damaged")]
    DecoderPanicked {
        /// The file.
        path: PathBuf,
        /// The panic's message.
        reason: String,
    },
    /// A file cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A folder, a pipe, a socket or a device where a file is expected.
    #[error("{path}: is {kind}, expected a file")]
    NotAFile {
        /// The path.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// A file cannot be written.
    #[error("cannot write {path}: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The output exists and was not to be replaced.
    #[error("{path} exists; --force replaces it")]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The number of samples is not what the size says.
    #[error("{width}x{height} with {channels} channels needs {expected} samples, got {got}; channels are 1 to 4")]
    Shape {
        /// Width.
        width: usize,
        /// Height.
        height: usize,
        /// Samples per pixel.
        channels: usize,
        /// `width · height · channels`.
        expected: usize,
        /// The length given.
        got: usize,
    },
    /// No output format has this name or extension.
    #[error("unknown output format `{name}`; known: {known}")]
    UnknownOutputFormat {
        /// The name or extension given.
        name: String,
        /// The names there are.
        known: String,
    },
    /// The output format cannot hold the photo.
    #[error("{format} cannot hold {what}; {formats} can")]
    CannotHold {
        /// Name of the output format.
        format: &'static str,
        /// What would be lost.
        what: String,
        /// The formats that can.
        formats: String,
    },
    /// An encoder failed.
    #[error("cannot encode {format}: {reason}")]
    Encode {
        /// Name of the output format.
        format: &'static str,
        /// What the encoder said.
        reason: String,
    },
    /// Mask and photo do not match.
    #[error(
        "mask {path} is {width}x{height}, the photo is {photo_width}x{photo_height}; \
         --mask-resize nearest scales the mask"
    )]
    MaskSize {
        /// The mask's file.
        path: PathBuf,
        /// Width of the mask, upright.
        width: usize,
        /// Height of the mask, upright.
        height: usize,
        /// Width of the photo, upright.
        photo_width: usize,
        /// Height of the photo, upright.
        photo_height: usize,
    },
    /// The mask has the pixels of the photo.
    #[error("mask {path} has {colors} colours and is the photo itself; is the mask the second argument?")]
    MaskIsPhoto {
        /// The mask's file.
        path: PathBuf,
        /// How many distinct colours it has.
        colors: usize,
    },
    /// A transparency was asked for that is not there.
    #[error("{path} has no alpha channel to take the mask from; {advice}")]
    NoAlpha {
        /// The file.
        path: PathBuf,
        /// What to do.
        advice: &'static str,
    },
    /// A mask's description cannot be read.
    #[error("mask `{given}`: {reason}; expected a file, alpha, or color:#RRGGBB[,tolerance]")]
    MaskSource {
        /// As given.
        given: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A setting has no such value.
    #[error("{name} is {got}, expected {expected}")]
    Setting {
        /// The setting.
        name: &'static str,
        /// What was given.
        got: String,
        /// What is allowed.
        expected: &'static str,
    },
}

impl ImageError {
    /// Whether the request is at fault, rather than the content of a file: to be told before any work.
    pub fn is_usage(&self) -> bool {
        use io::ErrorKind::{
            AlreadyExists, InvalidFilename, IsADirectory, NotADirectory, NotFound, PermissionDenied, ReadOnlyFilesystem,
        };
        match self {
            Self::Exists { .. }
            | Self::NotAFile { .. }
            | Self::Shape { .. }
            | Self::UnknownOutputFormat { .. }
            | Self::CannotHold { .. }
            | Self::MaskSize { .. }
            | Self::MaskIsPhoto { .. }
            | Self::NoAlpha { .. }
            | Self::MaskSource { .. }
            | Self::Setting { .. } => true,
            Self::Read { source, .. } => {
                matches!(source.kind(), NotFound | NotADirectory | IsADirectory | InvalidFilename)
            }
            Self::Write { source, .. } => matches!(
                source.kind(),
                NotFound
                    | NotADirectory
                    | IsADirectory
                    | InvalidFilename
                    | PermissionDenied
                    | ReadOnlyFilesystem
                    | AlreadyExists
            ),
            _ => false,
        }
    }

    /// Whether the machine is at fault (disk full, out of memory): worth another try elsewhere.
    pub fn is_resource(&self) -> bool {
        use io::ErrorKind::{FileTooLarge, OutOfMemory, QuotaExceeded, ResourceBusy, StorageFull};
        match self {
            Self::Read { source, .. } | Self::Write { source, .. } => {
                matches!(source.kind(), StorageFull | QuotaExceeded | FileTooLarge | OutOfMemory | ResourceBusy)
            }
            _ => false,
        }
    }
}
