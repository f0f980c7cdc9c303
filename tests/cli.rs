//! The command line as scripts and people meet it. Numbers in comments are those of the catalogue of bad inputs.

use crate::harness::{Folder, Kind, Ran, mask, masked, photo};
use image::{DynamicImage, GenericImageView, GrayImage, Luma, Rgb};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::Stdio;

/// A prior whose denoiser is a formula: whatever surrounds the network is tested without it.
const GAUSSIAN: &str = "--model gaussian:mean=0,std=0.5 --steps 3";

#[track_caller]
fn refused(ran: &Ran, code: i32, message: &str) {
    assert_eq!(ran.code, code, "{}", ran.stderr);
    assert!(ran.stderr.contains(message), "expected `{message}` in:\n{}", ran.stderr);
    assert!(ran.stdout.is_empty(), "{:?}", ran.text());
}

/// Every sample of `after` outside the mask is the one of `before`; some colour inside is not.
#[track_caller]
fn only_the_mask_changed(before: &DynamicImage, after: &DynamicImage) {
    assert_eq!((before.dimensions(), before.color()), (after.dimensions(), after.color()));
    let (width, height) = before.dimensions();
    let size = before.as_bytes().len() / (width * height) as usize;
    let mut changed = 0;
    for y in 0..height {
        for x in 0..width {
            let at = (y * width + x) as usize * size;
            let equal = before.as_bytes()[at..at + size] == after.as_bytes()[at..at + size];
            if masked(x, y, width, height) {
                changed += usize::from(!equal);
            } else {
                assert!(equal, "pixel ({x}, {y}) is outside the mask and differs");
            }
        }
    }
    assert!(changed > 0, "nothing was filled");
}

// --- names -----------------------------------------------------------------------------------------------------------

#[test]
fn outputs_are_named_after_the_input_and_the_options() {
    let folder = Folder::with_photo(24, 16);
    std::fs::create_dir(folder.path("out")).unwrap();
    let run = |options: &str| {
        let before = folder.names();
        let inner = || std::fs::read_dir(folder.path("out")).unwrap().map(|e| e.unwrap().file_name());
        let inside: Vec<_> = inner().collect();
        folder.succeed(&format!("inpaint photo.png -m mask.png {GAUSSIAN} {options}"));
        let mut new: Vec<_> = folder.names().into_iter().filter(|name| !before.contains(name)).collect();
        new.extend(inner().filter(|n| !inside.contains(n)).map(|n| format!("out/{}", n.to_string_lossy())));
        new.sort();
        new
    };
    assert_eq!(run(""), ["photo.inpaint.png"]);
    assert_eq!(
        run("--samples 2 --mean --std --sheet"),
        [
            "photo.inpaint-0000.png",
            "photo.inpaint-0001.png",
            "photo.inpaint-mean.png",
            "photo.inpaint-sheet.png",
            "photo.inpaint-std.png"
        ]
    );
    assert_eq!(run("-o other.tiff"), ["other.tiff"]);
    assert_eq!(run("-o other.tiff --samples 2 --mean"), ["other-0000.tiff", "other-0001.tiff", "other-mean.tiff"]);
    assert_eq!(run("-o out/"), ["out/photo.png"]);
    assert_eq!(run("-o out --samples 2 --sheet"), ["out/photo-0000.png", "out/photo-0001.png", "out/photo-sheet.png"]);
}

/// 69
#[test]
fn unusual_names_work_and_cannot_act_on_the_terminal() {
    for name in ["with space.png", "-dash.png", "new\nline.png", "\u{1f980}.png", "e\u{301}.png", "CON.png", "..png"] {
        let folder = Folder::with_photo(16, 16);
        std::fs::rename(folder.path("photo.png"), folder.path(name)).unwrap();
        let mut arguments: Vec<_> = "inpaint -m mask.png -o out.png".split(' ').chain(GAUSSIAN.split(' ')).collect();
        arguments.extend(["--", name]);
        let ran = folder.run(&arguments);
        assert_eq!(ran.code, 0, "{name:?}: {}", ran.stderr);
        assert!(folder.path("out.png").exists());
        let missing = folder.run(&["inpaint", "-m", "mask.png", "--", &format!("\x1b[2Jno\n{name}")]);
        assert_eq!(missing.code, 2);
        assert!(missing.stderr.starts_with("error: \\u{1b}[2Jno\\n"), "{:?}", missing.stderr);
    }
}

/// 69
#[cfg(target_os = "linux")]
#[test]
fn names_that_are_no_text_are_marked_in_events() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let folder = Folder::with_photo(16, 16);
    let name = OsStr::from_bytes(b"\xffoto.png");
    std::fs::rename(folder.path("photo.png"), folder.path(name)).unwrap();
    let mut arguments: Vec<_> =
        "inpaint -m mask.png --json".split(' ').chain(GAUSSIAN.split(' ')).map(OsStr::new).collect();
    arguments.push(name);
    let ran = folder.run(&arguments);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let file = ran.event("file");
    assert_eq!(file["input"], "\u{fffd}oto.png");
    assert_eq!(file["output"], "\u{fffd}oto.inpaint.png");
    assert_eq!(file["lossy_name"], true);
    assert!(folder.path(OsStr::from_bytes(b"\xffoto.inpaint.png")).exists());
}

/// 69
#[test]
fn a_name_that_leaves_no_room_for_the_suffix_is_refused_before_work() {
    let folder = Folder::with_photo(16, 16);
    let long = format!("{}.png", "x".repeat(251));
    std::fs::rename(folder.path("photo.png"), folder.path(&long)).unwrap();
    let ran = folder.tweedie(&format!("inpaint {long} -m mask.png --model none.safetensors"));
    refused(&ran, 2, "the name is 263 bytes long, file systems take 255\nhint: -o FILE gives a shorter one\n");
}

// --- refusals --------------------------------------------------------------------------------------------------------

