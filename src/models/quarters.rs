//! A denoiser as DRUNet's own program runs it on images whose sides are no multiples of 8: on four overlapping corners.

use crate::Result;
use crate::priors::Denoiser;
use candle_core::Tensor;
use std::ops::RangeInclusive;
use tweedie_operators::Pullback;

/// Sides of the corners are multiples of this, in pixels; an image with a shorter side is not cut.
const REACH: usize = 64;

/// `D(x)` of four corners, each a little more than a quarter of the image, of which the quarters are kept.
///
/// Zhang et al. (2021), <https://arxiv.org/abs/2008.13751>, as in their program and in deepinv's
#[derive(Debug)]
pub(super) struct Quartered<'a>(pub(super) &'a dyn Denoiser);

/// One axis of one corner: its first pixel and length, the first pixel of those that are kept of it and their number.
type Span = [usize; 4];

/// Whether the program cuts images of this size.
pub(super) fn is_quartered(height: usize, width: usize) -> bool {
    let whole = |side: usize| side.is_multiple_of(8) && side >= 32;
    !(whole(height) && whole(width)) && height.min(width) >= REACH
}

/// The two corners along an axis of `size` pixels.
fn spans(size: usize) -> [Span; 2] {
    let (half, length) = (size / 2, (size / 2 / REACH + 1) * REACH);
    [[0, length, 0, half], [size - length, length, half, size - half]]
}

impl Quartered<'_> {
    /// `f` of each corner, the kept parts side by side.
    fn corners(&self, x: &Tensor, mut f: impl FnMut(usize, &Tensor) -> Result<Tensor>) -> Result<Tensor> {
        let (_, _, height, width) = x.dims4()?;
        let mut rows = Vec::new();
        for (i, [top, tall, keep_top, kept_tall]) in spans(height).into_iter().enumerate() {
            let mut columns = Vec::new();
            for (j, [left, wide, keep_left, kept_wide]) in spans(width).into_iter().enumerate() {
                let corner = f(2 * i + j, &x.narrow(2, top, tall)?.narrow(3, left, wide)?.contiguous()?)?;
                columns.push(corner.narrow(2, keep_top - top, kept_tall)?.narrow(3, keep_left - left, kept_wide)?);
            }
            rows.push(Tensor::cat(&columns, 3)?);
        }
        Ok(Tensor::cat(&rows, 2)?)
    }
}

impl Denoiser for Quartered<'_> {
    fn denoise(&self, x: &Tensor, sigma: f64) -> Result<Tensor> {
        self.corners(x, |_, corner| self.0.denoise(corner, sigma))
    }

    fn channels(&self) -> Option<usize> {
        self.0.channels()
    }

    fn sigma_range(&self) -> RangeInclusive<f64> {
        self.0.sigma_range()
    }

    /// The transpose lays each quarter into its corner, and adds up what comes back of the corners.
    fn denoise_with_pullback<'b>(&'b self, x: &Tensor, sigma: f64) -> Result<(Tensor, Pullback<'b>)> {
        let mut pullbacks = Vec::new();
        let denoised = self.corners(x, |_, corner| {
            let (denoised, pullback) = self.0.denoise_with_pullback(corner, sigma)?;
            pullbacks.push(pullback);
            Ok(denoised)
        })?;
        let (_, _, height, width) = x.dims4()?;
        let pullback = Pullback::new(move |v| {
            let mut sum = v.zeros_like()?;
            for (i, [top, tall, keep_top, kept_tall]) in spans(height).into_iter().enumerate() {
                for (j, [left, wide, keep_left, kept_wide]) in spans(width).into_iter().enumerate() {
                    let kept = v.narrow(2, keep_top, kept_tall)?.narrow(3, keep_left, kept_wide)?;
                    let (above, before) = (keep_top - top, keep_left - left);
                    let corner = kept.pad_with_zeros(2, above, tall - above - kept_tall)?.pad_with_zeros(
                        3,
                        before,
                        wide - before - kept_wide,
                    )?;
                    let back = pullbacks[2 * i + j].apply(&corner.contiguous()?)?;
                    let back = back.pad_with_zeros(2, top, height - top - tall)?;
                    sum = (sum + back.pad_with_zeros(3, left, width - left - wide)?)?;
                }
            }
            Ok(sum)
        });
        Ok((denoised, pullback))
    }
}
