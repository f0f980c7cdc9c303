//! Photos and masks, against hand-made files. Numbers in comments are those of the list of faults that the project
//! promises to survive. The files under `data/image` were written by Pillow 13.0 (libjpeg-turbo, libwebp, libtiff), and
//! so were the numbers that tests compare with, where they say so.

use std::path::{Path, PathBuf};

use tweedie::image::{DecodeOptions, EncodeOptions, ImageError, OutputFormat, Photo};

mod containers;
mod faults;
mod formats;
mod masks;
mod metadata;
mod pixels;

fn data(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/image").join(name)).unwrap()
}

fn decode(bytes: &[u8]) -> Result<Photo, ImageError> {
    Photo::decode(bytes, Path::new("photo"), &DecodeOptions::default())
}

fn decode_truncated(bytes: &[u8]) -> Result<Photo, ImageError> {
    Photo::decode(bytes, Path::new("photo"), &DecodeOptions { allow_truncated: true, ..Default::default() })
}

fn refusal(bytes: &[u8]) -> String {
    decode(bytes).unwrap_err().to_string()
}

fn encode(photo: &Photo, format: OutputFormat) -> Vec<u8> {
    photo.encode(format, &EncodeOptions::default()).unwrap()
}

/// Samples in any depth.
fn samples(photo: &Photo) -> Vec<u16> {
    match photo.samples_u8() {
        Some(samples) => samples.iter().map(|&sample| sample.into()).collect(),
        None => photo.samples_u16().unwrap().to_vec(),
    }
}

fn write(folder: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

/// A photo in which every sample is another: `depth_16` uses the whole range and stays below 256 nowhere.
fn varied(width: usize, height: usize, channels: usize, depth_16: bool) -> Photo {
    let count = width * height * channels;
    if depth_16 {
        Photo::from_u16(width, height, channels, (0..count).map(|i| (i * 7919 + 300) as u16).collect()).unwrap()
    } else {
        Photo::from_u8(width, height, channels, (0..count).map(|i| (i * 37 + 11) as u8).collect()).unwrap()
    }
}

/// The checksum of PNG, from the specification's polynomial.
fn crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 })
    })
}

fn chunk(kind: &[u8; 4], data: &[u8]) -> Vec<u8> {
    let body = [kind, data].concat();
    [&(data.len() as u32).to_be_bytes()[..], &body, &crc(&body).to_be_bytes()].concat()
}

/// Chunks of a PNG as (kind, data).
fn chunks(png: &[u8]) -> Vec<([u8; 4], Vec<u8>)> {
    let mut at = 8;
    let mut chunks = Vec::new();
    while at < png.len() {
        let length = u32::from_be_bytes(png[at..at + 4].try_into().unwrap()) as usize;
        chunks.push((png[at + 4..at + 8].try_into().unwrap(), png[at + 8..at + 8 + length].to_vec()));
        at += length + 12;
    }
    chunks
}

/// The PNG with chunks put behind its header.
fn with_chunks(png: &[u8], added: &[Vec<u8>]) -> Vec<u8> {
    let (head, tail) = png.split_at(33);
    [head, &added.concat(), tail].concat()
}

/// A PNG file of raw rows in any colour type, filters none, by the `png` crate.
fn raw_png(width: u32, height: u32, color: png::ColorType, depth: png::BitDepth, rows: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut encoder = png::Encoder::new(&mut out, width, height);
    encoder.set_color(color);
    encoder.set_depth(depth);
    if color == png::ColorType::Indexed {
        encoder.set_palette(vec![255, 0, 0, 0, 255, 0, 0, 0, 255]);
        encoder.set_trns(vec![255, 128]);
    }
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(rows).unwrap();
    writer.finish().unwrap();
    out
}

/// The JPEG with a segment put behind its start.
fn with_segment(jpeg: &[u8], marker: u8, data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u16 + 2).to_be_bytes();
    [&jpeg[..2], &[0xff, marker], &length, data, &jpeg[2..]].concat()
}

/// An EXIF block with an orientation, a maker, a position with one value of sevens, and a thumbnail of nines.
fn exif(orientation: u16) -> Vec<u8> {
    let mut block = b"MM\0*\0\0\0\x08\0\x03".to_vec();
    let mut entry = |tag: u16, kind: u16, count: u32, value: u32| {
        block.extend(tag.to_be_bytes());
        block.extend(kind.to_be_bytes());
        block.extend(count.to_be_bytes());
        block.extend(value.to_be_bytes());
    };
    entry(0x010f, 2, 4, u32::from_be_bytes(*b"Cam\0"));
    entry(0x0112, 3, 1, u32::from(orientation) << 16);
    entry(0x8825, 4, 1, 80);
    block.extend(50u32.to_be_bytes());
    // The thumbnail's directory, at 50.
    block.extend(b"\0\x02");
    block.extend([&[2, 1, 0, 4, 0, 0, 0, 1][..], &106u32.to_be_bytes()].concat());
    block.extend([&[2, 2, 0, 4, 0, 0, 0, 1][..], &4u32.to_be_bytes()].concat());
    block.extend(0u32.to_be_bytes());
    // The position's directory, at 80; its value at 98.
    block.extend(b"\0\x01\0\x02\0\x05\0\0\0\x01\0\0\0\x62\0\0\0\0");
    block.extend([7; 8]);
    block.extend([9; 4]);
    block
}

/// A profile that has the outer form of one, for pixels of the given space.
fn profile(space: &[u8; 4]) -> Vec<u8> {
    let mut profile = vec![0; 132];
    profile[..4].copy_from_slice(&132u32.to_be_bytes());
    profile[16..20].copy_from_slice(space);
    profile[36..40].copy_from_slice(b"acsp");
    profile
}

/// A PNG with a profile in it.
fn png_with_profile(photo: &Photo, profile: &[u8]) -> Vec<u8> {
    let mut info = png::Info::with_size(photo.width() as u32, photo.height() as u32);
    info.icc_profile = Some(profile.into());
    let mut out = Vec::new();
    let mut encoder = png::Encoder::with_info(&mut out, info).unwrap();
    encoder.set_color(if photo.channels() == 1 { png::ColorType::Grayscale } else { png::ColorType::Rgb });
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(photo.samples_u8().unwrap()).unwrap();
    writer.finish().unwrap();
    out
}
