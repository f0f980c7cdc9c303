//! Muon, steps along the nearest matrix with orthonormal rows.
//!
//! Jordan et al. (2024), <https://kellerjordan.github.io/posts/muon/>; the size of a step as in Liu et al. (2025),
//! <https://arxiv.org/abs/2502.16982>

use crate::Result;
use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;
use std::collections::BTreeMap;
use tweedie_kernels::network::Network;
use tweedie_kernels::{Error, Parameters};

/// Decay of the mean of the gradients.
const MOMENTUM: f32 = 0.95;
/// Root mean square of a step at a learning rate of 1: that of Adam's usual steps, so that both take the same rates.
const SIZE: f64 = 0.2;
/// Iterations of [`orthogonal`].
const ITERATIONS: usize = 5;
/// `s ← 3.4445 s − 4.7750 s³ + 2.0315 s⁵` brings a singular value s of (0, 1] near to 1.
const POLYNOMIAL: [f64; 3] = [3.4445, -4.7750, 2.0315];
/// A gradient of a smaller norm is none, as that of all layers is before a last one that is still zero: what is divided by it
/// would overflow.
const SMALLEST: f64 = 1e-15;
/// Convolutions from or to fewer channels are left alone: the first and the last one, which have to do with pixels, and those
/// too small to gain.
const FEWEST: usize = 16;

/// The means of the gradients of those parameters that Muon moves.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Muon {
    /// `M`, by the name of the parameter.
    pub momenta: Parameters,
}

/// Rows and columns of the parameters that are matrices: the filters of convolutions between 16 channels or more, a row for
/// each channel that comes out.
pub fn matrices(network: &Network) -> BTreeMap<String, [usize; 2]> {
    let shape = |name: &str, shape: &[usize]| match shape {
        &[outputs, inputs, height, width] if outputs.min(inputs) >= FEWEST => {
            Some((name.to_owned(), [outputs, inputs * height * width]))
        }
        _ => None,
    };
    network.parameters().iter().filter_map(|parameter| shape(&parameter.name, &parameter.shape)).collect()
}

impl Muon {
    /// One step of all `parameters`, whose shapes are among `matrices`:
    /// `M ← 0.95 M + g`, `W ← (1 − α λ) W − α · 0.2 √max(rows, columns) · orthogonal(g + 0.95 M)`.
    ///
    /// # Errors
    /// `Candle`, of a parameter without a gradient or a shape, or with a gradient or a momentum of another size.
    pub fn step(
        &mut self,
        (rate, weight_decay): (f64, f64),
        matrices: &BTreeMap<String, [usize; 2]>,
        parameters: &mut Parameters,
        gradients: &Parameters,
    ) -> Result<()> {
        for name in parameters.keys() {
            self.momenta.entry(name.clone()).or_insert_with(|| vec![0.0; gradients.get(name).map_or(0, Vec::len)]);
        }
        let momenta = self.momenta.iter_mut().filter(|(name, _)| parameters.contains_key(*name));
        let momenta: Vec<&mut Vec<f32>> = momenta.map(|(_, momentum)| momentum).collect();
        let all: Vec<_> = parameters.iter_mut().zip(momenta).collect();
        all.into_par_iter().try_for_each(|((name, values), momentum)| {
            let (Some(&shape), Some(gradient)) = (matrices.get(name), gradients.get(name)) else {
                return Err(candle_core::Error::wrap(Error::Missing(name.clone())).into());
            };
            if let Some(got) = [gradient.len(), momentum.len()].into_iter().find(|&size| size != values.len()) {
                let error = Error::Elements { name: name.clone(), expected: vec![values.len()], got };
                return Err(candle_core::Error::wrap(error).into());
            }
            let mut ahead = gradient.clone();
            for (m, g) in momentum.iter_mut().zip(&mut ahead) {
                *m = MOMENTUM * *m + *g;
                *g += MOMENTUM * *m;
            }
            let ahead = Tensor::from_vec(ahead, &shape, &Device::Cpu)?;
            let direction = orthogonal(&ahead)?.flatten_all()?.to_vec1::<f32>()?;
            let size = (rate * SIZE * (shape[0].max(shape[1]) as f64).sqrt()) as f32;
            let keep = (1.0 - rate * weight_decay) as f32;
            values.iter_mut().zip(direction).for_each(|(value, step)| *value = keep * *value - size * step);
            Ok(())
        })
    }
}

