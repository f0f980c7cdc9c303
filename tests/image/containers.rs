//! What the formats make of pixels: depth, palettes, pages, colour spaces.

use std::io::Cursor;

use tweedie::image::{Depth, EncodeOptions, OutputFormat, Photo, SourceFormat};

use super::{data, decode, encode, raw_png, refusal, samples, varied};

fn assert_near(photo: &Photo, x: usize, y: usize, expected: &[u16], tolerance: u16) {
    let found: Vec<_> = (0..expected.len()).map(|channel| photo.sample(x, y, channel)).collect();
    let is_near = found.iter().zip(expected).all(|(a, b)| a.abs_diff(*b) <= tolerance);
    assert!(is_near, "({x}, {y}): {found:?}, expected {expected:?}");
}

/// Faults 17, 19: whatever the format holds comes back equal.
#[test]
fn lossless_formats_keep_every_sample() {
    for (name, depths, kinds) in [
        ("png", vec![false, true], vec![1, 2, 3, 4]),
        ("tiff", vec![false, true], vec![1, 2, 3, 4]),
        ("ppm", vec![false, true], vec![1, 3]),
        ("webp", vec![false], vec![3, 4]),
        ("qoi", vec![false], vec![3, 4]),
        ("bmp", vec![false], vec![3]),
    ] {
        for depth_16 in depths {
            for &channels in &kinds {
                let photo = varied(13, 7, channels, depth_16);
                let back = decode(&encode(&photo, name.parse().unwrap())).unwrap();
                assert_eq!((back.depth(), back.channels()), (photo.depth(), channels), "{name}");
                assert_eq!(samples(&back), samples(&photo), "{name}, {channels} channels, 16 bits: {depth_16}");
            }
        }
    }
}

/// Grey in formats that only have colour comes back as equal channels.
#[test]
fn grey_survives_in_formats_that_have_only_colour() {
    for (name, channels) in [("webp", 1), ("webp", 2), ("qoi", 1), ("qoi", 2), ("bmp", 1)] {
        let photo = varied(13, 7, channels, false);
        let back = decode(&encode(&photo, name.parse().unwrap())).unwrap();
        for y in 0..7 {
            for x in 0..13 {
                assert_eq!(back.sample(x, y, 0), photo.sample(x, y, 0), "{name}");
                assert_eq!(back.sample(x, y, 2), photo.sample(x, y, 0), "{name}");
                assert_eq!(back.has_alpha(), channels == 2);
            }
        }
    }
}

/// Fault 17: the declaration counts, not the largest value.
#[test]
fn a_dark_16_bit_photo_stays_16_bit() {
    for channels in [1, 3] {
        let photo = Photo::from_u16(4, 2, channels, (0..8 * channels as u16).collect()).unwrap();
        let back = decode(&encode(&photo, OutputFormat::Png)).unwrap();
        assert_eq!(back.depth(), Depth::Sixteen);
        assert_eq!(back.samples_u16(), photo.samples_u16());
    }
}

/// Fault 18.
#[test]
fn small_depths_and_palettes_become_8_bit() {
    let grey = |depth, rows: &[u8]| decode(&raw_png(4, 1, png::ColorType::Grayscale, depth, rows)).unwrap();
    let photo = grey(png::BitDepth::One, &[0b1010_0000]);
    assert_eq!(photo.samples_u8().unwrap(), [255, 0, 255, 0]);
    assert_eq!(photo.warnings(), ["1-bit grey converted to 8-bit grey"]);
    assert_eq!(grey(png::BitDepth::Two, &[0b0001_1011]).samples_u8().unwrap(), [0, 85, 170, 255]);
    assert_eq!(grey(png::BitDepth::Four, &[0x01, 0xf8]).samples_u8().unwrap(), [0, 17, 255, 136]);

    // Index 0 is red and opaque, 1 green and half transparent, 2 blue and opaque by omission.
    let photo = decode(&raw_png(3, 1, png::ColorType::Indexed, png::BitDepth::Two, &[0b0001_1000])).unwrap();
    assert_eq!(photo.samples_u8().unwrap(), [255, 0, 0, 255, 0, 255, 0, 128, 0, 0, 255, 255]);
    assert_eq!(photo.warnings(), ["palette converted to 8-bit colour"]);

    // Pillow 13.0, Image.open(palette.tiff).convert("RGB").
    let photo = decode(&data("palette.tiff")).unwrap();
    assert_eq!(photo.channels(), 3);
    assert_eq!([0, 1, 2].map(|c| photo.sample(0, 0, c)), [12, 0, 6]);
    assert_eq!([0, 1, 2].map(|c| photo.sample(3, 1, c)), [12, 10, 10]);
    assert_eq!([0, 1, 2].map(|c| photo.sample(2, 2, c)), [16, 25, 18]);
    assert_eq!([0, 1, 2].map(|c| photo.sample(0, 3, c)), [0, 25, 10]);
}

