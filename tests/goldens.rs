//! Small networks of every family as their programs store them: loaded, converted, verified, used.
//!
//! `data/goldens` and `data/diffusers` hold random weights, and inputs and outputs, that the reference programs
//! (score_sde_pytorch cb1f359, guided-diffusion 22e0df8, edm 008a4e5, ncsn 7f27f4a, ncsnv2 1bcea03, ddrm 32b6b3c, diffusers
//! 0.42.1, deepinv 0.5.0) made and ran with PyTorch 2.15 in single precision.

use crate::harness::{Folder, masked};
use crate::models::data;
use candle_core::{DType, Device, Tensor};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::fs;
use tweedie::models::{
    Architecture, Drunet, Family, Fused, Layered, Origin, Recipe, RefineNet, ScoreModel, TensorIndex,
};
use tweedie_kernels::{InstructionSet, Precision};

pub(crate) type Tensors = HashMap<String, Tensor>;

/// Names and shapes of all tensors as one reads them off a file.
pub(crate) fn index(tensors: &Tensors) -> TensorIndex {
    let entry = |(name, tensor): (&String, &Tensor)| {
        let dtype = match tensor.dtype() {
            DType::F64 => safetensors::Dtype::F64,
            DType::F16 => safetensors::Dtype::F16,
            _ => safetensors::Dtype::F32,
        };
        (name.clone(), (dtype, tensor.dims().to_vec()))
    };
    tensors.iter().map(entry).collect()
}

/// A network of one family with its weights, and what the reference made of it.
pub(crate) struct Golden {
    pub(crate) recipe: Recipe,
    origins: BTreeMap<String, Origin>,
    pub(crate) weights: HashMap<String, Vec<f32>>,
    pub(crate) stored: Tensors,
    /// What images are of.
    pub(crate) class: Option<usize>,
}

impl Golden {
    /// Checks that the family is recognised, and that its recipe wants all tensors of the file but those it ignores, each of
    /// its shape.
    pub(crate) fn new(family: &str, config: &Value, weights: &Tensors, stored: Tensors) -> Self {
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
        Self { origins: recipe.origins(), recipe, weights, stored, class: None }
    }

    pub(crate) fn lookup(&self, name: &str) -> Option<Vec<f32>> {
        let origin = self.origins.get(name)?;
        origin.values(self.weights.get(&origin.tensor)?)
    }

    /// Every runner there is for it, and the kernels of every instruction set.
    pub(crate) fn models(&self) -> Vec<(String, Box<dyn ScoreModel>)> {
        let lookup = |name: &str| self.lookup(name);
        match &self.recipe.network {
            Architecture::RefineNet(shape) => {
                vec![("refinenet".into(), Box::new(RefineNet::new(shape, &Device::Cpu, lookup).unwrap()))]
            }
            Architecture::Drunet(shape) => {
                vec![("drunet".into(), Box::new(Drunet::new(shape, &Device::Cpu, lookup).unwrap()))]
            }
            Architecture::Energy(_) => unreachable!("no checkpoint of another program is an energy"),
            Architecture::Steps(network) => {
                let layered = Layered::new(network, &Device::Cpu, lookup).unwrap().with_class(self.class).unwrap();
                let mut models: Vec<(String, Box<dyn ScoreModel>)> = vec![("layers".into(), Box::new(layered))];
                for isa in InstructionSet::available() {
                    let fused = Fused::new(network, isa, Precision::F32, lookup).unwrap();
                    models.push((format!("fused for {isa}"), Box::new(fused.with_class(self.class).unwrap())));
                }
                models
            }
        }
    }
}

/// A variant: its folder, the file of weights, the folder of its configuration and stored values, channels of its images, and
/// how many of what its program stored are compared.
struct Variant {
    folder: &'static str,
    weights: &'static str,
    rest: &'static str,
    colours: usize,
    comparisons: usize,
}

const fn variant(folder: &'static str, comparisons: usize) -> Variant {
    Variant { folder, weights: "weights.safetensors", rest: folder, colours: 3, comparisons }
}

const fn of_diffusers(folder: &'static str, comparisons: usize) -> Variant {
    Variant { weights: "diffusion_pytorch_model.safetensors", ..variant(folder, comparisons) }
}

const VARIANTS: [Variant; 27] = [
    variant("goldens/score-sde-tiny/ve-ncsnpp-residual", 6),
    variant("goldens/score-sde-tiny/ve-ncsnpp-skip", 6),
    variant("goldens/score-sde-tiny/vp-ddpmpp", 6),
    variant("goldens/score-sde-tiny/ve-ncsnpp-discrete", 6),
    variant("goldens/score-sde-ddpm-tiny/vp-ddpm-discrete", 6),
    variant("goldens/guided-diffusion-tiny/ffhq-like", 10),
    Variant {
        rest: "goldens/guided-diffusion-tiny/new-attention-order",
        ..variant("goldens/guided-diffusion-tiny/ffhq-like", 10)
    },
    Variant { weights: "model.pt", ..variant("goldens/guided-diffusion-conv-tiny/conv-resample", 10) },
    variant("goldens/ddim-tiny/ddim", 8),
    variant("goldens/edm-tiny/edm-ddpmpp", 14),
    variant("goldens/edm-tiny/edm-ncsnpp", 14),
    variant("goldens/edm-tiny/vp-ddpmpp", 14),
    variant("goldens/edm-tiny/ve-ncsnpp", 14),
    variant("goldens/edm-tiny/edm-classes-ddpmpp", 24),
    variant("goldens/edm-tiny/edm-classes-ncsnpp", 24),
    variant("goldens/edm-adm-tiny/edm-adm", 14),
    variant("goldens/ncsn-tiny/ncsn-cifar10", 6),
    Variant { colours: 1, ..variant("goldens/ncsn-tiny/ncsn-mnist", 6) },
    variant("goldens/ncsnv2-tiny/ncsnv2-cifar10", 6),
    variant("goldens/ncsnv2-tiny/ncsnv2-deeper", 6),
    variant("goldens/ncsnv2-tiny/ncsnv2-deepest", 6),
    of_diffusers("diffusers/ddpm-google", 8),
    of_diffusers("diffusers/ddpm-community", 8),
    of_diffusers("goldens/diffusers-tiny/resnet-updown", 8),
    of_diffusers("goldens/diffusers-ncsnpp-tiny/ncsnpp-google", 6),
    variant("goldens/drunet-tiny/color", 8),
    Variant { colours: 1, ..variant("goldens/drunet-tiny/gray", 6) },
];

