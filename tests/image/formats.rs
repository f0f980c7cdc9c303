//! Variants of every format against other decoders. The files under `data/image/formats`, and what Pillow 13.0
//! (libjpeg-turbo, libwebp, libtiff), OpenCV 5.0 (libpng) and tifffile make of them, were written by
//! `benches/peers/images.py --fixtures`, which compares many more.

use std::collections::BTreeMap;

use serde::Deserialize;
use sha2::{Digest, Sha256};
use tweedie::image::{Depth, EncodeOptions, OutputFormat, Photo};

use super::{data, decode, encode, refusal, samples, with_segment};

/// What another decoder makes of a file.
#[derive(Debug, Deserialize)]
struct Decoded {
    width: usize,
    height: usize,
    channels: usize,
    bits: u8,
    /// Of the samples, row by row, 16 bits big-endian.
    sha256: Option<String>,
    /// Largest difference of 8-bit samples, where two decoders may differ.
    tolerance: Option<u8>,
    /// The samples in hexadecimal.
    samples: Option<String>,
}

/// By name; nothing for a file that is to be refused.
fn decoded() -> BTreeMap<String, Option<Decoded>> {
    serde_json::from_slice(&data("formats/decoded.json")).unwrap()
}

fn hex(bytes: impl AsRef<[u8]>) -> String {
    bytes.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes(photo: &Photo) -> Vec<u8> {
    match photo.samples_u8() {
        Some(samples) => samples.to_vec(),
        None => photo.samples_u16().unwrap().iter().flat_map(|sample| sample.to_be_bytes()).collect(),
    }
}

/// Faults 10, 16, 17, 18, 19, 20, 21, 22, 23, 25: 21×13 pixels, orientation, depth, alpha, colour space, pages, passes.
#[test]
fn every_variant_has_the_samples_that_other_decoders_find() {
    let mut compared = 0;
    for (name, expected) in decoded() {
        let Some(expected) = expected else { continue };
        let photo = decode(&data(&format!("formats/{name}"))).unwrap_or_else(|error| panic!("{name}: {error}"));
        let depth = if photo.depth() == Depth::Eight { 8 } else { 16 };
        assert_eq!(
            (photo.width(), photo.height(), photo.channels(), depth),
            (expected.width, expected.height, expected.channels, expected.bits),
            "{name}"
        );
        let found = bytes(&photo);
        match (expected.sha256, expected.tolerance, expected.samples) {
            (Some(sum), None, None) => assert_eq!(hex(Sha256::digest(&found)), sum, "{name}"),
            (None, Some(tolerance), Some(samples)) => {
                let samples = samples
                    .as_bytes()
                    .chunks(2)
                    .map(|digits| u8::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap());
                let samples: Vec<u8> = samples.collect();
                assert_eq!(samples.len(), found.len(), "{name}");
                let largest = samples.iter().zip(&found).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
                assert!(largest <= tolerance, "{name}: {largest} levels, at most {tolerance}");
            }
            other => panic!("{name}: {other:?}"),
        }
        compared += 1;
    }
    assert!(compared > 80, "{compared}");
}

/// Fault 4, for the variants.
#[test]
fn what_was_read_of_a_variant_is_written_and_read_again() {
    for name in decoded().into_iter().filter_map(|(name, expected)| expected.map(|_| name)) {
        let photo = decode(&data(&format!("formats/{name}"))).unwrap();
        for format in [OutputFormat::Png, OutputFormat::Tiff, OutputFormat::WebP, OutputFormat::Qoi] {
            if photo.check_encode(format, &EncodeOptions::default()).is_ok() {
                let back = decode(&encode(&photo, format)).unwrap();
                assert_eq!((back.width(), back.height(), back.depth()), (photo.width(), photo.height(), photo.depth()));
                if photo.color_channels() == 3 || format == OutputFormat::Png || format == OutputFormat::Tiff {
                    assert_eq!(samples(&back), samples(&photo), "{name} as {format:?}");
                }
                assert_eq!(back.icc_profile().is_some(), photo.icc_profile().is_some() && format != OutputFormat::Qoi);
            }
        }
    }
}

/// Fault 25: the profile of Display P3 goes through as it came, in every format that has a place for one.
#[test]
fn a_wide_profile_is_kept_byte_for_byte() {
    for name in ["display-p3.png", "display-p3.jpg"] {
        let photo = decode(&data(&format!("formats/{name}"))).unwrap();
        let profile = photo.icc_profile().unwrap().to_vec();
        assert_eq!(&profile[36..40], b"acsp");
        for format in [OutputFormat::Png, OutputFormat::Tiff, OutputFormat::WebP, OutputFormat::Jpeg] {
            assert_eq!(
                decode(&encode(&photo, format)).unwrap().icc_profile(),
                Some(&profile[..]),
                "{name}, {format:?}"
            );
        }
    }
}

/// Variants that are not read are refused by their name.
#[test]
fn what_no_decoder_here_knows_is_refused_by_name() {
    let refused: Vec<_> =
        decoded().into_iter().filter(|(_, expected)| expected.is_none()).map(|(name, _)| name).collect();
    assert_eq!(refused, ["bilevel-group3.tiff", "lab.tiff", "uint32-tiled-planes.tiff", "uint32.tiff"]);
    for (name, what) in refused.iter().zip(["Fax3", "CIELab", "RGB(32)", "Gray(32)"]) {
        let message = refusal(&data(&format!("formats/{name}")));
        assert!(
            message.contains(what) && message.contains("not supported; convert it to PNG or JPEG first"),
            "{message}"
        );
    }
    // The process is what the number of the frame's marker says.
    for (marker, what) in
        [(0xc9, "arithmetic"), (0xca, "arithmetic"), (0xc3, "lossless"), (0xc5, "hierarchical"), (0xcb, "lossless")]
    {
        let mut jpeg = data("formats/444.jpg");
        let frame = jpeg.windows(4).position(|window| window == [0xff, 0xc0, 0, 17]).unwrap();
        jpeg[frame + 1] = marker;
        let message = refusal(&jpeg);
        assert!(
            message.contains(what) && message.ends_with("not supported; convert it to PNG or JPEG first"),
            "{message}"
        );
    }
    let mut jpeg = data("formats/444.jpg");
    let frame = jpeg.windows(4).position(|window| window == [0xff, 0xc0, 0, 17]).unwrap();
    (jpeg[frame + 1], jpeg[frame + 4]) = (0xc1, 12);
    assert_eq!(refusal(&jpeg), "photo: JPEG of 12 bits not supported; convert it to PNG or JPEG first");
}

/// A packet of XMP that goes on in further segments loses these, and that is said.
#[test]
fn extended_xmp_is_dropped_with_a_warning() {
    // The digest of the whole, its length, and where the part begins.
    let mut part = b"http://ns.adobe.com/xmp/extension/\0".to_vec();
    part.extend([b'0'; 32]);
    part.extend([8u32, 0].map(u32::to_be_bytes).concat());
    part.extend(b"the rest");
    let jpeg = with_segment(&data("formats/444.jpg"), 0xe1, &part);
    assert_eq!(decode(&jpeg).unwrap().warnings(), ["extended XMP dropped: only the main packet is kept"]);
}

/// EXIF goes from a TIFF file into other containers and back: the numbers by hand, in either byte order.
#[test]
fn exif_of_a_tiff_is_kept() {
    for big_endian in [false, true] {
        let photo = decode(&camera(big_endian)).unwrap();
        assert!(photo.warnings().is_empty(), "{:?}", photo.warnings());
        let block = photo.exif().unwrap().to_vec();
        assert!(
            block.windows(8).any(|window| window == b"Cameras\0") && block.windows(5).any(|window| window == b"2020\0")
        );
        // What describes the stored pixels stays behind: width, strips.
        assert_eq!(tags(&block), [0x010f, 0x8769]);
        for format in [OutputFormat::Png, OutputFormat::Jpeg, OutputFormat::WebP, OutputFormat::Tiff] {
            let back = decode(&encode(&photo, format)).unwrap();
            assert!(back.warnings().is_empty(), "{:?}", back.warnings());
            let kept = back.exif().unwrap();
            assert_eq!(tags(kept), [0x010f, 0x8769], "{format:?}");
            assert!(kept.windows(5).any(|window| window == b"2020\0"), "{format:?}");
        }
        assert!(photo.encode_warnings(OutputFormat::Tiff, &EncodeOptions::default()).is_empty());
        let bare = EncodeOptions { strip: "exif".parse().unwrap(), ..EncodeOptions::default() };
        assert!(decode(&photo.encode(OutputFormat::Tiff, &bare).unwrap()).unwrap().exif().is_none());
    }
}

/// The tags of the first directory of a block.
fn tags(block: &[u8]) -> Vec<u16> {
    let big_endian = block.starts_with(b"MM");
    let u16 = |at: usize| {
        let bytes = [block[at], block[at + 1]];
        if big_endian { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) }
    };
    let at = usize::from(u16(if big_endian { 6 } else { 4 }));
    (0..usize::from(u16(at))).map(|entry| u16(at + 2 + 12 * entry)).collect()
}

