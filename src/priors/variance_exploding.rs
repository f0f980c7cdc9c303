//! Networks of a variance exploding process: NCSN, NCSN++ and their kin.

use super::Scalings;
use std::fmt;

/// What such a network is told about the noise.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum NoiseCoordinate {
    /// `ln σ`, σ in the unit of the network's images.
    Logarithm,
    /// The number of the nearest level, the largest first; σ in the unit of the network's images.
    Level {
        /// σ of level 0.
        largest: f64,
        /// σ of the last level.
        smallest: f64,
        /// Number of levels; ln σ is evenly spaced.
        count: usize,
    },
}

/// A network `F` of which `∇ log p_σ` is made, with noise added to the image as it is.
///
/// With images `x' = (x + 1)/2` in [0, 1] the noise is `σ' = σ/2`, and with `∇ log p_σ'(x') = F/σ'` Tweedie's formula
/// `D' = x' + σ'² F/σ'` becomes `D = x + σ F`.
///
/// Song and Ermon (2019), <https://arxiv.org/abs/1907.05600>
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct VarianceExploding {
    /// What a difference of 1 in [-1, 1] is in the network's images: ½ for [0, 1], 1 for [-1, 1].
    pub unit: f64,
    /// Whether what the network begins with is pixels around 0; it begins with its own images otherwise.
    pub centred: bool,
    /// What it is told about the noise.
    pub coordinate: NoiseCoordinate,
    /// Whether `F` is the score itself, in the unit of the network's images, and not σ times it.
    pub divided: bool,
}

impl NoiseCoordinate {
    /// σ of what a program of this kind is conditioned by: the noise level itself, or a level's number.
    pub(crate) fn sigma(self, value: f64) -> f64 {
        match self {
            Self::Logarithm => value,
            Self::Level { largest, smallest, count } => {
                let last = (count - 1) as f64;
                if last == 0.0 { largest } else { largest * (-(largest / smallest).ln() * value / last).exp() }
            }
        }
    }

    /// The number that the network is told, and the σ that it then expects.
    fn at(self, sigma: f64) -> (f64, f64) {
        match self {
            Self::Logarithm => (sigma.ln(), sigma),
            Self::Level { largest, smallest, count } => {
                let last = (count - 1) as f64;
                let ratio = (largest / smallest).ln();
                let level = (last * (largest / sigma).ln() / ratio).round().clamp(0.0, last);
                (level, largest * (-ratio * level / last).exp())
            }
        }
    }
}

impl VarianceExploding {
    /// The numbers for noise level `sigma`.
    pub fn scalings(&self, sigma: f64) -> Scalings {
        let (noise, own) = self.coordinate.at(self.unit * sigma);
        let (input, shift) = if self.centred { (1.0, 0.0) } else { (self.unit, 1.0 - self.unit) };
        // Between two levels the score of the nearest is that of noise of its own size.
        let out = if self.divided { sigma * own } else { sigma };
        Scalings { skip: 1.0, out, input, shift, noise, offset: 0.0 }
    }

    /// Whether its numbers are such that a network can have been trained like this.
    ///
    /// # Errors
    /// A sentence with the number that is not.
    pub fn check(&self) -> Result<(), String> {
        if !(self.unit > 0.0 && self.unit <= 1.0) {
            return Err(format!("has images in a unit of {}, expected above 0 and up to 1", self.unit));
        }
        match self.coordinate {
            NoiseCoordinate::Level { largest, smallest, count }
                if !(count > 1 && smallest > 0.0 && smallest < largest && largest.is_finite()) =>
            {
                let got = format!("{count} noise levels from {largest} to {smallest}");
                Err(format!("has {got}, expected two or more that fall, all above 0"))
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Display for VarianceExploding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let range = if self.unit < 1.0 { "[0, 1]" } else { "[-1, 1]" };
        match self.coordinate {
            NoiseCoordinate::Logarithm => write!(f, "variance exploding, any level, images in {range}"),
            NoiseCoordinate::Level { count, .. } => {
                write!(f, "variance exploding, {count} levels, images in {range}")
            }
        }
    }
}