/// How networks were trained whose folders do not say it.
const SCHEDULER: &str =
    r#"{"_class_name": "DDPMScheduler", "beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "linear"}"#;

/// The variant converted, `model.safetensors`, in a folder with a photo of 300 × 200 and a mask.
fn converted(variant: &Variant) -> Folder {
    let folder = Folder::new();
    fs::create_dir(folder.path("from")).unwrap();
    let take = |from: &str, name: &str| {
        let path = data(from).join(name);
        if path.exists() {
            fs::copy(path, folder.path("from").join(name)).unwrap();
        }
    };
    take(variant.folder, variant.weights);
    for name in ["config.json", "scheduler_config.json", "io.safetensors"] {
        take(variant.rest, name);
    }
    let scheduler = folder.path("from/scheduler_config.json");
    if variant.weights.starts_with("diffusion_") && !scheduler.exists() {
        fs::write(scheduler, SCHEDULER).unwrap();
    }
    folder.succeed(&format!("models convert from/{} model.safetensors", variant.weights));
    let kind = if variant.colours == 1 { crate::harness::Kind::Grey8 } else { crate::harness::Kind::Rgb8 };
    crate::harness::photo(300, 200, kind).save(folder.path("photo.png")).unwrap();
    crate::harness::mask(300, 200).save(folder.path("mask.png")).unwrap();
    folder
}

// The tolerances are the program's own: 1e-5 for values, 5e-5 for gradients, of every entry of every batch.
#[test]
fn every_converted_network_is_what_its_program_computed() {
    println!("| variant | compared | values | gradients |\n| --- | --- | --- | --- |");
    for variant in &VARIANTS {
        let folder = converted(variant);
        let line = "models verify model.safetensors --io from/io.safetensors --json";
        let ran = folder.tweedie(line);
        let rows = match serde_json::from_str::<Value>(ran.text()) {
            Ok(report) => report["rows"].as_array().unwrap().clone(),
            Err(_) => panic!("{}: {}", variant.rest, ran.stderr),
        };
        let largest = |gradient: bool| {
            let rows = rows.iter().filter(|row| row["tensor"].as_str().unwrap().contains("grad_") == gradient);
            rows.map(|row| row["error"].as_f64().unwrap_or(f64::NAN)).fold(0.0, f64::max)
        };
        let name = variant.rest.split_once('/').unwrap().1;
        println!("| {name} | {} | {:.1e} | {:.1e} |", rows.len(), largest(false), largest(true));
        assert_eq!(ran.code, 0, "{name}: {}\n{rows:#?}", ran.stderr);
        assert_eq!(rows.len(), variant.comparisons, "{name}");
        assert!(largest(false) > 0.0 && largest(true) > 0.0, "{name}");
    }
}

// The picture is noise; the way to it is what is tested. Random weights without a norm grow what they are given, so that
// DRUNet's numbers are no longer finite after a second step.
#[test]
fn every_converted_network_restores_a_photo_of_another_size_in_windows_and_fitted() {
    for variant in &VARIANTS {
        let folder = converted(variant);
        let steps = if variant.folder.contains("drunet") { 1 } else { 2 };
        let run = |more: &str| {
            let line = format!(
                "inpaint photo.png -m mask.png --model model.safetensors --steps {steps} --sampler ddnm {more}"
            );
            folder.tweedie(&format!("{line} --json"))
        };
        let unchanged = |name: &str| {
            let (before, after) = (folder.open("photo.png"), folder.open(name));
            assert_eq!(after.color(), before.color(), "{}", variant.rest);
            let (before, after) = (before.to_rgb8(), after.to_rgb8());
            let outside = |x: u32, y: u32| !masked(x, y, 300, 200);
            for (x, y, pixel) in before.enumerate_pixels().filter(|(x, y, _)| outside(*x, *y)) {
                assert_eq!(after[(x, y)], *pixel, "{} at ({x}, {y})", variant.rest);
            }
            assert_ne!(before.as_raw(), after.as_raw(), "{}: nothing was filled", variant.rest);
        };
        let ran = run("-o windows.png");
        assert_eq!(ran.code, 0, "{}: {}", variant.rest, ran.stderr);
        unchanged("windows.png");
        let start = ran.event("start");
        let several = start["tile"].as_u64().unwrap() < 300;
        let ran = run("-o fitted.png --resize fit");
        if !several {
            // Convolutions alone have no size of their own.
            assert_eq!(ran.code, 2, "{}: {}", variant.rest, ran.stderr);
            assert!(
                ran.stderr.contains("resize is fit, expected a model that knows images of one size"),
                "{}",
                ran.stderr
            );
            continue;
        }
        assert_eq!(ran.code, 0, "{}: {}", variant.rest, ran.stderr);
        assert_eq!(ran.event("start")["windows"], 1, "{}", variant.rest);
        unchanged("fitted.png");
    }
}