/// Fault 20.
#[test]
fn float_tiffs_become_16_bit_and_nan_is_an_error() {
    let tiff = |values: &[f32]| {
        let mut out = Cursor::new(Vec::new());
        tiff::encoder::TiffEncoder::new(&mut out)
            .unwrap()
            .write_image::<tiff::encoder::colortype::Gray32Float>(values.len() as u32, 1, values)
            .unwrap();
        out.into_inner()
    };
    let photo = decode(&tiff(&[0.0, 0.5, 1.0, 2.0])).unwrap();
    assert_eq!(photo.samples_u16().unwrap(), [0, 32768, 65535, 65535]);
    assert_eq!(photo.warnings(), ["floating-point samples converted to 16 bits; 1 of 4 outside [0, 1] were clipped"]);
    assert_eq!(refusal(&tiff(&[0.0, f32::NAN, f32::INFINITY])), "photo: 2 of 3 samples are NaN or infinite");
}

/// Fault 21.
#[test]
fn of_animations_and_pages_the_first_is_used_and_said() {
    for (name, warning) in [
        ("animated.png", "animation of 2 frames; only the first is used"),
        ("animated.webp", "animation of 2 frames; only the first is used"),
        ("animated.gif", "animation; only the first frame is used"),
        ("pages.tiff", "several pages; only the first is used"),
    ] {
        let photo = decode(&data(name)).unwrap();
        assert!(photo.warnings().iter().any(|found| found == warning), "{name}: {:?}", photo.warnings());
        assert_eq!((photo.width(), photo.height()), (8, 6), "{name}");
        assert_eq!([0, 1, 2].map(|c| photo.sample(7, 5, c)), [255, 0, 0], "{name}");
    }
    let still = decode(&data("still.gif")).unwrap();
    assert_eq!(still.warnings(), ["palette converted to 8-bit colour"]);
    assert_eq!((still.channels(), still.sample(3, 3, 1)), (3, 100));
}

/// Fault 15, in small. Numbers by Pillow 13.0.
#[test]
fn a_progressive_jpeg_is_read() {
    let photo = decode(&data("progressive.jpg")).unwrap();
    assert_eq!((photo.width(), photo.height(), photo.channels(), photo.format()), (32, 24, 3, SourceFormat::Jpeg));
    assert_near(&photo, 0, 0, &[0, 1, 2], 3);
    assert_near(&photo, 16, 12, &[128, 121, 113], 3);
    assert_near(&photo, 31, 23, &[249, 229, 218], 3);
}

/// Numbers by Pillow 13.0.
#[test]
fn a_lossy_webp_with_alpha_is_read() {
    let photo = decode(&data("lossy_alpha.webp")).unwrap();
    assert_near(&photo, 0, 0, &[0, 2, 8, 255], 4);
    assert_near(&photo, 16, 12, &[125, 119, 110, 127], 4);
    assert_near(&photo, 31, 23, &[255, 229, 213, 7], 4);
}

/// Fault 16. The colours are those of Pillow 13.0 (libjpeg-turbo), `Image.open(f).convert("RGB")`.
#[test]
fn cmyk_and_ycck_jpegs_become_rgb_with_a_warning() {
    let cmyk = data("cmyk.jpg");
    let photo = decode(&cmyk).unwrap();
    assert_eq!(photo.warnings(), ["CMYK converted to sRGB without an ICC profile, so colours are approximate"]);
    for (i, expected) in [[0, 255, 255], [255, 0, 0], [127, 127, 127], [183, 137, 92]].iter().enumerate() {
        assert_near(&photo, 8 + 16 * i, 8, expected, 2);
    }
    // The same data said to be YCCK.
    let adobe = cmyk.windows(5).position(|window| window == b"Adobe").unwrap();
    let mut ycck = cmyk.clone();
    ycck[adobe + 11] = 2;
    let photo = decode(&ycck).unwrap();
    assert_eq!(photo.warnings(), ["YCCK converted to sRGB without an ICC profile, so colours are approximate"]);
    for (i, expected) in [[77, 255, 30], [179, 0, 227], [0, 67, 0], [78, 37, 6]].iter().enumerate() {
        assert_near(&photo, 8 + 16 * i, 8, expected, 3);
    }
}

