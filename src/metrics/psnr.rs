//! Peak signal-to-noise ratio.

use super::Levels;
use crate::Result;

/// `10 log₁₀(255² / MSE)` in decibel, the mean over all pixels and channels; infinite for equal pictures.
///
/// # Errors
/// `Operator` (`Shape`) if the sizes differ.
pub fn psnr(truth: &Levels, picture: &Levels) -> Result<f64> {
    truth.same_size(picture)?;
    let squares: f64 = truth.values.iter().zip(&picture.values).map(|(a, b)| (a - b).powi(2)).sum();
    Ok(10.0 * (255.0 * 255.0 / (squares / truth.values.len() as f64)).log10())
}
