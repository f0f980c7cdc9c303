//! Profiles, EXIF, XMP, IPTC, text; and orientation, which is metadata until it is baked.

use tweedie::image::{EncodeOptions, OutputFormat, Photo, Strip};

use super::{
    chunk, chunks, decode, encode, exif, png_with_profile, profile, refusal, samples, varied, with_chunks, with_segment,
};

const XMP: &[u8] = b"<x:xmpmeta><rdf:Description tiff:Orientation=\"6\" dc:title=\"harbour\"/></x:xmpmeta>";

/// The orientation in an EXIF block made by [`exif`].
fn tag(block: &[u8]) -> u8 {
    block[31]
}

/// A 3×2 grey photo of the letters a b c / d e f with an orientation.
fn turned(orientation: u16) -> Vec<u8> {
    let photo = Photo::from_u8(3, 2, 1, b"abcdef".to_vec()).unwrap();
    with_chunks(&encode(&photo, OutputFormat::Png), &[chunk(b"eXIf", &exif(orientation))])
}

/// Fault 23. The expected pixels are those of the EXIF standard's figure: where row 0 and column 0 of the file belong.
#[test]
fn all_eight_orientations_are_turned_upright() {
    let expected = ["abc def", "cba fed", "fed cba", "def abc", "ad be cf", "da eb fc", "fc eb da", "cf be ad"];
    for (orientation, expected) in (1..).zip(expected) {
        let photo = decode(&turned(orientation)).unwrap();
        let rows: Vec<_> = photo
            .samples_u8()
            .unwrap()
            .chunks(photo.width())
            .map(|row| String::from_utf8(row.to_vec()).unwrap())
            .collect();
        assert_eq!(rows.join(" "), expected, "orientation {orientation}");
        assert!(photo.warnings().is_empty());
        assert_eq!(tag(photo.exif().unwrap()), 1);
        // The output is not turned twice.
        let back = decode(&encode(&photo, OutputFormat::Png)).unwrap();
        assert_eq!((samples(&back), tag(back.exif().unwrap())), (samples(&photo), 1));
    }
}

/// Fault 23. The size that EXIF repeats is that of the upright pixels.
#[test]
fn the_size_in_exif_is_turned_with_the_pixels() {
    // An orientation; below it the width 3 in two bytes, and the height 2 in four.
    let block = |orientation: u8| {
        let mut block =
            b"MM\0*\0\0\0\x08\0\x02\x01\x12\0\x03\0\0\0\x01\0\0\0\0\x87\x69\0\x04\0\0\0\x01\0\0\0\x26\0\0\0\0\
            \0\x02\xa0\x02\0\x03\0\0\0\x01\0\x03\0\0\xa0\x03\0\x04\0\0\0\x01\0\0\0\x02\0\0\0\0"
                .to_vec();
        block[19] = orientation;
        block
    };
    let png = encode(&Photo::from_u8(3, 2, 1, b"abcdef".to_vec()).unwrap(), OutputFormat::Png);
    for orientation in 1..=8 {
        let photo = decode(&with_chunks(&png, &[chunk(b"eXIf", &block(orientation))])).unwrap();
        let exif = photo.exif().unwrap();
        let size = (usize::from(exif[49]), usize::from(exif[63]));
        assert_eq!(size, (photo.width(), photo.height()), "orientation {orientation}");
        assert_eq!(exif[19], 1);
    }
}

