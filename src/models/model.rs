//! A prior by its name: embedded, analytic, a file, a folder.

use super::file::check_length;
use super::{Architecture, Checkpoint, Drunet, Energy, Fused, Layered, ModelOptions, RefineNet, ScoreModel};
use crate::priors::{Denoiser, Gaussian, Grey, Mixture, Preconditioned};
use crate::{Error, Result};
use candle_core::{Device, Tensor};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use tweedie_kernels::network::{Network, Step};
use tweedie_kernels::{InstructionSet, Precision};

/// A prior that is loaded and ready on a device.
#[derive(Debug)]
pub struct Model {
    /// What it is called, `photo-prior-v1` for the embedded one.
    pub name: String,
    /// SHA-256 of the file in hexadecimal; empty for an analytic prior and for a folder.
    pub hash: String,
    /// What there is to know about it, in the order in which it is shown: (field, value).
    pub facts: Vec<(String, String)>,
    denoiser: Arc<dyn Denoiser>,
    /// For pictures in colour, of a prior of grey ones.
    grey: Option<Grey>,
    native_window: Option<usize>,
    network: Option<Architecture>,
    self_test: Option<SelfTest>,
    device: Device,
    instruction_set: InstructionSet,
    precision: Precision,
    class: Option<usize>,
    /// Seconds that a pixel took: (applications of a pullback, seconds).
    measured: Mutex<Vec<(usize, f64)>>,
}

/// A noise level and the first values of the denoised test pattern.
#[derive(Debug, serde::Deserialize)]
struct SelfTest {
    sigma: f64,
    values: Vec<f32>,
}

impl Model {
    /// Opens `gaussian:mean=0,std=0.5` or `mixture:FILE` ([`Mixture::read`]), priors that are formulas, or what
    /// [`Checkpoint::named`] finds.
    ///
    /// # Errors
    /// `Model` if there is no such model or its file is damaged, `Config` for a Gaussian that cannot be and for a precision
    /// that is not to be had.
    pub fn open(name: &str, options: &ModelOptions) -> Result<Self> {
        if let Some(settings) = name.strip_prefix("gaussian:").or((name == "gaussian").then_some("")) {
            return Self::gaussian(name, settings, options);
        }
        if let Some(file) = name.strip_prefix("mixture:") {
            return Self::mixture(name, Path::new(file), options);
        }
        Self::new(&Checkpoint::named(name)?, options)
    }

    /// The prior inside the binary.
    ///
    /// # Errors
    /// `Model` if the program was built without it; `Config` for a precision that is not to be had.
    pub fn embedded(options: &ModelOptions) -> Result<Self> {
        Self::new(&Checkpoint::embedded()?, options)
    }

    fn gaussian(name: &str, settings: &str, options: &ModelOptions) -> Result<Self> {
        let precision = options.formula_precision()?;
        let (mut mean, mut std) = (0.0, 0.5);
        for setting in settings.split(',').filter(|setting| !setting.is_empty()) {
            let refuse = |expected: &str| Error::Config {
                name: "setting of the gaussian prior".into(),
                got: setting.into(),
                expected: expected.into(),
            };
            let (key, value) = setting.split_once('=').ok_or_else(|| refuse("mean=M or std=S"))?;
            let value: f64 = value.parse().map_err(|_| refuse("a number after `=`"))?;
            match key {
                "mean" => mean = value,
                "std" => std = value,
                _ => return Err(refuse("mean=M or std=S")),
            }
        }
        let facts = [("name", name.to_owned()), ("mean", mean.to_string()), ("std", std.to_string())];
        Ok(Self::analytic(name, &facts, Box::new(Gaussian::new(mean, std)?), precision, options))
    }

    fn mixture(name: &str, file: &Path, options: &ModelOptions) -> Result<Self> {
        let precision = options.formula_precision()?;
        let mixture = Mixture::read(file)?;
        let (channels, height, width) = mixture.shape();
        let facts = [
            ("name", name.to_owned()),
            ("components", mixture.weights().len().to_string()),
            ("channels", channels.to_string()),
            ("size", format!("{width}x{height}")),
        ];
        Ok(Self::analytic(name, &facts, Box::new(mixture), precision, options))
    }

