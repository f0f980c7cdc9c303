//! Networks of a size or of channels of their own, on photos of any.

use crate::harness::{Folder, Kind, mask, photo};
use crate::models::{data, tiny_config, tiny_weights};
use candle_core::{Device, Tensor};
use safetensors::tensor::{Dtype, TensorView};
use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use tweedie::models::unet2d::UNet2dConfig;
use tweedie::priors::{Denoiser, Gaussian, Grey};

// For grey `g ~ N(m, τ²)` and three channels `g + σ n`: `E[g | x] = m + 3 τ² (x̄ − m) / (3 τ² + σ²)`.
#[test]
fn a_prior_of_grey_images_is_the_exact_prior_of_three_equal_channels() {
    let (mean, std, sigma) = (0.2, 0.5, 0.7);
    let grey = Grey::new(Arc::new(Gaussian::new(mean, std).unwrap()));
    let x = Tensor::from_vec(vec![0.9_f32, -0.3, 0.1, 0.4, 0.5, -1.2], (1, 3, 1, 2), &Device::Cpu).unwrap();
    let gain = 3.0 * std * std / (3.0 * std * std + sigma * sigma);
    let average = |a: f64, b: f64, c: f64| mean + gain * ((a + b + c) / 3.0 - mean);
    let expected = [average(0.9, 0.1, 0.5), average(-0.3, 0.4, -1.2)];
    let (denoised, pullback) = grey.denoise_with_pullback(&x, sigma).unwrap();
    for denoised in [denoised, grey.denoise(&x, sigma).unwrap()] {
        let values = denoised.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        for (index, value) in values.iter().enumerate() {
            assert!((f64::from(*value) - expected[index % 2]).abs() < 1e-6, "{values:?}, expected {expected:?}");
        }
    }
    let v = Tensor::from_vec(vec![1.0_f32, 0.0, 2.0, 0.0, -0.5, 3.0], (1, 3, 1, 2), &Device::Cpu).unwrap();
    let gradient = pullback.apply(&v).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    for (index, value) in gradient.iter().enumerate() {
        let expected = gain / 3.0 * [2.5, 3.0][index % 2];
        assert!((f64::from(*value) - expected).abs() < 1e-6, "{gradient:?}");
    }
    assert_eq!(grey.channels(), Some(3));
    let (one, three) = (Gaussian::new(mean, std).unwrap().sigma_range(), grey.sigma_range());
    assert!((three.end() / one.end() - 3.0_f64.sqrt()).abs() < 1e-12 || one.end().is_infinite());
}

#[test]
fn a_network_with_attention_restores_photos_of_any_size_in_windows_of_its_own() {
    let folder = Folder::with_photo(300, 200);
    fs::create_dir(folder.path("model")).unwrap();
    for file in ["config.json", "diffusion_pytorch_model.safetensors", "scheduler_config.json"] {
        fs::copy(data("diffusers/ddpm-google").join(file), folder.path("model").join(file)).unwrap();
    }
    let ran = folder.succeed("inpaint photo.png -m mask.png --model model --sampler ddnm --steps 2 --json");
    let start = ran.event("start");
    assert_eq!(start["tile"], 16);
    let windows = start["windows"].as_u64().unwrap();
    assert!(windows > 20, "{windows}");
    let note = format!(
        "the model was trained on 16x16 pixels and works in {windows} overlapping windows of 16: it sees no scene larger \
         than one of them"
    );
    assert!(start["warnings"].as_array().unwrap().iter().any(|warning| *warning == note), "{}", start["warnings"]);
    assert_eq!(folder.open("photo.inpaint.png").width(), 300);
    // A photo that is smaller than what the model knows is said to be.
    photo(300, 12, Kind::Rgb8).save(folder.path("low.png")).unwrap();
    mask(300, 12).save(folder.path("low-mask.png")).unwrap();
    let ran = folder.succeed("inpaint low.png -m low-mask.png --model model --sampler ddnm --steps 2");
    assert!(ran.stderr.contains("the photo has 300x12 pixels, the model was trained on 16x16: "), "{}", ran.stderr);
    // The prior inside the program has no attention, and windows as before.
    let ran = folder.succeed("inpaint photo.png -m mask.png --sampler ddnm --steps 2 --json --dry-run -o o.png");
    assert!(ran.event("start")["tile"].as_u64().unwrap() >= 384);
}

#[test]
fn a_network_of_grey_images_restores_grey_photos_and_no_others() {
    let folder = Folder::new();
    let config = UNet2dConfig { in_channels: 1, out_channels: 1, ..tiny_config() };
    let network = config.network().unwrap();
    let weights: BTreeMap<String, (Vec<usize>, Vec<u8>)> = {
        let values = tiny_weights(&network);
        let tensor = |p: &&tweedie_kernels::network::Parameter| {
            let bytes = values[&p.name].iter().flat_map(|value| value.to_le_bytes()).collect();
            (p.name.clone(), (p.shape.clone(), bytes))
        };
        network.parameters().iter().map(tensor).collect()
    };
    let config = serde_json::json!({
        "in_channels": 1, "out_channels": 1, "block_out_channels": [8, 12, 20], "layers_per_block": 1,
        "norm_num_groups": 4, "add_attention": false, "down_block_types": ["DownBlock2D", "DownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "UpBlock2D", "UpBlock2D"],
    });
    let metadata = [
        ("format", "tweedie"),
        ("version", "1"),
        ("name", "grey"),
        ("architecture", "UNet2DModel"),
        ("config", &config.to_string()),
        ("parameterization", r#"{"edm":{"sigma_data":0.5}}"#),
        ("sigma_min", "0.002"),
        ("sigma_max", "80"),
    ];
    let metadata = metadata.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    let views =
        weights.iter().map(|(name, (shape, bytes))| (name, TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap()));
    folder.write("grey.safetensors", safetensors::serialize(views, Some(metadata)).unwrap());
    photo(60, 40, Kind::Grey8).save(folder.path("photo.png")).unwrap();
    mask(60, 40).save(folder.path("mask.png")).unwrap();
    folder.succeed("inpaint photo.png -m mask.png --model grey.safetensors --sampler ddnm --steps 2");
    let (before, after) = (folder.open("photo.png"), folder.open("photo.inpaint.png"));
    assert_eq!(after.color(), before.color());
    assert_ne!(after.as_bytes(), before.as_bytes());
    folder.succeed("denoise photo.png --noise 20 --model grey.safetensors");
    photo(60, 40, Kind::Rgb8).save(folder.path("photo.png")).unwrap();
    let ran = folder.tweedie("inpaint photo.png -m mask.png --model grey.safetensors --sampler ddnm --steps 2 -f");
    assert_eq!(ran.code, 2, "{}", ran.stderr);
    assert!(
        ran.stderr.contains("photo is a picture in colour, expected a grey one, since the model knows no others"),
        "{}",
        ran.stderr
    );
}
