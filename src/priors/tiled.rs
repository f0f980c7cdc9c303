//! Any prior on images of any size, in overlapping windows.

use super::Denoiser;
use crate::{Error, Result};
use candle_core::{Device, Tensor};
use std::ops::RangeInclusive;
use std::sync::Mutex;
use tweedie_operators::Pullback;

/// `D(x) = Σ_k P_kᵀ (w̄_k ⊙ D_k(P_k x))`: overlapping windows, blended with smooth weights inside every call.
///
/// Because what is blended are denoised images of one noise level, all windows share one sample and any sampler works at
/// any size. `w̄` is the product of raised-cosine ramps along both axes, which add up to one.
///
/// Context ends at the window: a prior of faces does not become a prior of crowds, and a prior whose pixels are
/// correlated over more than the overlap does not equal itself untiled.
#[derive(Debug)]
pub struct Tiled<'a> {
    inner: &'a dyn Denoiser,
    rows: Axis,
    columns: Axis,
    /// Which windows are evaluated, row after row; the others count as zero.
    active: Vec<bool>,
    /// Windows whose pullback keeps its forward pass; the others repeat it, one at a time.
    kept: usize,
}

/// Windows along one axis.
#[derive(Debug)]
struct Axis {
    size: usize,
    window: usize,
    starts: Vec<usize>,
    /// Normalised weights of each window, `[window]`.
    weights: Vec<Tensor>,
}

/// First pixels of the fewest windows of `window` pixels that cover `size` pixels with at least `overlap` pixels in
/// common, evenly spread. One window starting at 0 if it covers everything.
pub fn window_starts(size: usize, window: usize, overlap: usize) -> Vec<usize> {
    if size <= window {
        return vec![0];
    }
    let count = (size - overlap).div_ceil(window - overlap).max(2);
    (0..count).map(|i| (i * (size - window) + (count - 1) / 2) / (count - 1)).collect()
}

impl Axis {
    fn new(size: usize, window: usize, overlap: usize, stride: usize) -> Result<Self> {
        // As many windows as the largest size needs, each no larger than it has to be: fewer pixels twice.
        let count = window_starts(size, window, overlap).len();
        let least = (size + (count - 1) * overlap).div_ceil(count).next_multiple_of(stride);
        let window = least.min(window).min(size);
        let starts = window_starts(size, window, overlap.min(window / 2));
        let mut weights: Vec<Vec<f32>> = Vec::with_capacity(starts.len());
        for (index, &start) in starts.iter().enumerate() {
            // A ramp over what is shared with each neighbour.
            let before = index.checked_sub(1).map_or(0, |i| starts[i] + window - start);
            let after = starts.get(index + 1).map_or(0, |next| start + window - next);
            let ramp = |distance: usize, length: usize| {
                if distance >= length {
                    return 1.0;
                }
                let phase = (distance as f64 + 0.5) / length as f64;
                0.5 - 0.5 * (std::f64::consts::PI * phase).cos()
            };
            weights.push((0..window).map(|i| (ramp(i, before) * ramp(window - 1 - i, after)) as f32).collect());
        }
        let mut total = vec![0.0_f32; size];
        for (start, weights) in starts.iter().zip(&weights) {
            for (total, weight) in total[*start..].iter_mut().zip(weights) {
                *total += weight;
            }
        }
        for (start, weights) in starts.iter().zip(&mut weights) {
            for (weight, total) in weights.iter_mut().zip(&total[*start..]) {
                *weight /= total;
            }
        }
        let weights = weights.into_iter().map(|weights| Tensor::from_vec(weights, window, &Device::Cpu));
        Ok(Self { size, window, starts, weights: weights.collect::<candle_core::Result<_>>()? })
    }

    fn on(self, device: &Device) -> Result<Self> {
        let weights = self.weights.iter().map(|weights| weights.to_device(device));
        Ok(Self { weights: weights.collect::<candle_core::Result<_>>()?, ..self })
    }

