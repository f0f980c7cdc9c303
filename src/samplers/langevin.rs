//! Langevin dynamics, level by level.

use crate::Result;
use crate::priors::Denoiser;
use crate::solvers::{Observer, Transition, descend};
use candle_core::Tensor;
use tweedie_operators::Rng;

/// Annealed Langevin dynamics: some steps at every noise level, a last denoising at the smallest.
///
/// Song and Ermon (2019), <https://arxiv.org/abs/1907.05600>; the denoising is of Song and Ermon (2020),
/// <https://arxiv.org/abs/2006.09011>.
#[derive(Debug)]
pub(super) struct Langevin<'a> {
    pub(super) prior: &'a dyn Denoiser,
    /// Noise levels, the last one 0.
    pub(super) sigmas: &'a [f64],
    /// Steps at each level.
    pub(super) repeats: usize,
}

impl Langevin<'_> {
    /// Network evaluations of such a run.
    pub(super) fn evaluations(sigmas: &[f64], repeats: usize) -> usize {
        (sigmas.len() - 1) * repeats + 1
    }

    /// Takes `x` along the levels: `update(x, σ, rng)` is one step, with the image that it took `x` for; `finish` is applied to
    /// the last denoised image.
    pub(super) fn run(
        &self,
        x: Tensor,
        rng: &mut Rng,
        observer: &mut dyn Observer,
        mut update: impl FnMut(&Tensor, f64, &mut Rng) -> Result<Transition>,
        finish: impl Fn(Tensor) -> Result<Tensor>,
    ) -> Result<Tensor> {
        descend(x, self.sigmas, rng, observer, |x, level, rng| {
            let mut state = update(x, level.from, rng)?;
            for _ in 1..self.repeats {
                state = update(&state.next, level.from, rng)?;
            }
            if level.to == 0.0 {
                let x0 = finish(self.prior.denoise(&state.next, level.from)?)?;
                return Ok(Transition { next: x0.clone(), x0 });
            }
            Ok(state)
        })
    }
}

/// `x + a g + √(2a) σ n`, where `g` is σ² times a score; one draw.
pub(super) fn langevin_step(x: &Tensor, g: &Tensor, a: f64, sigma: f64, rng: &mut Rng) -> Result<Tensor> {
    let noise = rng.normal_like(x)?.affine((2.0 * a).sqrt() * sigma, 0.0)?;
    Ok(((x + g.affine(a, 0.0)?)? + noise)?)
}

/// The Euclidean norm of each row, never quite zero, as `[B, 1, 1, 1]`.
pub(super) fn row_norms(x: &Tensor) -> Result<Tensor> {
    let norms = x.sqr()?.flatten_from(1)?.sum_keepdim(1)?.sqrt()?;
    Ok(norms.maximum(f64::from(f32::MIN_POSITIVE))?.reshape((x.dim(0)?, 1, 1, 1))?)
}
