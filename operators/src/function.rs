//! Functions that are not linear, computed by plain loops on the host, as one candle operation with its derivative.

use std::fmt::Debug;
use std::sync::Arc;

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp1, CustomOp2, Device, Layout, Shape, Tensor};
use rayon::prelude::*;

use crate::map::Real;
use crate::{Error, Result};

/// A differentiable function of one row of a batch that keeps its shape, given by what it does to slices.
///
/// Rows are independent and each is computed in an order of its own, so that batch and threads change nothing; inside a
/// row `rayon` may be used for parts that do not add to each other.
pub(crate) trait RowFunction: Debug + Send + Sync + 'static {
    /// For errors.
    const NAME: &'static str;

    /// Whether rows of this shape fit.
    ///
    /// # Errors
    /// [`Error::Shape`] if they do not.
    fn check(&self, x: &Tensor) -> Result<()>;

    /// `y = f(x)`; `y` arrives as zeros, `shape` is that of `x` and of `y`.
    fn value<T: Real>(&self, shape: &[usize], x: &[T], y: &mut [T]);

    /// `u = J_f(x)ᵀ v`; `u` arrives as zeros, all have the shape of `x`.
    fn pull<T: Real>(&self, shape: &[usize], x: &[T], v: &[T], u: &mut [T]);
}

/// A function that is the same at every value of an image.
pub(crate) trait Pointwise: Debug + Send + Sync + 'static {
    /// For errors.
    const NAME: &'static str;

    /// `f(x)`
    fn at<T: Real>(&self, x: T) -> T;

    /// `f′(x)`
    fn slope<T: Real>(&self, x: T) -> T;
}

/// Values that one thread takes at a time.
const CHUNK: usize = 1 << 14;

impl<P: Pointwise> RowFunction for P {
    const NAME: &'static str = P::NAME;

    fn check(&self, _: &Tensor) -> Result<()> {
        Ok(())
    }

    fn value<T: Real>(&self, _: &[usize], x: &[T], y: &mut [T]) {
        y.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).for_each(|(y, x)| {
            y.iter_mut().zip(x).for_each(|(y, &x)| *y = self.at(x));
        });
    }

    fn pull<T: Real>(&self, _: &[usize], x: &[T], v: &[T], u: &mut [T]) {
        u.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).zip(v.par_chunks(CHUNK)).for_each(|((u, x), v)| {
            u.iter_mut().zip(x).zip(v).for_each(|((u, &x), &v)| *u = v * self.slope(x));
        });
    }
}

/// `x`, or the end of the range that it is beyond; what is not a number stays so.
#[inline]
pub(crate) fn clamp<T: Real>(x: T, low: f64, high: f64) -> T {
    let (low, high) = (T::of(low), T::of(high));
    // Comparisons and not `max` and `min`, which would hide what is not a number.
    let above = if x < low { low } else { x };
    if above > high { high } else { above }
}

/// `f(x)` for every row, differentiable once.
///
/// # Errors
/// [`Error::Shape`] if `x` does not fit.
pub(crate) fn apply<F: RowFunction>(function: &Arc<F>, x: &Tensor) -> Result<Tensor> {
    check(function, x)?;
    // Loops run on the host: for a tensor elsewhere this is a copy there and back.
    let there = x.to_device(&Device::Cpu)?.contiguous()?.apply_op1(Op(function.clone()))?;
    Ok(there.to_device(x.device())?)
}

/// `J_f(x)ᵀ v` for every row.
///
/// # Errors
/// [`Error::Shape`] if `x` does not fit, or if `v` has another shape.
pub(crate) fn pull<F: RowFunction>(function: &Arc<F>, x: &Tensor, v: &Tensor) -> Result<Tensor> {
    check(function, x)?;
    if x.dims() != v.dims() {
        let what = format!("cotangent for {}", F::NAME);
        return Err(Error::Shape { what, got: v.dims().to_vec(), expected: format!("{:?}", x.dims()) });
    }
    let host = |tensor: &Tensor| tensor.to_device(&Device::Cpu)?.contiguous();
    let there = host(x)?.apply_op2_no_bwd(&host(v)?, &Pull(function.clone()))?;
    Ok(there.to_device(x.device())?)
}

fn check<F: RowFunction>(function: &Arc<F>, x: &Tensor) -> Result<()> {
    if x.rank() == 0 {
        let what = format!("argument of {}", F::NAME);
        return Err(Error::Shape { what, got: vec![], expected: "[_, ..]".into() });
    }
    function.check(x)
}

/// The function as candle records it.
struct Op<F>(Arc<F>);

/// Its transposed derivative, of `x` and `v`.
struct Pull<F>(Arc<F>);

/// The values of a contiguous tensor.
fn values<'a, T>(all: &'a [T], layout: &Layout, op: &'static str) -> candle_core::Result<&'a [T]> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&all[start..end]),
        None => Err(candle_core::Error::RequiresContiguous { op }.bt()),
    }
}

impl<F: RowFunction> Op<F> {
    fn rows<T: Real>(&self, layout: &Layout, x: &[T]) -> Vec<T> {
        let mut y = vec![T::zero(); x.len()];
        let shape = &layout.dims()[1..];
        let row = shape.iter().product::<usize>().max(1);
        y.par_chunks_mut(row).zip(x.par_chunks(row)).for_each(|(y, x)| self.0.value(shape, x, y));
        y
    }
}

impl<F: RowFunction> CustomOp1 for Op<F> {
    fn name(&self) -> &'static str {
        F::NAME
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let result = match storage {
            CpuStorage::F32(x) => CpuStorage::F32(self.rows(layout, values(x, layout, F::NAME)?)),
            CpuStorage::F64(x) => CpuStorage::F64(self.rows(layout, values(x, layout, F::NAME)?)),
            other => return Err(candle_core::Error::UnsupportedDTypeForOp(other.dtype(), F::NAME).bt()),
        };
        Ok((result, layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, gradient: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let pull = Pull(self.0.clone());
        Ok(Some(x.contiguous()?.apply_op2_no_bwd(&gradient.contiguous()?, &pull)?))
    }
}

impl<F: RowFunction> Pull<F> {
    fn rows<T: Real>(&self, layout: &Layout, x: &[T], v: &[T]) -> Vec<T> {
        let mut u = vec![T::zero(); x.len()];
        let shape = &layout.dims()[1..];
        let row = shape.iter().product::<usize>().max(1);
        let rows = u.par_chunks_mut(row).zip(x.par_chunks(row)).zip(v.par_chunks(row));
        rows.for_each(|((u, x), v)| self.0.pull(shape, x, v, u));
        u
    }
}

impl<F: RowFunction> CustomOp2 for Pull<F> {
    fn name(&self) -> &'static str {
        F::NAME
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        v: &CpuStorage,
        v_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let op = F::NAME;
        let result = match (x, v) {
            (CpuStorage::F32(x), CpuStorage::F32(v)) => {
                CpuStorage::F32(self.rows(x_layout, values(x, x_layout, op)?, values(v, v_layout, op)?))
            }
            (CpuStorage::F64(x), CpuStorage::F64(v)) => {
                CpuStorage::F64(self.rows(x_layout, values(x, x_layout, op)?, values(v, v_layout, op)?))
            }
            (x, v) if x.dtype() != v.dtype() => {
                return Err(candle_core::Error::DTypeMismatchBinaryOp { lhs: x.dtype(), rhs: v.dtype(), op }.bt());
            }
            (other, _) => return Err(candle_core::Error::UnsupportedDTypeForOp(other.dtype(), op).bt()),
        };
        Ok((result, x_layout.shape().clone()))
    }
}
