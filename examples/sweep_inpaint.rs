//! Compares settings of inpainting on photos whose missing pixels are known: the table of `docs/inpainting.md`.
//!
//! `cargo run --release --example sweep_inpaint -- FOLDER SIDE SAMPLES 'SAMPLER; TILE; SETTINGS' …`
//!
//! FOLDER holds `NAME.png` and `NAME.KIND.mask.png` (white = missing) for three photos and three kinds; a central crop of
//! SIDE pixels is taken, its masked pixels are painted grey and then filled. SETTINGS are TOML entries separated by
//! semicolons. A line per setting: PSNR of the first sample and of the mean of all, both over the whole crop and averaged
//! over the nine cases, the seconds of sampling, the setting, and the nine cases.

use std::error::Error;
use std::path::Path;
use tweedie::image::{DecodeOptions, Mask, MaskOptions, MaskSource, Photo, Region};
use tweedie::models::{Model, ModelOptions};
use tweedie::{RestoreOptions, inpaint};

const PHOTOS: [&str; 3] = ["astronaut", "chelsea", "rocket"];
const KINDS: [&str; 3] = ["text", "scratch", "random70"];

/// A crop of a photo, and what is missing there.
struct Case {
    truth: Photo,
    damaged: Photo,
    mask: Mask,
}

fn case(folder: &Path, name: &str, kind: &str, side: usize) -> Result<Case, Box<dyn Error>> {
    let photo = Photo::open(&folder.join(format!("{name}.png")), &DecodeOptions::default())?;
    let source = MaskSource::File(folder.join(format!("{name}.{kind}.mask.png")));
    let mask = Mask::open(&source, &photo, &MaskOptions::default())?;
    let (left, top) = ((photo.width() - side) / 2, (photo.height() - side) / 2);
    let mask = mask.crop(Region { x: left, y: top, width: side, height: side });
    let (mut truth, mut damaged) = (Vec::new(), Vec::new());
    for (y, x, channel) in (0..side * side * 3).map(|i| (i / 3 / side, i / 3 % side, i % 3)) {
        let value = photo.sample(left + x, top + y, channel) as u8;
        truth.push(value);
        damaged.push(if mask.is_set(x, y) { 128 } else { value });
    }
    let photo = |samples| Photo::from_u8(side, side, 3, samples);
    Ok(Case { truth: photo(truth)?, damaged: photo(damaged)?, mask })
}

/// Peak signal-to-noise ratio of two 8-bit photos, in dB.
fn psnr(a: &Photo, b: &Photo) -> f64 {
    let (a, b) = (a.samples_u8().unwrap_or_default(), b.samples_u8().unwrap_or_default());
    let square: f64 = a.iter().zip(b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum();
    10.0 * (255.0_f64.powi(2) * a.len() as f64 / square).log10()
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, side, samples, settings @ ..] = arguments.as_slice() else {
        return Err("expected FOLDER SIDE SAMPLES and settings".into());
    };
    let (folder, side, samples) = (Path::new(folder), side.parse()?, samples.parse()?);
    let model = Model::embedded(&ModelOptions::default())?;
    for setting in settings {
        let mut fields = setting.splitn(3, ';').map(str::trim);
        let sampler = fields.next().ok_or("expected a sampler")?;
        let tile = fields.next().ok_or("expected a window")?.parse()?;
        let table = toml::from_str(&fields.next().unwrap_or_default().replace(';', "\n"))?;
        let options = RestoreOptions {
            model: Some(&model),
            samples,
            sampler: sampler.into(),
            settings: table,
            tile: Some(tile),
            ..RestoreOptions::default()
        };
        let (mut single, mut mean, mut seconds, mut cases) = (0.0, 0.0, 0.0, String::new());
        for (name, kind) in PHOTOS.iter().flat_map(|name| KINDS.map(|kind| (name, kind))) {
            let case = case(folder, name, kind, side)?;
            let result = inpaint(&case.damaged, &case.mask, &options)?;
            let errors = (psnr(result.sample(0), &case.truth), psnr(&result.mean()?, &case.truth));
            single += errors.0 / 9.0;
            mean += errors.1 / 9.0;
            seconds += result.seconds;
            cases += &format!(" {:.2}/{:.2}", errors.0, errors.1);
        }
        println!("{single:7.3} {mean:7.3} {seconds:6.1} s | {setting} |{cases}");
    }
    Ok(())
}
