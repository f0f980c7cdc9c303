//! Making test cases: what an instrument would have recorded of a photo.

use super::case::colours;
use crate::Result;
use crate::image::{Mask, Photo, Region};
use candle_core::Tensor;
use tweedie_operators::{ForwardOperator, NoiseModel, Rng};

/// A measurement, and how it looks.
#[derive(Debug)]
pub struct Degraded {
    /// `[1, ..]`.
    pub y: Tensor,
    /// The measurement as a picture, rounded and clamped to the photo's depth, if it is one: `[1, 1, h, w]` or `[1, 3, h, w]`.
    pub picture: Option<Photo>,
}

/// Measures a photo: `y = N(A(x))`, its noise drawn from `seed`.
///
/// # Errors
/// `Operator` if the photo does not fit the operator.
pub fn degrade(photo: &Photo, operator: &dyn ForwardOperator, noise: &dyn NoiseModel, seed: u64) -> Result<Degraded> {
    let x = colours(photo)?;
    let y = noise.corrupt(&operator.measure(&x)?, &mut Rng::new(seed, 0..1))?;
    let picture = match *y.dims() {
        [1, channels @ (1 | 3), height, width] => {
            let same_size = (height, width) == (photo.height(), photo.width());
            let mut canvas = if same_size { photo.clone() } else { photo.resized(width, height) };
            canvas = if channels == 1 { canvas.in_grey() } else { canvas.in_colour() };
            let whole = Region { x: 0, y: 0, width, height };
            let colours = y.broadcast_as((1, 3, height, width))?.contiguous()?;
            canvas.paint(whole, &Mask::from_fn(width, height, |_, _| true), &colours)?;
            Some(canvas)
        }
        _ => None,
    };
    Ok(Degraded { y, picture })
}
