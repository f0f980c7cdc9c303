//! Networks of score_sde, EDM, NCSN, NCSNv2, DRUNet and diffusers' NCSN++ against the programs of their authors.
//!
//! `data/goldens`: small networks with random weights that the reference programs (score_sde_pytorch cb1f359, edm 008a4e5,
//! ncsn 7f27f4a, ncsnv2 1bcea03, diffusers 0.42.1, deepinv 0.5.0) made and ran with PyTorch 2.15 in single precision. The
//! entries of a batch have noise levels of their own and are evaluated one by one.

use crate::goldens::Golden;
use crate::models::{data, relative_error};
use candle_core::{DType, Device, Tensor};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::f64::consts::SQRT_2;
use tweedie::models::{Architecture, Checkpoint, Family, NATIVE_VERSION, Recipe, TensorIndex};
use tweedie::priors::{Denoiser, Parameterization, Preconditioned};

impl Golden {
    fn read(family: &str, variant: &str) -> Self {
        let folder = data("goldens").join(variant);
        let load = |name: &str| candle_core::safetensors::load(folder.join(name), &Device::Cpu).unwrap();
        let text = |name: &str| serde_json::from_str(&std::fs::read_to_string(folder.join(name)).unwrap()).unwrap();
        let mut config: Value = text("config.json");
        let diffusers = family == "UNet2DModel";
        if diffusers {
            config["scheduler"] = text("scheduler_config.json");
        }
        let weights = load(if diffusers { "diffusion_pytorch_model.safetensors" } else { "weights.safetensors" });
        Self::new(family, &config, &weights, load("io.safetensors"))
    }

    /// Entry `b` of a stored batch.
    fn entry(&self, name: &str, b: usize) -> Tensor {
        self.stored[name].narrow(0, b, 1).unwrap()
    }

    /// Entry `b` of stored numbers.
    fn number(&self, name: &str, b: usize) -> f64 {
        self.entry(name, b).to_dtype(DType::F64).unwrap().to_vec1::<f64>().unwrap()[0]
    }

    fn sigmas(&self) -> Vec<f64> {
        self.stored["sigmas"].to_dtype(DType::F64).unwrap().to_vec1().unwrap()
    }

    /// `F` of every runner is what the reference's output is made of: `out = factor · F(slope · x + shift, noise)`, and its
    /// pullback what the gradient of `Σ out · v` is.
    fn agrees(&self, b: usize, names: [&str; 3], map: Map, noise: f64, limits: Limits) {
        let [input, output, gradient] = names;
        let Map { slope, shift, factor } = map;
        let x = self.entry(input, b).affine(slope, shift).unwrap();
        for (runner, model) in self.models() {
            let at = format!("{runner}, entry {b}");
            let out = (model.forward(&x, noise).unwrap() * factor).unwrap();
            let error = relative_error(&out, &self.entry(output, b));
            assert!(error <= limits.value, "{at}: {output} differs by {error:e}");
            let (out, pullback) = model.forward_with_pullback(&x, noise).unwrap();
            let error = relative_error(&(out * factor).unwrap(), &self.entry(output, b));
            assert!(error <= limits.value, "{at}: {output} with a tape differs by {error:e}");
            let expected = self.entry(gradient, b);
            let through = pullback.apply(&self.entry("v", b)).unwrap();
            let error = relative_error(&(through * (factor * slope)).unwrap(), &expected);
            assert!(error <= limits.gradient, "{at}: {gradient} differs by {error:e}");
        }
    }

    /// The denoiser of every runner makes `denoised` of `x`, and its pullback `gradient` of `v`.
    fn denoises(&self, sigma: f64, x: &Tensor, denoised: &Tensor, pulled: Option<(&Tensor, &Tensor)>, limits: Limits) {
        let (low, high) = self.recipe.sigma_range;
        for (runner, model) in self.models() {
            let prior = Preconditioned::new(model, self.recipe.parameterization.clone(), low..=high);
            let error = relative_error(&prior.denoise(x, sigma).unwrap(), denoised);
            assert!(error <= limits.value, "{runner}: denoised at {sigma} differs by {error:e}");
            let Some((v, expected)) = pulled else { continue };
            let (_, pullback) = prior.denoise_with_pullback(x, sigma).unwrap();
            let error = relative_error(&pullback.apply(v).unwrap(), expected);
            assert!(error <= limits.gradient, "{runner}: the denoiser's pullback at {sigma} differs by {error:e}");
        }
    }
}

/// From the reference's image to the network's, and from the network's output to the reference's.
#[derive(Clone, Copy)]
struct Map {
    slope: f64,
    shift: f64,
    factor: f64,
}

/// Pixels in [0, 1] that the reference maps to [-1, 1].
fn centring(factor: f64) -> Map {
    Map { slope: 2.0, shift: -1.0, factor }
}

fn as_it_is(factor: f64) -> Map {
    Map { slope: 1.0, shift: 0.0, factor }
}

