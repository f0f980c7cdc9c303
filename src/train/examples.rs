//! What a run is trained on and measured on.

use super::config::TrainConfig;
use super::photos::{Patches, Photos};
use super::validation::HeldOut;
use crate::{Error, Result};
use candle_core::Tensor;
use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use tweedie_kernels::network::Network;

/// An endless sequence of examples, of which any part can be asked for.
///
/// [`batch`](Self::batch) is required. Example number k depends on nothing but k, so that a run that is resumed sees what it
/// would have seen: a run in memory draws it with [`Rng::new(seed, k..k + 1)`](tweedie_operators::Rng::new), or takes
/// element k of a shuffled list. A closure from numbers to examples is such a sequence.
pub trait Examples: Send {
    /// Examples `first` to `first + count`.
    ///
    /// # Shapes
    /// Returns `[count, C, H, W]`, pixels in [-1, 1]
    /// # Errors
    /// Those of reading them.
    fn batch(&mut self, first: u64, count: usize) -> Result<Tensor>;

    /// Files that could not be read since it was last asked, with the reason; none by default.
    fn take_failed(&mut self) -> Vec<(PathBuf, String)> {
        Vec::new()
    }
}

impl<F: FnMut(Range<u64>) -> Result<Tensor> + Send> Examples for F {
    fn batch(&mut self, first: u64, count: usize) -> Result<Tensor> {
        self(first..first + count as u64)
    }
}

/// Everything that a run sees: examples to be trained on, and others that it is measured on.
pub struct Data {
    /// To be trained on.
    pub examples: Box<dyn Examples>,
    /// To be measured on.
    pub held_out: HeldOut,
    /// What tells it from other data: a run is resumed with the same alone.
    pub digest: String,
    /// Photos, or other things, that examples are made of.
    pub count: usize,
    /// Pixels of these.
    pub pixels: u64,
    /// Files that were passed over, with the reason.
    pub skipped: Vec<(PathBuf, String)>,
}

impl fmt::Debug for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Data")
            .field("digest", &self.digest)
            .field("count", &self.count)
            .field("pixels", &self.pixels)
            .finish_non_exhaustive()
    }
}

impl Data {
    /// The folders of photos of a configuration, for this network.
    ///
    /// # Errors
    /// `Config` for folders without photos that can be used, for patches that the network cannot take and for as many photos
    /// held out as there are; those of decoding.
    pub fn of_photos(config: &TrainConfig, network: &Network) -> Result<Self> {
        let stride = network.stride();
        if !config.data.patch.is_multiple_of(stride) {
            return Err(Error::Config {
                name: "data.patch".into(),
                got: config.data.patch.to_string(),
                expected: format!("a multiple of {stride}, the stride of the network"),
            });
        }
        let mut photos = Photos::open(&config.data.folder, config.data.patch)?;
        let skipped = std::mem::take(&mut photos.skipped);
        let digest = photos.digest();
        let held_out = match &config.data.validation {
            Some(folder) => Photos::open(folder, config.data.patch)?,
            None if config.data.held_out == 0 || config.data.held_out >= photos.len() => {
                return Err(Error::Config {
                    name: "data.held_out".into(),
                    got: config.data.held_out.to_string(),
                    expected: format!("1 to {} of the {} photos", photos.len().saturating_sub(1), photos.len()),
                });
            }
            None => photos.hold_out(config.data.held_out, config.seed),
        };
        let held_out = HeldOut::of_photos(&held_out.decode()?, config, network.channels, stride)?;
        let (count, pixels) = (photos.len(), photos.pixels());
        let examples = Box::new(Patches::new(photos, &config.data, network.channels, config.seed));
        Ok(Self { examples, held_out, digest, count, pixels, skipped })
    }
}
