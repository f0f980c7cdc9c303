//! Arithmetic that treats the rows of a batch apart.

use candle_core::{DType, Tensor};

use crate::Result;

/// `⟨a, b⟩` of each row, added up in f64 where the device has it.
pub(crate) fn dot(a: &Tensor, b: &Tensor) -> Result<Vec<f64>> {
    let products = (a * b)?.flatten_from(1)?;
    let products = if products.device().is_metal() { products } else { products.to_dtype(DType::F64)? };
    let sums = products.sum(1)?;
    Ok(if sums.dtype() == DType::F64 {
        sums.to_vec1()?
    } else {
        sums.to_dtype(DType::F32)?.to_vec1::<f32>()?.into_iter().map(f64::from).collect()
    })
}

/// Each row times its own factor.
pub(crate) fn scale(x: &Tensor, factors: &[f64]) -> Result<Tensor> {
    let mut shape = vec![1; x.rank()];
    shape[0] = factors.len();
    // On the host first: a device without f64 could not hold the factors.
    let factors = Tensor::from_slice(factors, shape, &candle_core::Device::Cpu)?;
    Ok(x.broadcast_mul(&factors.to_dtype(x.dtype())?.to_device(x.device())?)?)
}