/// Fault 23, for interleaved channels and other containers.
#[test]
fn a_turned_pixel_keeps_its_channels_together() {
    let photo = varied(5, 3, 3, false);
    let png = with_chunks(&encode(&photo, OutputFormat::Png), &[chunk(b"eXIf", &exif(6))]);
    let upright = decode(&png).unwrap();
    assert_eq!((upright.width(), upright.height()), (3, 5));
    for y in 0..5 {
        for x in 0..3 {
            for channel in 0..3 {
                assert_eq!(upright.sample(x, y, channel), photo.sample(y, 2 - x, channel));
            }
        }
    }
    let tall = with_segment(&encode(&photo, OutputFormat::Jpeg), 0xe1, &[b"Exif\0\0", &exif(8)[..]].concat());
    assert_eq!(decode(&tall).unwrap().width(), 3);

    let mut tiff = std::io::Cursor::new(Vec::new());
    let mut encoder = tiff::encoder::TiffEncoder::new(&mut tiff).unwrap();
    let mut image = encoder.new_image::<tiff::encoder::colortype::Gray8>(3, 2).unwrap();
    image.encoder().write_tag(tiff::tags::Tag::Orientation, 6u16).unwrap();
    image.write_data(b"abcdef").unwrap();
    let photo = decode(&tiff.into_inner()).unwrap();
    assert_eq!(photo.samples_u8().unwrap(), b"daebfc");
    // The tag that is written says that nothing is left to turn.
    assert_eq!(decode(&encode(&photo, OutputFormat::Tiff)).unwrap().samples_u8().unwrap(), b"daebfc");
}

/// Fault 24.
#[test]
fn a_meaningless_orientation_and_a_directory_loop_are_ignored_with_a_warning() {
    let photo = decode(&turned(9)).unwrap();
    assert_eq!(photo.warnings(), ["orientation is 9, expected 1 to 8; ignored"]);
    assert_eq!(photo.samples_u8().unwrap(), b"abcdef");
    assert_eq!(tag(photo.exif().unwrap()), 1);

    let png = encode(&varied(3, 2, 1, false), OutputFormat::Png);
    let mut looped = exif(1);
    looped[46..50].copy_from_slice(&8u32.to_be_bytes());
    let photo = decode(&with_chunks(&png, &[chunk(b"eXIf", &looped)])).unwrap();
    assert_eq!(photo.warnings(), ["EXIF directories form a loop; the loop is ignored"]);

    let photo = decode(&with_chunks(&png, &[chunk(b"eXIf", b"nonsense")])).unwrap();
    assert_eq!(photo.warnings(), ["EXIF block is damaged; dropped"]);
    assert!(photo.exif().is_none());
}

#[test]
fn the_thumbnail_is_dropped_and_the_rest_of_exif_kept() {
    let photo = decode(&turned(3)).unwrap();
    let kept = photo.exif().unwrap();
    let mut expected = exif(1);
    expected[46..50].fill(0);
    let end = expected.len();
    expected[end - 4..].fill(0);
    assert_eq!(kept, expected);
}

/// Metadata goes from every container that has it into every container that can.
#[test]
fn profile_exif_and_xmp_survive_in_png_jpeg_and_webp() {
    let photo = varied(8, 8, 3, false);
    let icc = profile(b"RGB ");
    let iptc = b"\x1c\x02\x78\x00\x03sea";
    let mut icc_segment = b"ICC_PROFILE\0\x01\x01".to_vec();
    icc_segment.extend(&icc);
    let resource = [b"Photoshop 3.0\08BIM\x04\x04\0\0\0\0\0\x08", &iptc[..]].concat();
    let mut jpeg = encode(&photo, OutputFormat::Jpeg);
    for (marker, data) in [
        (0xe2, icc_segment),
        (0xe1, [b"Exif\0\0", &exif(1)[..]].concat()),
        (0xe1, [b"http://ns.adobe.com/xap/1.0/\0", XMP].concat()),
        (0xed, resource.clone()),
    ] {
        jpeg = with_segment(&jpeg, marker, &data);
    }
    let first = decode(&jpeg).unwrap();
    assert!(first.warnings().is_empty(), "{:?}", first.warnings());
    assert_eq!(first.icc_profile().unwrap(), icc);
    assert_eq!(tag(first.exif().unwrap()), 1);
    let upright_xmp = String::from_utf8_lossy(XMP).replace('6', "1").into_bytes();
    assert_eq!(first.xmp().unwrap(), upright_xmp);
    for format in [OutputFormat::Png, OutputFormat::Jpeg, OutputFormat::WebP] {
        let back = decode(&encode(&first, format)).unwrap();
        assert!(back.warnings().is_empty(), "{format:?}: {:?}", back.warnings());
        assert_eq!(back.icc_profile(), first.icc_profile(), "{format:?}");
        assert_eq!(back.exif(), first.exif(), "{format:?}");
        assert_eq!(back.xmp(), first.xmp(), "{format:?}");
    }
    let again = encode(&first, OutputFormat::Jpeg);
    assert!(again.windows(resource.len()).any(|window| window == resource));
    let text = "Raw profile type iptc\0\niptc\n      20\n3842494d0404000000000008".as_bytes();
    assert!(chunks(&encode(&first, OutputFormat::Png)).iter().any(|(_, data)| data.starts_with(text)));

    let back = decode(&encode(&first, OutputFormat::Tiff)).unwrap();
    assert_eq!((back.icc_profile(), back.xmp()), (first.icc_profile(), first.xmp()));
    let options = EncodeOptions::default();
    assert!(first.encode_warnings(OutputFormat::Tiff, &options).is_empty());
    assert_eq!(first.encode_warnings(OutputFormat::WebP, &options), ["WebP cannot keep the photo's IPTC"]);
    assert_eq!(
        first.encode_warnings(OutputFormat::Bmp, &options),
        ["BMP cannot keep the photo's ICC profile, EXIF, XMP, IPTC"]
    );
}

