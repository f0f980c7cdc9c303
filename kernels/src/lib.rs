//! The CPU side of the networks: a score network as one fused operation, with its data gradient.
//!
//! A network is described once ([`network::Network`]: a list of convolutions and attentions of earlier values) and packed
//! for the machine's instruction set ([`FusedNetwork`]). Between the first and the last step values stay in blocks of
//! sixteen channels, normalisation, activation, padding, resampling, concatenation, bias, embedding and residual are part
//! of the convolution that follows or precedes them, attention never has its scores in memory, and memory comes from a
//! pool.
//!
//! The alternative, one tensor operation after the other, spends two thirds of its time outside the convolutions; and a
//! general convolution of a tensor library reaches a tenth of what the machine can do.
//!
//! `unsafe` lives in this crate alone.
#![deny(unsafe_op_in_unsafe_fn)]

mod adam;
mod affine;
#[cfg(target_arch = "x86_64")]
mod amx;
mod attention;
pub mod ceiling;
mod collect;
mod correlation;
mod dispatch;
mod epilogue;
mod fourier;
mod fused;
mod isa;
mod map;
pub mod network;
mod operand;
mod patches;
mod precision;
mod resampling;
mod train;
mod vector;
mod weight_gradient;
mod winograd;

pub use adam::{Adam, AdamOptions, Moments};
pub use collect::collect_chunks;
pub use fourier::FourierPlans;
pub use fused::{Error, FusedNetwork, Gradients, Parameters, Tape};
pub use isa::{InstructionSet, InstructionSetError};
pub use precision::{Precision, UnknownPrecision};
pub use train::{Trainer, TrainingStep};