/// A grey TIFF of 2×1 pixels with a maker and the time of the exposure.
fn camera(big_endian: bool) -> Vec<u8> {
    let u16 = |value: u16| if big_endian { value.to_be_bytes() } else { value.to_le_bytes() };
    let u32 = |value: u32| if big_endian { value.to_be_bytes() } else { value.to_le_bytes() };
    let mut out = if big_endian { b"MM\0*".to_vec() } else { b"II*\0".to_vec() };
    out.extend(u32(8));
    let entry = |out: &mut Vec<u8>, tag: u16, kind: u16, count: u32, value: u32| {
        out.extend(u16(tag));
        out.extend(u16(kind));
        out.extend(u32(count));
        if kind == 3 {
            out.extend(u16(value as u16));
            out.extend([0; 2]);
        } else {
            out.extend(u32(value));
        }
    };
    out.extend(u16(9));
    for (tag, kind, count, value) in [
        (0x0100, 3, 1, 2),
        (0x0101, 3, 1, 1),
        (0x0102, 3, 1, 8),
        (0x0103, 3, 1, 1),
        (0x0106, 3, 1, 1),
        (0x010f, 2, 8, 122),
        (0x0111, 4, 1, 140),
        (0x0117, 4, 1, 2),
        (0x8769, 4, 1, 142),
    ] {
        entry(&mut out, tag, kind, count, value);
    }
    out.extend(u32(0));
    assert_eq!(out.len(), 122);
    out.extend(b"Cameras\x002020\0\0\0\0\0\0");
    assert_eq!(out.len(), 140);
    out.extend([10, 200]);
    // The directory of EXIF: the original's date.
    out.extend(u16(1));
    entry(&mut out, 0x9003, 2, 5, 130);
    out.extend(u32(0));
    out
}