/// Relative errors that count as the same result.
#[derive(Clone, Copy)]
struct Limits {
    value: f64,
    gradient: f64,
}

const POSITIONAL: Limits = Limits { value: 1e-5, gradient: 5e-5 };
/// Sines and cosines of arguments up to some thousands, whose rounding the reference shares up to 1.7e-5.
const FOURIER: Limits = Limits { value: 1e-4, gradient: 5e-4 };

/// `2 (x' + σ'² score) − 1` for images in [0, 1].
fn denoised_of(x: &Tensor, score: &Tensor, sigma: f64) -> Tensor {
    let denoised = (x + (score * (sigma * sigma)).unwrap()).unwrap();
    denoised.affine(2.0, -1.0).unwrap()
}

const RAW: [&str; 3] = ["x", "out", "grad_x"];

/// A network that scores images in [0, 1], at noise level `sigma` in their unit.
fn scores(golden: &Golden, b: usize, sigma: f64, limits: Limits) {
    let (x, score) = (golden.entry("x", b), golden.entry("score", b));
    let centred = x.affine(2.0, -1.0).unwrap();
    // `D' = x' + σ'² score`, so its gradient is `v + σ'²` times the score's.
    let pulled = (golden.entry("v", b) + (golden.entry("grad_x", b) * (sigma * sigma)).unwrap()).unwrap();
    let denoised = denoised_of(&x, &score, sigma);
    golden.denoises(2.0 * sigma, &centred, &denoised, Some((&golden.entry("v", b), &pulled)), limits);
}

#[test]
fn variance_exploding_networks_of_score_sde_agree_with_it() {
    for variant in ["ve-ncsnpp-residual", "ve-ncsnpp-skip"] {
        let golden = Golden::read("score_sde", &format!("score-sde-tiny/{variant}"));
        for b in 0..2 {
            let sigma = golden.number("labels", b);
            let scalings = golden.recipe.parameterization.scalings(2.0 * sigma);
            assert!((scalings.noise - sigma.ln()).abs() < 1e-12);
            golden.agrees(b, RAW, centring(1.0 / sigma), scalings.noise, FOURIER);
            scores(&golden, b, sigma, FOURIER);
        }
    }
}

#[test]
fn discrete_variance_exploding_networks_of_score_sde_agree_with_it() {
    let golden = Golden::read("score_sde", "score-sde-tiny/ve-ncsnpp-discrete");
    let sigmas = &golden.weights["sigmas"];
    for b in 0..2 {
        let label = golden.number("labels", b);
        let sigma = f64::from(sigmas[label as usize]);
        let scalings = golden.recipe.parameterization.scalings(2.0 * sigma);
        assert!((scalings.noise - label).abs() < 1e-9, "{} is not {label}", scalings.noise);
        golden.agrees(b, RAW, centring(1.0 / sigma), label, POSITIONAL);
        scores(&golden, b, sigma, POSITIONAL);
    }
}

#[test]
fn variance_preserving_networks_of_score_sde_agree_with_it() {
    let golden = Golden::read("score_sde", "score-sde-tiny/vp-ddpmpp");
    for b in 0..2 {
        let (t, label) = (golden.number("t", b), golden.number("labels", b));
        // `beta_min` 0.1, `beta_max` 20.
        let alpha = (-0.25 * t * t * 19.9 - 0.5 * t * 0.1).exp();
        let (std, sigma) = ((1.0 - alpha * alpha).sqrt(), (alpha.powi(-2) - 1.0).sqrt());
        assert!((std - golden.number("std", b)).abs() < 1e-6);
        let scalings = golden.recipe.parameterization.scalings(sigma);
        assert!((scalings.noise - label).abs() < 1e-4, "{} is not {label}", scalings.noise);
        golden.agrees(b, RAW, as_it_is(1.0), label, POSITIONAL);
        let (x, score) = (golden.entry("x", b), golden.entry("score", b));
        let denoised = (((&x + (score * (std * std)).unwrap()).unwrap()) / alpha).unwrap();
        // `D(x) = x − σ F(α x)`
        let v = golden.entry("v", b);
        let pulled = (&v - (golden.entry("grad_x", b) * (sigma * alpha)).unwrap()).unwrap();
        golden.denoises(sigma, &(x / alpha).unwrap(), &denoised, Some((&v, &pulled)), POSITIONAL);
    }
}

