//! A few random projections whose singular values are given.

use candle_core::{DType, Device, Tensor};
use tweedie_operators::forward::{ForwardOperator, LinearOperator, SpectralOperator};
use tweedie_operators::{Result, Rng};

/// `y = [diag(s) 0] Vᵀ x` for images `(1, 1, D)`, with m rows and a random rotation V, of which only the m reflections are
/// stored that make it up. A rotation of `y` would change nothing: the noise has no direction.
#[derive(Debug)]
pub(crate) struct Projections {
    /// `[1, D]`, each of length √2, so that `I − v vᵀ` reflects.
    reflections: Vec<Tensor>,
    /// `[1, 1, 1, D]`.
    singular_values: Tensor,
    rows: usize,
}

impl Projections {
    /// With these singular values, and right singular vectors uniform on the sphere.
    pub(crate) fn new(singular_values: &[f64], dimensions: usize, seed: u64) -> Result<Self> {
        let rows = singular_values.len();
        let normals = Rng::new(seed, 0..1).normal((1, 1, rows, dimensions), &Device::Cpu)?;
        let normals = normals.reshape((rows, dimensions))?.to_dtype(DType::F64)?.to_vec2::<f64>()?;
        // Reflections that take unit vector i to a random one, in the dimensions from i on.
        let reflections = normals.iter().enumerate().map(|(i, normal)| {
            let length = normal[i..].iter().map(|x| x * x).sum::<f64>().sqrt();
            let mut v = vec![0.0; i];
            v.extend(normal[i..].iter().map(|x| x / length));
            v[i] += v[i].signum();
            let square = v.iter().map(|x| x * x).sum::<f64>();
            v.iter_mut().for_each(|x| *x *= (2.0 / square).sqrt());
            Tensor::from_vec(v, (1, dimensions), &Device::Cpu)
        });
        let reflections = reflections.collect::<candle_core::Result<_>>()?;
        let mut spectrum = singular_values.to_vec();
        spectrum.resize(dimensions, 0.0);
        let singular_values = Tensor::from_vec(spectrum, (1, 1, 1, dimensions), &Device::Cpu)?;
        Ok(Self { reflections, singular_values, rows })
    }

    fn reflected<'a>(&self, x: &Tensor, reflections: impl Iterator<Item = &'a Tensor>) -> Result<Tensor> {
        let mut flat = x.flatten_from(1)?;
        for reflection in reflections {
            let v = reflection.to_dtype(x.dtype())?.to_device(x.device())?;
            let along = flat.broadcast_mul(&v)?.sum_keepdim(1)?;
            flat = (flat - along.broadcast_mul(&v)?)?;
        }
        Ok(flat.reshape(x.shape())?)
    }

    fn gains(&self, like: &Tensor) -> Result<Tensor> {
        let gains = self.singular_values.narrow(3, 0, self.rows)?;
        Ok(gains.to_dtype(like.dtype())?.to_device(like.device())?)
    }
}

impl ForwardOperator for Projections {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(self.image_to_spectrum(x)?.narrow(3, 0, self.rows)?.broadcast_mul(&self.gains(x)?)?)
    }

    fn as_linear(&self) -> Option<&dyn LinearOperator> {
        Some(self)
    }
}

impl LinearOperator for Projections {
    fn adjoint(&self, y: &Tensor) -> Result<Tensor> {
        self.spectrum_to_image(&self.measurement_to_spectrum(&y.broadcast_mul(&self.gains(y)?)?)?)
    }

    fn as_spectral(&self) -> Option<&dyn SpectralOperator> {
        Some(self)
    }

    fn reaches_everything(&self) -> bool {
        true
    }
}

impl SpectralOperator for Projections {
    fn singular_values(&self) -> &Tensor {
        &self.singular_values
    }

    fn image_to_spectrum(&self, x: &Tensor) -> Result<Tensor> {
        self.reflected(x, self.reflections.iter())
    }

    fn spectrum_to_image(&self, spectrum: &Tensor) -> Result<Tensor> {
        self.reflected(spectrum, self.reflections.iter().rev())
    }

    fn measurement_to_spectrum(&self, y: &Tensor) -> Result<Tensor> {
        Ok(y.pad_with_zeros(3, 0, self.singular_values.dim(3)? - self.rows)?)
    }
}
