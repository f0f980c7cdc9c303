//! A density of points in the plane whose score is a formula, and networks that learn it.

use candle_core::{Device, Tensor};
use safetensors::tensor::Dtype;
use std::ops::Range;
use std::path::Path;
use std::time::Instant;
use tweedie::Error;
use tweedie::models::{Model, ModelOptions};
use tweedie::train::{Data, HeldOut, TrainConfig, Training};
use tweedie_kernels::Precision;
use tweedie_operators::Rng;

/// Weight and mean of every mode.
pub(crate) const MODES: [(f64, [f64; 2]); 3] = [(0.5, [0.0, 0.8]), (0.3, [-0.7, -0.4]), (0.2, [0.7, -0.4])];
/// Standard deviation of a mode along both axes.
pub(crate) const SPREAD: f64 = 0.3;

/// Single precision: factors of 8 bits are an error of the size of what is compared.
pub(crate) fn options() -> ModelOptions {
    ModelOptions { precision: Some(Precision::F32), ..ModelOptions::default() }
}

/// Points number `range`, each a function of its number alone.
///
/// # Shapes
/// Returns `[count, 2, 1, 1]`
pub(crate) fn points(seed: u64, range: Range<u64>) -> tweedie::Result<Tensor> {
    let count = (range.end - range.start) as usize;
    let mut rng = Rng::new(seed, range);
    let which = rng.uniform((count, 1, 1, 1), &Device::Cpu)?.flatten_all()?.to_vec1::<f32>()?;
    let noise = rng.normal((count, 2, 1, 1), &Device::Cpu)?;
    let mode = |u: &f32| {
        let mut left = f64::from(*u);
        let found = MODES.iter().find(|(weight, _)| {
            left -= weight;
            left < 0.0
        });
        found.unwrap_or(&MODES[0]).1.map(|x| x as f32)
    };
    let means = Tensor::from_vec(which.iter().flat_map(mode).collect::<Vec<f32>>(), (count, 2, 1, 1), &Device::Cpu)?;
    Ok((means + (noise * SPREAD)?)?)
}

/// `∇ log p_σ`, of the density itself for σ = 0.
pub(crate) fn exact(x: [f64; 2], sigma: f64) -> [f64; 2] {
    let variance = SPREAD * SPREAD + sigma * sigma;
    let away = MODES.map(|(_, mean)| [mean[0] - x[0], mean[1] - x[1]]);
    let exponents = away.map(|[a, b]| -(a * a + b * b) / (2.0 * variance));
    let largest = exponents.into_iter().fold(f64::NEG_INFINITY, f64::max);
    let (mut total, mut sum) = (0.0, [0.0; 2]);
    for (((weight, _), [a, b]), exponent) in MODES.iter().zip(away).zip(exponents) {
        let weight = weight * (exponent - largest).exp();
        total += weight;
        sum = [sum[0] + weight * a, sum[1] + weight * b];
    }
    sum.map(|s| s / (total * variance))
}

/// A network and what it is trained to do.
pub(crate) struct Study {
    /// As the table calls it.
    pub(crate) name: &'static str,
    /// What the network is read as, a parameterisation of a native file.
    pub(crate) says: &'static str,
    /// Whether it is an energy.
    pub(crate) energy: bool,
    /// TOML of the objective.
    pub(crate) objective: &'static str,
    /// Steps that it takes, of 256 points each.
    pub(crate) steps: u64,
    /// Noise levels at which the score is compared. `None`: the density itself, with the network read at σ = 0.1.
    pub(crate) levels: Option<&'static [f64]>,
}

/// The nominal noise level of objectives of clean data.
const NOMINAL: f64 = 0.1;
/// Seeds of the points that are trained on, held out, compared at.
const SEEDS: [u64; 3] = [1, 2, 3];

/// What became of a study.
pub(crate) struct Learned {
    /// The network, read by its average.
    pub(crate) model: Model,
    /// Seconds of training.
    pub(crate) seconds: f64,
}

impl Study {
    /// Trains for so many steps of `batch` points in an empty folder.
    pub(crate) fn train(&self, steps: u64, batch: usize, folder: &Path) -> tweedie::Result<Learned> {
        let Self { name, says, energy, objective, .. } = self;
        let text = format!(
            r#"name = "{name}"
steps = {steps}
log_every = {steps}
average = [{{ power = 0.6667 }}]
data = {{ folder = "", patch = 1 }}
objective = {{ {objective} }}
[model]
architecture = "Perceptron"
config = {{ width = 64, blocks = 2, energy = {energy}, parameterization = {{ {says} = {{ sigma_data = 0.6 }} }} }}
[optimiser]
batch = {batch}
learning_rate = {{ rate = 4e-3, warm_up = 50, decay = {steps} }}
[validation]
every = 0
samples = 0
[checkpoint]
every = {steps}
"#
        );
        let config: TrainConfig = toml::from_str(&text).map_err(|error| Error::Config {
            name: format!("the study of {name}"),
            got: error.to_string(),
            expected: "a training run".into(),
        })?;
        let data = |_: &TrainConfig, _: &_| {
            Ok(Data {
                examples: Box::new(|range: Range<u64>| points(SEEDS[0], range)),
                held_out: HeldOut { crops: Vec::new(), examples: points(SEEDS[1], 0..64)? },
                digest: "three modes".into(),
                count: MODES.len(),
                pixels: MODES.len() as u64,
                skipped: Vec::new(),
            })
        };
        let mut training = Training::open_with(config, data, folder, &options(), false)?;
        let start = Instant::now();
        training.run(&|| false, &mut |_| ())?;
        let seconds = start.elapsed().as_secs_f64();
        Ok(Learned { model: training.model(Dtype::F32)?, seconds })
    }