    /// A prior that is a formula.
    fn analytic(
        name: &str,
        facts: &[(&str, String)],
        denoiser: Box<dyn Denoiser>,
        precision: Precision,
        options: &ModelOptions,
    ) -> Self {
        let denoiser: Arc<dyn Denoiser> = denoiser.into();
        Self {
            name: name.into(),
            hash: String::new(),
            facts: facts.iter().map(|(field, value)| ((*field).into(), value.clone())).collect(),
            grey: grey(&denoiser),
            denoiser,
            native_window: None,
            network: None,
            self_test: None,
            device: options.device.clone(),
            instruction_set: options.instruction_set,
            precision,
            class: None,
            measured: Mutex::default(),
        }
    }

    /// Packs a checkpoint for a device.
    ///
    /// # Errors
    /// `Config` for a precision that is not to be had, `Model` for a file or a self-test that cannot be read.
    pub fn new(checkpoint: &Checkpoint, options: &ModelOptions) -> Result<Self> {
        let refuse = |reason: String| Error::Model { model: checkpoint.name.clone(), reason };
        let ModelOptions { device, instruction_set, .. } = options;
        let precision = options.network_precision()?;
        let hash = checkpoint.hash()?;
        let network = &checkpoint.network;
        let lookup = |name: &str| checkpoint.parameter(name);
        let class = options.network_class(network)?;
        let layered = |network: &Network| {
            let layered = Layered::new(network, device, lookup)?.with_class(class);
            layered.map_err(|error| refuse(error.to_string()))
        };
        let fused = |network: &Network, precision: Precision| {
            let fused = Fused::new(network, *instruction_set, precision, lookup);
            fused.and_then(|fused| fused.with_class(class)).map_err(|error| refuse(error.to_string()))
        };
        let (model, precision): (Box<dyn ScoreModel>, _) = match network {
            Architecture::RefineNet(shape) => (Box::new(RefineNet::new(shape, device, lookup)?), Precision::F32),
            Architecture::Drunet(shape) => (Box::new(Drunet::new(shape, device, lookup)?), Precision::F32),
            Architecture::Steps(network) if device.is_cpu() => (Box::new(fused(network, precision)?), precision),
            Architecture::Steps(network) => (Box::new(layered(network)?), precision),
            // Its derivative is a difference, which numbers of 8 bits would lose.
            Architecture::Energy(network) => {
                let model: Box<dyn ScoreModel> = match device.is_cpu() {
                    true => Box::new(fused(network, Precision::F32)?),
                    false => Box::new(layered(network)?),
                };
                (Box::new(Energy::new(model)), Precision::F32)
            }
        };
        let parameters: usize = network.parameters().iter().map(|p| p.elements()).sum();
        let (low, high) = checkpoint.sigma_range;
        let mut facts: Vec<(String, String)> = vec![("name".into(), checkpoint.name.clone())];
        let mut fact = |field: &str, value: String| facts.push((field.into(), value));
        fact("architecture", checkpoint.metadata.get("architecture").cloned().unwrap_or_default());
        fact("parameters", parameters.to_string());
        fact("channels", network.channels().to_string());
        if let Some(classes) = network.steps().and_then(|network| network.embedding.classes.as_ref()) {
            fact("classes", classes.weight.shape[0].to_string());
        }
        if let Some(size) = checkpoint.native_size {
            fact("trained at", format!("{size}x{size}"));
        }
        fact("stride", network.stride().to_string());
        fact("operations", format!("{:.1} GFLOP at 256x256", network.operations(256, 256) / 1e9));
        fact("parameterization", checkpoint.parameterization.to_string());
        fact("sigma range", format!("{low} to {high}"));
        fact("weights", format!("{:?}", checkpoint.dtype));
        if !hash.is_empty() {
            fact("sha-256", hash.clone());
        }
        for key in ["licence", "provenance"] {
            if let Some(value) = checkpoint.metadata.get(key) {
                fact(key, value.clone());
            }
        }
        let self_test = match checkpoint.metadata.get("self_test") {
            Some(text) => {
                check_length("self_test", text.len() as u64).map_err(refuse)?;
                Some(serde_json::from_str(text).map_err(|error| refuse(format!("has self_test: {error}")))?)
            }
            None => None,
        };
        let denoiser: Arc<dyn Denoiser> =
            Arc::new(Preconditioned::new(model, checkpoint.parameterization.clone(), low..=high));
        let steps = network.steps().map(|network| network.steps.as_slice()).unwrap_or_default();
        let attends = steps.iter().any(|step| matches!(step, Step::Attention(_)));
        Ok(Self {
            name: checkpoint.name.clone(),
            hash,
            facts,
            network: Some(network.clone()),
            grey: grey(&denoiser),
            denoiser,
            native_window: checkpoint.native_size.filter(|_| attends),
            self_test,
            device: device.clone(),
            instruction_set: *instruction_set,
            precision,
            class,
            measured: Mutex::default(),
        })
    }

