//! What several samples of one measurement say together.

use super::levels::shape;
use super::{Coverage, Levels, psnr};
use crate::Result;
use candle_core::{DType, Device, Tensor};
use serde::{Deserialize, Deserializer, Serialize};

/// Of at least two samples beside the truth.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Statistics {
    /// PSNR of the mean of all samples, dB.
    #[serde(deserialize_with = "infinite")]
    pub psnr_of_mean: f64,
    /// Mean over the values judged of the samples' standard deviation (divisor `N − 1`), in 8-bit levels.
    pub spread: f64,
    /// Of the central intervals of 50 and 90 %, or of what so few samples have.
    pub coverage: Vec<Coverage>,
    /// Whether spread and coverage are of the values that a mask hid; else of all.
    pub hidden_only: bool,
}

impl Statistics {
    /// `None` for fewer than two samples.
    ///
    /// # Shapes
    /// `samples` and `truth`: `[1, C, H, W]`, neither rounded nor clipped; `observed`: one flag a value, see
    /// [`observed`](super::observed)
    /// # Errors
    /// `Operator` (`Shape`) if the shapes differ.
    pub fn of(samples: &[Tensor], truth: &Tensor, observed: Option<&[bool]>) -> Result<Option<Self>> {
        if samples.len() < 2 {
            return Ok(None);
        }
        let host = |x: &Tensor| x.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>();
        if let Some(other) = samples.iter().find(|sample| sample.dims() != truth.dims()) {
            return Err(shape("sample", other.dims(), &format!("{:?}", truth.dims())));
        }
        let values = samples.iter().map(host).collect::<candle_core::Result<Vec<_>>>()?;
        let expected = host(truth)?;
        let indices: Vec<usize> =
            (0..expected.len()).filter(|&i| observed.is_none_or(|observed| !observed[i])).collect();
        let count = values.len() as f64;
        let mean = |i: usize| values.iter().map(|sample| f64::from(sample[i])).sum::<f64>() / count;
        let deviation = |i: usize| {
            let mean = mean(i);
            let squares: f64 = values.iter().map(|sample| (f64::from(sample[i]) - mean).powi(2)).sum();
            (squares / (count - 1.0)).sqrt()
        };
        let means: Vec<f64> = (0..expected.len()).map(mean).collect();
        let means = Tensor::from_vec(means, truth.dims(), &Device::Cpu)?;
        let mut coverage: Vec<Coverage> = Vec::new();
        for p in [0.5, 0.9] {
            // So few samples may have one interval only.
            if let Some(of) = Coverage::of(p, &values, &expected, &indices)
                && coverage.iter().all(|other| other.level != of.level)
            {
                coverage.push(of);
            }
        }
        Ok(Some(Self {
            psnr_of_mean: psnr(&Levels::of(truth)?, &Levels::of(&means)?)?,
            spread: 127.5 * indices.iter().map(|&i| deviation(i)).sum::<f64>() / indices.len().max(1) as f64,
            coverage,
            hidden_only: observed.is_some(),
        }))
    }
}

/// A number that JSON writes as `null` where it is infinite.
pub(crate) fn infinite<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or(f64::INFINITY))
}