    /// Adds up pieces that lie at the windows' places along `dim`; `None` is zero.
    fn assemble(&self, pieces: Vec<Option<Tensor>>, dim: usize, like: (&[usize], &Device)) -> Result<Tensor> {
        let (shape, device) = like;
        let zeros = |length: usize| -> Result<Tensor> {
            let mut shape = shape.to_vec();
            shape[dim] = length;
            Ok(Tensor::zeros(shape, candle_core::DType::F32, device)?)
        };
        // Between two neighbouring borders the same windows lie everywhere: their sum there is a segment, and nothing of
        // the size of the whole is made but the result.
        let ends = self.starts.iter().map(|start| start + self.window);
        let mut borders: Vec<usize> = self.starts.iter().copied().chain(ends).chain([0, self.size]).collect();
        borders.sort_unstable();
        borders.dedup();
        let mut segments = Vec::with_capacity(borders.len());
        for border in borders.windows(2) {
            let (from, length) = (border[0], border[1] - border[0]);
            let mut sum: Option<Tensor> = None;
            for (start, piece) in self.starts.iter().zip(&pieces) {
                let Some(piece) = piece.as_ref().filter(|_| (*start..start + self.window).contains(&from)) else {
                    continue;
                };
                let part = piece.narrow(dim, from - start, length)?;
                sum = Some(match sum {
                    Some(sum) => (sum + part)?,
                    None => part,
                });
            }
            segments.push(sum.map_or_else(|| zeros(length), Ok)?);
        }
        Ok(Tensor::cat(&segments, dim)?)
    }
}

impl<'a> Tiled<'a> {
    /// `inner` on images of `height × width`, in windows of at most `window` pixels a side that share at least `overlap`.
    ///
    /// # Errors
    /// `Config` if `overlap` is not below half a window, or if `inner` has a size of its own and the image is smaller.
    pub fn new(
        inner: &'a dyn Denoiser,
        (height, width): (usize, usize),
        window: usize,
        overlap: usize,
    ) -> Result<Self> {
        let native = inner.native_size();
        let (tall, wide) = native.unwrap_or((window, window));
        if overlap * 2 >= tall.min(wide) {
            return Err(Error::Config {
                name: "overlap of windows".into(),
                got: overlap.to_string(),
                expected: format!("less than half of the window of {wide}x{tall} pixels"),
            });
        }
        if native.is_some() && (height < tall || width < wide) {
            return Err(Error::Config {
                name: "image of a prior with a size of its own".into(),
                got: format!("{width}x{height}"),
                expected: format!("at least {wide}x{tall}"),
            });
        }
        // A prior with a size of its own takes that alone; others windows of any multiple of eight.
        let stride = |window: usize| if native.is_some() { window } else { 8 };
        let rows = Axis::new(height, tall, overlap, stride(tall))?;
        let columns = Axis::new(width, wide, overlap, stride(wide))?;
        let active = vec![true; rows.starts.len() * columns.starts.len()];
        Ok(Self { inner, rows, columns, active, kept: 1 })
    }

    /// The same for images on `device`; [`new`](Self::new) is for the CPU.
    ///
    /// # Errors
    /// `Tensor` if the weights cannot be moved there.
    pub fn on(self, device: &Device) -> Result<Self> {
        Ok(Self { rows: self.rows.on(device)?, columns: self.columns.on(device)?, ..self })
    }

    /// Leaves out the windows in which `needed(y, x)` holds for no pixel; the result there is not to be used.
    pub fn restricted(mut self, needed: impl Fn(usize, usize) -> bool) -> Self {
        for (index, active) in self.active.iter_mut().enumerate() {
            let (top, left) = (
                self.rows.starts[index / self.columns.starts.len()],
                self.columns.starts[index % self.columns.starts.len()],
            );
            *active = (top..top + self.rows.window).any(|y| (left..left + self.columns.window).any(|x| needed(y, x)));
        }
        self
    }

    /// Lets the pullback keep the forward passes of this many windows in memory instead of repeating them.
    pub fn keeping(self, windows: usize) -> Self {
        Self { kept: windows, ..self }
    }

    /// Number of windows that are evaluated.
    pub fn windows(&self) -> usize {
        self.active.iter().filter(|active| **active).count()
    }

    /// Height and width of a window.
    pub fn window(&self) -> (usize, usize) {
        (self.rows.window, self.columns.window)
    }

