//! Masks: the geometry, and what a user can do wrong with a file.

use std::path::Path;

use candle_core::Device;
use tweedie::image::{ImageError, Mask, MaskChannel, MaskOptions, MaskSource, OutputFormat, Photo, Region};

use super::{chunk, decode, encode, exif, raw_png, varied, with_chunks, write};

/// An irregular mask, reproducible without a generator.
fn irregular(width: usize, height: usize) -> Mask {
    Mask::from_fn(width, height, |x, y| (x * x * 31 + y * 17 + x * y * 7) % 23 < 2)
}

fn is_near_any(mask: &Mask, x: usize, y: usize, radius: f64) -> bool {
    (0..mask.height()).any(|v| {
        (0..mask.width()).any(|u| {
            let (dx, dy) = (x as f64 - u as f64, y as f64 - v as f64);
            mask.is_set(u, v) && dx * dx + dy * dy <= radius * radius
        })
    })
}

#[test]
fn growing_is_exact_in_euclidean_distance() {
    for (width, height) in [(37, 23), (1, 19), (19, 1), (1, 1)] {
        let mask = irregular(width, height);
        for radius in [0.5, 1.0, 1.5, 2.0, 2.9, 5.0, 7.3] {
            let expected = Mask::from_fn(width, height, |x, y| is_near_any(&mask, x, y, radius));
            assert_eq!(mask.clone().grow(radius), expected, "{width}x{height}, {radius}");
        }
        assert_eq!(mask.clone().grow(0.0), mask);
    }
}

#[test]
fn the_distance_is_that_to_the_nearest_known_pixel() {
    let mask = irregular(29, 31).grow(4.0);
    let distances = mask.distance();
    for y in 0..31 {
        for x in 0..29 {
            let nearest = (0..31usize)
                .flat_map(|v| (0..29usize).map(move |u| (u, v)))
                .filter(|&(u, v)| !mask.is_set(u, v))
                .map(|(u, v)| ((x as f64 - u as f64).powi(2) + (y as f64 - v as f64).powi(2)).sqrt())
                .fold(f64::INFINITY, f64::min);
            assert!((f64::from(distances[y * 29 + x]) - nearest).abs() < 1e-5, "({x}, {y})");
        }
    }
    assert!(Mask::from_fn(3, 2, |_, _| true).distance().iter().all(|d| *d == f32::INFINITY));
    assert!(Mask::from_fn(3, 2, |_, _| false).distance().iter().all(|d| *d == 0.0));
}

#[test]
fn the_geometry_of_a_mask() {
    let mask = Mask::from_fn(7, 5, |x, y| (x, y) == (2, 1) || (x, y) == (4, 3));
    assert_eq!(mask.count(), 2);
    assert_eq!(mask.bounding_box(), Some(Region { x: 2, y: 1, width: 3, height: 3 }));
    assert_eq!(mask.clone().invert().count(), 33);
    let corner = Mask::from_fn(7, 5, |x, y| x + y == 0);
    assert_eq!(mask.clone().union(&corner).bounding_box(), Some(Region { x: 0, y: 0, width: 5, height: 4 }));
    assert_eq!(Mask::from_fn(7, 5, |_, _| false).bounding_box(), None);
    let region = Region { x: 2, y: 1, width: 2, height: 1 };
    let known = mask.tensor(region, &Device::Cpu).unwrap();
    assert_eq!(known.dims(), [1, 1, 1, 2]);
    assert_eq!(known.flatten_all().unwrap().to_vec1::<f32>().unwrap(), [0.0, 1.0]);
    assert_eq!(mask.crop(region), Mask::from_fn(2, 1, |x, _| x == 0));
}