/// IPTC goes through a PNG, which has no place of its own for it, however often the photo is written again.
#[test]
fn iptc_survives_from_jpeg_to_png_to_jpeg() {
    let iptc = b"\x1c\x02\x78\x00\x03sea";
    let resource = [b"Photoshop 3.0\08BIM\x04\x04\0\0\0\0\0\x08", &iptc[..]].concat();
    let first = with_segment(&encode(&varied(8, 8, 3, false), OutputFormat::Jpeg), 0xed, &resource);
    let options = EncodeOptions { strip: Strip::all_but("iptc").unwrap(), ..Default::default() };
    let profile = "Raw profile type iptc\0\niptc\n      20\n3842494d04040000000000081c02780003736561\n";
    let mut photo = decode(&first).unwrap();
    for _ in 0..2 {
        let png = photo.encode(OutputFormat::Png, &options).unwrap();
        let texts: Vec<_> = chunks(&png).into_iter().filter(|(kind, _)| kind == b"tEXt").collect();
        assert_eq!(texts, [(*b"tEXt", profile.as_bytes().to_vec())]);
        photo = decode(&png).unwrap();
        let jpeg = photo.encode(OutputFormat::Jpeg, &options).unwrap();
        assert!(jpeg.windows(resource.len()).any(|window| window == resource));
    }
    // The position is not in it, so that it stays without one.
    let options = EncodeOptions { strip: Strip::Gps, ..Default::default() };
    assert!(chunks(&photo.encode(OutputFormat::Png, &options).unwrap()).iter().any(|(kind, _)| kind == b"tEXt"));
    // What is no IPTC stays the text it is.
    let text = chunk(b"tEXt", b"Raw profile type iptc\0\niptc\n 4\n00000000\n");
    let odd =
        decode(&with_chunks(&encode(&varied(3, 2, 3, false), OutputFormat::Png), std::slice::from_ref(&text))).unwrap();
    assert!(encode(&odd, OutputFormat::Png).windows(text.len()).any(|window| window == text));
}

/// A profile longer than one segment of a JPEG.
#[test]
fn a_long_profile_is_split_and_joined() {
    let mut icc = profile(b"RGB ");
    icc.extend((0..200_000u32).map(|i| (i % 251) as u8));
    let length = icc.len() as u32;
    icc[..4].copy_from_slice(&length.to_be_bytes());
    let photo = decode(&png_with_profile(&varied(8, 8, 3, false), &icc)).unwrap();
    assert_eq!(photo.icc_profile().unwrap(), icc);
    assert_eq!(decode(&encode(&photo, OutputFormat::Jpeg)).unwrap().icc_profile().unwrap(), icc);
}

