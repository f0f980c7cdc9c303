//! PSNR and seconds of settings: `sweep_restore PHOTO OPERATOR.toml SAMPLER 'SETTINGS' …` damages the photo, restores it once
//! with each line of settings (TOML, `;` for a new line), and prints a line each. How the ridge in `configs/auto.toml` was chosen.

use std::path::Path;
use tweedie::image::{DecodeOptions, Photo, Region};
use tweedie::models::{Model, ModelOptions};
use tweedie::{Case, Catalog, RestoreOptions, degrade, restore};
use tweedie_operators::{Description, Site};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [photo, operator, sampler, settings @ ..] = &arguments[..] else {
        return Err("usage: sweep_restore PHOTO OPERATOR.toml SAMPLER 'SETTINGS' …".into());
    };
    let photo = Photo::open(Path::new(photo), &DecodeOptions::default())?;
    let description = Description::open(operator)?;
    let model = Model::embedded(&ModelOptions::default())?;
    let device = candle_core::Device::Cpu;
    let size = (3, photo.height(), photo.width());
    let (operator, noise) =
        description.build(Site::new(size, &device, candle_core::DType::F32), &Catalog::default().noises)?;
    let damaged = degrade(&photo, &*operator, &*noise, 0)?.picture.ok_or("the measurement is no picture")?;
    let case = Case::described(&damaged, &description, Some((size.1, size.2)), &Catalog::default())?;
    let whole = Region { x: 0, y: 0, width: size.2, height: size.1 };
    let truth = photo.tensor(whole, &device)?;
    for settings in settings {
        let options = RestoreOptions {
            model: Some(&model),
            sampler: sampler.clone(),
            settings: toml::from_str(&settings.replace(';', "\n"))?,
            ..RestoreOptions::default()
        };
        let restored = restore(&case, &options)?;
        let error = (restored.sample(0).tensor(whole, &device)? - &truth)?.sqr()?.mean_all()?.to_scalar::<f32>()?;
        let psnr = 10.0 * (4.0 / f64::from(error)).log10();
        println!("{psnr:6.2} dB {:6.1} s  {settings}", restored.seconds);
    }
    Ok(())
}
