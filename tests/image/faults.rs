//! Files that are damaged, hostile, or no images.

use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use tweedie::image::{DecodeOptions, ImageError, OutputFormat, Photo, write_atomically, write_atomically_with};

use super::{
    chunk, chunks, data, decode, decode_truncated, encode, raw_png, refusal, samples, varied, with_chunks, write,
};

/// Fault 1.
#[test]
fn an_empty_file_is_called_empty() {
    assert_eq!(refusal(b""), "photo: empty file");
}

/// Fault 2.
#[test]
fn a_truncated_png_is_refused_and_with_permission_its_missing_rows_are_unknown() {
    let photo = varied(64, 200, 3, false);
    // Without compression the rows are spread evenly over the file.
    let mut png = Vec::new();
    let mut encoder = png::Encoder::new(&mut png, 64, 200);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_compression(png::Compression::NoCompression);
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(photo.samples_u8().unwrap()).unwrap();
    writer.finish().unwrap();

    let half = &png[..png.len() / 2];
    let message = refusal(half);
    assert!(message.starts_with("photo: truncated: ") && message.contains(" of 200 rows"), "{message}");
    assert!(message.ends_with("; --allow-truncated fills the missing pixels"), "{message}");

    let partial = decode_truncated(half).unwrap();
    let missing = partial.missing().unwrap();
    let rows = (0..200).position(|y| missing.is_set(0, y)).unwrap();
    assert!((50..=100).contains(&rows), "{rows}");
    assert_eq!(missing.count(), (200 - rows) * 64);
    assert_eq!(partial.unknown().unwrap(), missing);
    let known = rows * 64 * 3;
    assert_eq!(partial.samples_u8().unwrap()[..known], photo.samples_u8().unwrap()[..known]);
    assert_eq!(partial.warnings().len(), 1);
    assert!(decode_truncated(&png).unwrap().unknown().is_none());
}

/// Fault 2: the same for interlaced files, whose pixels come in seven passes, and for alpha, which must not hide them.
#[test]
fn a_truncated_interlaced_png_knows_which_pixels_it_has() {
    let png = interlaced(9, 7, png::ColorType::Rgba);
    let whole = decode(&png).unwrap();
    // All passes but the last, whose rows are the odd ones.
    let rows: usize = 28 * 4 + 3 * (9 * 4 + 1);
    let idat = chunks(&png).into_iter().find(|(kind, _)| kind == b"IDAT").unwrap().1;
    assert!(idat.len() > rows);
    let cut = png.len() - 12 - 12 - 3 * (9 * 4 + 1);
    let partial = decode_truncated(&png[..cut]).unwrap();
    let missing = partial.missing().unwrap();
    assert!(missing.count() >= 27, "{}", missing.count());
    for y in 0..7 {
        for x in 0..9 {
            if missing.is_set(x, y) {
                assert_eq!(partial.sample(x, y, 3), 255, "({x}, {y})");
            } else {
                assert_eq!(
                    (0..4).map(|c| partial.sample(x, y, c)).collect::<Vec<_>>(),
                    (0..4).map(|c| whole.sample(x, y, c)).collect::<Vec<_>>()
                );
            }
        }
    }
    assert!((0..9).all(|x| missing.is_set(x, 5)) && !missing.is_set(0, 0));
}

/// A stored (uncompressed) interlaced PNG: the bytes of RGBA samples are 1, 2, 3, …, of grey 4·(x + 9 y).
fn interlaced(width: usize, height: usize, color: png::ColorType) -> Vec<u8> {
    const PASSES: [(usize, usize, usize, usize); 7] =
        [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)];
    let channels = color.samples();
    let mut raw = Vec::new();
    for (left, top, step_x, step_y) in PASSES {
        for y in (top..height).step_by(step_y) {
            if left < width {
                raw.push(0);
            }
            for x in (left..width).step_by(step_x) {
                raw.extend((0..channels).map(|c| ((y * width + x) * 4 + c) as u8));
            }
        }
    }
    let adler =
        raw.iter().fold((1u32, 0u32), |(a, b), &v| ((a + u32::from(v)) % 65521, (a + u32::from(v) + b) % 65521));
    let size = raw.len() as u16;
    let mut zlib = vec![0x78, 1, 1];
    zlib.extend(size.to_le_bytes());
    zlib.extend((!size).to_le_bytes());
    zlib.extend(raw);
    zlib.extend((adler.1 << 16 | adler.0).to_be_bytes());
    let header =
        [&(width as u32).to_be_bytes()[..], &(height as u32).to_be_bytes(), &[8, color as u8, 0, 0, 1]].concat();
    [&b"\x89PNG\r\n\x1a\n"[..], &chunk(b"IHDR", &header), &chunk(b"IDAT", &zlib), &chunk(b"IEND", b"")].concat()
}

