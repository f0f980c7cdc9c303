//! Several measurements of one image.

use candle_core::Tensor;
use serde::Deserialize;

use super::part::{Part, located, measurement_shape, place};
use super::{BuildOperator, ForwardOperator, LinearOperator};
use crate::registry::{Entry, Site};
use crate::{Error, Result};

/// `y = [A_1(x), A_2(x), …]`, each flattened: `[B, n_1 + n_2 + …]`; linear if all parts are.
#[derive(Debug)]
pub struct Stack {
    /// Not empty.
    operators: Vec<Box<dyn ForwardOperator>>,
    /// The shape of each one's measurement, without the batch.
    shapes: Vec<Vec<usize>>,
}

impl Stack {
    /// Measures an image of the site's shape with every operator; each is tried once, on a grey image.
    ///
    /// # Errors
    /// [`Error::Config`] if there is none; those of the operators for an image of this shape.
    pub fn new(operators: Vec<Box<dyn ForwardOperator>>, site: Site<'_>) -> Result<Self> {
        if operators.is_empty() {
            return Err(Error::config("stack", "operators is empty, expected at least 1"));
        }
        let shape = |(index, operator): (usize, &dyn ForwardOperator)| {
            measurement_shape(operator, site).map_err(|error| located("stack", &place(index), error))
        };
        let shapes = operators.iter().map(AsRef::as_ref).enumerate().map(shape).collect::<Result<_>>()?;
        Ok(Self { operators, shapes })
    }

    fn from_tables(tables: Vec<toml::Table>, site: Site<'_>) -> Result<Self> {
        let build = |(index, table)| {
            let operator = Part::new(table, site.operators).and_then(|part| part.build(site));
            operator.map_err(|error| located("stack", &place(index), error))
        };
        Self::new(tables.into_iter().enumerate().map(build).collect::<Result<_>>()?, site)
    }

    /// Flattens the measurements of all parts and puts one behind the other.
    fn join(&self, measure: impl Fn(&dyn ForwardOperator) -> Result<Tensor>) -> Result<Tensor> {
        let part = |(operator, shape): (&dyn ForwardOperator, &Vec<usize>)| {
            let y = measure(operator)?;
            if y.dims()[1..] != shape[..] {
                // An operator for any size has been given another one than at the start.
                let (what, expected) = ("part of a measurement of stack".into(), format!("[_, {}]", list(shape)));
                return Err(Error::Shape { what, got: y.dims().to_vec(), expected });
            }
            Ok(y.flatten_from(1)?)
        };
        let parts = self.operators.iter().map(AsRef::as_ref).zip(&self.shapes).map(part).collect::<Result<Vec<_>>>()?;
        Ok(Tensor::cat(&parts, 1)?)
    }

    /// Cuts `y` into the measurements of the parts and adds up what each makes of its own.
    fn sum(&self, y: &Tensor, back: impl Fn(&dyn ForwardOperator, &Tensor) -> Result<Tensor>) -> Result<Tensor> {
        let lengths: Vec<usize> = self.shapes.iter().map(|shape| shape.iter().product()).collect();
        let total: usize = lengths.iter().sum();
        let batch = match *y.dims() {
            [batch, length] if length == total => batch,
            _ => {
                let (what, expected) = ("measurement of stack".into(), format!("[_, {total}]"));
                return Err(Error::Shape { what, got: y.dims().to_vec(), expected });
            }
        };
        let (mut start, mut sum) = (0, None);
        for ((operator, shape), length) in self.operators.iter().zip(&self.shapes).zip(lengths) {
            let part = y.narrow(1, start, length)?.reshape([&[batch], &shape[..]].concat())?;
            let image = back(&**operator, &part)?;
            sum = Some(match sum {
                Some(sum) => (sum + image)?,
                None => image,
            });
            start += length;
        }
        sum.ok_or_else(|| Error::config("stack", "operators is empty, expected at least 1"))
    }
}

fn list(shape: &[usize]) -> String {
    shape.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")
}

impl ForwardOperator for Stack {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.join(|operator| operator.forward(x))
    }

    fn vjp(&self, x: &Tensor, v: &Tensor) -> Result<Tensor> {
        self.sum(v, |operator, v| operator.vjp(x, v))
    }

    fn measure(&self, x: &Tensor) -> Result<Tensor> {
        self.join(|operator| operator.measure(x))
    }

    fn as_linear(&self) -> Option<&dyn LinearOperator> {
        self.operators.iter().all(|operator| operator.as_linear().is_some()).then_some(self)
    }
}

impl LinearOperator for Stack {
    fn adjoint(&self, y: &Tensor) -> Result<Tensor> {
        self.sum(y, |operator, y| match operator.as_linear() {
            Some(linear) => linear.adjoint(y),
            None => Err(Error::Unsupported { method: "adjoint of stack", needs: "linear operators" }),
        })
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Tables `{ name = "..", ..settings }`; at least one.
    operators: Vec<toml::Table>,
}

/// `stack`
pub(crate) const ENTRY: Entry<BuildOperator> = Entry {
    name: "stack",
    about: "Several measurements of one image, one behind the other",
    fields: &[("operators", "tables with a name and its settings, in the order of their measurements; at least 1")],
    example: "operators = [{ name = \"downsample_box\", factor = 3 }, { name = \"grayscale\" }]",
    build: BuildOperator::reshaping(
        |table, site| {
            let Config { operators } = table.try_into()?;
            Ok(Box::new(Stack::from_tables(operators, site)?))
        },
        |_, y, _| {
            let reason = format!("a measurement of {y:?} does not tell the shape of its image, which must be given");
            Err(Error::config("stack", reason))
        },
    ),
};