/// 31, 38, 59, 60, 67. The model does not exist, so exit code 2 instead of 4 shows that nothing was loaded.
#[test]
fn what_makes_no_sense_is_refused_before_the_model_is_loaded() {
    let folder = Folder::with_photo(24, 16);
    folder.write("taken.png", "something");
    mask(8, 8).save(folder.path("small.png")).unwrap();
    let cases = [
        ("nowhere.png -m mask.png", "error: nowhere.png: no such file\n"),
        ("photo.png -m nowhere.png", "error: nowhere.png: no such file\n"),
        ("photo.png", "error: the following required arguments were not provided:\n  --mask <MASK>\n"),
        // 60
        ("photo.png -m mask.png -o no/such/out.png", "error: no/such: the output folder does not exist\n"),
        ("photo.png -m mask.png -o nofolder/", "error: nofolder: the output folder does not exist\n"),
        ("photo.png -m mask.png -o taken.png/out.png", "taken.png"),
        ("photo.png -m mask.png -o out.xyz", "error: unknown output format `xyz`; known: png, "),
        ("photo.png -m mask.png -o taken.png", "error: taken.png: exists already\nhint: --force overwrites it\n"),
        // 67
        (
            "photo.png -m mask.png -o photo.png --force",
            "error: photo.png: is an input, and inputs are never overwritten\n",
        ),
        (
            "photo.png -m mask.png -o ./mask.png -f",
            "error: ./mask.png: is an input, and inputs are never overwritten\n",
        ),
        // 31
        ("photo.png -m small.png", "is 8x8, the photo is 24x16"),
        // 38
        ("photo.png -m alpha", "no alpha channel"),
        ("photo.png -m color:#12", "the colour is not six hexadecimal digits"),
        // 59
        ("photo.png -m mask.png --samples 0", "invalid value '0' for '--samples <N>': 0 is not in 1..=10000"),
        ("photo.png -m mask.png --steps 0", "invalid value '0' for '--steps <N>': 0 is not in 1..=1000"),
        ("photo.png -m mask.png --tile 32", "32 is not in 64..=4096"),
        ("photo.png -m mask.png --jpeg-quality 101", "101 is not in 1..=100"),
        ("photo.png -m mask.png --mask-threshold 256", "256 is not in 0..=255"),
        ("photo.png -m mask.png --mask-grow NaN", "expected a number of pixels from 0 to 1000"),
        ("photo.png -m mask.png --memory 5", "expected a size from 64M on, such as 512M, 2GiB or 1.5G"),
        ("photo.png -m mask.png --threads 0", "0 is not in 1..=1024"),
        ("photo.png -m mask.png --device gpu", "expected auto, cpu, cuda, cuda:INDEX or metal"),
        ("photo.png -m mask.png --seed -1", "unexpected argument '-1'"),
        ("photo.png -m mask.png -q -v", "cannot be used with"),
        ("photo.png -m mask.png --mean", "error: --mean is taken over several samples, --samples is 1\n"),
        (
            "photo.png -m mask.png -o - --json",
            "error: standard output takes the photo or the events of --json, not both\n",
        ),
        (
            "photo.png -m mask.png -o - --samples 2",
            "error: standard output takes one picture, several were asked for\n",
        ),
        ("- -m mask.png", "error: a picture from standard input has no name to derive the output's from\n"),
        ("photo.png -m -", "error: the mask cannot come from standard input\n"),
    ];
    let before = folder.names();
    for (arguments, message) in cases {
        let ran = folder.tweedie(&format!("inpaint --model nowhere.safetensors {arguments}"));
        // With --json, the error is an event, too.
        if arguments.contains("--json") {
            assert_eq!(ran.event("error")["exit_code"], 2);
            assert!(ran.stderr.contains(message));
            continue;
        }
        assert_eq!(ran.code, 2, "{arguments}: {}", ran.stderr);
        assert!(ran.stderr.contains(message), "{arguments}: expected `{message}` in:\n{}", ran.stderr);
        assert!(ran.stdout.is_empty());
    }
    assert_eq!(folder.names(), before);
    assert_eq!(folder.bytes("taken.png"), b"something");
}

/// 60: permission bits mean nothing to root, a folder of the kernel does.
#[cfg(target_os = "linux")]
#[test]
fn a_folder_that_takes_no_files_is_refused_before_the_model_is_loaded() {
    let folder = Folder::with_photo(24, 16);
    let ran = folder.tweedie("inpaint photo.png -m mask.png -o /proc/out.png --model nowhere.safetensors");
    refused(&ran, 2, "error: /proc: the output folder takes no files: ");
}

/// 67
#[cfg(unix)]
#[test]
fn a_link_to_the_input_is_the_input() {
    let folder = Folder::with_photo(24, 16);
    std::os::unix::fs::symlink("photo.png", folder.path("link.png")).unwrap();
    let ran = folder.tweedie("inpaint photo.png -m mask.png -o link.png --force");
    refused(&ran, 2, "error: link.png: is an input, and inputs are never overwritten\n");
}

/// 1, 6, 7
#[test]
fn bad_files_are_errors_of_that_file() {
    let folder = Folder::with_photo(24, 16);
    folder.write("empty.png", "");
    folder.write("text.png", "only some words\n");
    folder.write("page.jpg", "<!DOCTYPE html><html><body>404</body></html>");
    let whole = folder.bytes("photo.png");
    folder.write("half.png", &whole[..whole.len() / 2]);
    for (name, message) in [
        ("empty.png", "error: empty.png: empty file\n"),
        ("text.png", "error: text.png: not an image (looks like text)\n"),
        ("page.jpg", "error: page.jpg: not an image (looks like HTML)\n"),
        ("half.png", "error: half.png: truncated: "),
    ] {
        let ran = folder.tweedie(&format!("inpaint {name} -m mask.png --model nowhere.safetensors"));
        refused(&ran, 1, message);
    }
}

#[test]
fn a_model_that_cannot_be_used_has_its_own_code() {
    let folder = Folder::with_photo(24, 16);
    folder.write("junk.safetensors", "junk");
    for model in ["nowhere.safetensors", "junk.safetensors"] {
        let ran = folder.tweedie(&format!("inpaint photo.png -m mask.png --model {model}"));
        refused(&ran, 4, model);
    }
    assert_eq!(folder.names(), ["junk.safetensors", "mask.png", "photo.png"]);
}

#[test]
fn an_unknown_sampler_names_the_known_ones() {
    let folder = Folder::with_photo(24, 16);
    let ran = folder.tweedie(&format!("inpaint photo.png -m mask.png {GAUSSIAN} --sampler nonesuch"));
    refused(&ran, 2, "unknown sampler `nonesuch`; known: ");
}

#[cfg(not(feature = "cuda"))]
#[test]
fn a_device_that_is_not_there_says_what_is_missing() {
    let folder = Folder::with_photo(24, 16);
    let ran = folder.tweedie("inpaint photo.png -m mask.png --device cuda");
    let text = "error: device cuda:0 is not available: built without the `cuda` feature; \
                cargo install tweedie --features cuda\n";
    assert_eq!((ran.code, ran.stderr.as_str()), (5, text));
}

#[cfg(not(any(feature = "cuda", feature = "metal")))]
#[test]
fn auto_falls_back_to_the_cpu_and_says_so_when_asked() {
    let folder = Folder::with_photo(24, 16);
    let verbose = folder.succeed(&format!("inpaint photo.png -m mask.png {GAUSSIAN} -v"));
    assert!(verbose.stderr.contains("device auto: cpu (built without the `cuda` feature"), "{}", verbose.stderr);
    let normal = folder.succeed(&format!("inpaint photo.png -m mask.png {GAUSSIAN} -f"));
    assert!(!normal.stderr.contains("device"), "{}", normal.stderr);
}

// --- pixels ----------------------------------------------------------------------------------------------------------

