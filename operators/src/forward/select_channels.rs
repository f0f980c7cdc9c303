//! Some channels are observed.

use std::sync::Arc;

use candle_core::{Device, Tensor};
use rayon::prelude::*;
use serde::Deserialize;

use super::grayscale::shape;
use super::{BuildOperator, ForwardOperator, LinearOperator, SpectralOperator};
use crate::map::{self, Real, RowMap};
use crate::registry::Entry;
use crate::{Error, Result};

/// `y_i = x_{k_i}`: the channels `k`, in that order.
#[derive(Clone, Debug)]
pub struct SelectChannels {
    selection: Arc<Selection>,
    /// `[1, C, 1, 1]`: 1 for the channels that are seen.
    singular_values: Tensor,
}

impl SelectChannels {
    /// Keeps these of `channels` channels, counted from 0.
    ///
    /// # Errors
    /// [`Error::Config`] unless there is one at least, each is there, and none is named twice.
    pub fn new(keep: &[usize], channels: usize) -> Result<Self> {
        let mut seen = vec![0.0; channels];
        for &channel in keep {
            match seen.get_mut(channel) {
                Some(seen) if *seen == 0.0 => *seen = 1.0,
                Some(_) => {
                    let reason = format!("keep is {keep:?}, expected every channel once at most");
                    return Err(Error::config("select_channels", reason));
                }
                None => {
                    let reason =
                        format!("keep is {keep:?}, expected numbers below {channels}, the channels of the image");
                    return Err(Error::config("select_channels", reason));
                }
            }
        }
        if keep.is_empty() {
            return Err(Error::config("select_channels", "keep is [], expected a channel at least"));
        }
        let singular_values = Tensor::from_vec(seen, (1, channels, 1, 1), &Device::Cpu)?;
        Ok(Self { selection: Arc::new(Selection { keep: keep.to_vec(), channels }), singular_values })
    }
}

/// The operator as loops.
#[derive(Debug)]
struct Selection {
    keep: Vec<usize>,
    channels: usize,
}

impl RowMap for Selection {
    const NAME: &'static str = "select_channels";

    fn output_shape(&self, input: &[usize]) -> Result<Vec<usize>> {
        match *input {
            [channels, height, width] if channels == self.channels => Ok(vec![self.keep.len(), height, width]),
            _ => Err(shape("row for select_channels", input, &format!("[{}, _, _]", self.channels))),
        }
    }

    fn input_shape(&self, output: &[usize]) -> Result<Vec<usize>> {
        match *output {
            [kept, height, width] if kept == self.keep.len() => Ok(vec![self.channels, height, width]),
            _ => Err(shape("measurement of select_channels", output, &format!("[{}, _, _]", self.keep.len()))),
        }
    }

    fn forward<T: Real>(&self, shape: &[usize], x: &[T], y: &mut [T]) {
        let plane = (shape[1] * shape[2]).max(1);
        y.par_chunks_mut(plane).zip(&self.keep).for_each(|(y, &channel)| {
            y.copy_from_slice(&x[channel * plane..][..plane]);
        });
    }

    fn transpose<T: Real>(&self, shape: &[usize], y: &[T], x: &mut [T]) {
        let plane = (shape[1] * shape[2]).max(1);
        for (y, &channel) in y.chunks(plane).zip(&self.keep) {
            x[channel * plane..][..plane].copy_from_slice(y);
        }
    }
}

impl ForwardOperator for SelectChannels {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        map::apply(&self.selection, x)
    }

    fn as_linear(&self) -> Option<&dyn LinearOperator> {
        Some(self)
    }
}

impl LinearOperator for SelectChannels {
    fn adjoint(&self, y: &Tensor) -> Result<Tensor> {
        map::transpose(&self.selection, y)
    }

    fn as_spectral(&self) -> Option<&dyn SpectralOperator> {
        Some(self)
    }
}

/// `V = I`; `U` orders the channels, `s` is 1 for those that are seen.
impl SpectralOperator for SelectChannels {
    fn singular_values(&self) -> &Tensor {
        &self.singular_values
    }

    fn image_to_spectrum(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.clone())
    }

    fn spectrum_to_image(&self, spectrum: &Tensor) -> Result<Tensor> {
        Ok(spectrum.clone())
    }

    fn measurement_to_spectrum(&self, y: &Tensor) -> Result<Tensor> {
        self.adjoint(y)
    }

    fn pseudo_inverse(&self, y: &Tensor) -> Result<Tensor> {
        self.adjoint(y)
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Channels that are seen, counted from 0, in the order of the measurement.
    keep: Vec<usize>,
}

/// `select_channels`
pub(crate) const ENTRY: Entry<BuildOperator> = Entry {
    name: "select_channels",
    about: "Some of the channels",
    fields: &[("keep", "list of the channels that are seen, counted from 0, in the order of the measurement")],
    example: "keep = [2, 0]",
    build: BuildOperator::reshaping(
        |table, site| {
            let Config { keep } = table.try_into()?;
            Ok(Box::new(SelectChannels::new(&keep, site.image.0)?))
        },
        |_, y, _| {
            let reason = format!("measurement is {y:?}, which does not tell the number of channels of its image");
            Err(Error::config("select_channels", reason))
        },
    ),
};