// The weights of score_sde's own network rounded to halves, run by diffusers 0.42.1: its `UNet2DModel` with these weights
// under its names, and nothing in the attention between the last two blocks of a level, gives score_sde's output to 1e-6.
// `std` is what score_sde divides by.
#[test]
fn networks_of_the_class_ddpm_agree_with_diffusers() {
    let golden = Golden::read("score_sde", "score-sde-ddpm-tiny/vp-ddpm-discrete");
    for b in 0..2 {
        let (label, std) = (golden.number("labels", b), golden.number("std", b));
        golden.agrees(b, RAW, as_it_is(1.0), label, POSITIONAL);
        // The reference looks the deviation of a time between two levels up at the lower one.
        let Parameterization::VariancePreserving(process) = &golden.recipe.parameterization else {
            panic!("{:?}", golden.recipe.parameterization)
        };
        let sigma = process.levels.sigma(label.floor());
        assert_close(sigma / (1.0 + sigma * sigma).sqrt(), std, 1e-6, "the deviation");
        let scalings = process.scalings(sigma);
        assert!((scalings.noise - label.floor()).abs() < 1e-6 && (scalings.out + sigma).abs() < 1e-12);
    }
}

#[test]
fn edm_networks_agree_with_edm_in_every_preconditioning() {
    for (variant, limits) in [
        ("edm-tiny/edm-ddpmpp", POSITIONAL),
        ("edm-tiny/edm-ncsnpp", FOURIER),
        ("edm-tiny/vp-ddpmpp", POSITIONAL),
        ("edm-tiny/ve-ncsnpp", FOURIER),
        ("edm-adm-tiny/edm-adm", POSITIONAL),
    ] {
        let golden = Golden::read("edm", variant);
        for b in 0..2 {
            let (sigma, noise) = (golden.number("sigma", b), golden.number("c_noise", b));
            let scalings = golden.recipe.parameterization.scalings(sigma);
            // EDM finds the time of a variance preserving process in single precision, with a difference of large numbers.
            let rounding = if variant.contains("vp-") { 2e-4 } else { 1e-6 };
            assert!((scalings.noise - noise).abs() <= rounding * noise.abs(), "{} is not {noise}", scalings.noise);
            golden.agrees(b, ["net_in", "out", "grad_net_in"], as_it_is(1.0), noise, limits);
            let pulled = (&golden.entry("v", b), &golden.entry("grad_x", b));
            golden.denoises(sigma, &golden.entry("x", b), &golden.entry("denoised", b), Some(pulled), limits);
            let (x, (low, high)) = (golden.entry("x", b), golden.recipe.sigma_range);
            let size = |image: &Tensor| image.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap().sqrt();
            let (denoised, score) = (golden.entry("denoised", b), golden.entry("score", b));
            // What `D` may be wrong by, as a part of the difference to `x` that the score is.
            let part = f64::from(size(&denoised)) / (f64::from(size(&score)) * sigma * sigma);
            let limit = limits.value * part.max(1.0);
            for (runner, model) in golden.models() {
                let prior = Preconditioned::new(model, golden.recipe.parameterization.clone(), low..=high);
                let error = relative_error(&prior.score(&x, sigma).unwrap(), &score);
                assert!(error <= limit, "{runner}: the score at {sigma} differs by {error:e}, not {limit:e}");
            }
        }
    }
}

/// Whether network and denoiser of the classes 0, 3, 4 and none, or as they are stored, are those of the reference.
fn classes_agree(mut golden: Golden, limits: Limits) {
    let classes = golden.stored["class"].to_vec1::<i64>().unwrap();
    for (b, class) in classes.into_iter().enumerate() {
        golden.class = usize::try_from(class).ok();
        golden.agrees(b, ["net_in", "out", "grad_net_in"], as_it_is(1.0), golden.number("c_noise", b), limits);
        let pulled = (&golden.entry("v", b), &golden.entry("grad_x", b));
        let (x, denoised) = (golden.entry("x", b), golden.entry("denoised", b));
        golden.denoises(golden.number("sigma", b), &x, &denoised, Some(pulled), limits);
    }
}

// `edm-tiny/edm-classes-*`: deepinv 0.5.0's copy of SongUNet with five classes and nine augmentations, its norms in groups of
// four channels as in EDM, random weights. Its embedding was compared with the formulas of Karras et al. (2022), appendix F, in
// double precision: 9e-8, with frequencies 2e-6.
#[test]
fn edm_networks_of_classes_agree_with_a_reference() {
    for (variant, limits) in [("edm-classes-ddpmpp", POSITIONAL), ("edm-classes-ncsnpp", FOURIER)] {
        let golden = Golden::read("edm", &format!("edm-tiny/{variant}"));
        let classes = golden.recipe.network.steps().unwrap().embedding.classes.as_ref().unwrap();
        assert_eq!((classes.weight.shape[0], classes.required), (5, false));
        classes_agree(golden, limits);
    }
}

