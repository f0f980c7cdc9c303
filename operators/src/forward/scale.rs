//! A measurement in another unit.

use candle_core::{DType, Device, Tensor};
use serde::Deserialize;

use super::part::{Part, located};
use super::{BuildOperator, ForwardOperator, GramOperator, LinearOperator, SpectralOperator};
use crate::registry::Entry;
use crate::{Error, Result};

/// `y = f · A(x)` with a number `f`.
#[derive(Debug)]
pub struct Scale {
    factor: f64,
    operator: Box<dyn ForwardOperator>,
    /// `|f| s`; zero if no singular values of `A` are known.
    singular_values: Tensor,
}

impl Scale {
    /// Multiplies what the operator measures.
    ///
    /// # Errors
    /// [`Error::Config`] unless `factor` is finite and not zero.
    pub fn new(factor: f64, operator: Box<dyn ForwardOperator>) -> Result<Self> {
        if factor == 0.0 || !factor.is_finite() {
            let reason = format!("factor is {factor}, expected a finite number other than 0");
            return Err(Error::config("scale", reason));
        }
        let spectral = operator.as_linear().and_then(LinearOperator::as_spectral);
        let singular_values = match spectral {
            Some(spectral) => (spectral.singular_values() * factor.abs())?,
            None => Tensor::zeros((1, 1, 1, 1), DType::F32, &Device::Cpu)?,
        };
        Ok(Self { factor, operator, singular_values })
    }

    fn linear(&self) -> Result<&dyn LinearOperator> {
        let needs = "a linear operator inside";
        self.operator.as_linear().ok_or(Error::Unsupported { method: "adjoint of scale", needs })
    }

    fn spectral(&self) -> Result<&dyn SpectralOperator> {
        let needs = "an operator with known singular values inside";
        self.linear()?.as_spectral().ok_or(Error::Unsupported { method: "spectrum of scale", needs })
    }
}

impl ForwardOperator for Scale {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok((self.operator.forward(x)? * self.factor)?)
    }

    fn vjp(&self, x: &Tensor, v: &Tensor) -> Result<Tensor> {
        self.operator.vjp(x, &(v * self.factor)?)
    }

    fn measure(&self, x: &Tensor) -> Result<Tensor> {
        Ok((self.operator.measure(x)? * self.factor)?)
    }

    fn as_linear(&self) -> Option<&dyn LinearOperator> {
        self.operator.as_linear().is_some().then_some(self)
    }
}

impl LinearOperator for Scale {
    fn adjoint(&self, y: &Tensor) -> Result<Tensor> {
        self.linear()?.adjoint(&(y * self.factor)?)
    }

    fn as_spectral(&self) -> Option<&dyn SpectralOperator> {
        self.operator.as_linear()?.as_spectral().is_some().then_some(self)
    }

    fn as_gram(&self) -> Option<&dyn GramOperator> {
        self.operator.as_linear()?.as_gram().is_some().then_some(self)
    }
}

/// `(f² AAᵀ + λI)⁻¹ = f⁻² (AAᵀ + λ f⁻² I)⁻¹`.
impl GramOperator for Scale {
    fn solve_gram(&self, y: &Tensor, ridge: f64) -> Result<Tensor> {
        let needs = "an operator with a known Gram matrix inside";
        let gram = self.linear()?.as_gram().ok_or(Error::Unsupported { method: "Gram matrix of scale", needs })?;
        let square = self.factor * self.factor;
        Ok((gram.solve_gram(y, ridge / square)? / square)?)
    }
}

/// `V` is that of `A`, `s` is times `|f|`, and `U` takes the sign.
impl SpectralOperator for Scale {
    fn singular_values(&self) -> &Tensor {
        &self.singular_values
    }

    fn image_to_spectrum(&self, x: &Tensor) -> Result<Tensor> {
        self.spectral()?.image_to_spectrum(x)
    }

    fn spectrum_to_image(&self, spectrum: &Tensor) -> Result<Tensor> {
        self.spectral()?.spectrum_to_image(spectrum)
    }

    fn measurement_to_spectrum(&self, y: &Tensor) -> Result<Tensor> {
        Ok((self.spectral()?.measurement_to_spectrum(y)? * self.factor.signum())?)
    }

    fn pseudo_inverse(&self, y: &Tensor) -> Result<Tensor> {
        Ok((self.spectral()?.pseudo_inverse(y)? / self.factor)?)
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// What measurements are multiplied by; finite, not zero.
    factor: f64,
    /// A table `{ name = "..", ..settings }`; the identity by default.
    #[serde(default = "Config::identity")]
    operator: toml::Table,
}

impl Config {
    fn identity() -> toml::Table {
        toml::Table::from_iter([("name".to_owned(), toml::Value::from("identity"))])
    }
}

/// `scale`
pub(crate) const ENTRY: Entry<BuildOperator> = Entry {
    name: "scale",
    about: "A measurement times a number",
    fields: &[
        ("factor", "what measurements are multiplied by, finite and not 0"),
        ("operator", "table with a name and its settings; default the identity"),
    ],
    example: "factor = -2.5\noperator = { name = \"downsample_box\", factor = 2 }",
    build: BuildOperator::reshaping(
        |table, site| {
            let Config { factor, operator } = table.try_into()?;
            let operator = Part::new(operator, site.operators).and_then(|part| part.build(site));
            Ok(Box::new(Scale::new(factor, operator.map_err(|error| located("scale", "operator", error))?)?))
        },
        |table, y, site| {
            let Config { operator, .. } = table.clone().try_into()?;
            let image = Part::new(operator, site.operators).and_then(|part| part.image_shape(y, site));
            image.map_err(|error| located("scale", "operator", error))
        },
    ),
};