/// Profile and packet are more than a block may be, together, and the tags of EXIF stand between and behind them.
#[test]
fn a_tiff_keeps_metadata_that_are_large_together() {
    let mut icc = profile(b"RGB ");
    icc.resize(12 << 20, 0);
    icc[..4].copy_from_slice(&(12u32 << 20).to_be_bytes());
    let packet = [&b"XML:com.adobe.xmp\0\0\0\0\0<x>"[..], &vec![b'.'; 6 << 20], b"</x>"].concat();
    let png = png_with_profile(&varied(8, 8, 3, false), &icc);
    let first = decode(&with_chunks(&png, &[chunk(b"eXIf", &exif(1)), chunk(b"iTXt", &packet)])).unwrap();
    assert!(first.warnings().is_empty(), "{:?}", first.warnings());
    let mut photo = first.clone();
    for _ in 0..2 {
        photo = decode(&encode(&photo, OutputFormat::Tiff)).unwrap();
        assert!(photo.warnings().is_empty(), "{:?}", photo.warnings());
        assert!(photo.icc_profile() == Some(&icc[..]) && photo.xmp() == first.xmp());
        let block = photo.exif().unwrap();
        assert!(block.windows(4).any(|window| window == b"Cam\0") && block.windows(8).any(|window| window == [7; 8]));
        assert_eq!(samples(&photo), samples(&first));
    }
}

/// Fault 25: processing is on encoded values, so the profile is kept and no pixel changes.
#[test]
fn a_profile_is_kept_and_pixels_are_not_converted() {
    for (channels, space) in [(3, b"RGB "), (1, b"GRAY")] {
        let photo = varied(6, 5, channels, false);
        let read = decode(&png_with_profile(&photo, &profile(space))).unwrap();
        assert!(read.warnings().is_empty());
        let back = decode(&encode(&read, OutputFormat::Png)).unwrap();
        assert_eq!(back.icc_profile().unwrap(), profile(space));
        assert_eq!(samples(&back), samples(&photo));
    }
}

/// Fault 13.
#[test]
fn a_damaged_or_foreign_profile_is_dropped_with_a_warning() {
    let photo = varied(6, 5, 3, false);
    let with = |profile: &[u8]| decode(&png_with_profile(&photo, profile)).unwrap();
    for (bytes, reason) in [
        (b"garbage".to_vec(), "it is damaged"),
        (profile(b"RGB ")[..131].to_vec(), "it is damaged"),
        (profile(b"GRAY"), "it is for Grey pixels and these are Rgb"),
        (vec![0; 17 << 20], "it has 17825792 bytes, at most 16777216 are kept"),
    ] {
        let read = with(&bytes);
        assert_eq!(read.warnings(), [format!("ICC profile dropped, sRGB assumed: {reason}")]);
        assert!(read.icc_profile().is_none());
        assert_eq!(samples(&read), samples(&photo));
    }
    let png = encode(&photo, OutputFormat::Png);
    let huge = chunk(b"iCCP", &[b"x\0\0".to_vec(), vec![0x55; 20 << 20]].concat());
    for chunk in [huge, chunk(b"iCCP", b"x\0\0not deflated")] {
        let read = decode(&with_chunks(&png, &[chunk])).unwrap();
        assert_eq!(read.warnings(), ["ICC profile dropped, sRGB assumed: it is damaged or too large"]);
    }
}

/// `GPS 51.5 N 0.1 W`, deflated by zlib.
const HIDDEN_POSITION: &[u8] =
    b"\x78\xda\x73\x0f\x08\x56\x30\x35\xd4\x33\x55\xf0\x53\x30\xd0\x33\x54\x08\x07\x00\x1e\x4e\x03\x68";

