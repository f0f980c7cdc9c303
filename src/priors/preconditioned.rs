//! A network and how it was trained make a denoiser.

use super::{Denoiser, Direct, LinearProcess, VarianceExploding, VariancePreserving};
use crate::Result;
use crate::models::ScoreModel;
use candle_core::{Device, Tensor};
use std::fmt;
use std::ops::RangeInclusive;
use tweedie_operators::Pullback;

/// `D(x; σ) = skip · x + out · F(input · x + shift, noise) + offset`: Table 1 of Karras et al. (2022),
/// <https://arxiv.org/abs/2206.00364>, and two numbers more for networks of another range of pixels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scalings {
    /// Factor of the input in the result.
    pub skip: f64,
    /// Factor of the network's output.
    pub out: f64,
    /// Factor of the network's input.
    pub input: f64,
    /// Added to the network's input; 0 for one that sees pixels around 0.
    pub shift: f64,
    /// The network's own noise coordinate.
    pub noise: f64,
    /// Added to the result; 0 for a network that makes pixels around 0.
    pub offset: f64,
}

/// How a checkpoint was trained. A closed set, hence an enum.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Parameterization {
    /// `skip = σ_d²/(σ²+σ_d²)`, `out = σσ_d/√(σ²+σ_d²)`, `input = 1/√(σ²+σ_d²)`, `noise = ln σ / 4`.
    Edm {
        /// Standard deviation of the data, `σ_d`.
        sigma_data: f64,
    },
    /// One quantity in the clock σ.
    Direct(Direct),
    /// A discrete variance-preserving process: DDPM and its kin.
    VariancePreserving(Box<VariancePreserving>),
    /// A continuous variance-preserving process.
    LinearProcess(LinearProcess),
    /// A variance exploding process: NCSN, NCSN++ and their kin.
    VarianceExploding(VarianceExploding),
    /// A denoiser of images in [0, 1] that is told σ in their unit: `D(x; σ) = 2 F((x + 1)/2, σ/2) − 1`.
    UnitDenoiser,
}

impl Parameterization {
    /// The numbers for noise level `sigma`.
    pub fn scalings(&self, sigma: f64) -> Scalings {
        match self {
            &Self::Edm { sigma_data } => {
                let total = sigma * sigma + sigma_data * sigma_data;
                Scalings {
                    skip: sigma_data * sigma_data / total,
                    out: sigma * sigma_data / total.sqrt(),
                    input: 1.0 / total.sqrt(),
                    shift: 0.0,
                    noise: sigma.ln() / 4.0,
                    offset: 0.0,
                }
            }
            Self::Direct(direct) => direct.scalings(sigma),
            Self::VariancePreserving(process) => process.scalings(sigma),
            Self::LinearProcess(process) => process.scalings(sigma),
            Self::VarianceExploding(process) => process.scalings(sigma),
            Self::UnitDenoiser => {
                Scalings { skip: 0.0, out: 2.0, input: 0.5, shift: 0.5, noise: sigma / 2.0, offset: -1.0 }
            }
        }
    }

    /// Whether its numbers are such that a network can have been trained like this.
    ///
    /// # Errors
    /// A sentence with the number that is not.
    pub fn check(&self) -> Result<(), String> {
        match *self {
            Self::Edm { sigma_data } if !(sigma_data > 0.0 && sigma_data.is_finite()) => {
                Err(format!("has sigma_data = {sigma_data}, expected a finite number above 0"))
            }
            Self::Edm { .. } | Self::VariancePreserving(_) | Self::UnitDenoiser => Ok(()),
            Self::Direct(direct) => direct.check(),
            Self::LinearProcess(process) => process.check(),
            Self::VarianceExploding(process) => process.check(),
        }
    }
}

impl fmt::Display for Parameterization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Edm { sigma_data } => write!(f, "EDM, sigma_data {sigma_data}"),
            Self::VariancePreserving(process) => {
                let VariancePreserving { levels, prediction, .. } = process.as_ref();
                write!(f, "variance preserving, {} levels, predicts the {prediction}", levels.betas().len())
            }
            Self::Direct(direct) => direct.fmt(f),
            Self::LinearProcess(process) => process.fmt(f),
            Self::VarianceExploding(process) => process.fmt(f),
            Self::UnitDenoiser => write!(f, "denoiser of images in [0, 1]"),
        }
    }
}

/// A network as a denoiser of images of any size.
///
/// Height and width are extended by reflection to the network's stride and cut off again, in both directions of the
/// pullback.
#[derive(Debug)]
pub struct Preconditioned {
    model: Box<dyn ScoreModel>,
    parameterization: Parameterization,
    sigma_range: RangeInclusive<f64>,
}

impl Preconditioned {
    /// `model` as it was trained, good for the noise levels of `sigma_range`.
    pub fn new(
        model: Box<dyn ScoreModel>,
        parameterization: Parameterization,
        sigma_range: RangeInclusive<f64>,
    ) -> Self {
        Self { model, parameterization, sigma_range }
    }