/// 17, 19
#[test]
fn what_is_outside_the_mask_is_equal_in_every_pixel_format() {
    for kind in [
        Kind::Grey8,
        Kind::GreyAlpha8,
        Kind::Rgb8,
        Kind::Rgba8,
        Kind::Grey16,
        Kind::GreyAlpha16,
        Kind::Rgb16,
        Kind::Rgba16,
    ] {
        let folder = Folder::new();
        photo(37, 26, kind).save(folder.path("photo.png")).unwrap();
        mask(37, 26).save(folder.path("mask.png")).unwrap();
        let ran = folder.succeed(&format!("inpaint photo.png -m mask.png {GAUSSIAN} --samples 2 --mean --json"));
        let before = folder.open("photo.png");
        for name in ["photo.inpaint-0000.png", "photo.inpaint-0001.png", "photo.inpaint-mean.png"] {
            only_the_mask_changed(&before, &folder.open(name));
        }
        for event in ran.events().iter().filter(|event| event["event"] == "file") {
            assert_eq!(event["largest_known_change"], 0, "{kind:?}: {event}");
        }
    }
}

#[test]
fn other_lossless_formats_keep_what_is_outside_the_mask() {
    let folder = Folder::with_photo(37, 26);
    for name in ["out.tiff", "out.webp", "out.bmp", "out.qoi", "out.ppm"] {
        let ran = folder.succeed(&format!("inpaint photo.png -m mask.png {GAUSSIAN} -o {name} --json"));
        only_the_mask_changed(&folder.open("photo.png"), &folder.open(name));
        assert_eq!(ran.event("file")["largest_known_change"], 0);
    }
}

#[test]
fn a_jpeg_becomes_a_png_unless_asked_and_then_it_is_said() {
    let folder = Folder::with_photo(48, 32);
    folder.open("photo.png").save(folder.path("photo.jpg")).unwrap();
    let png = folder.succeed(&format!("inpaint photo.jpg -m mask.png {GAUSSIAN}"));
    assert!(!png.stderr.contains("warning"), "{}", png.stderr);
    only_the_mask_changed(&folder.open("photo.jpg"), &folder.open("photo.inpaint.png"));
    let jpeg = folder.succeed(&format!("inpaint photo.jpg -m mask.png {GAUSSIAN} -o out.jpg --json"));
    let lines: Vec<_> = jpeg.stderr.lines().filter(|line| line.starts_with("warning: ")).collect();
    assert_eq!(lines, ["warning: JPEG is lossy: every pixel changes a little, outside a mask too"]);
    assert!(folder.bytes("out.jpg").starts_with(&[0xff, 0xd8]));
    assert!(jpeg.event("file")["largest_known_change"].as_u64().unwrap() > 0);
}

/// 23, 25, 29
#[test]
fn orientation_profile_and_exif_survive() {
    let folder = Folder::new();
    let icc = moxcms::ColorProfile::new_display_p3().encode().unwrap();
    folder.write("photo.jpg", tagged_jpeg(&icc));
    // Upright, the photo is 32 wide and 48 high.
    mask(32, 48).save(folder.path("mask.png")).unwrap();
    folder.succeed(&format!("inpaint photo.jpg -m mask.png {GAUSSIAN}"));
    folder.succeed(&format!("inpaint photo.jpg -m mask.png {GAUSSIAN} --strip gps -o nogps.png"));
    folder.succeed(&format!("inpaint photo.jpg -m mask.png {GAUSSIAN} --strip all -o bare.png"));
    let upright = folder.open("photo.jpg").rotate90();
    for (name, exif_kept, position_kept) in
        [("photo.inpaint.png", true, true), ("nogps.png", true, false), ("bare.png", false, false)]
    {
        only_the_mask_changed(&upright, &folder.open(name));
        let content = folder.bytes(name);
        let decoder = png::Decoder::new(std::io::Cursor::new(&content)).read_info().unwrap();
        assert_eq!(decoder.info().icc_profile.as_deref(), Some(&icc[..]), "{name}");
        let exif = decoder.info().exif_metadata.as_deref().unwrap_or_default();
        let holds = |text: &[u8]| exif.windows(text.len()).any(|window| window == text);
        assert_eq!(holds(b"Tests & Co"), exif_kept, "{name}");
        assert_eq!(holds(b"POSITION"), position_kept, "{name}");
        if exif_kept {
            // The first entry of the only directory: tag 0x0112, SHORT, one value, which is 1.
            assert_eq!(exif[10..20], [0x01, 0x12, 0, 3, 0, 0, 0, 1, 0, 1], "{name}");
        }
    }
}

/// A JPEG that is to be turned by 90°, with a maker, a position and a colour profile.
fn tagged_jpeg(icc: &[u8]) -> Vec<u8> {
    let mut jpeg = std::io::Cursor::new(Vec::new());
    photo(48, 32, Kind::Rgb8).write_to(&mut jpeg, image::ImageFormat::Jpeg).unwrap();
    let jpeg = jpeg.into_inner();
    let entry = |tag: u16, kind: u16, count: u32, value: [u8; 4]| {
        [&tag.to_be_bytes()[..], &kind.to_be_bytes(), &count.to_be_bytes(), &value].concat()
    };
    // Header 8, count 2, three entries of 12, next directory 4: texts begin at 50.
    let mut exif = b"MM\0\x2a\0\0\0\x08\0\x03".to_vec();
    exif.extend(entry(0x0112, 3, 1, [0, 6, 0, 0]));
    exif.extend(entry(0x010f, 2, 11, 50u32.to_be_bytes()));
    exif.extend(entry(0x8825, 4, 1, 62u32.to_be_bytes()));
    exif.extend([0; 4]);
    exif.extend(b"Tests & Co\0\0");
    // The position: one text, at 62 + 2 + 12 + 4.
    exif.extend([0, 1]);
    exif.extend(entry(0x001d, 2, 11, 80u32.to_be_bytes()));
    exif.extend([0; 4]);
    exif.extend(b"POSITION..\0\0");
    let segment = |marker: u8, content: &[u8]| {
        let length = (content.len() + 2) as u16;
        [&[0xff, marker][..], &length.to_be_bytes(), content].concat()
    };
    let exif = segment(0xe1, &[b"Exif\0\0", &exif[..]].concat());
    let icc = segment(0xe2, &[b"ICC_PROFILE\0\x01\x01", icc].concat());
    [&jpeg[..2], &exif, &icc, &jpeg[2..]].concat()
}

/// 32
#[test]
fn an_empty_mask_copies_the_photo_with_a_warning() {
    let folder = Folder::with_photo(24, 16);
    GrayImage::new(24, 16).save(folder.path("black.png")).unwrap();
    let ran = folder.succeed(&format!("inpaint photo.png -m black.png {GAUSSIAN}"));
    assert!(ran.stderr.contains("warning: nothing masked"), "{}", ran.stderr);
    assert_eq!(folder.open("photo.inpaint.png"), folder.open("photo.png"));
    let ran = folder.succeed(&format!("inpaint photo.png --allow-truncated -f {GAUSSIAN}"));
    assert!(ran.stderr.contains("warning: nothing masked"), "{}", ran.stderr);
}