    /// The denoiser, for images of any size or of its native one.
    pub fn denoiser(&self) -> &dyn Denoiser {
        self.denoiser.as_ref()
    }

    /// The denoiser of images with three channels: to a prior of grey ones they are three times the same.
    pub fn colour_denoiser(&self) -> &dyn Denoiser {
        self.grey.as_ref().map_or(self.denoiser(), |grey| grey)
    }

    /// Side of the images that a network with attention was trained on, in pixels: it relates every pixel to every other, and
    /// has seen so many. `None` for one of convolutions alone, which do the same at any size.
    pub fn native_window(&self) -> Option<usize> {
        self.native_window
    }

    /// Where it runs.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// What the CPU's kernels use.
    pub fn instruction_set(&self) -> InstructionSet {
        self.instruction_set
    }

    /// In which numbers products are taken.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// What it takes images to be of, where it was told a class.
    pub fn class(&self) -> Option<usize> {
        self.class
    }

    /// Seconds that a pixel takes in an evaluation with so many applications of its pullback: what `measure` finds when it is
    /// first asked.
    pub(crate) fn measured(&self, pullbacks: usize, measure: impl FnOnce() -> Result<f64>) -> Result<f64> {
        // Others wait: two measurements at a time would measure one another.
        let mut measured = self.measured.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(&(_, seconds)) = measured.iter().find(|(of, _)| *of == pullbacks) {
            return Ok(seconds);
        }
        let seconds = measure()?;
        measured.push((pullbacks, seconds));
        Ok(seconds)
    }

    /// Multiplications and additions per pixel of one evaluation; `None` for an analytic prior.
    pub fn operations_per_pixel(&self) -> Option<f64> {
        Some(self.network()?.operations(256, 256) / (256.0 * 256.0))
    }

    /// What is computed; `None` for an analytic prior.
    pub fn network(&self) -> Option<&Architecture> {
        self.network.as_ref()
    }

    /// Denoises a test pattern in the precision of the model; the relative L2 error to the values stored in the file,
    /// `None` if it stores none.
    ///
    /// # Errors
    /// Those of the denoiser.
    pub fn self_test(&self) -> Result<Option<f64>> {
        let Some(test) = &self.self_test else { return Ok(None) };
        let denoised = self.denoiser.denoise(&test_pattern(&self.device)?, test.sigma)?;
        let values = denoised.flatten_all()?.narrow(0, 0, test.values.len())?.to_vec1::<f32>()?;
        let square = |x: f32| f64::from(x) * f64::from(x);
        let error: f64 = values.iter().zip(&test.values).map(|(a, b)| square(a - b)).sum();
        Ok(Some((error / test.values.iter().copied().map(square).sum::<f64>()).sqrt()))
    }

    /// The largest error of the self-test that still counts as the same result.
    ///
    /// In `f32` instruction sets add in another order, 1e-6 or so each; `bf16` rounds every factor to 8 bits, 2e-3 each,
    /// in some fifty layers whose errors partly cancel.
    pub fn self_test_limit(&self) -> f64 {
        match self.precision {
            Precision::F32 => 1e-4,
            Precision::Bf16 => 3e-2,
        }
    }
}

/// What a prior of grey images is to a picture in colour.
fn grey(denoiser: &Arc<dyn Denoiser>) -> Option<Grey> {
    (denoiser.channels() == Some(1)).then(|| Grey::new(Arc::clone(denoiser)))
}

/// `x[c, i, j] = sin(0.7 i + 0.3 j + c)`, 3 × 16 × 16: what the self-test denoises.
pub(crate) fn test_pattern(device: &Device) -> Result<Tensor> {
    let value = |k: usize| {
        let (c, i, j) = (k / 256, k / 16 % 16, k % 16);
        (0.7 * i as f64 + 0.3 * j as f64 + c as f64).sin() as f32
    };
    Ok(Tensor::from_vec((0..768).map(value).collect::<Vec<f32>>(), (1, 3, 16, 16), device)?)
}
