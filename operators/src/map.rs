//! Linear maps computed by plain loops on the host, as one candle operation whose derivative is the transpose.

use std::fmt::Debug;
use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, DType, Device, Layout, Shape, Tensor, WithDType};
use num_traits::Float;
use rayon::prelude::*;
use realfft::FftNum;

use crate::dft::Dft;
use crate::{Error, Result};
use tweedie_kernels::FourierPlans;

/// `f32` or `f64`.
pub(crate) trait Real: FftNum + Float + Default + WithDType {
    /// The nearest number of this type.
    fn of(value: f64) -> Self;

    /// The plans of this type.
    fn plans(dft: &Dft) -> &FourierPlans<Self>;
}

impl Real for f32 {
    fn of(value: f64) -> Self {
        value as f32
    }

    fn plans(dft: &Dft) -> &FourierPlans<Self> {
        &dft.single
    }
}

impl Real for f64 {
    fn of(value: f64) -> Self {
        value
    }

    fn plans(dft: &Dft) -> &FourierPlans<Self> {
        &dft.double
    }
}

/// A linear map of one row of a batch, given by what it does to slices.
///
/// Rows are independent and each is computed in an order of its own, so that batch and threads change nothing; inside a
/// row `rayon` may be used for parts that do not add to each other.
pub(crate) trait RowMap: Debug + Send + Sync + 'static {
    /// For errors.
    const NAME: &'static str;

    /// The shape of a row of the result, given that of the argument.
    ///
    /// # Errors
    /// [`Error::Shape`] if the argument does not fit.
    fn output_shape(&self, input: &[usize]) -> Result<Vec<usize>>;

    /// The shape of a row of the argument, given that of the result.
    ///
    /// # Errors
    /// [`Error::Shape`] if the result does not fit.
    fn input_shape(&self, output: &[usize]) -> Result<Vec<usize>>;

    /// `y = A x`; `y` arrives as zeros, `shape` is that of `x`.
    fn forward<T: Real>(&self, shape: &[usize], x: &[T], y: &mut [T]);

    /// `A x` of all rows at once, for maps whose time is that of the memory: nothing is filled with zeros first.
    fn forward_all<T: Real>(&self, shape: &[usize], x: &[T]) -> Option<Vec<T>> {
        let _ = (shape, x);
        None
    }

    /// `Aᵀ y` of all rows at once; see [`forward_all`](Self::forward_all).
    fn transpose_all<T: Real>(&self, shape: &[usize], y: &[T]) -> Option<Vec<T>> {
        let _ = (shape, y);
        None
    }

    /// `x = Aᵀ y`; `x` arrives as zeros, `shape` is that of `x`.
    fn transpose<T: Real>(&self, shape: &[usize], y: &[T], x: &mut [T]);
}

/// `A x` for every row, differentiable.
///
/// # Errors
/// [`Error::Shape`] if `x` does not fit.
pub(crate) fn apply<M: RowMap>(map: &Arc<M>, x: &Tensor) -> Result<Tensor> {
    run(map, x, false)
}

/// `Aᵀ y` for every row, differentiable.
///
/// # Errors
/// [`Error::Shape`] if `y` does not fit.
pub(crate) fn transpose<M: RowMap>(map: &Arc<M>, y: &Tensor) -> Result<Tensor> {
    run(map, y, true)
}

fn run<M: RowMap>(map: &Arc<M>, x: &Tensor, transposed: bool) -> Result<Tensor> {
    let Some((_, row)) = x.dims().split_first() else {
        return Err(Error::Shape { what: format!("argument of {}", M::NAME), got: vec![], expected: "[_, ..]".into() });
    };
    let (input, output) = match transposed {
        false => (row.to_vec(), map.output_shape(row)?),
        true => (map.input_shape(row)?, row.to_vec()),
    };
    let operation = Op { map: map.clone(), transposed, input, output };
    // Loops run on the host: for a tensor elsewhere this is a copy there and back.
    let there = x.to_device(&Device::Cpu)?.contiguous()?.apply_op1(operation)?;
    Ok(there.to_device(x.device())?)
}

/// The operation that candle records.
struct Op<M> {
    map: Arc<M>,
    transposed: bool,
    /// Shapes of a row of `x` and of `y = A x`.
    input: Vec<usize>,
    output: Vec<usize>,
}

impl<M: RowMap> Op<M> {
    fn rows<T: Real>(&self, argument: &[T]) -> Vec<T> {
        let all = match self.transposed {
            false => self.map.forward_all(&self.input, argument),
            true => self.map.transpose_all(&self.input, argument),
        };
        if let Some(all) = all {
            return all;
        }
        let (inputs, outputs): (usize, usize) = (self.input.iter().product(), self.output.iter().product());
        let (from, to) = if self.transposed { (outputs, inputs) } else { (inputs, outputs) };
        let rows = argument.len().checked_div(from).unwrap_or(0);
        let mut result = vec![T::zero(); rows * to];
        result.par_chunks_mut(to.max(1)).zip(argument.par_chunks(from.max(1))).for_each(
            |(result, argument)| match self.transposed {
                false => self.map.forward(&self.input, argument, result),
                true => self.map.transpose(&self.input, argument, result),
            },
        );
        result
    }
}

impl<M: RowMap> CustomOp1 for Op<M> {
    fn name(&self) -> &'static str {
        M::NAME
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let Some((start, end)) = layout.contiguous_offsets() else {
            return Err(candle_core::Error::RequiresContiguous { op: M::NAME }.bt());
        };
        let result = match storage {
            CpuStorage::F32(values) => CpuStorage::F32(self.rows(&values[start..end])),
            CpuStorage::F64(values) => CpuStorage::F64(self.rows(&values[start..end])),
            other => return Err(candle_core::Error::UnsupportedDTypeForOp(dtype(other), M::NAME).bt()),
        };
        let mut shape = vec![layout.dims()[0]];
        shape.extend(if self.transposed { &self.input } else { &self.output });
        Ok((result, Shape::from(shape)))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, gradient: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let map = self.map.clone();
        let transposed = !self.transposed;
        let (input, output) = (self.input.clone(), self.output.clone());
        Ok(Some(gradient.contiguous()?.apply_op1(Op { map, transposed, input, output })?))
    }
}

fn dtype(storage: &CpuStorage) -> DType {
    use candle_core::backend::BackendStorage;
    storage.dtype()
}
