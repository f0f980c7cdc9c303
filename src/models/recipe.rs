//! What a checkpoint is to be read as: a network, how it was trained, and where its numbers lie.

use crate::priors::Parameterization;
use std::collections::BTreeMap;
use tweedie_kernels::network::{Network, Parameter};

/// What an architecture makes of its configuration.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// The network.
    pub network: Network,
    /// How it was trained.
    pub parameterization: Parameterization,
    /// Smallest and largest noise level it is good for, pixels in [-1, 1].
    pub sigma_range: (f64, f64),
    /// Where the parameters lie that do not lie under their own name and shape.
    pub tensors: Vec<Origin>,
    /// Tensors of the checkpoint that no evaluation needs.
    pub ignored: Vec<String>,
    /// Side of the images it was trained on.
    pub native_size: Option<usize>,
}

/// Where a parameter of the network lies in the checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Its name in the network.
    pub parameter: String,
    /// Key in the checkpoint.
    pub tensor: String,
    /// Shape there.
    pub shape: Vec<usize>,
    /// Which of its numbers.
    pub pick: Pick,
}

/// Which numbers of a tensor are a parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pick {
    /// All in their order, though the shape may be another, `[C, C, 1]` for `[C, C]`.
    Whole,
    /// These rows of the first axis, in this order: q, k or v of a `qkv`.
    Rows(Vec<usize>),
    /// The columns of a matrix as rows, `[in, out]` for `[out, in]`.
    Transposed,
}

impl Origin {
    /// The parameter's numbers, of all numbers of the tensor; `None` if those are not as many as the shape has, or a row
    /// is not there.
    pub fn values(&self, tensor: &[f32]) -> Option<Vec<f32>> {
        if tensor.len() != self.shape.iter().product::<usize>() {
            return None;
        }
        match &self.pick {
            Pick::Whole => Some(tensor.to_vec()),
            Pick::Rows(rows) => {
                let length: usize = self.shape.get(1..)?.iter().product();
                let mut values = Vec::with_capacity(rows.len() * length);
                for row in rows {
                    values.extend_from_slice(tensor.get(row * length..(row + 1) * length)?);
                }
                Some(values)
            }
            Pick::Transposed => {
                let [rows, columns] = self.shape[..] else { return None };
                let column = |c: usize| (0..rows).map(move |r| tensor[r * columns + c]);
                Some((0..columns).flat_map(column).collect())
            }
        }
    }

    /// Shape of the parameter as far as the tensor says: number of its elements.
    fn elements(&self) -> usize {
        match &self.pick {
            Pick::Whole | Pick::Transposed => self.shape.iter().product(),
            Pick::Rows(rows) => rows.len() * self.shape.iter().skip(1).product::<usize>(),
        }
    }

    fn check(&self, parameter: &Parameter) -> Result<(), String> {
        let fits = match &self.pick {
            Pick::Whole => true,
            Pick::Rows(rows) => rows.iter().all(|row| Some(row) < self.shape.first().as_ref().copied()),
            Pick::Transposed => self.shape.iter().rev().eq(&parameter.shape),
        };
        if fits && self.elements() == parameter.elements() {
            return Ok(());
        }
        let Self { tensor, shape, pick, .. } = self;
        let (name, expected) = (&parameter.name, &parameter.shape);
        Err(format!("parameter {name} of shape {expected:?} cannot be {pick:?} of {tensor}, whose shape is {shape:?}"))
    }
}

impl Recipe {
    /// A network whose parameters all lie under their own names.
    pub fn new(network: Network, parameterization: Parameterization, sigma_range: (f64, f64)) -> Self {
        let (tensors, ignored, native_size) = (Vec::new(), Vec::new(), None);
        Self { network, parameterization, sigma_range, tensors, ignored, native_size }
    }

    /// Where every parameter lies, by its name in the network.
    pub fn origins(&self) -> BTreeMap<String, Origin> {
        let own = |parameter: &&Parameter| {
            let (name, shape) = (parameter.name.clone(), parameter.shape.clone());
            (name.clone(), Origin { parameter: name.clone(), tensor: name, shape, pick: Pick::Whole })
        };
        let mut origins: BTreeMap<String, Origin> = self.network.parameters().iter().map(own).collect();
        for origin in &self.tensors {
            origins.insert(origin.parameter.clone(), origin.clone());
        }
        origins
    }

    /// Whether the network fits together and every origin is one of a parameter that it has the numbers of.
    ///
    /// # Errors
    /// A sentence that names the first that does not.
    pub fn check(&self) -> Result<(), String> {
        self.network.check().map_err(|error| error.to_string())?;
        let (low, high) = self.sigma_range;
        if !(low > 0.0 && low < high && high.is_finite()) {
            return Err(format!("has noise levels from {low} to {high}, expected 0 < sigma_min < sigma_max"));
        }
        self.parameterization.check()?;
        let parameters: BTreeMap<&str, &Parameter> =
            self.network.parameters().into_iter().map(|p| (p.name.as_str(), p)).collect();
        for origin in &self.tensors {
            let Some(parameter) = parameters.get(origin.parameter.as_str()) else {
                return Err(format!("the network has no parameter {}", origin.parameter));
            };
            origin.check(parameter)?;
        }
        Ok(())
    }

    /// The tensors that have to be in the checkpoint, with their shapes there.
    ///
    /// # Errors
    /// The name of a tensor that two parameters expect in two shapes.
    pub fn expected(&self) -> Result<BTreeMap<String, Vec<usize>>, String> {
        let mut expected = BTreeMap::new();
        for (_, Origin { tensor, shape, .. }) in self.origins() {
            if let Some(other) = expected.insert(tensor.clone(), shape.clone()).filter(|other| *other != shape) {
                return Err(format!("tensor {tensor} is expected of shape {shape:?} and of shape {other:?}"));
            }
        }
        Ok(expected)
    }
}
