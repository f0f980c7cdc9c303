//! The divergence of the flow.

use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};
use tweedie_operators::{Pullback, Rng};

/// How the trace of a matrix that is known by its products is computed.
///
/// Hutchinson (1990), <https://doi.org/10.1080/03610919008812866>
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trace {
    /// The mean of `vᵀ A v` over so many vectors of independent signs; its variance is `Σ_{i≠j} (A_ij + A_ji)²/2` over their
    /// number: the diagonal costs nothing.
    Rademacher(usize),
    /// The same over vectors of standard normal numbers, with a variance of `Σ_ij (A_ij + A_ji)²/2` over their number.
    Gaussian(usize),
    /// All diagonal entries, one product each.
    Exact,
}

/// The largest image, in numbers, of which a trace is computed exactly: that many pullbacks an evaluation.
const MOST_EXACT: usize = 4096;

/// Numbers that go through a pullback together: small images with many probes have several rows, and large ones one, which
/// keeps memory that of one image.
const TOGETHER: usize = 4096;

impl Trace {
    /// Whether there are probes at all.
    ///
    /// # Errors
    /// `Config` for none.
    pub(super) fn check(self) -> Result<()> {
        match self {
            Self::Rademacher(0) | Self::Gaussian(0) => {
                Err(Error::Config { name: "number of probes".into(), got: "0".into(), expected: "at least 1".into() })
            }
            _ => Ok(()),
        }
    }

    /// The probes of every image of `x`, `[B, C, H, W]`; one draw.
    pub(super) fn draw(self, x: &Tensor, rng: &mut Rng) -> Result<Vec<Probes>> {
        let (rows, channels, height, width) = x.dims4()?;
        let size = channels * height * width;
        let random = |count: usize, values: Tensor| -> Result<Vec<Vec<f64>>> {
            Ok(values.to_dtype(DType::F64)?.reshape((rows, count * size))?.to_vec2()?)
        };
        // Probes are channels of one draw.
        let shape = |count: usize| (rows, count * channels, height, width);
        let (count, values) = match self {
            Self::Rademacher(count) => {
                let mut values = random(count, rng.uniform(shape(count), &Device::Cpu)?)?;
                values.iter_mut().flatten().for_each(|value| *value = if *value < 0.5 { -1.0 } else { 1.0 });
                (count, values)
            }
            Self::Gaussian(count) => (count, random(count, rng.normal(shape(count), &Device::Cpu)?)?),
            Self::Exact => {
                if size > MOST_EXACT {
                    let expected = format!("at most {MOST_EXACT}, each takes a pullback in every evaluation");
                    let name = "number of diagonal entries of an exact trace".into();
                    return Err(Error::Config { name, got: size.to_string(), expected });
                }
                rng.skip();
                (size, vec![Vec::new(); rows])
            }
        };
        let row = x.narrow(0, 0, 1)?;
        let together = (TOGETHER / size).clamp(1, count);
        let probes = |values| Probes { values, count, size, together, like: row.clone(), exact: self == Self::Exact };
        Ok(values.into_iter().map(probes).collect())
    }
}

/// The probes of one image.
#[derive(Debug)]
pub(super) struct Probes {
    /// One after the other; nothing for unit vectors.
    values: Vec<f64>,
    count: usize,
    /// Numbers of one.
    size: usize,
    /// Rows of a call.
    together: usize,
    /// `[1, C, H, W]`, of the prior's type and on its device.
    like: Tensor,
    exact: bool,
}

impl Probes {
    /// Rows that the pullback must have: the image repeated so often.
    pub(super) fn rows(&self) -> usize {
        self.together
    }

    /// Estimates of the trace, which are integrated one beside the other.
    pub(super) fn estimates(&self) -> usize {
        if self.exact { 1 } else { self.count }
    }

    /// Applications of a pullback of one row that an evaluation takes.
    pub(super) fn pullbacks(&self) -> usize {
        self.count
    }

    /// `vᵀ (c I − ∂D/∂x) v` for every estimate, over the number of pixels.
    pub(super) fn traces(&self, pullback: &Pullback<'_>, c: f64) -> Result<Vec<f64>> {
        let mut traces = Vec::with_capacity(self.count);
        for first in (0..self.count).step_by(self.together) {
            let count = self.together.min(self.count - first);
            let mut probes = self.some(first, count);
            // The pullback has a fixed number of rows; those that are left over say nothing.
            probes.resize(self.together * self.size, 0.0);
            let mut dims = self.like.dims().to_vec();
            dims[0] = self.together;
            // To the type first: a device may have no f64.
            let v = Tensor::from_slice(&probes, dims, &Device::Cpu)?.to_dtype(self.like.dtype())?;
            let pulled = pullback.apply(&v.to_device(self.like.device())?)?;
            let pulled = pulled.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
            let rows = probes.chunks(self.size).zip(pulled.chunks(self.size)).take(count);
            traces.extend(rows.map(|(v, pulled)| {
                let products = v.iter().zip(pulled).map(|(v, pulled)| v * (c * v - pulled));
                products.sum::<f64>() / self.size as f64
            }));
        }
        Ok(if self.exact { vec![traces.iter().sum()] } else { traces })
    }

    /// So many probes from `first` on.
    fn some(&self, first: usize, count: usize) -> Vec<f64> {
        if !self.exact {
            return self.values[first * self.size..(first + count) * self.size].to_vec();
        }
        let mut units = vec![0.0; count * self.size];
        (0..count).for_each(|row| units[row * self.size + first + row] = 1.0);
        units
    }
}
