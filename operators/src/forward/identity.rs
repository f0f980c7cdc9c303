//! The identity: denoising.

use candle_core::Tensor;
use serde::Deserialize;

use super::{BuildOperator, ForwardOperator, LinearOperator, SpectralOperator};
use crate::Result;
use crate::registry::{Entry, Site};

/// `y = x`; with noise, denoising.
#[derive(Clone, Debug)]
pub struct Identity {
    /// `[1, 1, 1, 1]`, a one.
    ones: Tensor,
}

impl Identity {
    /// The identity for images of any size.
    pub fn new(site: Site<'_>) -> Result<Self> {
        Ok(Self { ones: Tensor::ones((1, 1, 1, 1), site.dtype, site.device)? })
    }
}

impl ForwardOperator for Identity {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.clone())
    }

    fn as_linear(&self) -> Option<&dyn LinearOperator> {
        Some(self)
    }
}

impl LinearOperator for Identity {
    fn adjoint(&self, y: &Tensor) -> Result<Tensor> {
        Ok(y.clone())
    }

    fn reaches_everything(&self) -> bool {
        true
    }

    fn as_spectral(&self) -> Option<&dyn SpectralOperator> {
        Some(self)
    }
}

/// `U = V = I`, `s = 1`.
impl SpectralOperator for Identity {
    fn singular_values(&self) -> &Tensor {
        &self.ones
    }

    fn image_to_spectrum(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.clone())
    }

    fn spectrum_to_image(&self, spectrum: &Tensor) -> Result<Tensor> {
        Ok(spectrum.clone())
    }

    fn measurement_to_spectrum(&self, y: &Tensor) -> Result<Tensor> {
        Ok(y.clone())
    }

    fn pseudo_inverse(&self, y: &Tensor) -> Result<Tensor> {
        Ok(y.clone())
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {}

/// `identity`
pub(crate) const ENTRY: Entry<BuildOperator> = Entry {
    name: "identity",
    about: "Every pixel seen as it is, for denoising",
    fields: &[],
    example: "",
    build: BuildOperator::same_shape(|table, site| {
        let Config {} = table.try_into()?;
        Ok(Box::new(Identity::new(site)?))
    }),
};
