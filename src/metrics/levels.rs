//! Pictures as figures see them.

use crate::Result;
use candle_core::{DType, Device, Tensor};

/// A picture in 8-bit levels: `127.5 (x + 1)`, clipped to `[0, 255]`, not rounded.
#[derive(Clone, Debug, PartialEq)]
pub struct Levels {
    pub(super) channels: usize,
    pub(super) height: usize,
    pub(super) width: usize,
    /// Plane by plane, row by row.
    pub(super) values: Vec<f64>,
}

impl Levels {
    /// Of pixels in `[-1, 1]`.
    ///
    /// # Shapes
    /// `x`: `[C, H, W]` or `[1, C, H, W]`
    /// # Errors
    /// `Operator` (`Shape`) for any other shape.
    pub fn of(x: &Tensor) -> Result<Self> {
        let (channels, height, width) = match *x.dims() {
            [channels, height, width] | [1, channels, height, width] => (channels, height, width),
            _ => return Err(shape("picture", x.dims(), "[1, C, H, W]")),
        };
        let values = x.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
        let values = values.into_iter().map(|value| (127.5 * (value + 1.0)).clamp(0.0, 255.0)).collect();
        Ok(Self { channels, height, width, values })
    }

    /// The planes, one a channel.
    pub(super) fn planes(&self) -> std::slice::Chunks<'_, f64> {
        self.values.chunks(self.height * self.width)
    }

    /// Luma of rec. 601, or the only channel.
    pub(super) fn luma(&self) -> Vec<f64> {
        let area = self.height * self.width;
        match self.channels {
            3 => {
                let at = |channel: usize, i: usize| self.values[channel * area + i];
                (0..area).map(|i| 0.299 * at(0, i) + 0.587 * at(1, i) + 0.114 * at(2, i)).collect()
            }
            _ => self.values[..area].to_vec(),
        }
    }

    /// Refuses pictures that cannot be compared.
    pub(super) fn same_size(&self, other: &Self) -> Result<()> {
        let dims = |levels: &Self| [levels.channels, levels.height, levels.width];
        if dims(self) == dims(other) {
            return Ok(());
        }
        Err(shape("picture to compare", &dims(other), &format!("{:?}", dims(self))))
    }
}

/// A shape that does not fit.
pub(super) fn shape(what: &str, got: &[usize], expected: &str) -> crate::Error {
    tweedie_operators::Error::Shape { what: what.into(), got: got.to_vec(), expected: expected.into() }.into()
}
