//! Structural similarity, Wang et al. (2004), <https://doi.org/10.1109/TIP.2003.819861>.

use super::Levels;
use super::levels::shape;
use crate::Result;

/// Pixels from the centre of the window to its border: 11×11.
const REACH: usize = 5;

/// Standard deviation of the window's weights, pixels.
const SIGMA: f64 = 1.5;

/// `(k L)²` for k = 0.01 and 0.03, L = 255.
const C1: f64 = 2.55 * 2.55;
const C2: f64 = 7.65 * 7.65;

/// The mean over all windows inside the picture, and over its channels, of
/// `(2 μ_a μ_b + C₁)(2 σ_ab + C₂) / ((μ_a² + μ_b² + C₁)(σ_a² + σ_b² + C₂))`, moments weighted by a Gaussian of σ = 1.5 pixels
/// on 11×11, as the paper has it.
///
/// # Errors
/// `Operator` (`Shape`) if the sizes differ or a side is below 11.
pub fn ssim(truth: &Levels, picture: &Levels) -> Result<f64> {
    let inside = vec![true; truth.height * truth.width];
    Ok(ssim_within(truth, picture, &inside)?.unwrap_or(f64::NAN))
}

/// As [`ssim`], of the windows whose centre is a pixel of `inside` (row by row); `None` if there is no such window.
///
/// # Errors
/// As [`ssim`], and if `inside` has not one flag a pixel.
pub fn ssim_within(truth: &Levels, picture: &Levels, inside: &[bool]) -> Result<Option<f64>> {
    truth.same_size(picture)?;
    let (height, width) = (truth.height, truth.width);
    if inside.len() != height * width {
        return Err(shape("mask of a picture", &[inside.len()], &format!("[{}]", height * width)));
    }
    if height.min(width) <= 2 * REACH {
        return Err(shape("picture for SSIM", &[height, width], "at least 11 pixels a side"));
    }
    let weights: Vec<f64> =
        (0..=2 * REACH).map(|i| (-0.5 * ((i as f64 - REACH as f64) / SIGMA).powi(2)).exp()).collect();
    let total: f64 = weights.iter().sum();
    let weights: Vec<f64> = weights.into_iter().map(|weight| weight / total).collect();
    let (mut sum, mut count) = (0.0, 0_usize);
    for (a, b) in truth.planes().zip(picture.planes()) {
        let mean = |of: &dyn Fn(f64, f64) -> f64| {
            let product: Vec<f64> = a.iter().zip(b).map(|(&a, &b)| of(a, b)).collect();
            smoothed(&product, width, &weights)
        };
        let (mean_a, mean_b) = (mean(&|a, _| a), mean(&|_, b| b));
        let (square_a, square_b, product) = (mean(&|a, _| a * a), mean(&|_, b| b * b), mean(&|a, b| a * b));
        let columns = width - 2 * REACH;
        for i in 0..mean_a.len() {
            if !inside[(i / columns + REACH) * width + i % columns + REACH] {
                continue;
            }
            let (a, b) = (mean_a[i], mean_b[i]);
            let (variance_a, variance_b, covariance) = (square_a[i] - a * a, square_b[i] - b * b, product[i] - a * b);
            sum +=
                (2.0 * a * b + C1) * (2.0 * covariance + C2) / ((a * a + b * b + C1) * (variance_a + variance_b + C2));
            count += 1;
        }
    }
    Ok((count > 0).then(|| sum / count as f64))
}

/// Weighted means over the windows that lie inside.
fn smoothed(plane: &[f64], width: usize, weights: &[f64]) -> Vec<f64> {
    let taps = weights.len();
    let columns = width - taps + 1;
    let rows: Vec<f64> = plane
        .chunks(width)
        .flat_map(|row| row.windows(taps).map(|window| window.iter().zip(weights).map(|(v, w)| v * w).sum::<f64>()))
        .collect();
    let height = rows.len() / columns;
    (0..(height + 1 - taps) * columns)
        .map(|i| weights.iter().enumerate().map(|(k, weight)| weight * rows[i + k * columns]).sum())
        .collect()
}