/// A matrix with the singular vectors of `x` and singular values near 1, between about 0.7 and 1.2 for all but the smallest.
///
/// `P ← (a + b A + c A²) P` with `A = P x xᵀ P`, from `P = 1 / |x|`: the Newton–Schulz iteration of the paper on the smaller
/// side's square alone, which commutes with all of its polynomials.
fn orthogonal(x: &Tensor) -> Result<Tensor> {
    let (rows, columns) = x.dims2()?;
    if rows > columns {
        return Ok(orthogonal(&x.t()?.contiguous()?)?.t()?.contiguous()?);
    }
    let [a, b, c] = POLYNOMIAL;
    let norm = x.to_dtype(DType::F64)?.sqr()?.sum_all()?.to_scalar::<f64>()?.sqrt();
    if norm < SMALLEST {
        return Ok(x.zeros_like()?);
    }
    let x = (x / norm)?;
    let one = (Tensor::eye(rows, x.dtype(), x.device())? * a)?;
    let mut square = x.matmul(&x.t()?)?;
    let factor = |square: &Tensor| -> Result<Tensor> { Ok((((square * b)? + &one)? + (square.matmul(square)? * c)?)?) };
    let mut power = factor(&square)?;
    let mut last = power.clone();
    for _ in 1..ITERATIONS {
        square = last.matmul(&square)?.matmul(&last)?;
        last = factor(&square)?;
        power = last.matmul(&power)?;
    }
    Ok(power.matmul(&x)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn polynomial(s: f64) -> f64 {
        let [a, b, c] = POLYNOMIAL;
        (0..ITERATIONS).fold(s, |s, _| a * s + b * s.powi(3) + c * s.powi(5))
    }

    fn rows(x: &Tensor) -> Vec<Vec<f32>> {
        x.to_vec2().unwrap()
    }

    /// Of a diagonal matrix, the polynomial of the numbers on it: near 1 wherever they are not tiny.
    #[test]
    fn singular_values_come_near_to_one() {
        let diagonal = [3.0_f32, -2.0, 0.5, 0.1];
        let norm = f64::from(diagonal.iter().map(|s| s * s).sum::<f32>()).sqrt();
        let mut wide = vec![0.0_f32; 4 * 7];
        (0..4).for_each(|i| wide[i * 7 + i + 2] = diagonal[i]);
        let wide = Tensor::from_vec(wide, (4, 7), &Device::Cpu).unwrap();
        let found = rows(&orthogonal(&wide).unwrap());
        for (i, row) in found.iter().enumerate() {
            for (j, &value) in row.iter().enumerate() {
                let expected = if j == i + 2 { polynomial(f64::from(diagonal[i]) / norm) } else { 0.0 };
                assert!((f64::from(value) - expected).abs() < 1e-5, "{i}, {j}: {value} and {expected}");
            }
            assert!((0.67..1.21).contains(&f64::from(row[i + 2]).abs()), "{row:?}");
        }
        let tall = orthogonal(&wide.t().unwrap()).unwrap().t().unwrap();
        assert_eq!(rows(&tall), found);
        let none = Tensor::zeros((3, 5), DType::F32, &Device::Cpu).unwrap();
        assert!(rows(&orthogonal(&none).unwrap()).iter().flatten().all(|value| *value == 0.0));
    }

    /// The gradient u vᵀ has one singular value, so steps are `α · 0.2 √max · p(1) · u vᵀ / |u| |v|` whatever its size, and
    /// decay multiplies by `1 − α λ` before each.
    #[test]
    fn a_step_is_as_long_whatever_the_gradient() {
        let (u, v) = ([1.0_f32, -2.0], [2.0_f32, 0.5, 1.0]);
        let outer: Vec<f32> = u.iter().flat_map(|u| v.map(|v| u * v)).collect();
        let length = (5.0_f64 * 5.25).sqrt();
        let shapes = BTreeMap::from([("w".to_owned(), [2, 3])]);
        for scale in [1e-6_f32, 1.0, 1e4] {
            let mut parameters = Parameters::from([("w".to_owned(), vec![1.0; 6])]);
            let gradients = Parameters::from([("w".to_owned(), outer.iter().map(|value| scale * value).collect())]);
            let mut muon = Muon::default();
            let mut expected = [1.0_f64; 6];
            for _ in 0..2 {
                muon.step((0.1, 0.5), &shapes, &mut parameters, &gradients).unwrap();
                for (expected, &direction) in expected.iter_mut().zip(&outer) {
                    let step = 0.1 * 0.2 * 3.0_f64.sqrt() * polynomial(1.0) * f64::from(direction) / length;
                    *expected = 0.95 * *expected - step;
                }
            }
            for (found, expected) in parameters["w"].iter().zip(expected) {
                assert!((f64::from(*found) - expected).abs() < 1e-5, "{found} and {expected}");
            }
            // g, then 0.95 g + g.
            let momentum = f64::from(muon.momenta["w"][0]) / f64::from(scale * outer[0]);
            assert!((momentum - 1.95).abs() < 1e-6, "{momentum}");
        }
        let gradients = Parameters::from([("other".to_owned(), vec![1.0; 6])]);
        let mut parameters = Parameters::from([("w".to_owned(), vec![1.0; 6])]);
        let error = Muon::default().step((0.1, 0.0), &shapes, &mut parameters, &gradients).unwrap_err().to_string();
        assert!(error.contains("missing parameter w"), "{error}");
    }
}
