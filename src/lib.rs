//! Restores photos with score models.
#![forbid(unsafe_code)]

mod catalog;
pub mod cli;
mod error;
pub mod image;
mod inpaint;
pub mod models;
pub mod priors;
pub mod samplers;
pub mod schedules;

pub use catalog::Catalog;
pub use error::{Error, Result};
pub use inpaint::{
    InpaintOptions, InpaintPlan, Inpainted, Inpainting, Progress, inpaint, inpaint_observed, plan_inpaint,
};

// The examples of the README are compiled with the others.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
