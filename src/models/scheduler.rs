//! `scheduler_config.json` of diffusers, as far as it says how the network was trained.

use crate::priors::{Parameterization, Prediction, Time, VariancePreserving};
use crate::schedules::Discrete;
use serde::Deserialize;

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

/// More than any network has been trained with.
const MOST_LEVELS: usize = 100_000;

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

impl SchedulerConfig {
    /// How the network was trained, and the noise levels it has seen; `centred` if it maps its input to `2 x − 1` itself.
    ///
    /// # Errors
    /// A sentence with the scheduler that cannot be, or the field and its value.
    pub(super) fn parameterization(&self, centred: bool) -> Result<(Parameterization, (f64, f64)), String> {
        let prediction = self.prediction_type.as_deref().unwrap_or("epsilon");
        if self.class_name.starts_with("EDM") {
            if prediction != "epsilon" || centred {
                let got = format!("prediction_type = {prediction:?} and center_input_sample = {centred}");
                return Err(format!("{} with {got} cannot be built yet, only \"epsilon\" and false", self.class_name));
            }
            let range = (self.sigma_min.unwrap_or(0.002), self.sigma_max.unwrap_or(80.0));
            return Ok((Parameterization::Edm { sigma_data: self.sigma_data.unwrap_or(0.5) }, range));
        }
        if !VARIANCE_PRESERVING.contains(&self.class_name.as_str()) {
            let known = format!("{} and EDM's", VARIANCE_PRESERVING.join(", "));
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
        let process = VariancePreserving { centred, ..VariancePreserving::new(levels, prediction, Time::Interpolated) };
        let range = process.sigma_range();
        Ok((Parameterization::VariancePreserving(process.into()), range))
    }

    fn levels(&self) -> Result<Discrete, String> {
        let wrong = |field: &str, got: &dyn std::fmt::Debug, expected: &str| {
            format!("has a scheduler with {field} = {got:?}, expected {expected}")
        };
        if let Some(betas) = &self.trained_betas {
            if betas.len() > MOST_LEVELS {
                return Err(wrong("trained_betas of length", &betas.len(), &format!("up to {MOST_LEVELS}")));
            }
            return Discrete::of_betas(betas.clone()).ok_or_else(|| {
                wrong("trained_betas of length", &betas.len(), "at least two numbers above 0 and below 1")
            });
        }
        let count = self.num_train_timesteps;
        if !(2..=MOST_LEVELS).contains(&count) {
            return Err(wrong("num_train_timesteps", &count, &format!("2 to {MOST_LEVELS}")));
        }
        let (start, end) = (self.beta_start.unwrap_or(1e-4), self.beta_end.unwrap_or(0.02));
        let between = |from: f64, to: f64| (0..count).map(move |k| from + (to - from) * k as f64 / (count - 1) as f64);
        let schedule = self.beta_schedule.as_deref().unwrap_or("linear");
        let betas: Vec<f64> = match schedule {
            "linear" => between(start, end).collect(),
            "scaled_linear" => between(start.sqrt(), end.sqrt()).map(|root| root * root).collect(),
            "squaredcos_cap_v2" => return Ok(Discrete::cosine(count)),
            // https://github.com/AndyShih12/paradigms: a logistic curve from −6 to 6.
            "sigmoid" => between(-6.0, 6.0).map(|x| (end - start) / (1.0 + (-x).exp()) + start).collect(),
            other => {
                let known = "\"linear\", \"scaled_linear\", \"squaredcos_cap_v2\" and \"sigmoid\"";
                return Err(wrong("beta_schedule", &other, known));
            }
        };
        let expected = "numbers above 0 and below 1";
        Discrete::of_betas(betas).ok_or_else(|| wrong("beta_start, beta_end", &(start, end), expected))
    }
}