    fn check(&self, x: &Tensor) -> Result<()> {
        let (_, _, height, width) = x.dims4()?;
        if (height, width) == (self.rows.size, self.columns.size) {
            return Ok(());
        }
        Err(Error::Config {
            name: "image of a tiled prior".into(),
            got: format!("{width}x{height}"),
            expected: format!("{}x{}", self.columns.size, self.rows.size),
        })
    }

    /// Applies `f` to every active window and blends: `Σ_k P_kᵀ f(k, P_k x)`.
    fn blend(&self, x: &Tensor, mut f: impl FnMut(usize, &Tensor, &Tensor) -> Result<Tensor>) -> Result<Tensor> {
        self.check(x)?;
        let (batch, channels, ..) = x.dims4()?;
        let mut strips = Vec::with_capacity(self.rows.starts.len());
        for (row, &top) in self.rows.starts.iter().enumerate() {
            let mut pieces = Vec::with_capacity(self.columns.starts.len());
            for (column, &left) in self.columns.starts.iter().enumerate() {
                let index = row * self.columns.starts.len() + column;
                if !self.active[index] {
                    pieces.push(None);
                    continue;
                }
                let window = x.narrow(2, top, self.rows.window)?.narrow(3, left, self.columns.window)?.contiguous()?;
                let down = self.rows.weights[row].reshape((1, 1, self.rows.window, 1))?;
                let across = self.columns.weights[column].reshape((1, 1, 1, self.columns.window))?;
                pieces.push(Some(f(index, &window, &down.broadcast_mul(&across)?)?));
            }
            strips.push(match pieces.iter().any(Option::is_some) {
                true => {
                    let shape = [batch, channels, self.rows.window, self.columns.window];
                    Some(self.columns.assemble(pieces, 3, (&shape, x.device()))?)
                }
                false => None,
            });
        }
        self.rows.assemble(strips, 2, (&[batch, channels, self.rows.window, self.columns.size], x.device()))
    }
}

impl Denoiser for Tiled<'_> {
    fn denoise(&self, x: &Tensor, sigma: f64) -> Result<Tensor> {
        self.blend(x, |_, window, weights| Ok(self.inner.denoise(window, sigma)?.broadcast_mul(weights)?))
    }

    fn channels(&self) -> Option<usize> {
        self.inner.channels()
    }

    fn sigma_range(&self) -> RangeInclusive<f64> {
        self.inner.sigma_range()
    }

    fn spread(&self) -> f64 {
        self.inner.spread()
    }

    fn native_size(&self) -> Option<(usize, usize)> {
        Some((self.rows.size, self.columns.size))
    }

    /// The transpose is `Σ_k P_kᵀ J_kᵀ (w̄_k ⊙ P_k v)`; beyond the windows that are [kept](Self::keeping) it repeats a
    /// window's forward pass when it is needed, so that memory does not grow with the image.
    fn denoise_with_pullback<'b>(&'b self, x: &Tensor, sigma: f64) -> Result<(Tensor, Pullback<'b>)> {
        let mut tapes: Vec<Option<Pullback<'b>>> = self.active.iter().map(|_| None).collect();
        let mut kept = 0;
        let denoised = self.blend(x, |index, window, weights| {
            let denoised = if kept < self.kept {
                let (denoised, pullback) = self.inner.denoise_with_pullback(window, sigma)?;
                tapes[index] = Some(pullback);
                kept += 1;
                denoised
            } else {
                self.inner.denoise(window, sigma)?
            };
            Ok(denoised.broadcast_mul(weights)?)
        })?;
        let x = x.clone();
        let tapes = Mutex::new(tapes);
        let pullback = Pullback::new(move |v| {
            let tapes = tapes.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let (width, left) = (self.columns.window, &self.columns.starts);
            self.blend(v, |index, v, weights| {
                let v = v.broadcast_mul(weights)?;
                if let Some(pullback) = &tapes[index] {
                    return Ok(pullback.apply(&v)?);
                }
                let (top, left) = (self.rows.starts[index / left.len()], left[index % left.len()]);
                let window = x.narrow(2, top, self.rows.window)?.narrow(3, left, width)?.contiguous()?;
                Ok(self.inner.denoise_with_pullback(&window, sigma)?.1.apply(&v)?)
            })
            .map_err(|error| tweedie_operators::Error::External(Box::new(error)))
        });
        Ok((denoised, pullback))
    }
}