/// Fault 22.
#[test]
fn an_interlaced_png_is_read() {
    let photo = decode(&interlaced(9, 7, png::ColorType::Grayscale)).unwrap();
    assert_eq!(samples(&photo), (0..63).map(|i| i * 4).collect::<Vec<_>>());
}

/// Fault 3.
#[test]
fn a_jpeg_truncated_in_its_scan_is_refused() {
    for name in ["progressive.jpg", "cmyk.jpg"] {
        let jpeg = data(name);
        for cut in [jpeg.len() - 1, jpeg.len() - 2, jpeg.len() - 20, jpeg.len() - 60] {
            assert_eq!(
                refusal(&jpeg[..cut]),
                "photo: truncated: the end of the image is missing; save what an image viewer shows as PNG and mask \
                 the grey part"
            );
        }
    }
}

/// Fault 4. The method is that of the `image` crate's own test of truncated files.
#[test]
fn every_prefix_of_every_format_is_an_error_and_never_a_panic() {
    let photo = varied(9, 7, 3, false);
    let mut files: Vec<(String, Vec<u8>)> = ["png", "jpg", "webp", "tiff", "bmp", "ppm", "qoi"]
        .map(|name| (name.to_string(), encode(&photo, name.parse().unwrap())))
        .to_vec();
    for name in [
        "progressive.jpg",
        "cmyk.jpg",
        "lossy_alpha.webp",
        "animated.webp",
        "animated.png",
        "animated.gif",
        "still.gif",
        "pages.tiff",
        "palette.tiff",
    ] {
        files.push((name.into(), data(name)));
    }
    for (name, file) in files {
        assert!(decode(&file).is_ok(), "{name}");
        for length in 0..file.len() {
            for result in [decode(&file[..length]), decode_truncated(&file[..length])] {
                match result {
                    Err(ImageError::DecoderPanicked { reason, .. }) => panic!("{name}, {length} bytes: {reason}"),
                    // What follows the pixels may be cut off: padding, the end mark of GIF, further pages.
                    Ok(whole) => assert!(
                        length > file.len() / 2
                            || whole.missing().is_some()
                            || name.ends_with("gif")
                            || name.starts_with("pages"),
                        "{name}, {length} of {} bytes",
                        file.len()
                    ),
                    Err(_) => {}
                }
            }
        }
    }
}

/// Fault 4, for bytes that are wrong rather than missing.
#[test]
fn no_flipped_byte_makes_a_decoder_panic() {
    for name in ["cmyk.jpg", "lossy_alpha.webp", "animated.gif", "pages.tiff", "animated.png", "still.gif"] {
        let file = data(name);
        for at in 0..file.len() {
            for flip in [0x01, 0x80, 0xff] {
                let mut flipped = file.clone();
                flipped[at] ^= flip;
                if let Err(ImageError::DecoderPanicked { reason, .. }) = decode(&flipped) {
                    panic!("{name}, byte {at} ^ {flip:#x}: {reason}");
                }
            }
        }
    }
}

/// Fault 5.
#[test]
fn a_wrong_checksum_in_any_chunk_of_a_png_is_an_error() {
    let png = with_chunks(&encode(&varied(5, 4, 3, false), OutputFormat::Png), &[chunk(b"tEXt", b"Comment\0hello")]);
    assert!(decode(&png).is_ok());
    let mut at = 8;
    let mut kinds = Vec::new();
    for (kind, data) in chunks(&png) {
        at += data.len() + 12;
        let mut wrong = png.clone();
        wrong[at - 1] ^= 1;
        let message = refusal(&wrong);
        assert!(message.starts_with("photo: damaged PNG file: CRC error"), "{message}");
        assert!(matches!(decode_truncated(&wrong), Err(ImageError::Corrupt { .. })));
        kinds.push(kind);
    }
    kinds.dedup();
    assert_eq!(kinds, [*b"IHDR", *b"tEXt", *b"IDAT", *b"IEND"]);
}

