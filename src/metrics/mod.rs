//! How good a restoration is: figures for one picture, for its measurement, and for a set of samples.
//!
//! | figure | of | best |
//! | --- | --- | --- |
//! | [`psnr`] | a picture beside the truth, all channels | large |
//! | [`ssim`] | the same: local means, variances and correlation | 1 |
//! | [`gmsd`] | the same: gradients of luma, after the eye | 0 |
//! | [`Residual`] | a picture beside its measurement | 1, or 0 without noise |
//! | [`Statistics`] | samples beside the truth: PSNR of their mean, spread, coverage of their intervals | coverage as nominal |
//!
//! Pictures are compared as [`Levels`]: on the scale of 8 bits, clipped to it, not rounded.

mod calibration;
mod gmsd;
mod levels;
mod psnr;
mod residual;
mod ssim;
mod statistics;

pub use calibration::{Coverage, Interval};
pub use gmsd::gmsd;
pub use levels::Levels;
pub use psnr::psnr;
pub use residual::{Residual, observed};
pub use ssim::{ssim, ssim_within};
pub use statistics::Statistics;
pub(crate) use statistics::infinite;
