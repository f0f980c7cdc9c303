//! Training: a folder of photos becomes a prior.
//!
//! ```text
//! photos ──▶ examples x₀ ──▶ objective: points x = x₀ + σz ──▶ network F ──▶ denoised D ──▶ loss
//!  (k-th example: a function          │                                                      │
//!   of seed and k alone)              └──────── Adam, averages ◀── ∂loss/∂θ ◀────────────────┘
//! ```
//!
//! | part | what it is |
//! | --- | --- |
//! | [`TrainConfig`] | all that the result depends on |
//! | [`Examples`], [`Data`] | what is trained on and measured on: the [`Patches`] of a folder of [`Photos`], or anything in memory |
//! | [`Objective`] | what is lost, as a function of denoised images: [`Denoising`] with [`NoiseLevels`] and a [`Weight`] |
//! | [`Learner`] | a network that gives the gradient of its parameters |
//! | [`State`] | where a run stands, as a file |
//! | [`Training`] | the loop; what it tells is a [`Journal`], a page and event files of TensorBoard |
//!
//! A step depends on the state and on the configuration alone, so a run that was killed and resumed ends, on a CPU, with
//! the bytes of one that was not.

mod average;
mod batches;
mod config;
mod denoising;
mod examples;
mod initial;
mod journal;
mod learner;
mod levels;
mod objective;
mod photos;
mod rate;
mod report;
mod run;
mod state;
mod subject;
mod tensorboard;
mod validation;

pub use average::Decay;
pub use config::{
    CheckpointConfig, ModelConfig, ObjectiveConfig, OptimiserConfig, PrecisionName, TrainConfig, ValidationConfig,
};
pub use denoising::{Denoising, Weight};
pub use examples::{Data, Examples};
pub use initial::initial_parameters;
pub use journal::{Journal, Line, Progress, Validation};
pub use learner::{FusedLearner, Learner, LossOfOutputs};
pub use levels::NoiseLevels;
pub use objective::{Draw, Loss, LossOf, Objective};
pub use photos::{DataConfig, Patches, Photos};
pub use rate::LearningRate;
pub use run::{End, Training};
pub use state::{State, checkpoints};
pub use subject::Subject;
pub use validation::{Denoised, HeldOut, Shown};