// `edm-adm-tiny/edm-classes-adm`: a map of five classes beside the weights of `edm-adm`, evaluated by the formulas in PyTorch
// 2.15, which gave what EDM's own program did without classes to 1e-6.
#[test]
fn a_dhariwal_unet_of_classes_agrees_with_its_formulas() {
    let folder = data("goldens/edm-adm-tiny");
    let load = |name: &str| candle_core::safetensors::load(folder.join(name), &Device::Cpu).unwrap();
    let mut stored = load("edm-classes-adm/classes.safetensors");
    let mut weights = load("edm-adm/weights.safetensors");
    let (name, map) = stored.remove_entry("model.map_label.weight").unwrap();
    weights.insert(name, map);
    let mut config: Value =
        serde_json::from_str(&std::fs::read_to_string(folder.join("edm-adm/config.json")).unwrap()).unwrap();
    config["init_kwargs"]["label_dim"] = 5.into();
    config["init_kwargs"]["label_dropout"] = 0.1.into();
    let mut golden = Golden::new("edm", &config, &weights, stored);
    for (b, class) in golden.stored["class"].to_vec1::<i64>().unwrap().into_iter().enumerate() {
        golden.class = usize::try_from(class).ok();
        let (sigma, noise) = (golden.number("sigma", b), golden.number("c_noise", b));
        for (runner, model) in golden.models() {
            let out = model.forward(&golden.entry("net_in", b), noise).unwrap();
            let error = relative_error(&out, &golden.entry("out", b));
            assert!(error <= POSITIONAL.value, "{runner}, entry {b}: {error:e}");
        }
        let pulled = (&golden.entry("v", b), &golden.entry("grad_x", b));
        golden.denoises(sigma, &golden.entry("x", b), &golden.entry("denoised", b), Some(pulled), POSITIONAL);
    }
}

// `diffusers-tiny/skip-classes`: diffusers 0.42.1, parameters moved by 0.05 times standard normals.
#[test]
fn skip_blocks_with_classes_agree_with_diffusers() {
    let mut golden = Golden::read("UNet2DModel", "diffusers-tiny/skip-classes");
    for (b, class) in golden.stored["class"].to_vec1::<i64>().unwrap().into_iter().enumerate() {
        golden.class = Some(class as usize);
        let sigma = golden.number("t", b);
        golden.agrees(b, RAW, as_it_is(1.0 / sigma), sigma.ln(), FOURIER);
    }
}

// Hosted copies of the weights have neither the configuration nor `model.` in their keys.
#[test]
fn edm_weights_without_a_configuration_say_what_they_are() {
    for variant in ["edm-tiny/edm-ddpmpp", "edm-tiny/edm-ncsnpp", "edm-adm-tiny/edm-adm"] {
        let folder = data("goldens").join(variant);
        let load = |name: &str| candle_core::safetensors::load(folder.join(name), &Device::Cpu).unwrap();
        let inner = |(name, tensor): (String, Tensor)| (name.strip_prefix("model.").unwrap().to_owned(), tensor);
        let weights: HashMap<String, Tensor> = load("weights.safetensors").into_iter().map(inner).collect();
        let golden = Golden::new("edm", &json!({}), &weights, load("io.safetensors"));
        let limits = if variant.ends_with("ncsnpp") { FOURIER } else { POSITIONAL };
        for b in 0..2 {
            let pulled = (&golden.entry("v", b), &golden.entry("grad_x", b));
            let sigma = golden.number("sigma", b);
            golden.denoises(sigma, &golden.entry("x", b), &golden.entry("denoised", b), Some(pulled), limits);
        }
    }
}

// `t` is σ of images in [0, 1], which this configuration does not map to [-1, 1].
#[test]
fn variance_exploding_networks_of_diffusers_agree_with_it() {
    let golden = Golden::read("UNet2DModel", "diffusers-ncsnpp-tiny/ncsnpp-google");
    for b in 0..2 {
        let sigma = golden.number("t", b);
        golden.agrees(b, RAW, as_it_is(1.0 / sigma), sigma.ln(), FOURIER);
        scores(&golden, b, sigma, FOURIER);
    }
}

#[test]
fn frequencies_that_are_stored_twice_are_read_once() {
    let folder = data("goldens").join("diffusers-ncsnpp-tiny/ncsnpp-google");
    let load = |name: &str| candle_core::safetensors::load(folder.join(name), &Device::Cpu).unwrap();
    let text = |name: &str| serde_json::from_str(&std::fs::read_to_string(folder.join(name)).unwrap()).unwrap();
    let mut config: Value = text("config.json");
    config["scheduler"] = text("scheduler_config.json");
    let mut weights = load("diffusion_pytorch_model.safetensors");
    weights.insert("time_proj.W".into(), weights["time_proj.weight"].clone());
    let golden = Golden::new("UNet2DModel", &config, &weights, load("io.safetensors"));
    assert_eq!(golden.recipe.ignored, ["time_proj.W"]);
    scores(&golden, 0, golden.number("t", 0), FOURIER);
}

#[test]
fn ncsn_agrees_with_its_reference() {
    for variant in ["ncsn-cifar10", "ncsn-mnist"] {
        let golden = Golden::read("ncsn", &format!("ncsn-tiny/{variant}"));
        for b in 0..2 {
            let label = golden.number("labels", b);
            let sigma = golden.sigmas()[label as usize];
            let scalings = golden.recipe.parameterization.scalings(2.0 * sigma);
            assert!((scalings.noise - label).abs() < 1e-9, "{} is not {label}", scalings.noise);
            golden.agrees(b, RAW, centring(1.0), label, POSITIONAL);
            scores(&golden, b, sigma, POSITIONAL);
        }
    }
}

