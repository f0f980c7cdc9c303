//! Inpainting: some pixels are not observed.

use candle_core::{DType, Device, Tensor};
use serde::Deserialize;

use super::{BuildOperator, ForwardOperator, LinearOperator, SpectralOperator, check_image, like};
use crate::registry::{Entry, Site};
use crate::rng::Rng;
use crate::{Error, Result};

/// `y = m ⊙ x` with a mask `m` of ones (seen) and zeros (missing).
#[derive(Clone, Debug)]
pub struct Inpaint {
    /// `[1, 1, H, W]` or `[1, C, H, W]`.
    mask: Tensor,
}

impl Inpaint {
    /// Sees the pixels where the mask is 1.
    ///
    /// # Shapes
    /// `mask`: `[1, 1, H, W]`, shared by the channels, or `[1, C, H, W]`; any type.
    ///
    /// # Errors
    /// [`Error::Shape`] for another shape, [`Error::Config`] for a value that is neither 0 nor 1.
    pub fn new(mask: &Tensor) -> Result<Self> {
        check_image("mask of inpaint", mask, [None; 3])?;
        if mask.dims()[0] != 1 {
            let expected = "[1, _, _, _], one mask for all rows".into();
            return Err(Error::Shape { what: "mask of inpaint".into(), got: mask.dims().to_vec(), expected });
        }
        // Zeros and ones are exact in every type, so one copy serves all.
        let mask = if mask.dtype() == DType::F64 { mask.clone() } else { mask.to_dtype(DType::F32)? };
        let values = mask.flatten_all()?.to_dtype(DType::F32)?.to_vec1::<f32>()?;
        match values.iter().find(|&&value| value != 0.0 && value != 1.0) {
            Some(value) => {
                Err(Error::config("inpaint", format!("mask holds {value}, expected 0 (missing) or 1 (seen)")))
            }
            None => Ok(Self { mask }),
        }
    }

    /// Hides a centred square of `size × size` pixels; where it cannot be centred it lies half a pixel up and left.
    ///
    /// # Errors
    /// [`Error::Config`] unless `size` is at least 1 and fits the image.
    pub fn centred_box(size: usize, site: Site<'_>) -> Result<Self> {
        let (_, height, width) = site.image;
        if size == 0 || size > height.min(width) {
            let reason =
                format!("size is {size}, expected 1 to {} for an image of {width}x{height}", height.min(width));
            return Err(Error::config("inpaint_box", reason));
        }
        let (top, left) = ((height - size) / 2, (width - size) / 2);
        let hidden = |i: usize| (top..top + size).contains(&(i / width)) && (left..left + size).contains(&(i % width));
        Self::from_hidden(site, hidden)
    }

    /// Hides `⌊missing · H · W⌋` pixels, all channels of each, drawn without replacement from `seed`.
    ///
    /// # Errors
    /// [`Error::Config`] unless `missing` is in `[0, 1]`.
    pub fn random(missing: f64, seed: u64, site: Site<'_>) -> Result<Self> {
        if !(0.0..=1.0).contains(&missing) {
            let reason = format!("missing is {missing}, expected a fraction from 0 to 1");
            return Err(Error::config("inpaint_random", reason));
        }
        let (_, height, width) = site.image;
        let keys =
            Rng::new(seed, 0..1).uniform((1, 1, height, width), &Device::Cpu)?.flatten_all()?.to_vec1::<f32>()?;
        let mut order: Vec<usize> = (0..keys.len()).collect();
        order.sort_unstable_by(|&a, &b| keys[a].total_cmp(&keys[b]).then(a.cmp(&b)));
        let mut hidden = vec![false; keys.len()];
        let count = (missing * keys.len() as f64).floor() as usize;
        order.iter().take(count).for_each(|&i| hidden[i] = true);
        Self::from_hidden(site, |i| hidden[i])
    }

    /// The mask: `[1, 1, H, W]` or `[1, C, H, W]`, 1 where seen.
    pub fn mask(&self) -> &Tensor {
        &self.mask
    }

    fn from_hidden(site: Site<'_>, hidden: impl Fn(usize) -> bool) -> Result<Self> {
        let (_, height, width) = site.image;
        let mask: Vec<f32> = (0..height * width).map(|i| if hidden(i) { 0.0 } else { 1.0 }).collect();
        let mask = Tensor::from_vec(mask, (1, 1, height, width), site.device)?;
        Self::new(&mask.to_dtype(site.dtype)?)
    }

    fn apply(&self, what: &str, x: &Tensor) -> Result<Tensor> {
        let (_, channels, height, width) = self.mask.dims4()?;
        check_image(what, x, [(channels > 1).then_some(channels), Some(height), Some(width)])?;
        Ok(x.broadcast_mul(&like(&self.mask, x)?)?)
    }
}

impl ForwardOperator for Inpaint {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.apply("image for inpaint", x)
    }

    fn as_linear(&self) -> Option<&dyn LinearOperator> {
        Some(self)
    }
}

impl LinearOperator for Inpaint {
    fn adjoint(&self, y: &Tensor) -> Result<Tensor> {
        self.apply("measurement of inpaint", y)
    }

    fn as_spectral(&self) -> Option<&dyn SpectralOperator> {
        Some(self)
    }
}

/// `U = V = I`, `s = m`.
impl SpectralOperator for Inpaint {
    fn singular_values(&self) -> &Tensor {
        &self.mask
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
struct BoxConfig {
    /// Side of the missing square, in pixels.
    size: usize,
}

/// `inpaint_box`
pub(crate) const BOX: Entry<BuildOperator> = Entry {
    name: "inpaint_box",
    about: "Centred square of missing pixels",
    fields: &[("size", "side of the missing square in pixels, at least 1")],
    example: "size = 4",
    build: BuildOperator::same_shape(|table, site| {
        let BoxConfig { size } = table.try_into()?;
        Ok(Box::new(Inpaint::centred_box(size, site)?))
    }),
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RandomConfig {
    /// Fraction of missing pixels, 0 to 1.
    #[serde(default = "RandomConfig::missing")]
    missing: f64,
    /// Seed of the mask.
    #[serde(default)]
    seed: u64,
}

impl RandomConfig {
    fn missing() -> f64 {
        0.7
    }
}

/// `inpaint_random`
pub(crate) const RANDOM: Entry<BuildOperator> = Entry {
    name: "inpaint_random",
    about: "Random missing pixels, all channels of a pixel together",
    fields: &[("missing", "fraction of missing pixels, 0 to 1; default 0.7"), ("seed", "seed of the mask; default 0")],
    example: "missing = 0.7\nseed = 1",
    build: BuildOperator::same_shape(|table, site| {
        let RandomConfig { missing, seed } = table.try_into()?;
        Ok(Box::new(Inpaint::random(missing, seed, site)?))
    }),
};