/// Faults 6, 7, 26, 27.
#[test]
fn what_is_no_readable_image_is_called_what_it_is() {
    let cases: [(&[u8], &str); 19] = [
        (b"<!DOCTYPE html><html><body>404</body></html>", "not an image (looks like HTML)"),
        (b"\n<head></head><HTML>", "not an image (looks like HTML)"),
        (b"Dear reader,\nthis is a letter.\n", "not an image (looks like text)"),
        (b"<?xml version=\"1.0\"?><feed/>", "not an image (looks like XML)"),
        (b"PK\x03\x04\x14\0\0\0", "not an image (looks like a ZIP archive)"),
        (&[0; 300], "not an image (looks like an empty disk area: all zeros)"),
        (&[1, 2, 3, 4, 5], "not an image (looks like no known format)"),
        (b"\0\0\0\x20ftypisom\0\0\0\0", "not an image (looks like a video)"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "format SVG not supported; convert it to PNG or JPEG first"),
        (b"<?xml version='1.0'?>\n<!-- x --><svg/>", "format SVG not supported; convert it to PNG or JPEG first"),
        (b"%PDF-1.7\n", "format PDF not supported; convert it to PNG or JPEG first"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "format HEIC not supported; convert it to PNG or JPEG first"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0", "format HEIC not supported; convert it to PNG or JPEG first"),
        (b"\0\0\0\x18ftypavif\0\0\0\0", "format AVIF not supported; convert it to PNG or JPEG first"),
        (b"\xff\x0a\x01\x02", "format JPEG XL not supported; convert it to PNG or JPEG first"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "format JPEG XL not supported; convert it to PNG or JPEG first"),
        (b"\0\0\0\x18ftypcrx \0\0\0\0", "format RAW not supported; convert it to PNG or JPEG first"),
        (b"II*\0\x10\0\0\0CR\x02\0", "format RAW not supported; convert it to PNG or JPEG first"),
        (b"8BPS\0\x01", "format PSD not supported; convert it to PNG or JPEG first"),
    ];
    for (bytes, expected) in cases {
        assert_eq!(refusal(bytes), format!("photo: {expected}"));
        assert!(!decode(bytes).unwrap_err().is_usage());
    }
}

/// Fault 26: most raw files are TIFFs with a preview as their first page.
#[test]
fn a_raw_file_is_known_by_its_extension() {
    let error = Photo::decode(&data("pages.tiff"), Path::new("a.NEF"), &DecodeOptions::default()).unwrap_err();
    assert_eq!(error.to_string(), "a.NEF: format RAW not supported; convert it to PNG or JPEG first");
}

/// Fault 6.
#[test]
fn the_content_decides_and_another_extension_is_a_warning() {
    let png = encode(&varied(3, 2, 3, false), OutputFormat::Png);
    let open = |name: &str| Photo::decode(&png, Path::new(name), &DecodeOptions::default()).unwrap();
    assert_eq!(open("a.jpg").warnings(), ["named .jpg but is a PNG file"]);
    assert!(open("a.PNG").warnings().is_empty());
    assert!(open("a").warnings().is_empty());
    assert_eq!(refusal(b"hello"), "photo: not an image (looks like text)");
}

/// A PNG that is nothing but a header of this size, and little else.
fn header_only(width: u32, height: u32) -> Vec<u8> {
    let header = [&width.to_be_bytes()[..], &height.to_be_bytes(), &[8, 2, 0, 0, 0]].concat();
    [&b"\x89PNG\r\n\x1a\n"[..], &chunk(b"IHDR", &header), &chunk(b"IDAT", &[0x78, 1, 1, 0, 0, 0xff, 0xff, 0, 0, 0, 1])]
        .concat()
}

/// Fault 8.
#[test]
fn an_image_without_pixels_is_an_error() {
    assert_eq!(refusal(&header_only(0, 0)), "photo: the image has no pixels: 0x0");
    assert_eq!(refusal(&header_only(0, 5)), "photo: the image has no pixels: 0x5");
    assert_eq!(refusal(&header_only(5, 0)), "photo: the image has no pixels: 5x0");
    let mut qoi = encode(&varied(3, 2, 3, false), OutputFormat::Qoi);
    qoi[4..8].fill(0);
    assert!(decode(&qoi).is_err());
}

/// Fault 9.
#[test]
fn images_one_pixel_wide_or_high_survive() {
    for (width, height) in [(1, 1), (1, 9), (9, 1)] {
        for name in ["png", "webp", "tiff", "bmp", "ppm", "qoi"] {
            let photo = varied(width, height, 3, false);
            let back = decode(&encode(&photo, name.parse().unwrap())).unwrap();
            assert_eq!(samples(&back), samples(&photo), "{name}");
        }
    }
}

/// Fault 11.
#[test]
fn a_huge_header_is_refused_at_once() {
    let limit = "65535x65535 is 4294836225 pixels, at most 268402689 allowed; raise it with --max-pixels";
    let mut jpeg = data("progressive.jpg");
    let frame = jpeg.windows(2).position(|window| window == [0xff, 0xc2]).unwrap();
    jpeg[frame + 5..frame + 9].fill(0xff);
    let mut bmp = encode(&varied(3, 2, 3, false), OutputFormat::Bmp);
    bmp[18..22].copy_from_slice(&65535u32.to_le_bytes());
    bmp[22..26].copy_from_slice(&65535u32.to_le_bytes());
    let mut qoi = encode(&varied(3, 2, 3, false), OutputFormat::Qoi);
    qoi[4..12].copy_from_slice(&[0, 0, 0xff, 0xff, 0, 0, 0xff, 0xff]);
    for file in [header_only(65535, 65535), jpeg, b"P6 65535 65535 255\n".to_vec()] {
        let start = Instant::now();
        assert_eq!(refusal(&file), format!("photo: {limit}"));
        assert!(start.elapsed() < Duration::from_millis(50));
    }
    // These decoders have limits of their own.
    for file in [bmp, qoi] {
        let start = Instant::now();
        assert!(decode(&file).is_err());
        assert!(start.elapsed() < Duration::from_millis(50));
    }
}

/// Fault 11: below the limit, but more than the file can hold; no memory is taken for it.
#[test]
fn a_large_header_without_pixels_is_refused_at_once() {
    let start = Instant::now();
    let message = refusal(&header_only(16000, 16000));
    assert!(message.contains("truncated: 56 bytes cannot hold 16000x16000 pixels"), "{message}");
    assert!(refusal(b"P6 16000 16000 255\n").contains("cannot hold 16000x16000 pixels"));
    assert!(start.elapsed() < Duration::from_millis(50));
    let options = DecodeOptions { max_pixels: 5, ..Default::default() };
    let error = Photo::decode(&header_only(3, 2), Path::new("a.png"), &options).unwrap_err();
    assert_eq!(error.to_string(), "a.png: 3x2 is 6 pixels, at most 5 allowed; raise it with --max-pixels");
}

/// Fault 11, for the length of the file: what cannot be a photo of the allowed size is not read.
#[test]
fn a_file_longer_than_any_allowed_photo_is_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let png = encode(&varied(3, 2, 3, false), OutputFormat::Png);
    let path = write(folder.path(), "a.png", &png);
    let options = DecodeOptions { max_pixels: 6, ..Default::default() };
    assert!(Photo::open(&path, &options).is_ok());
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(1 << 32).unwrap();
    let start = Instant::now();
    let error = Photo::open(&path, &options).unwrap_err().to_string();
    assert!(
        error.ends_with("a.png: 4294967296 bytes, at most 67108960 are read; --max-pixels raises that, too"),
        "{error}"
    );
    // What is no image is told by its first bytes.
    let video = write(folder.path(), "a.mp4", b"\0\0\0\x20ftypisom\0\0\0\0");
    std::fs::OpenOptions::new().write(true).open(&video).unwrap().set_len(1 << 40).unwrap();
    let error = Photo::open(&video, &DecodeOptions::default()).unwrap_err().to_string();
    assert!(error.ends_with("a.mp4: not an image (looks like a video)"), "{error}");
    assert!(start.elapsed() < Duration::from_millis(500));
}