    /// `√(E‖s − ∇log p_σ‖² / E‖∇log p_σ‖²)` over `x ~ p_σ`, at each noise level; the level is 0 for the density itself.
    pub(crate) fn errors(&self, learned: &Learned) -> tweedie::Result<Vec<(f64, f64)>> {
        self.levels.unwrap_or(&[0.0]).iter().map(|&sigma| Ok((sigma, self.error(learned, sigma)?))).collect()
    }

    fn error(&self, learned: &Learned, sigma: f64) -> tweedie::Result<f64> {
        let count = 2048;
        let clean = points(SEEDS[2], 0..count)?;
        let noise = Rng::new(SEEDS[2] + 1, 0..count).normal_like(&clean)?;
        let x = (clean + (noise * sigma)?)?;
        let (mut wrong, mut all) = (0.0, 0.0);
        for (x, s) in pairs(&x)?.into_iter().zip(self.scores(learned, &x, sigma)?) {
            let truth = exact(x, sigma);
            wrong += (s[0] - truth[0]).powi(2) + (s[1] - truth[1]).powi(2);
            all += truth[0].powi(2) + truth[1].powi(2);
        }
        Ok((wrong / all).sqrt())
    }

    /// The learned score at these points; of the density itself for σ = 0.
    pub(crate) fn scores(&self, learned: &Learned, x: &Tensor, sigma: f64) -> tweedie::Result<Vec<[f64; 2]>> {
        let sigma = if self.levels.is_none() { NOMINAL } else { sigma };
        pairs(&learned.model.denoiser().score(x, sigma)?)
    }
}

/// The points of `[N, 2, 1, 1]`.
pub(crate) fn pairs(x: &Tensor) -> tweedie::Result<Vec<[f64; 2]>> {
    let numbers = x.flatten_all()?.to_vec1::<f32>()?;
    Ok(numbers.as_chunks::<2>().0.iter().map(|pair| pair.map(f64::from)).collect())
}

const CLEAN: Option<&[f64]> = None;
const LEVELS: Option<&[f64]> = Some(&[0.1, 0.3, 1.0]);
/// Levels 0, 4 and 7 of ten from 0.1 to 2.
const RUNGS: Option<&[f64]> = Some(&[0.1, 0.3787, 1.0281]);
const ONE: Option<&[f64]> = Some(&[0.1]);

const fn objective(name: &'static str, objective: &'static str, levels: Option<&'static [f64]>) -> Study {
    // At one level little is to be learned, and a step on clean data takes several evaluations.
    let steps = if let Some([_, _, ..]) = levels { 6000 } else { 600 };
    Study { name, says: "edm", energy: false, objective, steps, levels }
}

/// Those whose noise levels are seldom the small ones, where there is most to be learned.
const fn longer(study: Study) -> Study {
    Study { steps: 15_000, ..study }
}

const fn reading(name: &'static str, says: &'static str, energy: bool) -> Study {
    let objective = r#"name = "edm", noise = { mean = -1.2, std = 1.2 }, weight = { sigma_data = 0.6 }"#;
    Study { name, says, energy, objective, steps: 6000, levels: LEVELS }
}

/// Every objective with one network, and every reading of the network with one objective.
pub(crate) const STUDIES: &[Study] = &[
    objective("explicit", r#"name = "explicit""#, CLEAN),
    objective("denoising", r#"name = "denoising""#, ONE),
    objective("sliced, Rademacher", r#"name = "sliced", count = 4"#, CLEAN),
    objective("sliced, Gaussian", r#"name = "sliced", count = 4, directions = "gaussian""#, CLEAN),
    objective("sliced_vr, Gaussian", r#"name = "sliced_vr", count = 2"#, CLEAN),
    objective("sliced_vr, Rademacher", r#"name = "sliced_vr", directions = "rademacher""#, CLEAN),
    objective("annealed", r#"name = "annealed", noise = { sigma_min = 0.1 }"#, RUNGS),
    longer(objective(
        "annealed_sliced",
        r#"name = "annealed_sliced", directions = "rademacher", noise = { sigma_min = 0.1 }"#,
        RUNGS,
    )),
    objective("ve", r#"name = "ve", noise = { sigma_max = 10.0 }"#, LEVELS),
    longer(objective("vp", r#"name = "vp""#, LEVELS)),
    objective("vp, likelihood", r#"name = "vp", weight = { kind = "likelihood" }, importance = true"#, LEVELS),
    objective("sub_vp", r#"name = "sub_vp""#, LEVELS),
    longer(objective("ddpm", r#"name = "ddpm""#, LEVELS)),
    objective("edm", r#"name = "edm", weight = { sigma_data = 0.6 }"#, LEVELS),
    longer(objective(
        "soft_min_snr",
        r#"name = "soft_min_snr", noise = { sigma_data = 0.6 }, weight = { sigma_data = 0.6 }"#,
        LEVELS,
    )),
    // What it says grows as 1/σ, which takes longest to learn.
    Study { steps: 20_000, ..reading("edm, as the score", "score", false) },
    reading("edm, as the noise", "noise", false),
    // An error of the image counts 1/σ² in the score.
    Study { steps: 30_000, ..reading("edm, as the image", "image", false) },
    reading("edm, as v", "velocity", false),
    reading("edm, as an energy", "edm", true),
    Study {
        energy: true,
        ..objective("sliced_vr, as an energy", r#"name = "sliced_vr", directions = "rademacher""#, CLEAN)
    },
];