#[test]
fn ncsnv2_agrees_with_its_reference_at_every_depth() {
    for variant in ["ncsnv2-cifar10", "ncsnv2-deeper", "ncsnv2-deepest"] {
        let golden = Golden::read("ncsnv2", &format!("ncsnv2-tiny/{variant}"));
        for b in 0..2 {
            let sigma = golden.sigmas()[golden.number("labels", b) as usize];
            golden.agrees(b, RAW, centring(1.0 / sigma), 0.0, POSITIONAL);
            scores(&golden, b, sigma, POSITIONAL);
        }
    }
}

// The reference cuts an image of which both sides are 64 or more and one is no multiple of 8 into four overlapping pieces;
// here it stays whole, and the pieces are compared.
#[test]
fn drunet_agrees_with_deepinv() {
    for variant in ["color", "gray"] {
        let golden = Golden::read("drunet", &format!("drunet-tiny/{variant}"));
        for (size, batch) in [("32x32", 2), ("33x47", 1)] {
            let name = |what: &str| format!("{size}.{what}");
            for b in 0..batch {
                let sigma = golden.number(&name("sigma"), b);
                let entry = |what: &str| golden.entry(&name(what), b);
                let centred = |what: &str| entry(what).affine(2.0, -1.0).unwrap();
                let pulled = (&entry("v"), &entry("grad_x"));
                golden.denoises(2.0 * sigma, &centred("x"), &centred("denoised"), Some(pulled), POSITIONAL);
            }
        }
    }
    let golden = Golden::read("drunet", "drunet-tiny/color");
    let (_, model) = golden.models().remove(0);
    let (x, denoised) = (golden.entry("66x70.x", 0), golden.entry("66x70.denoised", 0));
    let sigma = golden.number("66x70.sigma", 0);
    for (top, left) in [(0, 0), (0, 6), (2, 0), (2, 6)] {
        let piece = x.narrow(2, top, 64).unwrap().narrow(3, left, 64).unwrap();
        let made = model.forward(&piece, sigma).unwrap();
        // The quarter that the reference keeps of this piece: rows from 33 and columns from 35 on belong to the last ones.
        let (row, column) = (if top > 0 { 33 } else { 0 }, if left > 0 { 35 } else { 0 });
        let made = made.narrow(2, row - top, 33).unwrap().narrow(3, column - left, 35).unwrap();
        let kept = denoised.narrow(2, row, 33).unwrap().narrow(3, column, 35).unwrap();
        let error = relative_error(&made, &kept);
        assert!(error <= 1e-5, "the piece from ({top}, {left}) differs by {error:e}");
    }
}

fn recipe(family: &str, config: &Value) -> Result<Recipe, String> {
    let recipe = (Family::named(family)?.recipe)(config, &TensorIndex::new())?;
    recipe.check()?;
    Ok(recipe)
}

/// Numbers in all tensors that a checkpoint has to have.
fn parameters(family: &str, config: &Value) -> usize {
    let expected = recipe(family, config).unwrap().expected().unwrap();
    expected.values().map(|shape| shape.iter().product::<usize>()).sum()
}

/// `ncsnpp`'s settings of the variance exploding process for images of 256 × 256 and more.
fn progressive(image_size: usize, nf: usize, ch_mult: &[usize], num_res_blocks: usize) -> Value {
    json!({
        "data": {"image_size": image_size, "num_channels": 3, "centered": false},
        "model": {"name": "ncsnpp", "nf": nf, "ch_mult": ch_mult, "num_res_blocks": num_res_blocks,
            "attn_resolutions": [16], "conditional": true, "fir": true, "fir_kernel": [1, 3, 3, 1], "skip_rescale": true,
            "resblock_type": "biggan", "progressive": "output_skip", "progressive_input": "input_skip",
            "progressive_combine": "sum", "embedding_type": "fourier", "scale_by_sigma": true, "sigma_min": 0.01,
            "sigma_max": 348, "num_scales": 2000},
        "training": {"sde": "vesde", "continuous": true}
    })
}

/// Settings of the networks for CIFAR-10.
fn cifar(variance_exploding: bool) -> Value {
    let mut config = progressive(32, 128, &[1, 2, 2, 2], 4);
    config["model"]["progressive"] = "none".into();
    config["model"]["progressive_input"] = if variance_exploding { "residual" } else { "none" }.into();
    if !variance_exploding {
        config["data"]["centered"] = true.into();
        config["training"]["sde"] = "vpsde".into();
        for (field, value) in [("embedding_type", json!("positional")), ("fir", json!(false))] {
            config["model"][field] = value;
        }
        config["model"]["scale_by_sigma"] = false.into();
    }
    config
}

