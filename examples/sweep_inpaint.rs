//! Sweeps settings of inpainting over photos and masks: prints PSNR of a single sample and of the mean.
//!
//! `sweep FOLDER CROP SAMPLES SETTINGS…`, where a setting is `name;toml;toml` with newlines written as `;`.
use std::path::Path;
use std::time::Instant;
use tweedie::image::*;
use tweedie::models::Model;
use tweedie::*;

fn psnr(a: &Photo, b: &Photo, mask: Option<&Mask>) -> f64 {
    let (mut sum, mut n) = (0.0, 0.0);
    for y in 0..a.height() {
        for x in 0..a.width() {
            if mask.is_some_and(|m| !m.is_set(x, y)) {
                continue;
            }
            for c in 0..3 {
                let d = f64::from(a.sample(x, y, c)) - f64::from(b.sample(x, y, c));
                sum += d * d;
                n += 1.0;
            }
        }
    }
    10.0 * (255.0_f64.powi(2) / (sum / n)).log10()
}
fn crop(p: &Photo, r: Region) -> Photo {
    let mut v = Vec::new();
    for y in 0..r.height {
        for x in 0..r.width {
            for c in 0..3 {
                v.push(p.sample(r.x + x, r.y + y, c) as u8);
            }
        }
    }
    Photo::from_u8(r.width, r.height, 3, v).unwrap()
}
fn main() {
    let args: Vec<String> = std::env::args().collect();
    let (folder, size, samples) =
        (Path::new(&args[1]), args[2].parse::<usize>().unwrap(), args[3].parse::<usize>().unwrap());
    let kinds: Vec<String> = args[4].split(',').map(String::from).collect();
    let model = Model::embedded(&candle_core::Device::Cpu).unwrap();
    for setting in &args[5..] {
        let mut parts = setting.splitn(3, ';');
        let (sampler, tile, text) =
            (parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap_or("").replace(';', "\n"));
        let mut t = tile.split('/');
        let tile: usize = t.next().unwrap().parse().unwrap();
        let context: Option<usize> = t.next().map(|c| c.parse().unwrap());
        let (mut all1, mut all8, mut count) = (0.0, 0.0, 0.0);
        let mut line = String::new();
        let start = Instant::now();
        for name in ["astronaut", "chelsea", "rocket"] {
            for kind in &kinds {
                let photo = Photo::open(&folder.join(format!("{name}.png")), &DecodeOptions::default()).unwrap();
                let mask = Mask::open(
                    &MaskSource::File(folder.join(format!("{name}.{kind}.mask.png"))),
                    &photo,
                    &MaskOptions::default(),
                )
                .unwrap();
                let r = if size == 0 {
                    Region { x: 0, y: 0, width: photo.width(), height: photo.height() }
                } else {
                    Region { x: (photo.width() - size) / 2, y: (photo.height() - size) / 2, width: size, height: size }
                };
                let (truth, mask) = (crop(&photo, r), mask.crop(r));
                let options = InpaintOptions {
                    model: Some(&model),
                    samples,
                    sampler: sampler.into(),
                    settings: toml::from_str(&text).unwrap(),
                    tile: Some(tile),
                    context,
                    ..Default::default()
                };
                // The hidden pixels are really hidden.
                let mut hidden = truth.clone();
                let grey = candle_core::Tensor::zeros(
                    (1, 3, r.height, r.width),
                    candle_core::DType::F32,
                    &candle_core::Device::Cpu,
                )
                .unwrap();
                hidden.paint(Region { x: 0, y: 0, ..r }, &mask, &grey).unwrap();
                let out = inpaint(&hidden, &mask, &options).unwrap();
                let (a, b) = (psnr(out.sample(0), &truth, None), psnr(&out.mean().unwrap(), &truth, None));
                all1 += a;
                all8 += b;
                count += 1.0;
                line += &format!(" {a:.2}/{b:.2}");
            }
        }
        println!(
            "{:7.3} {:7.3} {:6.1}s | {setting} |{line}",
            all1 / count,
            all8 / count,
            start.elapsed().as_secs_f64()
        );
    }
}
