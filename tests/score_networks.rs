//! Networks of score_sde, EDM, NCSN, NCSNv2, DRUNet and diffusers' NCSN++ against the programs of their authors.
//!
//! `data/goldens`: small networks with random weights that the reference programs (score_sde_pytorch cb1f359, edm 008a4e5,
//! ncsn 7f27f4a, ncsnv2 1bcea03, diffusers 0.42.1, deepinv 0.5.0) made and ran with PyTorch 2.15 in single precision. The
//! entries of a batch have noise levels of their own and are evaluated one by one.

use crate::models::{data, relative_error};
use candle_core::{DType, Device, Tensor};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use tweedie::models::{
    Architecture, Drunet, Family, Fused, Layered, Origin, Recipe, RefineNet, ScoreModel, TensorIndex,
};
use tweedie::priors::{Denoiser, Parameterization, Preconditioned};
use tweedie_kernels::{InstructionSet, Precision};

/// A network of one family with its weights, and what the reference made of it.
struct Golden {
    recipe: Recipe,
    origins: BTreeMap<String, Origin>,
    weights: HashMap<String, Vec<f32>>,
    stored: HashMap<String, Tensor>,
}

/// Names and shapes of all tensors as one reads them off a file.
fn index(weights: &HashMap<String, Tensor>) -> TensorIndex {
    let entry = |(name, tensor): (&String, &Tensor)| {
        let dtype = match tensor.dtype() {
            DType::F64 => safetensors::Dtype::F64,
            DType::F16 => safetensors::Dtype::F16,
            _ => safetensors::Dtype::F32,
        };
        (name.clone(), (dtype, tensor.dims().to_vec()))
    };
    weights.iter().map(entry).collect()
}

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

    /// Checks that the recipe wants the tensors of the file, each of its shape, and ignores the others.
    fn new(family: &str, config: &Value, weights: &HashMap<String, Tensor>, stored: HashMap<String, Tensor>) -> Self {
        let family = Family::named(family).unwrap();
        let tensors = index(weights);
        assert_eq!(Family::of(&tensors).unwrap().name, family.name);
        let recipe = (family.recipe)(config, &tensors).unwrap();
        recipe.check().unwrap();
        let in_file = weights.iter().map(|(name, tensor)| (name.clone(), tensor.dims().to_vec()));
        let used = in_file.filter(|(name, _)| !recipe.ignored.contains(name));
        assert_eq!(recipe.expected().unwrap(), used.collect());
        let values = |tensor: &Tensor| tensor.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        let weights = weights.iter().map(|(name, tensor)| (name.clone(), values(tensor))).collect();
        Self { origins: recipe.origins(), recipe, weights, stored }
    }

    fn lookup(&self, name: &str) -> Option<Vec<f32>> {
        let origin = self.origins.get(name)?;
        origin.values(self.weights.get(&origin.tensor)?)
    }

    /// Every runner there is for it.
    fn models(&self) -> Vec<(&'static str, Box<dyn ScoreModel>)> {
        let lookup = |name: &str| self.lookup(name);
        match &self.recipe.network {
            Architecture::RefineNet(shape) => {
                vec![("refinenet", Box::new(RefineNet::new(shape, &Device::Cpu, lookup).unwrap()))]
            }
            Architecture::Drunet(shape) => {
                vec![("drunet", Box::new(Drunet::new(shape, &Device::Cpu, lookup).unwrap()))]
            }
            Architecture::Steps(network) => {
                let layered = Layered::new(network, &Device::Cpu, lookup).unwrap();
                let mut models: Vec<(_, Box<dyn ScoreModel>)> = vec![("layers", Box::new(layered))];
                match Fused::new(network, InstructionSet::detect(), Precision::F32, lookup) {
                    Ok(fused) => models.push(("the fused network", Box::new(fused))),
                    Err(tweedie_kernels::Error::Unsupported(_)) => {}
                    Err(error) => panic!("{error}"),
                }
                models
            }
        }
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
            println!("{at}: {error:e}");
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

#[test]
fn networks_of_the_class_ddpm_agree_with_score_sde() {
    let golden = Golden::read("score_sde", "score-sde-ddpm-tiny/vp-ddpm-discrete");
    for b in 0..2 {
        let (label, std) = (golden.number("labels", b), golden.number("std", b));
        golden.agrees(b, RAW, as_it_is(1.0), label, POSITIONAL);
        // The reference looks the deviation of a time between two levels up at the lower one.
        let Parameterization::VariancePreserving(process) = &golden.recipe.parameterization else {
            panic!("{:?}", golden.recipe.parameterization)
        };
        let sigma = process.levels.sigma(label.floor());
        assert!((sigma / (1.0 + sigma * sigma).sqrt() - std).abs() < 1e-6 * std);
        let scalings = process.scalings(sigma);
        assert!((scalings.noise - label.floor()).abs() < 1e-6 && (scalings.out + sigma).abs() < 1e-12);
        let score = golden.entry("out", b).affine(-1.0 / std, 0.0).unwrap();
        assert!(relative_error(&score, &golden.entry("score", b)) < 1e-6);
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
        println!("{variant}");
        let golden = Golden::read("edm", variant);
        for b in 0..2 {
            let (sigma, noise) = (golden.number("sigma", b), golden.number("c_noise", b));
            let scalings = golden.recipe.parameterization.scalings(sigma);
            assert!((scalings.noise - noise).abs() <= 1e-6 * noise.abs().max(1.0), "{} is not {noise}", scalings.noise);
            golden.agrees(b, ["net_in", "out", "grad_net_in"], as_it_is(1.0), noise, limits);
            let pulled = (&golden.entry("v", b), &golden.entry("grad_x", b));
            golden.denoises(sigma, &golden.entry("x", b), &golden.entry("denoised", b), Some(pulled), limits);
            let (x, denoised) = (golden.entry("x", b), golden.entry("denoised", b));
            let score = ((denoised - x).unwrap() / (sigma * sigma)).unwrap();
            assert!(relative_error(&score, &golden.entry("score", b)) < 1e-6);
        }
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