fn edm(arguments: Value) -> Value {
    json!({"class_name": "training.networks.EDMPrecond", "init_kwargs": arguments})
}

fn song(resolution: usize, multipliers: &[usize], fourier: bool) -> Value {
    let mut arguments = json!({"img_resolution": resolution, "img_channels": 3, "model_type": "SongUNet",
        "model_channels": 128, "channel_mult": multipliers, "augment_dim": 9});
    if fourier {
        for (field, value) in [
            ("embedding_type", json!("fourier")),
            ("encoder_type", json!("residual")),
            ("channel_mult_noise", json!(2)),
            ("resample_filter", json!([1, 3, 3, 1])),
        ] {
            arguments[field] = value;
        }
    }
    edm(arguments)
}

/// `google/ncsnpp-*`.
fn google(channels: &[usize], layers: usize, attended: usize) -> Value {
    let kind = |level: usize, way: &str| {
        if level == attended { format!("AttnSkip{way}Block2D") } else { format!("Skip{way}Block2D") }
    };
    let down: Vec<String> = (0..channels.len()).map(|level| kind(level, "Down")).collect();
    let up: Vec<String> = (0..channels.len()).rev().map(|level| kind(level, "Up")).collect();
    json!({"in_channels": 3, "out_channels": 3, "block_out_channels": channels, "layers_per_block": layers,
        "down_block_types": down, "up_block_types": up, "time_embedding_type": "fourier", "norm_num_groups": null,
        "attention_head_dim": null, "norm_eps": 1e-6, "mid_block_scale_factor": SQRT_2,
        "scheduler": {"_class_name": "ScoreSdeVeScheduler"}})
}

// Counted with diffusers 0.42.1 (`UNet2DModel`, whose sizes of four bytes a number are those of the hosted files, 263 and
// 423 MB) and deepinv 0.5.0 (`NCSNpp`, `ADMUNet`, `DRUNet`), the map of augmentations left out and Fourier frequencies
// counted. The networks of score_sde are those of diffusers and EDM under other names.
#[test]
fn the_published_networks_have_as_many_parameters_as_other_programs_count() {
    let (wide, deep) = ([128, 128, 256, 256, 256, 256, 256], [16, 32, 64, 128, 256, 512, 512, 512]);
    assert_eq!(parameters("UNet2DModel", &google(&wide, 2, 4)), 65_574_549);
    assert_eq!(parameters("UNet2DModel", &google(&deep, 1, 6)), 105_785_896);
    assert_eq!(parameters("score_sde", &progressive(256, 128, &[1, 1, 2, 2, 2, 2, 2], 2)), 65_574_549);
    assert_eq!(parameters("score_sde", &progressive(1024, 16, &[1, 2, 4, 8, 16, 32, 32, 32], 1)), 105_785_896);
    assert_eq!(parameters("score_sde", &cifar(false)), 61_804_419);
    assert_eq!(parameters("score_sde", &cifar(true)), 62_758_787 + 128);
    assert_eq!(parameters("edm", &song(32, &[2, 2, 2], false)), 55_732_739);
    assert_eq!(parameters("edm", &song(32, &[2, 2, 2], true)), 56_395_523 + 128);
    assert_eq!(parameters("edm", &song(64, &[1, 2, 2, 2], false)), 61_804_419);
    assert_eq!(parameters("edm", &song(64, &[1, 2, 2, 2], true)), 62_758_787 + 128);
    let imagenet = |classes: usize| {
        edm(json!({"img_resolution": 64, "img_channels": 3, "label_dim": classes, "model_type": "DhariwalUNet"}))
    };
    assert_eq!(parameters("edm", &imagenet(0)), 295_131_267);
    assert_eq!(parameters("edm", &imagenet(1000)), 295_899_267);
    let drunet = |channels: usize| json!({"in_channels": channels, "out_channels": channels, "nc": [64, 128, 256, 512], "nb": 4});
    assert_eq!(parameters("drunet", &drunet(3)), 32_640_960);
    assert_eq!(parameters("drunet", &drunet(1)), 32_638_656);
}

fn table(file: &str, name: &str) -> Vec<f64> {
    let tables = candle_core::safetensors::load(data("schedules").join(file), &Device::Cpu).unwrap();
    tables[name].to_dtype(DType::F64).unwrap().to_vec1().unwrap()
}

fn assert_close(got: f64, expected: f64, relative: f64, what: &str) {
    assert!((got - expected).abs() <= relative * expected.abs(), "{what}: {got} is not {expected}");
}