#[test]
fn a_mask_is_described_by_a_path_a_word_or_a_colour() {
    assert_eq!("a/b.png".parse::<MaskSource>().unwrap(), MaskSource::File("a/b.png".into()));
    assert_eq!("./alpha".parse::<MaskSource>().unwrap(), MaskSource::File("./alpha".into()));
    assert_eq!("alpha".parse::<MaskSource>().unwrap(), MaskSource::Alpha);
    let magenta = MaskSource::Color { rgb: [255, 0, 128], tolerance: 0 };
    assert_eq!("color:#FF0080".parse::<MaskSource>().unwrap(), magenta);
    let near = MaskSource::Color { rgb: [255, 0, 128], tolerance: 12 };
    assert_eq!("color:#ff0080,12".parse::<MaskSource>().unwrap(), near);
    for (text, reason) in [
        ("color:red", "the colour is not six hexadecimal digits"),
        ("color:#ff00é", "the colour is not six hexadecimal digits"),
        ("color:#ff0080,300", "the tolerance is not a number from 0 to 255"),
    ] {
        let error = text.parse::<MaskSource>().unwrap_err();
        let expected = format!("mask `{text}`: {reason}; expected a file, alpha, or color:#RRGGBB[,tolerance]");
        assert_eq!(error.to_string(), expected);
        assert!(error.is_usage());
    }
    assert_eq!("red".parse::<MaskChannel>().unwrap(), MaskChannel::Red);
    assert!("blue".parse::<MaskChannel>().unwrap_err().is_usage());
}

/// Opens the mask that `file` is, for `photo`.
fn open_bytes(file: &[u8], photo: &Photo, options: &MaskOptions) -> Result<Mask, ImageError> {
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), "mask.png", file);
    Mask::open(&MaskSource::File(path), photo, options)
}

fn open(mask: &Photo, photo: &Photo, options: &MaskOptions) -> Result<Mask, ImageError> {
    open_bytes(&encode(mask, OutputFormat::Png), photo, options)
}

fn grey(width: usize, height: usize, values: &[u8]) -> Photo {
    Photo::from_u8(width, height, 1, values.to_vec()).unwrap()
}

/// Fault 31.
#[test]
fn a_mask_of_another_size_is_a_usage_error_with_both_sizes() {
    let photo = varied(6, 4, 3, false);
    let mask = grey(3, 2, &[0, 255, 0, 255, 0, 0]);
    let error = open(&mask, &photo, &MaskOptions::default()).unwrap_err();
    assert!(error.is_usage());
    let text = error.to_string();
    assert!(text.ends_with("mask.png is 3x2, the photo is 6x4; --mask-resize nearest scales the mask"), "{text}");
    let scaled = open(&mask, &photo, &MaskOptions { resize_nearest: true, ..Default::default() }).unwrap();
    assert_eq!(scaled, Mask::from_fn(6, 4, |x, y| y < 2 && (2..4).contains(&x) || y >= 2 && x < 2));
    assert_eq!(scaled.warnings(), ["mask scaled from 3x2 to 6x4"]);
}

/// Faults 32, 33, 36.
#[test]
fn masks_of_one_colour_are_said_and_can_be_inverted() {
    let photo = varied(2, 2, 3, false);
    let black = open(&grey(2, 2, &[0; 4]), &photo, &MaskOptions::default()).unwrap();
    assert_eq!((black.count(), black.warnings()), (0, &["nothing masked".to_string()][..]));
    let white = open(&grey(2, 2, &[255; 4]), &photo, &MaskOptions::default()).unwrap();
    assert_eq!(white.count(), 4);
    assert_eq!(white.warnings(), ["everything is masked: the whole image will be invented"]);
    let inverted = MaskOptions { invert: true, ..Default::default() };
    assert_eq!(open(&grey(2, 2, &[0, 0, 255, 0]), &photo, &inverted).unwrap().count(), 3);
}