/// Fault 12.
#[test]
fn a_bomb_of_text_chunks_is_dropped() {
    let png = encode(&varied(3, 2, 3, false), OutputFormat::Png);
    let text = chunk(b"tEXt", &[b"Comment\0".to_vec(), vec![b'a'; 1 << 20]].concat());
    let photo = decode(&with_chunks(&png, &vec![text; 9])).unwrap();
    assert_eq!(photo.warnings(), ["9437256 bytes of text chunks dropped, at most 8388608 are kept"]);
    assert!(encode(&photo, OutputFormat::Png).len() < 1000);
    // Compressed text that would be 1 GiB is never decompressed.
    let zeros = raw_png(1, 1, png::ColorType::Grayscale, png::BitDepth::Eight, &[0]);
    let deflated = chunks(&zeros).into_iter().find(|(kind, _)| kind == b"IDAT").unwrap().1;
    let bomb = chunk(b"iTXt", &[&b"XML:com.adobe.xmp\0\x01\0\0\0"[..], &deflated[..4]].concat());
    assert_eq!(decode(&with_chunks(&png, &[bomb])).unwrap().warnings(), ["XMP dropped: it is damaged or too large"]);
}

/// Fault 68, for one file.
#[test]
fn a_folder_or_a_missing_file_is_a_usage_error() {
    let folder = tempfile::tempdir().unwrap();
    let open = |path: &Path| Photo::open(path, &DecodeOptions::default()).unwrap_err();
    let error = open(folder.path());
    assert!(error.is_usage() && error.to_string().ends_with("is a folder, expected a file"), "{error}");
    let error = open(&folder.path().join("none.png"));
    assert!(error.is_usage() && !error.is_resource(), "{error}");
    assert!(matches!(error, ImageError::Read { .. }));
}