/// 33, 9, 10
#[test]
fn everything_may_be_masked_and_the_photo_may_be_one_pixel() {
    let folder = Folder::new();
    for (width, height) in [(1, 1), (1, 40), (40, 1), (7, 5)] {
        photo(width, height, Kind::Rgb8).save(folder.path("photo.png")).unwrap();
        GrayImage::from_pixel(width, height, Luma([255])).save(folder.path("white.png")).unwrap();
        let ran = folder.succeed(&format!("inpaint photo.png -m white.png {GAUSSIAN} --sheet --force"));
        assert!(ran.stderr.contains("the whole image will be invented"), "{}", ran.stderr);
        assert_eq!(folder.open("photo.inpaint.png").dimensions(), (width, height));
    }
}

#[test]
fn masks_may_be_inverted_grown_and_painted() {
    let folder = Folder::with_photo(32, 32);
    let count = |options: &str| {
        let ran = folder.succeed(&format!("inpaint photo.png {options} {GAUSSIAN} -n --json"));
        ran.event("start")["masked_pixels"].as_u64().unwrap()
    };
    // 8 × 4 pixels.
    assert_eq!(count("-m mask.png"), 32);
    assert_eq!(count("-m mask.png --invert-mask"), 32 * 32 - 32);
    assert_eq!(count("-m mask.png --mask-grow 1"), 32 + 2 * (8 + 4));
    mask(32, 32).save(folder.path("full.png")).unwrap();
    image::imageops::resize(&mask(32, 32), 16, 16, image::imageops::Nearest).save(folder.path("half.png")).unwrap();
    assert_eq!(count("-m half.png --mask-resize nearest"), 32);
    let mut painted = folder.open("photo.png").to_rgb8();
    for (x, y, pixel) in painted.enumerate_pixels_mut() {
        if masked(x, y, 32, 32) {
            *pixel = Rgb([255, 0, 255]);
        }
    }
    painted.save(folder.path("painted.png")).unwrap();
    let ran = folder.succeed(&format!("inpaint painted.png -m color:#ff00ff {GAUSSIAN} -n --json"));
    assert_eq!(ran.event("start")["masked_pixels"], 32);
}

/// 2
#[test]
fn missing_rows_of_a_truncated_png_are_filled_when_allowed() {
    let folder = Folder::with_photo(64, 64);
    let whole = folder.bytes("photo.png");
    folder.write("half.png", &whole[..whole.len() * 2 / 3]);
    let ran = folder.succeed(&format!("inpaint half.png --allow-truncated {GAUSSIAN} --json"));
    let masked = ran.event("start")["masked_pixels"].as_u64().unwrap();
    assert!((64..64 * 64).contains(&masked), "{masked}");
    let (before, after) = (folder.open("photo.png").to_rgb8(), folder.open("half.inpaint.png").to_rgb8());
    assert_eq!(before.rows().next().unwrap().collect::<Vec<_>>(), after.rows().next().unwrap().collect::<Vec<_>>());
    assert!(after.rows().next_back().unwrap().any(|pixel| *pixel != Rgb([0; 3])));
}

#[test]
fn the_sheet_shows_before_mask_and_after_and_fits_a_screen() {
    let folder = Folder::with_photo(900, 500);
    folder.succeed(&format!("inpaint photo.png -m mask.png {GAUSSIAN} --sheet"));
    let sheet = folder.open("photo.inpaint-sheet.png").to_rgb8();
    assert!((1200..=1600).contains(&sheet.width()), "{}", sheet.width());
    let (before, after) = (folder.open("photo.png").to_rgb8(), folder.open("photo.inpaint.png").to_rgb8());
    // The corners of the photo are the corners of its picture: nothing is cropped. Pictures begin below a label of 28
    // pixels inside a margin of 24, and are 506 wide, 16 apart.
    let near = |a: Rgb<u8>, b: &Rgb<u8>| a.0.iter().zip(b.0).all(|(a, b)| a.abs_diff(b) <= 12);
    let height = sheet.height() - 24 - 28 - 24;
    for (left, picture) in [(24, &before), (24 + 2 * 522, &after)] {
        let at = |x: u32, y: u32| *sheet.get_pixel(left + x, 52 + y);
        assert!(near(at(0, 0), picture.get_pixel(1, 1)));
        assert!(near(at(505, height - 1), picture.get_pixel(898, 498)));
    }
    let marked = sheet.get_pixel(24 + 522 + 506 * 3 / 8, 52 + height * 5 / 16);
    assert_eq!(*marked, Rgb([255, 0, 144]));
}

// --- numbers ---------------------------------------------------------------------------------------------------------

fn same_bytes_whatever_the_threads_and_samples(folder: &Folder, options: &str) {
    let mut written = Vec::new();
    for (k, run) in ["--threads 1", "--threads 2", "--threads 2 --samples 4"].iter().enumerate() {
        folder.succeed(&format!("inpaint photo.png -m mask.png {options} --seed 7 -o run{k}.png {run}"));
        let several = folder.path(format!("run{k}-0000.png"));
        let name = if several.exists() { several } else { folder.path(format!("run{k}.png")) };
        written.push(image::open(name).unwrap());
    }
    assert!(written[0] == written[1], "threads change the result");
    assert!(written[0] == written[2], "the number of samples changes sample 0");
    assert!(written[0] != folder.open("run2-0001.png"), "samples do not differ");
    folder.succeed(&format!("inpaint photo.png -m mask.png {options} --seed 8 -o other.png"));
    assert!(written[0] != folder.open("other.png"), "the seed changes nothing");
}

/// 57
#[test]
fn threads_and_samples_do_not_change_sample_zero() {
    same_bytes_whatever_the_threads_and_samples(&Folder::with_photo(96, 80), GAUSSIAN);
}

