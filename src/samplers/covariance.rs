//! Draws from a Gaussian whose covariance is only known by what it does to an image.

use crate::Result;
use candle_core::Tensor;

/// `J^{1/2} n` for a symmetric, positive `J` that `apply` multiplies by, every image with coefficients of its own: two steps of
/// Lanczos' method from `n`, whose 2×2 matrix `T` has a square root in closed form,
/// `√T = (T + √det T) / √(tr T + 2 √det T)`.
///
/// The result is the polynomial of degree one in `J` that is best for this `n`: exact if `J` has two eigenvalues, and of the
/// right mean energy, `nᵀJn`, always. Two applications.
///
/// Chow and Saad (2014), "Preconditioned Krylov subspace methods for sampling multivariate Gaussian distributions",
/// <https://doi.org/10.1137/130920587>
///
/// # Shapes
/// `n`: `[B, ..]`, as is the result.
pub(super) fn root_times(apply: impl Fn(&Tensor) -> Result<Tensor>, n: &Tensor) -> Result<Tensor> {
    let tiny = f64::from(f32::MIN_POSITIVE);
    let norm = dot(n, n)?.sqrt()?;
    let q1 = n.broadcast_div(&shaped(&norm.affine(1.0, tiny)?, n)?)?;
    let moved = apply(&q1)?;
    let a1 = dot(&q1, &moved)?;
    let rest = (&moved - q1.broadcast_mul(&shaped(&a1, n)?)?)?;
    let b = dot(&rest, &rest)?.sqrt()?;
    let q2 = rest.broadcast_div(&shaped(&b.affine(1.0, tiny)?, n)?)?;
    let a2 = dot(&q2, &apply(&q2)?)?;
    // A learned J is not quite positive.
    let determinant = ((&a1 * &a2)? - b.sqr()?)?.relu()?.sqrt()?;
    let scale = ((&a1 + &a2)? + (&determinant * 2.0)?)?.relu()?.affine(1.0, tiny)?.sqrt()?;
    let first = (((a1 + determinant)?.relu()? / &scale)? * &norm)?;
    let second = ((b / scale)? * norm)?;
    Ok((q1.broadcast_mul(&shaped(&first, n)?)? + q2.broadcast_mul(&shaped(&second, n)?)?)?)
}

/// Inner products of the rows: `[B]`.
pub(super) fn dot(a: &Tensor, b: &Tensor) -> candle_core::Result<Tensor> {
    (a * b)?.flatten_from(1)?.sum(1)
}

/// One number per row, in a shape that broadcasts to `like`.
pub(super) fn shaped(numbers: &Tensor, like: &Tensor) -> candle_core::Result<Tensor> {
    let mut shape = vec![1; like.rank()];
    shape[0] = numbers.dim(0)?;
    numbers.reshape(shape)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};

    /// With two eigenvalues, each row with its own pair, Lanczos' two steps find the root exactly.
    #[test]
    fn a_matrix_of_two_eigenvalues_has_its_root_taken_exactly() {
        let eigenvalues =
            Tensor::new(&[[0.9f64, 0.9, 0.1, 0.1, 0.9, 0.1], [0.5, 0.02, 0.5, 0.02, 0.5, 0.02]], &Device::Cpu).unwrap();
        let n = Tensor::new(&[[0.3f64, -1.2, 0.7, 2.0, -0.4, 0.1], [1.0, 0.5, -0.6, 0.9, -2.0, 0.2]], &Device::Cpu)
            .unwrap();
        let apply = |v: &Tensor| Ok((v * &eigenvalues)?);
        let got = root_times(apply, &n).unwrap();
        let expected = (n * eigenvalues.sqrt().unwrap()).unwrap();
        let error = (got - expected).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f64>().unwrap();
        assert!(error < 1e-12, "{error}");
    }

    /// The energy of the root is the quadratic form, whatever the spectrum.
    #[test]
    fn the_energy_is_that_of_the_covariance() {
        let eigenvalues: Vec<f64> = (0..50).map(|i| (f64::from(i) / 49.0).powi(3)).collect();
        let eigenvalues = Tensor::from_vec(eigenvalues, (1, 50), &Device::Cpu).unwrap();
        let n = Tensor::arange(0f64, 50.0, &Device::Cpu).unwrap().sin().unwrap().reshape((1, 50)).unwrap();
        let got = root_times(|v| Ok((v * &eigenvalues)?), &n).unwrap();
        let energy = |v: &Tensor| dot(v, v).unwrap().to_dtype(DType::F64).unwrap().to_vec1::<f64>().unwrap()[0];
        let form = dot(&n, &(&n * &eigenvalues).unwrap()).unwrap().to_vec1::<f64>().unwrap()[0];
        assert!((energy(&got) / form - 1.0).abs() < 1e-12, "{} and {form}", energy(&got));
    }

    /// An image that `J` maps to zero stays zero, and no division by zero makes it anything else.
    #[test]
    fn nothing_stays_nothing() {
        let n = Tensor::ones((2, 3), DType::F32, &Device::Cpu).unwrap();
        let got = root_times(|v| Ok(v.zeros_like()?), &n).unwrap();
        assert_eq!(got.flatten_all().unwrap().to_vec1::<f32>().unwrap(), [0.0; 6]);
    }
}
