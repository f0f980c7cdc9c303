//! Missing pixels drawn at random.

use serde::Deserialize;

use super::{Inpaint, draw, missing_count, smallest};
use crate::Result;
use crate::forward::BuildOperator;
use crate::registry::{Entry, Site};

impl Inpaint {
    /// Hides `⌊missing · H · W⌋` pixels, all channels of each, drawn without replacement from `seed`.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) unless `missing` is in `[0, 1]`.
    pub fn random(missing: f64, seed: u64, site: Site<'_>) -> Result<Self> {
        Self::random_planes(1, missing, seed, site)
    }

    /// Hides `⌊missing · H · W⌋` values of every channel, drawn without replacement from `seed`, other ones in each.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) unless `missing` is in `[0, 1]`.
    pub fn random_each(missing: f64, seed: u64, site: Site<'_>) -> Result<Self> {
        Self::random_planes(site.image.0, missing, seed, site)
    }

    fn random_planes(planes: usize, missing: f64, seed: u64, site: Site<'_>) -> Result<Self> {
        let (_, height, width) = site.image;
        let count = missing_count("inpaint_random", missing, height * width)?;
        let keys = draw(seed, (planes, height, width))?;
        let mut seen = vec![true; keys.len()];
        for (keys, seen) in keys.chunks(height * width).zip(seen.chunks_mut(height * width)) {
            smallest(keys, count).for_each(|i| seen[i] = false);
        }
        Self::from_seen(site, planes, seen)
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Fraction of missing pixels, 0 to 1.
    #[serde(default = "Config::missing")]
    missing: f64,
    /// Seed of the mask.
    #[serde(default)]
    seed: u64,
    /// Whether channels miss the same pixels; default shared.
    #[serde(default)]
    channels: Channels,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Channels {
    #[default]
    Shared,
    Each,
}

impl Config {
    fn missing() -> f64 {
        0.7
    }
}

/// `inpaint_random`
pub(crate) const ENTRY: Entry<BuildOperator> = Entry {
    name: "inpaint_random",
    about: "Random missing pixels",
    fields: &[
        ("missing", "fraction of missing pixels, 0 to 1; default 0.7"),
        ("seed", "seed of the mask; default 0"),
        ("channels", "shared: all channels of a pixel together; each: every channel its own pixels; default shared"),
    ],
    example: "missing = 0.7\nseed = 1",
    build: BuildOperator::same_shape(|table, site| {
        let Config { missing, seed, channels } = table.try_into()?;
        Ok(Box::new(match channels {
            Channels::Shared => Inpaint::random(missing, seed, site)?,
            Channels::Each => Inpaint::random_each(missing, seed, site)?,
        }))
    }),
};
