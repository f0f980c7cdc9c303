//! What a checkpoint is to be read as: a network, how it was trained, and where its numbers lie.

use super::{Architecture, TensorIndex};
use crate::priors::Parameterization;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;
use tweedie_kernels::network::Parameter;

/// Sides of images that a network can have been trained on.
const NATIVE_SIZES: RangeInclusive<usize> = 8..=1 << 16;

/// What an architecture makes of its configuration.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// The network.
    pub network: Architecture,
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
#[derive(Clone, Debug, PartialEq)]
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
#[derive(Clone, Debug, PartialEq)]
pub enum Pick {
    /// All in their order, though the shape may be another, `[C, C, 1]` for `[C, C]`.
    Whole,
    /// These rows of the first axis, in this order: q, k or v of a `qkv`.
    Rows(Arc<[usize]>),
    /// The columns of a matrix as rows, `[in, out]` for `[out, in]`.
    Transposed,
    /// The kernels `[out, in, k, k]` and a filter before them as one of `[out, in, k + n − 1, k + n − 1]`: the outer product
    /// of these `n` taps with themselves, normalised so that a constant is kept.
    Filtered(Vec<f64>),
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
                for row in rows.iter() {
                    values.extend_from_slice(tensor.get(row * length..(row + 1) * length)?);
                }
                Some(values)
            }
            Pick::Transposed => {
                let [rows, columns] = self.shape[..] else { return None };
                let column = |c: usize| (0..rows).map(move |r| tensor[r * columns + c]);
                Some((0..columns).flat_map(column).collect())
            }
            Pick::Filtered(taps) => filtered(tensor, *self.shape.last()?, taps),
        }
    }

    /// Shape of the parameter as far as the tensor says: number of its elements.
    fn elements(&self) -> usize {
        match &self.pick {
            Pick::Whole | Pick::Transposed => self.shape.iter().product(),
            Pick::Rows(rows) => rows.len() * self.shape.iter().skip(1).product::<usize>(),
            Pick::Filtered(taps) => {
                let size = self.shape.last().map_or(0, |size| size + taps.len() - 1);
                self.shape.iter().take(2).product::<usize>() * size * size
            }
        }
    }

    fn check(&self, parameter: &Parameter) -> Result<(), String> {
        let fits = match &self.pick {
            Pick::Whole => true,
            Pick::Rows(rows) => rows.iter().all(|row| Some(row) < self.shape.first().as_ref().copied()),
            Pick::Transposed => self.shape.iter().rev().eq(&parameter.shape),
            Pick::Filtered(taps) => !taps.is_empty() && self.shape.len() == 4,
        };
        if fits && self.elements() == parameter.elements() {
            return Ok(());
        }
        let Self { tensor, shape, pick, .. } = self;
        let (name, expected) = (&parameter.name, &parameter.shape);
        Err(format!("parameter {name} of shape {expected:?} cannot be {pick:?} of {tensor}, whose shape is {shape:?}"))
    }
}

/// Kernels of `size × size` that have the filter of `taps` within them.
fn filtered(kernels: &[f32], size: usize, taps: &[f64]) -> Option<Vec<f32>> {
    let (count, wide) = (taps.len(), size + taps.len().checked_sub(1)?);
    let sum: f64 = taps.iter().sum();
    // A filter is turned around, a kernel of a network is not.
    let tap = |k: usize| taps[count - 1 - k] / sum;
    let mut values = Vec::with_capacity(kernels.len() / (size * size).max(1) * wide * wide);
    for kernel in kernels.chunks_exact((size * size).max(1)) {
        let mut sums = vec![0.0; wide * wide];
        for (index, &value) in kernel.iter().enumerate() {
            let (y, x) = (index / size, index % size);
            for i in 0..count {
                for j in 0..count {
                    sums[(y + i) * wide + x + j] += f64::from(value) * tap(i) * tap(j);
                }
            }
        }
        values.extend(sums.into_iter().map(|sum| sum as f32));
    }
    Some(values)
}

/// What stands before `name` in all names of a checkpoint: nothing, or what wrappers of a network leave, `module.`.
pub(super) fn prefix(tensors: &TensorIndex, name: &str) -> Option<String> {
    let prefixes = tensors.keys().filter_map(|key| key.strip_suffix(name));
    let prefix = prefixes.filter(|prefix| prefix.is_empty() || prefix.ends_with('.')).min_by_key(|prefix| prefix.len());
    prefix.map(str::to_owned)
}

impl Recipe {
    /// Its parameters under names that begin with `prefix`, as wrappers of a network leave it.
    pub fn prefixed(mut self, prefix: &str) -> Self {
        if prefix.is_empty() {
            return self;
        }
        let tensors = self.origins().into_values();
        self.tensors =
            tensors.map(|origin| Origin { tensor: format!("{prefix}{}", origin.tensor), ..origin }).collect();
        self
    }

    /// A network whose parameters all lie under their own names.
    pub fn new(network: impl Into<Architecture>, parameterization: Parameterization, sigma_range: (f64, f64)) -> Self {
        let network = network.into();
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
        self.network.check()?;
        let (low, high) = self.sigma_range;
        if !(low > 0.0 && low < high && high.is_finite()) {
            return Err(format!("has noise levels from {low} to {high}, expected 0 < sigma_min < sigma_max"));
        }
        self.parameterization.check()?;
        // Windows and pictures of this side are made.
        if let Some(size) = self.native_size.filter(|size| !NATIVE_SIZES.contains(size)) {
            let (least, most) = (NATIVE_SIZES.start(), NATIVE_SIZES.end());
            return Err(format!("was trained on images of {size}x{size} pixels, expected a side of {least} to {most}"));
        }
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
