//! Restores photos with score models.
#![forbid(unsafe_code)]

pub mod batch;
mod catalog;
pub mod checkpoints;
pub mod cli;
mod digest;
mod error;
pub mod evaluate;
pub mod hub;
pub mod image;
pub mod likelihood;
pub mod metrics;
pub mod models;
pub mod priors;
mod restore;
pub mod samplers;
pub mod schedules;
pub mod solvers;
pub mod train;

pub use catalog::Catalog;
pub use error::{Error, Result};
pub use restore::{
    Case, Degraded, Interpolation, Measured, Picture, Plan, Progress, Provenance, Resize, Restoration, RestoreOptions,
    Restored, Task, Work, degrade, estimate_levels, inpaint, inpaint_observed, plan_inpaint, program_memory, restore,
    tasks,
};

// The examples of the README are compiled with the others.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