/// Fault 60, and what `--force` is for.
#[test]
fn files_are_written_whole_and_never_over_others_without_being_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.png");
    write_atomically(&path, b"first", false).unwrap();
    let error = write_atomically(&path, b"second", false).unwrap_err();
    assert!(matches!(error, ImageError::Exists { .. }) && error.is_usage());
    assert_eq!(std::fs::read(&path).unwrap(), b"first");
    write_atomically(&path, b"second", true).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"second");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);

    let missing = write_atomically(&folder.path().join("no/such.png"), b"", false).unwrap_err();
    assert!(missing.is_usage(), "{missing}");
    let onto_folder = write_atomically(folder.path(), b"", true).unwrap_err();
    assert!(onto_folder.is_usage(), "{onto_folder}");
    let under_file = write_atomically(&path.join("x.png"), b"", false).unwrap_err();
    assert!(under_file.is_usage(), "{under_file}");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o400, 0o400);
        // The mode of any other new file here, whatever the creation mask.
        let other = write(folder.path(), "other", b"");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions(), std::fs::metadata(other).unwrap().permissions());
    }
}

/// Fault 64: what writes the new content fails half-way, and the old one stays with nothing beside it.
#[test]
fn a_save_that_fails_half_way_leaves_the_old_file_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), "out.png", b"old");
    let failed = write_atomically_with(&path, true, |file, temporary| {
        file.write_all(b"half of the new").unwrap();
        assert_eq!(temporary.parent(), path.parent());
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        Err(ImageError::Write { path: path.clone(), source: std::io::ErrorKind::StorageFull.into() })
    });
    assert!(failed.unwrap_err().is_resource());
    assert_eq!(std::fs::read(&path).unwrap(), b"old");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

const SAVED: usize = 4 << 20;
const FOLDER: &str = "TWEEDIE_TEST_SAVES";

/// Fault 64: a process that saves one content over another is killed at thirty moments; the file is one of the two, and
/// what else is left has the name of a temporary file. `scripts/check-kill.sh` does it at every system call.
#[cfg(unix)]
#[test]
fn a_process_that_is_killed_while_it_saves_leaves_a_whole_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.png");
    let mut interrupted = 0;
    for moment in 0..30 {
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "image::faults::saves_until_it_is_killed", "--ignored"]).env(FOLDER, folder.path());
        let mut child = command.stdout(std::process::Stdio::null()).spawn().unwrap();
        let start = Instant::now();
        while !path.exists() {
            assert!(
                start.elapsed() < Duration::from_secs(60) && child.try_wait().unwrap().is_none(),
                "nothing is saved"
            );
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_millis(10 + moment * 7 % 31));
        child.kill().unwrap();
        child.wait().unwrap();
        let content = std::fs::read(&path).unwrap();
        assert!(content.len() == SAVED && content.iter().all(|&byte| byte == content[0]), "moment {moment}");
        for entry in std::fs::read_dir(folder.path()).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            if name != "out.png" {
                assert!(name.starts_with(".tweedie-") && name.ends_with(".part"), "{name}");
                std::fs::remove_file(folder.path().join(name)).unwrap();
                interrupted += 1;
            }
        }
        // A temporary file that was left does not stand in the way of the next save.
        write_atomically(&path, &vec![3; SAVED], true).unwrap();
    }
    assert!(interrupted > 0, "no save was interrupted: the test shows nothing");
}

/// The child of the test above.
#[test]
#[ignore = "runs until it is killed"]
fn saves_until_it_is_killed() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let path = Path::new(&folder).join("out.png");
    let contents = [vec![1; SAVED], vec![2; SAVED]];
    for content in contents.iter().cycle() {
        write_atomically(&path, content, true).unwrap();
    }
}

/// Fault 61.
#[test]
fn a_full_disk_is_a_resource_error() {
    let full = ImageError::Write { path: "a.png".into(), source: std::io::ErrorKind::StorageFull.into() };
    assert!(full.is_resource() && !full.is_usage());
}