/// Fault 34: above the threshold is filled.
#[test]
fn ambiguous_pixels_are_counted_and_the_threshold_decides() {
    let photo = varied(5, 2, 3, false);
    let mask = grey(5, 2, &[0, 5, 6, 127, 128, 249, 250, 255, 255, 0]);
    let read = open(&mask, &photo, &MaskOptions::default()).unwrap();
    assert_eq!(read, Mask::from_fn(5, 2, |x, y| (4..9).contains(&(y * 5 + x))));
    assert_eq!(
        read.warnings(),
        ["40.00 % of the mask's pixels are neither black nor white; above 127 is filled (--mask-threshold)"]
    );
    let high = MaskOptions { threshold: 249, ..Default::default() };
    assert_eq!(open(&mask, &photo, &high).unwrap().count(), 3);
    // 16-bit masks are on the same scale.
    let deep = Photo::from_u16(5, 2, 1, vec![0, 0, 0, 127 * 257, 128 * 257, 65535, 0, 0, 0, 0]).unwrap();
    assert_eq!(open(&deep, &photo, &MaskOptions::default()).unwrap().count(), 2);
}

#[test]
fn a_one_bit_mask_is_read_without_a_word_and_another_extension_is_said() {
    let photo = varied(4, 1, 3, false);
    let bits = raw_png(4, 1, png::ColorType::Grayscale, png::BitDepth::One, &[0b0110_0000]);
    let read = open_bytes(&bits, &photo, &MaskOptions::default()).unwrap();
    assert_eq!((read.warnings().len(), read), (0, Mask::from_fn(4, 1, |x, _| x == 1 || x == 2)));
    let qoi = encode(&grey(4, 1, &[0, 255, 0, 0]), OutputFormat::Qoi);
    let read = open_bytes(&qoi, &photo, &MaskOptions::default()).unwrap();
    assert_eq!(read.warnings(), ["mask: named .png but is a QOI file"]);
}

/// Fault 35.
#[test]
fn the_channel_is_found_and_said() {
    let photo = varied(2, 2, 3, false);
    let alpha = Photo::from_u8(2, 2, 4, vec![9, 9, 9, 255, 9, 9, 9, 0, 9, 9, 9, 0, 9, 9, 9, 255]).unwrap();
    let read = open(&alpha, &photo, &MaskOptions::default()).unwrap();
    assert_eq!(read, Mask::from_fn(2, 2, |x, y| x == y));
    assert_eq!(read.warnings(), ["mask taken from its alpha channel; --mask-channel decides"]);

    let red = Photo::from_u8(2, 2, 3, vec![255, 255, 255, 255, 0, 0, 0, 0, 0, 250, 3, 5]).unwrap();
    let read = open(&red, &photo, &MaskOptions::default()).unwrap();
    assert_eq!(read, Mask::from_fn(2, 2, |x, _| x == 1));
    assert_eq!(read.warnings()[0], "mask taken from its red paint; --mask-channel decides");

    let luma = MaskOptions { channel: MaskChannel::Luma, ..Default::default() };
    assert_eq!(open(&red, &photo, &luma).unwrap(), Mask::from_fn(2, 2, |x, y| x + y == 0));
    // Full opacity says nothing: the picture is the mask.
    let opaque = Photo::from_u8(2, 2, 2, vec![0, 255, 255, 255, 0, 255, 0, 255]).unwrap();
    let read = open(&opaque, &photo, &MaskOptions::default()).unwrap();
    assert_eq!((read.count(), read.warnings().len()), (1, 0));
    let wanted = MaskOptions { channel: MaskChannel::Alpha, ..Default::default() };
    let error = open(&grey(2, 2, &[0; 4]), &photo, &wanted).unwrap_err();
    assert!(error.is_usage() && error.to_string().contains("has no alpha channel"), "{error}");
}