/// 57
#[cfg(feature = "embedded-prior")]
#[test]
fn threads_and_samples_do_not_change_sample_zero_of_the_network() {
    let folder = Folder::new();
    let crop = image::open(Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/photos/chelsea.png")).unwrap();
    crop.crop_imm(150, 80, 64, 64).save(folder.path("photo.png")).unwrap();
    mask(64, 64).save(folder.path("mask.png")).unwrap();
    same_bytes_whatever_the_threads_and_samples(&folder, "--steps 2");
}

#[test]
fn the_same_command_writes_the_same_file() {
    let folder = Folder::with_photo(32, 32);
    folder.succeed(&format!("inpaint photo.png -m mask.png {GAUSSIAN} -o a.png"));
    folder.succeed(&format!("inpaint photo.png -m mask.png {GAUSSIAN} -o b.png"));
    assert!(folder.bytes("a.png") == folder.bytes("b.png"));
}

// --- what is told ----------------------------------------------------------------------------------------------------

#[test]
fn events_tell_the_run() {
    let folder = Folder::with_photo(32, 24);
    let ran = folder.succeed(&format!("inpaint photo.png -m mask.png {GAUSSIAN} --samples 2 --std --seed 5 --json"));
    for event in ran.events() {
        assert_eq!(event["schema"], 1, "{event}");
    }
    let start = ran.event("start");
    assert_eq!(start["command"], "inpaint");
    assert_eq!((&start["width"], &start["height"]), (&32.into(), &24.into()));
    assert_eq!(start["outputs"][1], "photo.inpaint-0001.png");
    let steps: Vec<_> = ran.events().into_iter().filter(|event| event["event"] == "step").collect();
    let last = steps.last().unwrap();
    assert_eq!(last["done"], last["total"]);
    assert_eq!(steps.len() as u64, last["total"].as_u64().unwrap());
    assert_eq!(last["sample"], 1);
    let files: Vec<_> = ran.events().into_iter().filter(|event| event["event"] == "file").collect();
    let kinds: Vec<_> = files.iter().map(|file| file["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["sample", "sample", "std"]);
    for (k, file) in files[..2].iter().enumerate() {
        assert_eq!(file["input"], "photo.png");
        assert_eq!(file["output"], format!("photo.inpaint-{k:04}.png"));
        assert_eq!(file["sample"], k);
        assert_eq!(file["seed"], 5);
        assert_eq!(file["steps"], 3);
        assert_eq!(file["largest_known_change"], 0);
        assert!(file["sampler"].is_string() && file["warnings"].is_array(), "{file}");
        assert!(file["evaluations"].as_u64().unwrap() >= 3, "{file}");
        assert!(file["seconds"].as_f64().unwrap() >= 0.0, "{file}");
        assert!(!cfg!(target_os = "linux") || file["peak_memory"].as_u64().unwrap() > 1 << 20, "{file}");
    }
    let summary = ran.event("summary");
    assert_eq!((&summary["files"], &summary["exit_code"]), (&3.into(), &0.into()));
}

#[test]
fn a_dry_run_tells_the_plan_and_writes_nothing() {
    let folder = Folder::with_photo(32, 24);
    for flag in ["-n", "--dry-run", "--plan"] {
        let ran = folder.succeed(&format!("inpaint photo.png -m mask.png {GAUSSIAN} {flag} --samples 2 --mean"));
        let mut lines = ran.text().lines();
        assert_eq!(lines.next(), Some("photo.png -> photo.inpaint-0000.png"));
        assert_eq!(lines.next(), Some("photo.png -> photo.inpaint-0001.png"));
        assert_eq!(lines.next(), Some("photo.png -> photo.inpaint-mean.png"));
        let fields: Vec<_> = lines.map(|line| line.split_whitespace().next().unwrap()).collect();
        assert_eq!(
            fields,
            ["size", "masked", "model", "device", "sampler", "windows", "evaluations", "time", "memory"]
        );
        assert!(ran.text().contains("size         32x24, 8-bit RGB\n"), "{}", ran.text());
        assert_eq!(folder.names(), ["mask.png", "photo.png"]);
    }
}

#[test]
fn a_run_says_one_line_per_file_and_quiet_says_nothing() {
    let folder = Folder::with_photo(32, 24);
    let normal = folder.succeed(&format!("inpaint photo.png -m mask.png {GAUSSIAN}"));
    let lines: Vec<_> = normal.stderr.lines().filter(|line| !line.starts_with("warning: ")).collect();
    assert_eq!(lines.len(), 1, "{}", normal.stderr);
    assert!(lines[0].starts_with("wrote photo.inpaint.png (") && lines[0].contains("seed 0"), "{}", lines[0]);
    assert!(normal.stdout.is_empty());
    let quiet = folder.succeed(&format!("inpaint photo.png -m mask.png {GAUSSIAN} --force -q"));
    assert_eq!((quiet.stderr.as_str(), quiet.text()), ("", ""));
}

#[test]
fn a_picture_says_how_it_was_made() {
    let folder = Folder::with_photo(32, 24);
    folder.succeed(&format!("inpaint photo.png -m mask.png {GAUSSIAN} --seed 11"));
    let content = folder.bytes("photo.inpaint.png");
    let reader = png::Decoder::new(std::io::Cursor::new(&content)).read_info().unwrap();
    let text = reader.info().utf8_text.iter().find(|text| text.keyword == "Software").unwrap().get_text().unwrap();
    let version = env!("CARGO_PKG_VERSION");
    assert!(text.starts_with(&format!("tweedie {version} inpaint, model ")), "{text}");
    assert!(text.contains("steps 3, windows of 512, kernels ") && text.ends_with("seed 11, sample 0 of 1"), "{text}");
}

#[test]
fn colour_is_for_terminals_and_for_who_asks() {
    let folder = Folder::new();
    let plain = folder.tweedie("inpaint nowhere.png -m mask.png");
    assert_eq!(plain.stderr, "error: nowhere.png: no such file\n");
    let coloured = folder.tweedie("inpaint nowhere.png -m mask.png --color always");
    assert_eq!(coloured.stderr, "\x1b[1;31merror: \x1b[0mnowhere.png: no such file\n");
    assert!(folder.succeed("inpaint --help --color always").text().contains("\x1b["));
    assert!(!folder.succeed("inpaint --help").text().contains("\x1b["));
}

// --- streams and signals ---------------------------------------------------------------------------------------------

#[test]
fn photos_flow_through_standard_streams() {
    let folder = Folder::with_photo(32, 24);
    let line = format!("inpaint - -m mask.png {GAUSSIAN} -o -");
    let mut command = folder.command(&line.split(' ').collect::<Vec<_>>());
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(&folder.bytes("photo.png")).unwrap();
    let ran = Ran::from(child.wait_with_output().unwrap());
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    only_the_mask_changed(&folder.open("photo.png"), &image::load_from_memory(&ran.stdout).unwrap());
    assert_eq!(folder.names(), ["mask.png", "photo.png"]);
}

/// 11, for a stream, which has no length: it is read up to the first byte too many.
#[test]
fn a_stream_longer_than_any_allowed_photo_is_given_up() {
    let folder = Folder::with_photo(32, 24);
    let line = format!("inpaint - -m mask.png {GAUSSIAN} -o - --max-pixels 1");
    let mut command = folder.command(&line.split(' ').collect::<Vec<_>>());
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stream = child.stdin.take().unwrap();
    // As long as the program reads, at most 1 GiB: without a limit it would take all of it.
    let block = vec![0; 1 << 20];
    let written = (0..1024).take_while(|_| stream.write_all(&block).is_ok()).count();
    drop(stream);
    let ran = Ran::from(child.wait_with_output().unwrap());
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    assert!(ran.stderr.contains("-: 67108881 bytes, at most 67108880 are read; --max-pixels raises that, too"));
    assert!((64..80).contains(&written), "{written}");
}

#[test]
fn a_reader_that_leaves_is_no_failure() {
    let folder = Folder::new();
    let mut child =
        folder.command(&["completions", "zsh"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let ran = Ran::from(child.wait_with_output().unwrap());
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
}

#[test]
fn work_is_finished_for_a_reader_of_events_that_leaves() {
    let folder = Folder::with_photo(32, 24);
    let line = format!("inpaint photo.png -m mask.png {GAUSSIAN} --json");
    let mut command = folder.command(&line.split(' ').collect::<Vec<_>>());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let ran = Ran::from(child.wait_with_output().unwrap());
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    only_the_mask_changed(&folder.open("photo.png"), &folder.open("photo.inpaint.png"));
}

#[cfg(unix)]
fn send(signal: &str, child: &std::process::Child) {
    let sent = std::process::Command::new("kill").args(["-s", signal, &child.id().to_string()]).status();
    assert!(sent.unwrap().success());
}

/// 62: while standard input is silent nothing looks at the first signal.
#[cfg(unix)]
#[test]
fn a_second_interrupt_stops_at_once() {
    let folder = Folder::with_photo(32, 24);
    let mut command = folder.command(&["inpaint", "-", "-m", "mask.png", "-o", "out.png"]);
    let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let pause = || std::thread::sleep(std::time::Duration::from_millis(500));
    pause();
    send("INT", &child);
    pause();
    assert!(child.try_wait().unwrap().is_none(), "ended without its input");
    send("INT", &child);
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(folder.names(), ["mask.png", "photo.png"]);
}

/// 62, 63
#[cfg(unix)]
#[test]
fn a_signal_stops_the_run_and_leaves_nothing() {
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let folder = Folder::with_photo(256, 256);
        let line = "inpaint photo.png -m mask.png --model gaussian:mean=0,std=0.5 --steps 1000 --samples 1000 --json";
        let mut command = folder.command(&line.split(' ').collect::<Vec<_>>());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut events = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(events.any(|line| line.unwrap().contains(r#""event":"step""#)), "no step was reported");
        send(signal, &child);
        let last = events.map(Result::unwrap).last().unwrap();
        let status = child.wait().unwrap();
        let mut stderr = String::new();
        child.stderr.unwrap().read_to_string(&mut stderr).unwrap();
        assert_eq!(status.code(), Some(code), "{stderr}");
        assert_eq!(stderr.lines().last(), Some("error: interrupted"));
        let event: serde_json::Value = serde_json::from_str(&last).unwrap();
        assert_eq!((&event["event"], &event["exit_code"]), (&"error".into(), &code.into()));
        assert_eq!(folder.names(), ["mask.png", "photo.png"]);
    }
}

/// 61
#[cfg(target_os = "linux")]
#[test]
fn a_disk_without_room_has_its_own_code_and_keeps_nothing() {
    let folder = Folder::with_photo(64, 64);
    let binary = env!("CARGO_BIN_EXE_tweedie");
    let limited = format!("ulimit -f 1; exec {binary} inpaint photo.png -m mask.png {GAUSSIAN}");
    let ran = std::process::Command::new("sh").args(["-c", &limited]).current_dir(folder.path("")).output().unwrap();
    refused(&ran.into(), 5, "error: cannot write photo.inpaint.png: ");
    assert_eq!(folder.names(), ["mask.png", "photo.png"]);
    let line = format!("inpaint photo.png -m mask.png {GAUSSIAN} -o -");
    let mut command = folder.command(&line.split(' ').collect::<Vec<_>>());
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let ran = command.stdout(full).stderr(Stdio::piped()).spawn().unwrap().wait_with_output().unwrap();
    refused(&ran.into(), 5, "error: cannot write to standard output: ");
}

/// 67
#[test]
fn an_input_that_changes_while_it_is_restored_is_an_error() {
    let folder = Folder::with_photo(256, 256);
    let line = "inpaint photo.png -m mask.png --model gaussian:mean=0,std=0.5 --steps 500 --json";
    let mut command = folder.command(&line.split(' ').collect::<Vec<_>>());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut events = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(events.any(|line| line.unwrap().contains(r#""event":"step""#)), "no step was reported");
    std::fs::remove_file(folder.path("photo.png")).unwrap();
    let last = events.map(Result::unwrap).last().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1));
    assert!(last.contains("photo.png: was deleted while it was being restored"), "{last}");
    assert_eq!(folder.names(), ["mask.png"]);
}

// --- the processor ---------------------------------------------------------------------------------------------------

#[test]
fn the_instruction_set_and_the_precision_of_a_run_are_recorded() {
    let folder = Folder::with_photo(32, 24);
    let options = "--cpu-features portable --precision f32";
    let ran = folder.succeed(&format!("inpaint photo.png -m mask.png {GAUSSIAN} {options} --json -v"));
    let start = ran.event("start");
    assert_eq!((&start["instruction_set"], &start["precision"]), (&"portable".into(), &"f32".into()));
    assert!(ran.stderr.contains("model: gaussian:mean=0,std=0.5, f32 with portable\n"), "{}", ran.stderr);
    let content = folder.bytes("photo.inpaint.png");
    let reader = png::Decoder::new(std::io::Cursor::new(&content)).read_info().unwrap();
    let text = reader.info().utf8_text.iter().find(|text| text.keyword == "Software").unwrap().get_text().unwrap();
    assert!(text.contains(", kernels portable, precision f32, seed 0, "), "{text}");
    let plan = folder.succeed(&format!("inpaint photo.png -m mask.png {GAUSSIAN} {options} --threads 1 -n -f"));
    assert!(plan.text().contains("device       cpu, 1 thread, f32 with portable\n"), "{}", plan.text());
}

#[test]
fn the_option_for_the_instruction_set_wins_over_the_variable() {
    let folder = Folder::new();
    let kernels = |arguments: &[&str], variable: &str| {
        let mut command =
            folder.command(&[&["bench", "--model", "gaussian", "--size", "8", "--json"], arguments].concat());
        let ran = Ran::from(command.env("TWEEDIE_CPU_FEATURES", variable).output().unwrap());
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        (ran.events()[0]["instruction_set"].as_str().unwrap().to_string(), ran.stderr)
    };
    assert_eq!(kernels(&[], "portable"), ("portable".into(), String::new()));
    assert_eq!(kernels(&["--cpu-features", "portable"], "nonesuch"), ("portable".into(), String::new()));
    let (_, warning) = kernels(&[], "nonesuch");
    let expected = "warning: TWEEDIE_CPU_FEATURES: unknown instruction set `nonesuch`; known: portable, ";
    assert!(warning.starts_with(expected), "{warning}");
    let ran = folder.tweedie("doctor --cpu-features nonesuch");
    refused(
        &ran,
        2,
        "invalid value 'nonesuch' for '--cpu-features <SET>': unknown instruction set `nonesuch`; known: ",
    );
}

#[test]
fn a_formula_is_computed_in_single_precision_only() {
    let folder = Folder::with_photo(32, 24);
    let message = "error: precision is bf16, expected f32 or auto for a prior that is a formula\n";
    refused(&folder.tweedie(&format!("inpaint photo.png -m mask.png {GAUSSIAN} --precision bf16")), 2, message);
    let mut command = folder.command(&["bench", "--model", "gaussian"]);
    refused(&command.env("TWEEDIE_PRECISION", "bf16").output().unwrap().into(), 2, message);
    let ran = folder.tweedie("inpaint photo.png -m mask.png --precision f16");
    refused(&ran, 2, "invalid value 'f16' for '--precision <NUMBERS>'");
}

// --- bench -----------------------------------------------------------------------------------------------------------

/// What a measurement says whatever the machine; nothing about speed.
#[cfg(feature = "embedded-prior")]
#[test]
fn a_measurement_tells_its_settings_and_figures() {
    let folder = Folder::new();
    let line = "bench --size 64 --rounds 3 --seconds 0 --threads 2 --precision f32 --json";
    let evaluation = folder.succeed(&format!("{line} --layers")).events().remove(0);
    let pullback = folder.succeed(&format!("{line} --what pullback --batch 2")).events().remove(0);
    let training = folder.succeed(&format!("{line} --what train --batch 2")).events().remove(0);
    for (report, what, batch) in [(&evaluation, "denoise", 1), (&pullback, "pullback", 2), (&training, "train", 2)] {
        assert_eq!((&report["schema"], &report["command"]), (&1.into(), &"bench".into()));
        assert_eq!((&report["what"], &report["batch"]), (&what.into(), &batch.into()));
        assert_eq!((&report["size"], &report["threads"], &report["calls"]), (&64.into(), &2.into(), &3.into()));
        assert_eq!((&report["precision"], &report["device"]), (&"f32".into(), &"cpu".into()));
        assert_eq!(report["model_hash"].as_str().unwrap().len(), 64);
        let figure = |name: &str| report[name].as_f64().unwrap_or_else(|| panic!("no {name} in {report}"));
        let order = ["min_ms", "lower_quartile_ms", "median_ms", "upper_quartile_ms", "max_ms"].map(figure);
        assert!(order.is_sorted() && order[0] > 0.0, "{order:?}");
        for name in ["peak_gflop_per_second", "copy_gbyte_per_second", "open_ms", "first_call_ms"] {
            assert!(figure(name) > 0.0, "{name}");
        }
        assert!(figure("startup_ms") > figure("open_ms"));
        let rate = figure("operations_per_call") / figure("median_ms") * 1e-6;
        assert!((figure("gflop_per_second") / rate - 1.0).abs() < 1e-9);
        let share = figure("gflop_per_second") / figure("peak_gflop_per_second");
        assert!((figure("share_of_peak") / share - 1.0).abs() < 1e-9);
    }
    let operations = |report: &serde_json::Value| report["operations_per_call"].as_f64().unwrap();
    assert!((operations(&pullback) - 4.0 * operations(&evaluation)).abs() < 1.0);
    assert!((operations(&training) - 6.0 * operations(&evaluation)).abs() < 1.0);

    assert!(pullback.get("layers").is_none());
    let layers = &evaluation["layers"];
    let steps = layers["steps"].as_array().unwrap();
    assert_eq!(steps[0]["name"], "stem");
    assert_eq!(steps[steps.len() - 1]["name"], "head");
    let sum = |name: &str| steps.iter().map(|step| step[name].as_f64().unwrap()).sum::<f64>();
    assert!((sum("operations") - operations(&evaluation)).abs() < 1.0);
    for name in ["floor_ms", "median_ms"] {
        assert!((sum(name) / layers[name].as_f64().unwrap() - 1.0).abs() < 1e-9, "{name}");
    }
    for step in steps {
        let figure = |name: &str| step[name].as_f64().unwrap();
        assert!(figure("bytes") > 0.0 && figure("floor_ms") > 0.0, "{step}");
        assert!((0.1..=1.0).contains(&(figure("operations_taken") / figure("operations"))), "{step}");
        assert!((figure("times_floor") - figure("median_ms") / figure("floor_ms")).abs() < 1e-9, "{step}");
    }
}

#[cfg(feature = "embedded-prior")]
#[test]
fn a_measurement_can_be_read() {
    let folder = Folder::new();
    let ran = folder.succeed("bench --size 64 --rounds 1 --seconds 0 --layers");
    let (figures, layers) = ran.text().split_once("\n\n").unwrap();
    let fields: Vec<_> = figures.lines().map(|line| line.split("  ").next().unwrap()).collect();
    let expected = ["model", "device", "call", "median", "quartiles", "extremes", "operations", "rate", "peak"];
    assert_eq!(fields[..expected.len()], expected);
    let layers: Vec<&str> = layers.lines().collect();
    assert!(layers[0].starts_with("step ") && layers[1].starts_with("stem "), "{}", ran.text());
    assert!(layers[layers.len() - 1].starts_with("evaluation "), "{}", ran.text());
    let widths: Vec<usize> = layers.iter().map(|line| line.chars().count()).collect();
    assert!(widths.iter().all(|width| *width == widths[0]), "not aligned:\n{}", ran.text());
}

#[test]
fn scripts_get_milliseconds_alone() {
    let ran = Folder::new().succeed("bench --model gaussian --size 8 --rounds 4 --seconds 0 --raw");
    let times: Vec<f64> = ran.text().lines().map(|line| line.parse().unwrap()).collect();
    assert!(times.len() == 4 && times.iter().all(|time| *time >= 0.0), "{times:?}");
    assert!(ran.stderr.is_empty(), "{}", ran.stderr);
}

#[test]
fn a_formula_is_timed_without_a_rate() {
    let folder = Folder::new();
    let report = folder.succeed("bench --model gaussian --size 8 --rounds 1 --seconds 0 --json").events().remove(0);
    assert_eq!(report["operations_per_call"], serde_json::Value::Null);
    assert_eq!(report["share_of_peak"], serde_json::Value::Null);
    assert_eq!(report["precision"], "f32");
    let text = folder.succeed("bench --model gaussian --size 8 --rounds 1 --seconds 0").text().to_string();
    assert!(text.contains("median") && !text.contains("rate"), "{text}");
}

#[test]
fn a_measurement_that_makes_no_sense_is_refused() {
    let folder = Folder::new();
    for (arguments, message) in [
        ("--size 0", "0 is not in 1..=8192"),
        ("--batch 0", "0 is not in 1..=1024"),
        ("--rounds 0", "0 is not in 1..=100000"),
        ("--seconds -1", "unexpected argument '-1'"),
        ("--seconds NaN", "expected a number of seconds from 0 to 3600"),
        ("--what dream", "invalid value 'dream' for '--what <CALL>'"),
        ("--precision f64", "invalid value 'f64' for '--precision <NUMBERS>'"),
        ("--threads 0", "0 is not in 1..=1024"),
        ("--raw --json", "cannot be used with"),
        ("--raw --layers", "cannot be used with"),
        ("--size 8192 --batch 1024", "error: the images alone take 768 GiB, this machine has "),
        ("--layers --what pullback", "error: --layers times the steps of one evaluation\nhint: leave out --what\n"),
        ("--layers", "error: --layers needs a network, the model gaussian is a formula\n"),
        ("--what train", "error: --what train needs a network, the model gaussian is a formula\n"),
    ] {
        let ran = folder.tweedie(&format!("bench --model gaussian {arguments}"));
        refused(&ran, 2, message);
    }
    refused(&folder.tweedie("bench --model nowhere.safetensors"), 4, "nowhere.safetensors");
    #[cfg(feature = "embedded-prior")]
    refused(&folder.tweedie("bench --size 100"), 2, "error: --size 100: this network takes multiples of 8\n");
}

// --- other commands --------------------------------------------------------------------------------------------------

#[cfg(feature = "embedded-prior")]
#[test]
fn the_doctor_reports_and_passes() {
    let folder = Folder::new();
    let ran = folder.succeed("doctor");
    for field in ["version", "instructions", "kernels", "precision", "threads", "cuda", "metal", "sha256", "self-test"]
    {
        assert!(ran.text().lines().any(|line| line.starts_with(field)), "no {field} in\n{}", ran.text());
    }
    let report = folder.succeed("doctor --json").events().remove(0);
    assert_eq!(report["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(report["devices"][0]["name"], "cpu");
    assert_eq!(report["model"]["self_test_passed"], true);
    assert_eq!(report["model"]["sha256"].as_str().unwrap().len(), 64);
    for (precision, limit) in [("f32", 1e-4), ("bf16", 3e-2)] {
        let report = folder.succeed(&format!("doctor --precision {precision} --json")).events().remove(0);
        assert_eq!((&report["precision"], &report["model"]["self_test_limit"]), (&precision.into(), &limit.into()));
        assert_eq!(report["model"]["self_test_passed"], true);
    }
}

#[cfg(feature = "embedded-prior")]
#[test]
fn the_embedded_model_describes_itself() {
    let folder = Folder::new();
    let ran = folder.succeed("models inspect embedded");
    let column = ran.text().lines().next().unwrap().find("photo-prior").unwrap();
    for line in ran.text().lines() {
        let (field, value) = line.split_at(column);
        assert!(field.ends_with("  ") && !value.starts_with(' '), "{line:?} is not aligned");
    }
    let described = folder.succeed("models inspect embedded --json").events().remove(0);
    assert_eq!(described["sha256"].as_str().unwrap().len(), 64);
    assert!(!described["facts"].as_object().unwrap().is_empty());
    refused(&folder.tweedie("models inspect nowhere.safetensors"), 4, "nowhere.safetensors");
}

#[test]
fn every_shell_gets_its_completions() {
    let folder = Folder::new();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = folder.succeed(&format!("completions {shell}"));
        assert!(script.text().contains("inpaint") && script.text().contains("mask-grow"), "{shell}");
    }
}

#[test]
fn a_misspelt_command_is_answered_with_the_right_one() {
    let ran = Folder::new().tweedie("inpiant photo.png");
    assert_eq!(ran.code, 2);
    assert!(ran.stderr.contains("tip: a similar subcommand exists: 'inpaint'"), "{}", ran.stderr);
}

#[test]
fn the_version_is_the_package_s() {
    let version = Folder::new().succeed("--version");
    assert_eq!(version.text(), format!("tweedie {}\n", env!("CARGO_PKG_VERSION")));
}

/// A change of the interface shows in a diff. `TWEEDIE_REFRESH=1 cargo test` writes the snapshots anew.
#[test]
fn the_help_is_the_committed_one() {
    let folder = Folder::new();
    let snapshots = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/help");
    for (name, line) in [
        ("tweedie.txt", "--help"),
        ("inpaint.txt", "inpaint --help"),
        ("inpaint.short.txt", "inpaint -h"),
        ("denoise.txt", "denoise --help"),
        ("denoise.short.txt", "denoise -h"),
        ("deblur.txt", "deblur --help"),
        ("deblur.short.txt", "deblur -h"),
        ("upscale.txt", "upscale --help"),
        ("upscale.short.txt", "upscale -h"),
        ("colorize.txt", "colorize --help"),
        ("restore.txt", "restore --help"),
        ("degrade.txt", "degrade --help"),
        ("degrade.short.txt", "degrade -h"),
        ("batch.txt", "batch --help"),
        ("batch.short.txt", "batch -h"),
        ("batch-status.txt", "batch status --help"),
        ("batch-merge.txt", "batch merge --help"),
        ("sample.txt", "sample --help"),
        ("sample.short.txt", "sample -h"),
        ("samplers.txt", "samplers --help"),
        ("likelihood.txt", "likelihood --help"),
        ("likelihood.short.txt", "likelihood -h"),
        ("evaluate.txt", "evaluate --help"),
        ("evaluate.short.txt", "evaluate -h"),
        ("operators.txt", "operators --help"),
        ("operators-check.txt", "operators check --help"),
        ("train.txt", "train --help"),
        ("train.short.txt", "train -h"),
        ("models.txt", "models --help"),
        ("models-inspect.txt", "models inspect --help"),
        ("models-convert.txt", "models convert --help"),
        ("models-pull.txt", "models pull --help"),
        ("models-verify.txt", "models verify --help"),
        ("doctor.txt", "doctor --help"),
        ("bench.txt", "bench --help"),
        ("bench.short.txt", "bench -h"),
        ("completions.txt", "completions --help"),
    ] {
        let help = folder.succeed(line).text().to_string();
        let columns = if line.ends_with("-h") { 80 } else { 98 };
        for line in help.lines() {
            assert!(line.chars().count() <= columns, "longer than {columns} columns: {line}");
        }
        if std::env::var_os("TWEEDIE_REFRESH").is_some() {
            std::fs::write(snapshots.join(name), &help).unwrap();
        }
        let committed = std::fs::read_to_string(snapshots.join(name)).unwrap();
        for (now, then) in help.lines().zip(committed.lines()) {
            assert_eq!(now, then, "tweedie {line} is not tests/data/help/{name}");
        }
        assert_eq!(help.lines().count(), committed.lines().count(), "tweedie {line} is not tests/data/help/{name}");
    }
}

#[test]
fn no_arguments_mean_help() {
    let folder = Folder::new();
    for line in [
        "",
        "inpaint",
        "denoise",
        "deblur",
        "upscale",
        "colorize",
        "restore",
        "degrade",
        "models",
        "models inspect",
        "models pull",
        "models verify",
        "models path",
        "models remove",
        "operators check",
        "completions",
    ] {
        let ran = folder.tweedie(line);
        assert_eq!(ran.code, 2, "{line}");
        assert!(ran.stderr.contains("Usage: tweedie"), "{line}: {}", ran.stderr);
    }
}