/// Fault 16. The colours are those of Little CMS 2.19 through Pillow 13.0, `ImageCms.profileToProfile`, perceptual;
/// but for bare paper and half black, since that program makes paper white: the profile says L* = 94.9 for the one and, in
/// the middle of 94.9 and 18.8, 56.7 for the other, which is sRGB 240 and 136.
#[test]
fn a_cmyk_jpeg_with_a_profile_is_converted_through_it() {
    let photo = decode(&data("cmyk_icc.jpg")).unwrap();
    assert_eq!(photo.warnings(), ["CMYK converted to sRGB through its ICC profile"]);
    assert!(photo.icc_profile().is_none());
    for (i, expected) in [[240, 240, 240], [0, 174, 220], [237, 90, 139], [136, 136, 136]].iter().enumerate() {
        assert_near(&photo, 8 + 16 * i, 8, expected, 3);
    }
}

#[test]
fn a_format_that_cannot_hold_the_photo_is_refused_with_those_that_can() {
    let options = EncodeOptions::default();
    let refusal = |photo: &Photo, format| photo.encode(format, &options).unwrap_err().to_string();
    let deep = varied(3, 2, 3, true);
    assert_eq!(refusal(&deep, OutputFormat::WebP), "WebP cannot hold 16 bits; PNG, TIFF, PNM can");
    assert_eq!(refusal(&deep, OutputFormat::Bmp), "BMP cannot hold 16 bits; PNG, TIFF, PNM can");
    assert_eq!(refusal(&deep, OutputFormat::Qoi), "QOI cannot hold 16 bits; PNG, TIFF, PNM can");
    let clear = varied(3, 2, 4, false);
    assert_eq!(refusal(&clear, OutputFormat::Jpeg), "JPEG cannot hold alpha; PNG, WebP, TIFF, QOI can");
    assert_eq!(refusal(&clear, OutputFormat::Pnm), "PNM cannot hold alpha; PNG, WebP, TIFF, QOI can");
    assert!(clear.encode(OutputFormat::Bmp, &options).unwrap_err().is_usage());
    let options = EncodeOptions { quality: 0, ..options };
    assert_eq!(
        varied(3, 2, 3, false).encode(OutputFormat::Jpeg, &options).unwrap_err().to_string(),
        "quality is 0, expected 1 to 100"
    );
}

#[test]
fn an_explicit_jpeg_says_that_it_is_lossy_and_reduces_the_depth() {
    let deep = Photo::from_u16(16, 16, 1, vec![0x8080; 256]).unwrap();
    assert_eq!(
        deep.encode_warnings(OutputFormat::Jpeg, &EncodeOptions::default()),
        ["JPEG is lossy: every pixel changes a little, outside a mask too", "16 bits are reduced to 8 for JPEG"]
    );
    let back = decode(&encode(&deep, OutputFormat::Jpeg)).unwrap();
    assert_eq!((back.depth(), back.channels()), (Depth::Eight, 1));
    assert!(back.sample(7, 7, 0).abs_diff(128) <= 1);
    assert!(deep.encode_warnings(OutputFormat::Png, &EncodeOptions::default()).is_empty());
}

#[test]
fn an_unknown_extension_lists_the_known_ones() {
    assert_eq!("JPEG".parse::<OutputFormat>().unwrap(), OutputFormat::Jpeg);
    assert_eq!(OutputFormat::from_path("a/b.TIF".as_ref()).unwrap(), OutputFormat::Tiff);
    let error = OutputFormat::from_path("a.heic".as_ref()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "unknown output format `heic`; known: png, jpg, jpeg, webp, tiff, tif, bmp, ppm, pgm, pnm, qoi"
    );
    assert!(error.is_usage());
}