    /// How it was trained.
    pub fn parameterization(&self) -> &Parameterization {
        &self.parameterization
    }

    /// The network alone.
    pub fn model(&self) -> &dyn ScoreModel {
        self.model.as_ref()
    }

    /// A network with more outputs than inputs says something else in the others: how uncertain it is.
    fn combine(x: &Tensor, f: &Tensor, s: &Scalings) -> Result<Tensor> {
        let f = f.narrow(1, 0, x.dim(1)?)?;
        Ok((x.affine(s.skip, s.offset)? + f.affine(s.out, 0.0)?)?)
    }
}

impl Denoiser for Preconditioned {
    fn denoise(&self, x: &Tensor, sigma: f64) -> Result<Tensor> {
        let s = self.parameterization.scalings(sigma);
        let padding = Padding::of(x, self.model.stride())?;
        let f = self.model.forward(&padding.extend(x)?.affine(s.input, s.shift)?, s.noise)?;
        Self::combine(x, &padding.crop(&f)?, &s)
    }

    fn channels(&self) -> Option<usize> {
        Some(self.model.channels())
    }

    fn sigma_range(&self) -> RangeInclusive<f64> {
        self.sigma_range.clone()
    }

    fn preconditioned(&self) -> Option<&Preconditioned> {
        Some(self)
    }

    fn denoise_with_pullback<'a>(&'a self, x: &Tensor, sigma: f64) -> Result<(Tensor, Pullback<'a>)> {
        let s = self.parameterization.scalings(sigma);
        let padding = Padding::of(x, self.model.stride())?;
        let (f, network) = self.model.forward_with_pullback(&padding.extend(x)?.affine(s.input, s.shift)?, s.noise)?;
        let more = f.dim(1)? - x.dim(1)?;
        let denoised = Self::combine(x, &padding.crop(&f)?, &s)?;
        let pullback = Pullback::new(move |v| {
            let through = network.apply(&padding.crop_transposed(&(v * s.out)?)?.pad_with_zeros(1, 0, more)?)?;
            Ok((v.affine(s.skip, 0.0)? + (padding.extend_transposed(&through)? * s.input)?)?)
        });
        Ok((denoised, pullback))
    }
}

/// Extension of an image to a multiple of the stride, below and to the right.
#[derive(Debug)]
struct Padding {
    height: usize,
    width: usize,
    /// Source row and column of every row and column; `None` where nothing has to be added.
    rows: Option<Tensor>,
    columns: Option<Tensor>,
}

impl Padding {
    fn of(x: &Tensor, stride: usize) -> Result<Self> {
        let (_, _, height, width) = x.dims4()?;
        let indices = |size: usize| -> Result<Option<Tensor>> {
            let padded = size.next_multiple_of(stride);
            if padded == size {
                return Ok(None);
            }
            let of = |i: usize| {
                // 0 1 2 1 0 1 …: the edge is not repeated; a single row is all there is to repeat.
                let period = (2 * size - 2).max(1);
                let i = i % period;
                if i < size { i as u32 } else { (period - i) as u32 }
            };
            Ok(Some(Tensor::from_vec((0..padded).map(of).collect::<Vec<_>>(), padded, &Device::Cpu)?))
        };
        let to = |indices: Option<Tensor>| indices.map(|i| i.to_device(x.device())).transpose();
        Ok(Self { height, width, rows: to(indices(height)?)?, columns: to(indices(width)?)? })
    }

    fn extend(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let x = match &self.rows {
            Some(rows) => x.contiguous()?.index_select(rows, 2)?,
            None => x.clone(),
        };
        match &self.columns {
            Some(columns) => x.contiguous()?.index_select(columns, 3),
            None => Ok(x),
        }
    }

    fn extend_transposed(&self, v: &Tensor) -> candle_core::Result<Tensor> {
        let (batch, channels, height, _) = v.dims4()?;
        let zeros = |h, w| Tensor::zeros((batch, channels, h, w), v.dtype(), v.device());
        let v = match &self.columns {
            Some(columns) => zeros(height, self.width)?.index_add(columns, &v.contiguous()?, 3)?,
            None => v.clone(),
        };
        match &self.rows {
            Some(rows) => zeros(self.height, self.width)?.index_add(rows, &v.contiguous()?, 2),
            None => Ok(v),
        }
    }

    fn crop(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        x.narrow(2, 0, self.height)?.narrow(3, 0, self.width)
    }

    fn crop_transposed(&self, v: &Tensor) -> candle_core::Result<Tensor> {
        let more = |indices: &Option<Tensor>, size: usize| -> candle_core::Result<usize> {
            indices.as_ref().map_or(Ok(0), |i| Ok(i.dim(0)? - size))
        };
        v.pad_with_zeros(2, 0, more(&self.rows, self.height)?)?.pad_with_zeros(3, 0, more(&self.columns, self.width)?)
    }
}