/// Fault 38.
#[test]
fn a_photo_given_as_the_mask_is_noticed() {
    let photo = varied(30, 20, 3, false);
    let error = open(&photo, &photo, &MaskOptions::default()).unwrap_err();
    assert!(error.is_usage() && matches!(error, ImageError::MaskIsPhoto { colors: 256, .. }), "{error}");
    let other = Photo::from_u8(30, 20, 3, (0..1800).map(|i| (i * i / 7 % 251) as u8).collect()).unwrap();
    let read = open(&other, &photo, &MaskOptions::default()).unwrap();
    assert!(read.warnings()[0].ends_with(" colours; is it the photo?"), "{:?}", read.warnings());
}

/// Fault 39.
#[test]
fn a_mask_without_a_tag_is_turned_with_its_photo_if_it_has_the_stored_size() {
    let stored = varied(3, 2, 1, false);
    let photo = decode(&with_chunks(&encode(&stored, OutputFormat::Png), &[chunk(b"eXIf", &exif(6))])).unwrap();
    assert_eq!((photo.width(), photo.height()), (2, 3));
    // Stored pixel (0, 0) is at the top right when turned by a quarter clockwise.
    let untagged = encode(&grey(3, 2, &[255, 0, 0, 0, 0, 0]), OutputFormat::Png);
    let expected = Mask::from_fn(2, 3, |x, y| (x, y) == (1, 0));
    let read = open_bytes(&untagged, &photo, &MaskOptions::default()).unwrap();
    assert_eq!(read, expected);
    assert_eq!(read.warnings(), ["mask has the photo's stored size 3x2; turned with the photo"]);
    // Its own tag turns it without a word.
    let tagged = with_chunks(&untagged, &[chunk(b"eXIf", &exif(6))]);
    let read = open_bytes(&tagged, &photo, &MaskOptions::default()).unwrap();
    assert_eq!((read.warnings().len(), read), (0, expected.clone()));
    // Equal size is the upright frame.
    let upright = grey(2, 3, &[0, 255, 0, 0, 0, 0]);
    assert_eq!(open(&upright, &photo, &MaskOptions::default()).unwrap(), expected);
}

#[test]
fn the_mask_can_be_the_transparency_or_a_colour_of_the_photo() {
    let photo = Photo::from_u8(2, 2, 4, vec![250, 0, 0, 255, 255, 3, 0, 0, 9, 9, 9, 127, 9, 9, 9, 128]).unwrap();
    let options = MaskOptions::default();
    let alpha = Mask::open(&MaskSource::Alpha, &photo, &options).unwrap();
    assert_eq!(alpha, Mask::from_fn(2, 2, |x, y| (x, y) == (1, 0) || (x, y) == (0, 1)));
    let color = |tolerance| Mask::open(&MaskSource::Color { rgb: [255, 0, 0], tolerance }, &photo, &options).unwrap();
    assert_eq!(color(5).count(), 2);
    assert_eq!(color(4).count(), 1);
    assert_eq!(color(0).warnings(), ["nothing masked"]);
    let error = Mask::open(&MaskSource::Alpha, &varied(2, 2, 3, false), &options).unwrap_err();
    assert!(error.is_usage());
    assert_eq!(error.to_string(), "photo has no alpha channel to take the mask from; give a mask file");
}

#[test]
fn growth_is_checked_and_comes_after_inversion() {
    let photo = varied(5, 1, 3, false);
    let mask = grey(5, 1, &[255, 255, 0, 255, 255]);
    let options = MaskOptions { invert: true, grow: 1.0, ..Default::default() };
    assert_eq!(open(&mask, &photo, &options).unwrap(), Mask::from_fn(5, 1, |x, _| (1..4).contains(&x)));
    for grow in [-1.0, f64::NAN, f64::INFINITY] {
        let error = open(&mask, &photo, &MaskOptions { grow, ..Default::default() }).unwrap_err();
        assert!(error.to_string().ends_with("expected a number of pixels, 0 or more"), "{error}");
    }
    assert!(Mask::open(&MaskSource::File(Path::new("none.png").into()), &photo, &options).unwrap_err().is_usage());
}
