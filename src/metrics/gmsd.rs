//! Gradient magnitude similarity deviation, Xue et al. (2014), <https://arxiv.org/abs/1308.3052>.

use super::Levels;
use crate::Result;

/// Stability constant, squared levels: the paper's.
const T: f64 = 170.0;

/// `√(mean (s − mean s)²)` of `s = (2 g_a g_b + T) / (g_a² + g_b² + T)`, `g` the magnitude of the gradient by Prewitt's
/// filters (thirds) of luma halved by means of 2×2 pixels; 0 for equal pictures, about 0.3 for the worst.
///
/// A perceptual figure that is a formula: on the databases of judged distortions it follows people's opinion about as well as
/// learned distances do, and needs no weights. Beyond the border the halved luma is 0, as in the authors' program; what is left
/// of a 2×2 block of an odd side counts as if the rest of it were 0.
///
/// # Errors
/// `Operator` (`Shape`) if the sizes differ.
pub fn gmsd(truth: &Levels, picture: &Levels) -> Result<f64> {
    truth.same_size(picture)?;
    let (a, b) = (gradient(truth), gradient(picture));
    let similarity: Vec<f64> = a.iter().zip(&b).map(|(a, b)| (2.0 * a * b + T) / (a * a + b * b + T)).collect();
    let count = similarity.len() as f64;
    let mean = similarity.iter().sum::<f64>() / count;
    Ok((similarity.iter().map(|s| (s - mean).powi(2)).sum::<f64>() / count).sqrt())
}

/// Magnitudes of the gradient of halved luma.
fn gradient(picture: &Levels) -> Vec<f64> {
    let luma = picture.luma();
    let (rows, columns) = (picture.height.div_ceil(2), picture.width.div_ceil(2));
    let mut halved = vec![0.0; rows * columns];
    for (i, value) in luma.iter().enumerate() {
        halved[i / picture.width / 2 * columns + i % picture.width / 2] += value / 4.0;
    }
    let at = |y: usize, x: usize| {
        // Row and column are counted from one, so that what lies before the border has a number.
        let inside = (1..=rows).contains(&y) && (1..=columns).contains(&x);
        if inside { halved[(y - 1) * columns + x - 1] } else { 0.0 }
    };
    let mut magnitudes = Vec::with_capacity(rows * columns);
    for y in 1..=rows {
        for x in 1..=columns {
            let across: f64 = (y - 1..=y + 1).map(|v| at(v, x + 1) - at(v, x - 1)).sum();
            let down: f64 = (x - 1..=x + 1).map(|u| at(y + 1, u) - at(y - 1, u)).sum();
            magnitudes.push((across / 3.0).hypot(down / 3.0));
        }
    }
    magnitudes
}
