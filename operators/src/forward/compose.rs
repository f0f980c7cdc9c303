//! Composition: one operator after another.

use candle_core::Tensor;
use serde::Deserialize;

use super::part::{Part, located, measurement_shape, place};
use super::{BuildOperator, ForwardOperator, GramOperator, LinearOperator, SpectralOperator};
use crate::registry::{Entry, Site};
use crate::{Error, Result};

/// `y = A_n(… A_2(A_1(x)))`; linear if all parts are.
#[derive(Debug)]
pub struct Compose {
    /// In the order in which they are applied; not empty.
    operators: Vec<Box<dyn ForwardOperator>>,
}

impl Compose {
    /// Applies the first operator to the image, each other one to the result of the one before.
    ///
    /// # Errors
    /// [`Error::Config`] if there is none.
    pub fn new(operators: Vec<Box<dyn ForwardOperator>>) -> Result<Self> {
        match operators.is_empty() {
            true => Err(Error::config("compose", "operators is empty, expected at least 1")),
            false => Ok(Self { operators }),
        }
    }

    fn from_tables(tables: Vec<toml::Table>, site: Site<'_>) -> Result<Self> {
        let mut operators: Vec<Box<dyn ForwardOperator>> = Vec::new();
        let (mut image, count) = (site.image, tables.len());
        for (index, table) in tables.into_iter().enumerate() {
            let here = Site { image, ..site };
            let located = |error| located("compose", &place(index), error);
            let operator = Part::new(table, site.operators).and_then(|part| part.build(here)).map_err(located)?;
            if index + 1 < count {
                let shape = measurement_shape(&*operator, here).map_err(located)?;
                let [channels, height, width] = shape[..] else {
                    let reason = format!("{}: its measurement is {shape:?}, expected [C, H, W]", place(index));
                    return Err(Error::config("compose", format!("{reason} for {}", place(index + 1))));
                };
                image = (channels, height, width);
            }
            operators.push(operator);
        }
        Self::new(operators)
    }

    /// The linear part, where there is no other.
    fn only(&self) -> Option<&dyn LinearOperator> {
        match &self.operators[..] {
            [operator] => operator.as_linear(),
            _ => None,
        }
    }
}

impl ForwardOperator for Compose {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.operators.iter().try_fold(x.clone(), |x, operator| operator.forward(&x))
    }

    /// The chain rule: `J_1ᵀ J_2ᵀ … J_nᵀ v`, each Jacobian where the operators before it lead.
    fn vjp(&self, x: &Tensor, v: &Tensor) -> Result<Tensor> {
        // What comes after the last operator with a Jacobian of its own need not be computed.
        let curved = self.operators.iter().rposition(|operator| operator.as_linear().is_none());
        let mut images = vec![x.clone()];
        for operator in &self.operators[..curved.unwrap_or(0)] {
            images.push(operator.forward(&images[images.len() - 1])?);
        }
        let mut v = v.clone();
        for (index, operator) in self.operators.iter().enumerate().rev() {
            v = match operator.as_linear() {
                Some(linear) => linear.adjoint(&v)?,
                None => operator.vjp(&images[index], &v)?,
            };
        }
        Ok(v)
    }

    fn measure(&self, x: &Tensor) -> Result<Tensor> {
        self.operators.iter().try_fold(x.clone(), |x, operator| operator.measure(&x))
    }

    fn as_linear(&self) -> Option<&dyn LinearOperator> {
        self.operators.iter().all(|operator| operator.as_linear().is_some()).then_some(self)
    }
}

impl LinearOperator for Compose {
    fn adjoint(&self, y: &Tensor) -> Result<Tensor> {
        self.operators.iter().rev().try_fold(y.clone(), |y, operator| match operator.as_linear() {
            Some(linear) => linear.adjoint(&y),
            None => Err(Error::Unsupported { method: "adjoint of compose", needs: "linear operators" }),
        })
    }

    fn as_spectral(&self) -> Option<&dyn SpectralOperator> {
        self.only()?.as_spectral()
    }

    fn as_gram(&self) -> Option<&dyn GramOperator> {
        self.only()?.as_gram()
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Tables `{ name = "..", ..settings }`, first applied first; at least one.
    operators: Vec<toml::Table>,
}

/// `compose`
pub(crate) const ENTRY: Entry<BuildOperator> = Entry {
    name: "compose",
    about: "One operator after another",
    fields: &[("operators", "tables with a name and its settings, the first is applied first; at least 1")],
    example: "operators = [{ name = \"inpaint_box\", size = 2 }, { name = \"downsample_box\", factor = 2 }, \
              { name = \"grayscale\" }]",
    build: BuildOperator::reshaping(
        |table, site| {
            let Config { operators } = table.try_into()?;
            Ok(Box::new(Compose::from_tables(operators, site)?))
        },
        |table, y, site| {
            let Config { operators } = table.clone().try_into()?;
            let mut shape = y.to_vec();
            for (index, table) in operators.into_iter().enumerate().rev() {
                let image = Part::new(table, site.operators).and_then(|part| part.image_shape(&shape, site));
                let (channels, height, width) = image.map_err(|error| located("compose", &place(index), error))?;
                shape = vec![channels, height, width];
            }
            match shape[..] {
                [channels, height, width] => Ok((channels, height, width)),
                _ => Err(Error::config("compose", "operators is empty, expected at least 1")),
            }
        },
    ),
};