/// Fault 29. What is compressed hides its position from a search of its bytes.
#[test]
fn the_position_is_kept_unless_stripped() {
    let png = with_chunks(
        &turned(1),
        &[
            chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0<x exif:GPSLatitude='54'/>"),
            chunk(b"tEXt", b"Comment\0a note"),
            chunk(b"iTXt", "Title\0\0\0de\0Titel\0Hafen".as_bytes()),
            chunk(b"tEXt", b"Place\0GPS 51.5 N 0.1 W"),
            chunk(b"zTXt", &[b"Location\0\0", HIDDEN_POSITION].concat()),
            chunk(b"iTXt", &[b"Location\0\x01\0\0\0", HIDDEN_POSITION].concat()),
        ],
    );
    let photo = decode(&png).unwrap();
    let kept = decode(&encode(&photo, OutputFormat::Png)).unwrap();
    assert_eq!(kept.exif(), photo.exif());
    assert!(kept.exif().unwrap().contains(&7) && kept.xmp().is_some());
    let places = |file: &[u8]| {
        let is_place = |data: &[u8]| data.starts_with(b"Location\0") || data.starts_with(b"Place\0");
        chunks(file).iter().filter(|(_, data)| is_place(data)).count()
    };
    assert_eq!(places(&encode(&photo, OutputFormat::Png)), 3);

    let options = EncodeOptions { strip: Strip::Gps, ..Default::default() };
    let warnings = photo.encode_warnings(OutputFormat::Png, &options);
    assert_eq!(warnings, ["the XMP packet mentions a position and is dropped as a whole"]);
    let file = photo.encode(OutputFormat::Png, &options).unwrap();
    let stripped = decode(&file).unwrap();
    let block = stripped.exif().unwrap();
    assert!(!block.contains(&7), "{block:?}");
    assert!(block.windows(4).any(|window| window == b"Cam\0"));
    assert!(stripped.xmp().is_none());
    assert!(chunks(&file).iter().any(|(_, data)| data == b"Comment\0a note"));
    assert!(chunks(&file).iter().any(|(_, data)| data.starts_with(b"Title\0")));
    assert_eq!(places(&file), 0);
}

#[test]
fn strip_all_leaves_the_profile_and_nothing_else() {
    let png = with_chunks(
        &png_with_profile(&varied(3, 2, 3, false), &profile(b"RGB ")),
        &[
            chunk(b"eXIf", &exif(1)),
            chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0<x/>"),
            chunk(b"tEXt", b"Comment\0a note"),
        ],
    );
    let photo = decode(&png).unwrap();
    let options = EncodeOptions { strip: Strip::All, ..Default::default() };
    let file = photo.encode(OutputFormat::Png, &options).unwrap();
    let mut kinds: Vec<_> = chunks(&file).iter().map(|(kind, _)| String::from_utf8_lossy(kind).into_owned()).collect();
    kinds.dedup();
    assert_eq!(kinds, ["IHDR", "iCCP", "IDAT", "IEND"]);
}