// `data/schedules`: EDM's and score_sde's own numbers.
#[test]
fn noise_coordinates_are_those_of_the_reference_programs() {
    let small = json!({"img_resolution": 16, "img_channels": 3, "model_channels": 16, "channel_mult": [1], "num_blocks": 1,
        "attn_resolutions": [], "model_type": "SongUNet"});
    let of_class = |class: &str| recipe("edm", &json!({"class_name": class, "init_kwargs": small})).unwrap();

    let preserving = of_class("VPPrecond").parameterization;
    for (t, sigma) in
        table("tables_edm.safetensors", "vp_t").into_iter().zip(table("tables_edm.safetensors", "vp_sigma"))
    {
        let scalings = preserving.scalings(sigma);
        assert_close(scalings.noise, 999.0 * t, 1e-9, "999 t");
        assert_close(scalings.input, 1.0 / (1.0 + sigma * sigma).sqrt(), 1e-12, "the input's factor");
        assert_close(scalings.out, -sigma, 1e-12, "the output's factor");
    }

    // `u[M]` is 0; time t is `u[M − 1 − t]`, and the second half of the outputs is not the noise.
    let improved = of_class("iDDPMPrecond");
    let table_of_levels = table("tables_edm.safetensors", "iddpm_u");
    for (index, sigma) in table_of_levels[..1000].iter().enumerate() {
        let scalings = improved.parameterization.scalings(*sigma);
        assert_close(scalings.noise, (999 - index) as f64, 1e-12, "the place in the table");
    }
    let Architecture::Steps(network) = &improved.network else { panic!("{:?}", improved.network) };
    assert_eq!(network.value_channels(network.steps.len()), 6);

    // With `x_t = α x₀ + s n`, σ is `s/α`.
    let mut config = cifar(false);
    config["training"]["sde"] = "subvpsde".into();
    let sub = recipe("score_sde", &config).unwrap().parameterization;
    let column = |name: &str| table("tables_score_sde.safetensors", name);
    let columns = column("t_grid").into_iter().zip(column("subvp.mean_coeff")).zip(column("subvp.std"));
    // Before that `s = 1 − α²` is all rounding in single precision.
    for ((t, alpha), std) in columns.filter(|((t, _), _)| *t >= 0.01) {
        let scalings = sub.scalings(std / alpha);
        assert_close(scalings.noise, 999.0 * t, 2e-4, "999 t");
        assert_close(scalings.input, alpha, 1e-5, "the input's factor");
    }

    // Ascending in the table, and the network counts from the largest, in units of [0, 1].
    let mut config = cifar(true);
    config["training"]["continuous"] = false.into();
    config["model"]["embedding_type"] = "positional".into();
    config["model"]["sigma_max"] = 50.into();
    config["model"]["num_scales"] = 1000.into();
    let discrete = recipe("score_sde", &config).unwrap();
    for (index, sigma) in column("ve.discrete_sigmas").into_iter().enumerate() {
        let scalings = discrete.parameterization.scalings(2.0 * sigma);
        assert!((scalings.noise - (999 - index) as f64).abs() < 1e-9, "{} at {index}", scalings.noise);
    }
    assert!((discrete.sigma_range.0 - 0.02).abs() < 1e-12 && (discrete.sigma_range.1 - 100.0).abs() < 1e-9);
}

