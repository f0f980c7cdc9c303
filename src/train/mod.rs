//! Training: a folder of photos becomes a prior.
//!
//! ```text
//! photos ──▶ examples x₀ ──▶ objective: points x = x₀ + σz ──▶ network F ──▶ denoised D ──▶ loss
//!  (k-th example: a function          │                                                      │
//!   of seed and k alone)              └── Adam or Muon, averages ◀─ ∂loss/∂θ ◀────────────────┘
//! ```
//!
//! | part | what it is |
//! | --- | --- |
//! | [`TrainConfig`] | all that the result depends on |
//! | [`Examples`], [`Data`] | what is trained on and measured on: the [`Patches`] of a folder of [`Photos`], or anything in memory |
//! | [`Objective`] | what is lost, as a function of denoised images: one of [`OBJECTIVES`], such as [`Denoising`] with [`NoiseLevels`] and a [`Weight`] |
//! | [`Learner`] | a network that gives the gradient of its parameters |
//! | [`Method`], [`Muon`] | how parameters are moved |
//! | [`State`] | where a run stands, as a file |
//! | [`Training`] | the loop; what it tells is a [`Journal`], a page and event files of TensorBoard |
//!
//! A step depends on the state and on the configuration alone, so a run that was killed and resumed ends, on a CPU, with
//! the bytes of one that was not.

mod annealed_sliced;
mod average;
mod batches;
mod chosen;
mod claim;
mod config;
mod denoising;
mod divergence;
mod energy_learner;
mod examples;
mod explicit;
mod initial;
mod journal;
mod layered_learner;
mod learner;
mod levels;
mod muon;
mod objective;
mod photos;
mod rate;
mod report;
mod run;
mod sliced;
mod state;
mod subject;
mod tensorboard;
mod validation;

pub use annealed_sliced::AnnealedSliced;
pub use average::Decay;
pub use chosen::ObjectiveConfig;
pub use config::{
    CheckpointConfig, Method, ModelConfig, OptimiserConfig, PrecisionName, TrainConfig, ValidationConfig,
};
pub use denoising::{Denoising, Weight};
pub use divergence::Directions;
pub use energy_learner::EnergyLearner;
pub use examples::{Data, Examples};
pub use explicit::Explicit;
pub use initial::initial_parameters;
pub use journal::{Journal, Line, Progress, Validation};
pub use layered_learner::LayeredLearner;
pub use learner::{FusedLearner, Learner, LossOfOutputs, gradients, learner};
pub use levels::NoiseLevels;
pub use muon::{Muon, matrices};
pub use objective::{BuildObjective, Draw, Loss, LossOf, OBJECTIVES, Objective, find_objective};
pub use photos::{DataConfig, Patches, Photos};
pub use rate::LearningRate;
pub use report::data_uri;
pub use run::{End, Training};
pub use sliced::Sliced;
pub use state::{State, checkpoints};
pub use subject::Subject;
pub use validation::{Denoised, HeldOut, Shown};
