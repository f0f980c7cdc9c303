//! The probability-flow ODE by the embedded Runge–Kutta pair of Dormand and Prince.

use super::dormand_prince::{ERROR, NODES, SHORTEST, STAGES, factor};
use super::{BuildSolver, Level, Observer, Solver, Transition, descend, settings, within};
use crate::priors::Denoiser;
use crate::schedules::{Geometric, Schedule};
use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};
use serde::Deserialize;
use std::ops::RangeInclusive;
use tweedie_operators::{Entry, Rng};

/// `dx/d ln σ = x − D(x; σ)` with steps as long as the error allows.
///
/// Each image of the batch has its own steps, so that none depends on another; images are taken one after the other, and one
/// number is read back from the device for every step. Seven evaluations in the first step, six in each one after it.
#[derive(Clone, Copy, Debug)]
pub struct Rk45 {
    steps: usize,
    tolerance: f64,
    denoise: bool,
}

/// An image on its way.
#[derive(Debug)]
struct Path {
    x: Tensor,
    /// The slope at `x`.
    slope: Option<Tensor>,
    /// Length of the next step in `ln σ`.
    stride: f64,
}

impl Rk45 {
    /// Takes an image from one level to the next.
    fn advance(&self, path: &mut Path, prior: &dyn Denoiser, Level { from, to }: Level, index: usize) -> Result<()> {
        let (mut at, end) = (from.ln(), to.ln());
        while at > end {
            let is_last = path.stride >= at - end;
            let stride = if is_last { at - end } else { path.stride };
            let level = |node: f64| match (is_last, node == 1.0) {
                (true, true) => to,
                _ => (at - node * stride).exp(),
            };
            let mut slopes = vec![path.slope(prior, at.exp().clamp(to, from))?];
            let mut next = path.x.clone();
            for (weights, node) in STAGES.iter().zip(NODES) {
                next = combined(&path.x, weights, &slopes, -stride)?;
                slopes.push((&next - prior.denoise(&next, level(node))?)?);
            }
            let error = combined(&path.x.zeros_like()?, &ERROR, &slopes, stride)?;
            let scale = path.x.abs()?.maximum(&next.abs()?)?.affine(self.tolerance, self.tolerance)?;
            let square = (error / scale)?.sqr()?.mean_all()?.to_device(&Device::Cpu)?.to_dtype(DType::F64)?;
            let size = square.to_scalar::<f64>()?.sqrt();
            if !size.is_finite() {
                return Err(Error::NonFinite { step: index, sigma: from });
            }
            let factor = factor(size);
            if size <= 1.0 || stride <= SHORTEST {
                path.x = next;
                path.slope = slopes.pop();
                // A step that was cut at a level says nothing against a longer one.
                path.stride = if is_last { path.stride.max(stride * factor) } else { stride * factor };
                at = if is_last { end } else { at - stride };
            } else {
                path.stride = stride * factor;
            }
            path.stride = path.stride.max(SHORTEST);
        }
        Ok(())
    }
}

impl Path {
    /// `x − D(x; σ)` where the image is.
    fn slope(&mut self, prior: &dyn Denoiser, sigma: f64) -> Result<Tensor> {
        let slope = match self.slope.take() {
            Some(slope) => slope,
            None => (&self.x - prior.denoise(&self.x, sigma)?)?,
        };
        self.slope = Some(slope.clone());
        Ok(slope)
    }
}

/// `x + factor Σ w_i k_i`
fn combined(x: &Tensor, weights: &[f64], slopes: &[Tensor], factor: f64) -> Result<Tensor> {
    let mut sum = x.clone();
    for (weight, slope) in weights.iter().zip(slopes).filter(|(weight, _)| **weight != 0.0) {
        sum = (sum + slope.affine(weight * factor, 0.0)?)?;
    }
    Ok(sum)
}

impl Solver for Rk45 {
    fn solve(
        &self,
        prior: &dyn Denoiser,
        x: Tensor,
        range: &RangeInclusive<f64>,
        rng: &mut Rng,
        observer: &mut dyn Observer,
    ) -> Result<Tensor> {
        let rows = x.dim(0)?;
        let path = |row| Ok(Path { x: x.narrow(0, row, 1)?.contiguous()?, slope: None, stride: 0.1 });
        let mut paths = (0..rows).map(path).collect::<Result<Vec<_>>>()?;
        let mut index = 0;
        descend(x.clone(), &self.sigmas(range), rng, observer, |x, level, _| {
            let slopes = paths.iter_mut().map(|path| path.slope(prior, level.from)).collect::<Result<Vec<_>>>()?;
            let x0 = (x - Tensor::cat(&slopes, 0)?)?;
            super::check_finite(&x0, index, level.from)?;
            let next = if level.to > 0.0 {
                paths.iter_mut().try_for_each(|path| self.advance(path, prior, level, index))?;
                Tensor::cat(&paths.iter().map(|path| &path.x).collect::<Vec<_>>(), 0)?
            } else if self.denoise {
                x0.clone()
            } else {
                x.clone()
            };
            index += 1;
            Ok(Transition { x0, next })
        })
    }

    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn sigmas(&self, range: &RangeInclusive<f64>) -> Vec<f64> {
        Geometric { steps: if range.start() < range.end() { self.steps } else { 1 } }.sigmas(range)
    }

    fn evaluations(&self, _: &RangeInclusive<f64>) -> Option<usize> {
        None
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Config {
    /// Noise levels above zero at which it reports.
    steps: usize,
    /// Relative and absolute tolerance.
    tolerance: f64,
    /// Whether the last state is denoised.
    denoise: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self { steps: 8, tolerance: 1e-5, denoise: true }
    }
}

pub(super) const ENTRY: Entry<BuildSolver> = Entry {
    name: "rk45",
    about: "Dormand and Prince's adaptive method for the probability-flow ODE",
    fields: &[
        ("steps", "noise levels above zero that it stops at to report, 2 to 1000; default 8"),
        ("tolerance", "error of a step, relative and absolute, 1e-9 to 1; default 1e-5"),
        ("denoise", "whether the state at the last level is denoised, or the result; default true"),
    ],
    example: "steps = 3\ntolerance = 0.01",
    build: |table| {
        let Config { steps, tolerance, denoise } = settings(ENTRY.name, table)?;
        within("steps", steps as f64, 2.0..=1000.0)?;
        Ok(Box::new(Rk45 { steps, tolerance: within("tolerance", tolerance, 1e-9..=1.0)?, denoise }))
    },
};