#[test]
fn a_list_says_what_is_stripped_or_what_is_kept() {
    let png = with_chunks(
        &png_with_profile(&varied(3, 2, 3, false), &profile(b"RGB ")),
        &[
            chunk(b"gAMA", &45455u32.to_be_bytes()),
            chunk(b"eXIf", &exif(1)),
            chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0<x/>"),
            chunk(b"tEXt", b"Comment\0a note"),
            chunk(b"tEXt", b"Raw profile type exif\0\nexif\n 4\n00000000\n"),
            chunk(b"tEXt", b"Raw profile type iptc\0\niptc\n 4\n00000000\n"),
        ],
    );
    let photo = decode(&png).unwrap();
    let written = |strip: Strip| {
        let file = photo.encode(OutputFormat::Png, &EncodeOptions { strip, ..Default::default() }).unwrap();
        let name = |(kind, data): &([u8; 4], Vec<u8>)| match kind {
            b"tEXt" | b"iTXt" => String::from_utf8_lossy(data.split(|byte| *byte == 0).next().unwrap()).into_owned(),
            _ => String::from_utf8_lossy(kind).into_owned(),
        };
        let names: Vec<String> = chunks(&file).iter().map(name).filter(|name| !name.starts_with('I')).collect();
        names.join(" ")
    };
    let (raw_exif, raw_iptc) = ("Raw profile type exif", "Raw profile type iptc");
    let strip = |names: &str| names.parse::<Strip>().unwrap();
    let everything = format!("iCCP eXIf gAMA Comment {raw_exif} {raw_iptc} XML:com.adobe.xmp");
    assert_eq!(written(strip("none")), everything);
    assert_eq!(written(strip("exif")), format!("iCCP gAMA Comment {raw_iptc} XML:com.adobe.xmp"));
    assert_eq!(written(strip("xmp,iptc")), format!("iCCP eXIf gAMA Comment {raw_exif}"));
    assert_eq!(written(strip("text")), "iCCP eXIf gAMA XML:com.adobe.xmp");
    assert_eq!(written(strip("icc, text")), "eXIf XML:com.adobe.xmp");
    // A raw profile may hold a position.
    assert_eq!(written(strip("gps")), "iCCP eXIf gAMA Comment XML:com.adobe.xmp");
    assert_eq!(written(strip("all")), "iCCP gAMA");
    assert_eq!(written(Strip::all_but("exif").unwrap()), "iCCP eXIf gAMA");
    assert_eq!(written(Strip::all_but("text, xmp").unwrap()), "iCCP gAMA Comment XML:com.adobe.xmp");

    assert_eq!(
        "x".parse::<Strip>().unwrap_err().to_string(),
        "strip is x, expected none, all, or some of exif, gps, icc, iptc, text, xmp, separated by commas"
    );
}

#[test]
fn colour_chunks_and_text_of_a_png_are_kept_and_provenance_is_added() {
    let png = with_chunks(
        &encode(&varied(3, 2, 3, false), OutputFormat::Png),
        &[
            chunk(b"gAMA", &45455u32.to_be_bytes()),
            chunk(b"tEXt", b"Software\0camera 1.0"),
            chunk(b"tEXt", b"Author\0somebody"),
        ],
    );
    let photo = decode(&png).unwrap();
    let options = EncodeOptions { software: Some("tweedie 0.1.0".into()), ..Default::default() };
    let kept = chunks(&photo.encode(OutputFormat::Png, &options).unwrap());
    assert!(kept.contains(&(*b"gAMA", 45455u32.to_be_bytes().to_vec())));
    assert!(kept.contains(&(*b"tEXt", b"Author\0somebody".to_vec())));
    let software: Vec<_> = kept.iter().filter(|(_, data)| data.starts_with(b"Software")).collect();
    assert_eq!(software, [&(*b"iTXt", b"Software\0\0\0\0\0tweedie 0.1.0".to_vec())]);
}

/// Fault 28.
#[test]
fn content_credentials_are_dropped_with_a_warning() {
    let photo = varied(8, 8, 3, false);
    let warning = "C2PA content credentials are dropped: the signature would not be valid any more";
    let png = with_chunks(&encode(&photo, OutputFormat::Png), &[chunk(b"caBX", b"jumbc2pa")]);
    let jpeg = with_segment(&encode(&photo, OutputFormat::Jpeg), 0xeb, b"JP\0\x01\0\0\0\x01\0\0\0\x20jumbc2pa");
    for file in [png, jpeg] {
        let read = decode(&file).unwrap();
        assert_eq!(read.warnings(), [warning]);
        assert!(!encode(&read, OutputFormat::Png).windows(4).any(|window| window == b"c2pa"));
    }
    assert!(decode(&encode(&photo, OutputFormat::Png)).unwrap().warnings().is_empty());
}

#[test]
fn a_frame_header_of_a_jpeg_without_an_end_is_no_photo() {
    assert!(refusal(&[0xff, 0xd8, 0xff, 0xd9]).contains("truncated"));
}
