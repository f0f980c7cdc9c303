//! What the program makes of image files: the samples as bytes, beside what it says of them.
//!
//! `samples FOLDER FILE…` writes `FOLDER/<name>.raw`, the interleaved samples of every file (16-bit ones little-endian), and
//! the same photo again in every format that holds it, `FOLDER/<name>.<extension>`. One line of JSON per file on stdout; a
//! refusal is a line, too.

use std::fs;
use std::path::Path;

use serde_json::json;
use tweedie::image::{DecodeOptions, EncodeOptions, OutputFormat, Photo};

const FORMATS: [&str; 7] = ["png", "tiff", "webp", "qoi", "bmp", "ppm", "jpg"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let folder = arguments.next().ok_or("usage: samples FOLDER FILE...")?;
    let folder = Path::new(&folder);
    for file in arguments {
        let file = Path::new(&file);
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let photo = match Photo::open(file, &DecodeOptions::default()) {
            Ok(photo) => photo,
            Err(error) => {
                println!("{}", json!({ "file": name, "error": error.to_string() }));
                continue;
            }
        };
        let raw = match (photo.samples_u8(), photo.samples_u16()) {
            (Some(samples), _) => samples.to_vec(),
            (_, Some(samples)) => samples.iter().flat_map(|sample| sample.to_le_bytes()).collect(),
            _ => unreachable!("a photo has 8 or 16 bits"),
        };
        fs::write(folder.join(format!("{name}.raw")), raw)?;
        let mut written = Vec::new();
        for extension in FORMATS {
            let format: OutputFormat = extension.parse()?;
            let options = EncodeOptions::default();
            if photo.check_encode(format, &options).is_ok() {
                fs::write(folder.join(format!("{name}.{extension}")), photo.encode(format, &options)?)?;
                written.push(extension);
            }
        }
        println!(
            "{}",
            json!({
                "file": name, "format": photo.format().name(), "width": photo.width(), "height": photo.height(),
                "channels": photo.channels(), "max": photo.max_value(), "warnings": photo.warnings(),
                "icc": photo.icc_profile().map(<[u8]>::len), "exif": photo.exif().map(<[u8]>::len),
                "xmp": photo.xmp().map(<[u8]>::len), "written": written,
            })
        );
    }
    Ok(())
}
