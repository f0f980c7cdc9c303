//! Convolutions with fixed weights, whose data gradient is a convolution.
//!
//! candle takes the gradient of the weights along and the data gradient by a scalar loop; here it takes as long as the
//! convolution itself.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Storage, Tensor};

/// A convolution of odd size that keeps the resolution.
#[derive(Clone, Debug)]
pub(super) struct Convolution {
    /// `[C_out, C_in, k, k]`
    weight: Tensor,
    bias: Option<Tensor>,
    dilation: usize,
}

impl Convolution {
    pub(super) fn new(weight: Tensor, bias: Option<Tensor>, dilation: usize) -> Self {
        Self { weight, bias, dilation }
    }

    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let y = convolve(x, &self.weight, self.dilation)?;
        match &self.bias {
            Some(bias) => y.broadcast_add(&bias.reshape((1, (), 1, 1))?),
            None => Ok(y),
        }
    }
}

/// `weight` moved over `x` with as many zeros around it as keep the resolution.
pub(super) fn convolve(x: &Tensor, weight: &Tensor, dilation: usize) -> Result<Tensor> {
    let plain = |x: &Tensor, weight: &Tensor| x.conv2d(weight, weight.dim(2)? / 2 * dilation, 1, dilation, 1);
    if !(x.device().is_cpu() && x.track_op()) {
        return plain(x, weight);
    }
    let result = plain(&x.detach(), weight)?;
    x.apply_op1(Convolved { result, weight: weight.clone(), dilation })
}

/// A result that is known already, and what its gradient is taken with.
#[derive(Debug)]
struct Convolved {
    result: Tensor,
    weight: Tensor,
    dilation: usize,
}

impl CustomOp1 for Convolved {
    fn name(&self) -> &'static str {
        "convolution"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        let result = self.result.contiguous()?;
        let (storage, layout) = result.storage_and_layout();
        match &*storage {
            Storage::Cpu(storage) => Ok((storage.clone(), layout.shape().clone())),
            _ => candle_core::bail!("a convolution on the CPU whose result is elsewhere"),
        }
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let transposed = self.weight.transpose(0, 1)?.contiguous()?.flip(&[2, 3])?.contiguous()?;
        Ok(Some(convolve(&gradient.contiguous()?.detach(), &transposed, self.dilation)?))
    }
}

/// `[B, C, H, W]` to `[B, 4 C, H/2, W/2]`: channel `4 c + 2 i + j` is the pixel `(i, j)` of every square of 2 × 2.
pub(super) fn space_to_depth(x: &Tensor) -> Result<Tensor> {
    let (b, c, h, w) = x.dims4()?;
    let squares = x.reshape((b, c, h / 2, 2, w / 2, 2))?.permute((0, 1, 3, 5, 2, 4))?;
    squares.contiguous()?.reshape((b, 4 * c, h / 2, w / 2))
}

/// Back.
pub(super) fn depth_to_space(x: &Tensor) -> Result<Tensor> {
    let (b, c, h, w) = x.dims4()?;
    let squares = x.reshape((b, c / 4, 2, 2, h, w))?.permute((0, 1, 4, 2, 5, 3))?;
    squares.contiguous()?.reshape((b, c / 4, 2 * h, 2 * w))
}