#[test]
fn what_cannot_be_built_is_refused_by_name() {
    let with = |mut config: Value, at: &str, value: Value| {
        *config.pointer_mut(at).unwrap() = value;
        config
    };
    let refused = |family: &str, config: Value| recipe(family, &config).unwrap_err();
    let score_sde = |at: &str, value: Value| refused("score_sde", with(cifar(true), at, value));
    let message = score_sde("/model/progressive", "residual".into());
    assert_eq!(message, r#"score_sde with progressive = "residual" cannot be built, only "none", "output_skip""#);
    let message = score_sde("/training/sde", "edm".into());
    assert_eq!(message, r#"score_sde with scale_by_sigma = true cannot be built, only false with edm"#);
    let message = score_sde("/training/continuous", false.into());
    let got = r#"name, embedding_type, training.continuous = ("ncsnpp", "fourier", false)"#;
    let can = r#"ncsnpp's "fourier" with true, "positional" with false"#;
    assert_eq!(message, format!("score_sde with {got} cannot be built, only {can}"));
    let message = score_sde("/model/resblock_type", "ddpm".into());
    assert_eq!(message, r#"score_sde with fir with resblock_type = "ddpm" cannot be built, only "biggan""#);
    assert_eq!(score_sde("/model/nf", 0.into()), "score_sde with channels of the first level = 0, expected 1 to 8192");
    let message = score_sde("/model/ch_mult", json!(vec![1; 17]));
    assert_eq!(message, "score_sde with number of levels = 17, expected 1 to 16");
    let message = score_sde("/model/num_res_blocks", 1_000_000_000.into());
    assert_eq!(message, "score_sde with blocks of all levels = 4000000000, expected 1 to 128");
    let message = score_sde("/model/ch_mult", json!([1, u64::MAX]));
    assert_eq!(message, format!("score_sde with channels of a level = {}, expected 1 to 8192", u64::MAX));
    let message = refused("edm", with(song(32, &[2], true), "/init_kwargs/encoder_type", "skip".into()));
    assert_eq!(message, r#"edm with encoder_type = "skip" cannot be built, only "standard" and "residual""#);
    let message = refused("edm", with(song(32, &[2], true), "/class_name", "LossPrecond".into()));
    let known = r#""EDMPrecond", "VPPrecond", "VEPrecond" and "iDDPMPrecond""#;
    assert_eq!(message, format!(r#"edm with class_name = "LossPrecond" cannot be built, only {known}"#));
    assert_eq!(refused("edm", json!({})), "has no configuration and lacks the first convolution, which says its size");
    let mut improved = with(song(32, &[2], false), "/class_name", "iDDPMPrecond".into());
    improved["init_kwargs"]["C_1"] = 0.001.into();
    improved["init_kwargs"]["C_2"] = 0.01.into();
    assert_eq!(refused("edm", improved), "edm with C_2 = 0.01 cannot be built, only 0.008");
    let message = refused("drunet", json!({"in_channels": 3, "out_channels": 3, "nc": [8, 8, 8, 8], "nb": 0}));
    assert_eq!(message, "drunet with nb = 0 cannot be built, only 1 to 128");
    let ncsnv2 = json!({"_class": "NCSNv3", "data": {"image_size": 16, "channels": 3},
        "model": {"ngf": 4, "num_classes": 20, "sigma_begin": 50, "sigma_end": 0.01, "spec_norm": false}});
    let message = refused("ncsnv2", ncsnv2.clone());
    assert_eq!(
        message,
        r#"ncsnv2 with _class = "NCSNv3" cannot be built, only NCSNv2, NCSNv2Deeper and NCSNv2Deepest"#
    );
    let mut uniform = ncsnv2.clone();
    uniform["model"]["sigma_dist"] = "uniform".into();
    recipe("ncsnv2", &with(uniform.clone(), "/_class", "NCSNv2".into())).unwrap();
    assert_eq!(refused("ncsn", uniform), r#"ncsn with sigma_dist = "uniform" cannot be built, only geometric"#);
    let message = refused("ncsnv2", with(ncsnv2, "/model/spec_norm", true.into()));
    assert_eq!(message, "ncsnv2 with spec_norm = true cannot be built, only false");
    let mut middle = google(&[32, 32], 1, 0);
    middle["mid_block_type"] = "UNetMidBlock2DCrossAttn".into();
    let message = refused("UNet2DModel", middle);
    let got = r#"mid_block_type = Some("UNetMidBlock2DCrossAttn")"#;
    assert_eq!(message, format!(r#"UNet2DModel with skip blocks and {got} cannot be built, only "UNetMidBlock2D""#));
    let mut embedded = google(&[32, 32], 1, 0);
    embedded["time_embedding_dim"] = 48.into();
    let embedded = recipe("UNet2DModel", &embedded).unwrap().expected().unwrap();
    assert_eq!(embedded["time_embedding.linear_2.weight"], [48, 48]);
    let message = refused("UNet2DModel", with(google(&[32, 32], 1, 0), "/time_embedding_type", "positional".into()));
    let process = "variance exploding, any level, images in [0, 1]";
    assert_eq!(
        message,
        format!(r#"UNet2DModel with time_embedding_type = "positional" cannot be one that is {process}"#)
    );
}

// The native file keeps names and shapes of the original, what is ignored included.
#[test]
fn native_files_of_every_family_give_the_parameters_of_the_original() {
    for (family, variant) in [
        ("score_sde", "score-sde-tiny/ve-ncsnpp-residual"),
        ("edm", "edm-adm-tiny/edm-adm"),
        ("ncsn", "ncsn-tiny/ncsn-cifar10"),
        ("ncsnv2", "ncsnv2-tiny/ncsnv2-deeper"),
        ("drunet", "drunet-tiny/gray"),
    ] {
        let golden = Golden::read(family, variant);
        let folder = data("goldens").join(variant);
        let bytes = std::fs::read(folder.join("weights.safetensors")).unwrap();
        let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let config = std::fs::read_to_string(folder.join("config.json")).unwrap();
        let metadata = [
            ("format", "tweedie"),
            ("version", NATIVE_VERSION),
            ("name", variant),
            ("architecture", family),
            ("config", config.as_str()),
        ];
        let metadata = metadata.map(|(key, value)| (key.to_owned(), value.to_owned())).into_iter().collect();
        let native = safetensors::serialize(tensors.tensors(), Some(metadata)).unwrap();
        let checkpoint = Checkpoint::from_native(native, variant).unwrap();
        assert_eq!((checkpoint.sigma_range, &checkpoint.name[..]), (golden.recipe.sigma_range, variant));
        assert_eq!(checkpoint.parameterization, golden.recipe.parameterization);
        for parameter in checkpoint.network.parameters() {
            assert!(golden.lookup(&parameter.name).is_some(), "{}", parameter.name);
            assert_eq!(checkpoint.parameter(&parameter.name), golden.lookup(&parameter.name), "{}", parameter.name);
        }
    }
}
