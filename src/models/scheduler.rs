//! `scheduler_config.json` of diffusers, as far as it says how the network was trained.

use super::bounds::MOST_STEPS;
use crate::priors::{NoiseCoordinate, Parameterization, Prediction, Time, VarianceExploding, VariancePreserving};
use crate::schedules::Discrete;
use serde::Deserialize;
use serde_json::Value;

/// The file; absent fields have the library's defaults.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct SchedulerConfig {
    #[serde(rename = "_class_name")]
    class_name: String,
    sigma_min: Option<f64>,
    sigma_max: Option<f64>,
    sigma_data: Option<f64>,
    prediction_type: Option<String>,
    #[serde(default = "thousand")]
    num_train_timesteps: usize,
    beta_schedule: Option<String>,
    beta_start: Option<f64>,
    beta_end: Option<f64>,
    trained_betas: Option<Vec<f64>>,
    rescale_betas_zero_snr: Option<bool>,
}

fn thousand() -> usize {
    1000
}

/// Schedulers of one and the same training process, the discrete variance-preserving one.
const VARIANCE_PRESERVING: [&str; 16] = [
    "DDPMScheduler",
    "DDIMScheduler",
    "DDIMInverseScheduler",
    "DDPMParallelScheduler",
    "DDIMParallelScheduler",
    "PNDMScheduler",
    "LMSDiscreteScheduler",
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "DEISMultistepScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "UniPCMultistepScheduler",
];

/// Those whose β are by default the ones of latent diffusion, 0.00085 to 0.012.
const LATENT_DEFAULTS: [&str; 3] =
    ["HeunDiscreteScheduler", "KDPM2DiscreteScheduler", "KDPM2AncestralDiscreteScheduler"];

impl SchedulerConfig {
    /// How the network was trained, and the noise levels it has seen; `centred` if it maps its input to `2 x − 1` itself,
    /// `time` for what it is told between two levels.
    ///
    /// # Errors
    /// A sentence with the scheduler that cannot be, or the field and its value.
    pub(super) fn parameterization(&self, centred: bool, time: Time) -> Result<(Parameterization, (f64, f64)), String> {
        let prediction = self.prediction_type.as_deref().unwrap_or("epsilon");
        if self.class_name.starts_with("EDM") {
            if prediction != "epsilon" || centred {
                let got = format!("prediction_type = {prediction:?} and center_input_sample = {centred}");
                return Err(format!("{} with {got} cannot be built yet, only \"epsilon\" and false", self.class_name));
            }
            let range = (self.sigma_min.unwrap_or(0.002), self.sigma_max.unwrap_or(80.0));
            return Ok((Parameterization::Edm { sigma_data: self.sigma_data.unwrap_or(0.5) }, range));
        }
        if self.class_name == "ScoreSdeVeScheduler" {
            // Its pipeline makes images in [0, 1] of a network that divides by σ itself.
            let coordinate = NoiseCoordinate::Logarithm;
            let process = VarianceExploding { unit: 0.5, centred, coordinate, divided: false };
            let (low, high) = (self.sigma_min.unwrap_or(0.01), self.sigma_max.unwrap_or(1348.0));
            let range = (low / process.unit, high / process.unit);
            return Ok((Parameterization::VarianceExploding(process), range));
        }
        if !VARIANCE_PRESERVING.contains(&self.class_name.as_str()) {
            let known = format!("{}, ScoreSdeVeScheduler and EDM's", VARIANCE_PRESERVING.join(", "));
            return Err(format!("has the scheduler {}; known: {known}", self.class_name));
        }
        let prediction = match prediction {
            "epsilon" => Prediction::Noise,
            "v_prediction" => Prediction::Velocity,
            "sample" => Prediction::Image,
            other => {
                let known = "\"epsilon\", \"v_prediction\" and \"sample\"";
                return Err(format!("has a scheduler with prediction_type = {other:?}; known: {known}"));
            }
        };
        if self.rescale_betas_zero_snr == Some(true) {
            return Err(
                "has a scheduler with rescale_betas_zero_snr = true, which leaves no largest noise level".into()
            );
        }
        let levels = self.levels()?;
        let process = VariancePreserving { centred, ..VariancePreserving::new(levels, prediction, time) };
        let range = process.sigma_range();
        Ok((Parameterization::VariancePreserving(process.into()), range))
    }

    fn levels(&self) -> Result<Discrete, String> {
        let wrong = |field: &str, got: &dyn std::fmt::Debug, expected: &str| {
            format!("has a scheduler with {field} = {got:?}, expected {expected}")
        };
        if let Some(betas) = &self.trained_betas {
            if betas.len() > MOST_STEPS {
                return Err(wrong("trained_betas of length", &betas.len(), &format!("up to {MOST_STEPS}")));
            }
            return Discrete::of_betas(betas.clone()).ok_or_else(|| {
                wrong("trained_betas of length", &betas.len(), "at least two numbers above 0 and below 1")
            });
        }
        let of_latents = LATENT_DEFAULTS.contains(&self.class_name.as_str());
        let (start, end) = if of_latents { (0.000_85, 0.012) } else { (1e-4, 0.02) };
        let (start, end) = (self.beta_start.unwrap_or(start), self.beta_end.unwrap_or(end));
        levels(self.beta_schedule.as_deref().unwrap_or("linear"), (start, end), self.num_train_timesteps)
    }
}

/// The levels of `count` β from `start` to `end` that run as `schedule` says, by the names of diffusers and of DDIM.
///
/// # Errors
/// A sentence with what is not so.
pub(super) fn levels(schedule: &str, (start, end): (f64, f64), count: usize) -> Result<Discrete, String> {
    if !(2..=MOST_STEPS).contains(&count) {
        return Err(format!("has a training process of {count} levels, expected 2 to {MOST_STEPS}"));
    }
    let between = |from: f64, to: f64| (0..count).map(move |k| from + (to - from) * k as f64 / (count - 1) as f64);
    let betas: Vec<f64> = match schedule {
        "linear" => between(start, end).collect(),
        "scaled_linear" | "quad" => between(start.sqrt(), end.sqrt()).map(|root| root * root).collect(),
        "const" => vec![end; count],
        "sigmoid" => between(-6.0, 6.0).map(|x| (end - start) / (1.0 + (-x).exp()) + start).collect(),
        "squaredcos_cap_v2" | "cosine" => return Ok(Discrete::cosine(count)),
        other => {
            let known = "linear, scaled_linear, squaredcos_cap_v2, sigmoid, quad, const, cosine";
            return Err(format!("has a training process with beta_schedule = {other:?}; known: {known}"));
        }
    };
    Discrete::of_betas(betas).ok_or_else(|| {
        format!("has a training process with β from {start} to {end}, expected numbers above 0 and below 1")
    })
}

/// Which time a network is told between two levels: `"time": "nearest"` or `"interpolated"` in its configuration.
///
/// # Errors
/// A sentence with what it says instead.
pub(super) fn time(config: &Value) -> Result<Time, String> {
    match config.get("time").map(Value::as_str) {
        None | Some(Some("interpolated")) => Ok(Time::Interpolated),
        Some(Some("nearest")) => Ok(Time::Nearest),
        Some(_) => Err(format!("has time = {}; known: \"nearest\" and \"interpolated\"", config["time"])),
    }
}
