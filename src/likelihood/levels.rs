//! From whole numbers to densities and back.

use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};
use tweedie_operators::Rng;

/// The values that a number of an image can have: some of 0, 1, …, `most`, evenly spaced.
///
/// A density knows no whole numbers. Uniform noise of a level's width makes them continuous, `x = 2 (v + w u)/(most + 1) − 1`
/// with `w` the spacing and `u` uniform on (0, 1), and the density of the result, times the volume of a level, is on average a
/// lower bound of the probability of the image: `log P(v) ≥ E_u[log p(x)] + D log(2 w/(most + 1))`.
///
/// Theis et al. (2016), <https://arxiv.org/abs/1511.01844>, section 3.1
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Levels {
    most: u16,
    count: usize,
}

impl Levels {
    /// `count` levels of 0 to `most`, which is 255 or 65535: 0, `w`, `2w`, … with `w = ⌊most/(count − 1)⌋`.
    ///
    /// # Errors
    /// `Config` for fewer than 2 levels and for more than there are.
    pub fn new(most: u16, count: usize) -> Result<Self> {
        let all = usize::from(most) + 1;
        if !(2..=all).contains(&count) {
            let expected = format!("2 to {all}");
            return Err(Error::Config { name: "number of levels".into(), got: count.to_string(), expected });
        }
        Ok(Self { most, count })
    }

    /// Every value from 0 to `most`.
    pub fn all(most: u16) -> Self {
        Self { most, count: usize::from(most) + 1 }
    }

    /// How many there are.
    pub fn count(self) -> usize {
        self.count
    }

    /// Between two of them.
    fn spacing(self) -> usize {
        usize::from(self.most) / (self.count - 1)
    }

    /// The length of a level in [-1, 1]: 1/128 for 256 levels.
    pub fn width(self) -> f64 {
        2.0 * self.spacing() as f64 / (f64::from(self.most) + 1.0)
    }

    /// `−log p/(D ln 2) − log₂(width)`: what a number of the image costs in bits if its levels are told with this density;
    /// 7 bits are added for 256 levels.
    pub fn bits_per_dimension(self, nats: f64, dimensions: usize) -> f64 {
        -nats / (dimensions as f64 * std::f64::consts::LN_2) - self.width().log2()
    }

    /// The image with uniform noise of a level's width; one draw.
    ///
    /// # Shapes
    /// `values`: `[B, C, H, W]`, `B` the number of streams, whole numbers from 0 to `most`; returns pixels in `[-1, 1]`, `f32`.
    /// # Errors
    /// `Config` with a value that is no level.
    pub fn dequantised(self, values: &Tensor, rng: &mut Rng) -> Result<Tensor> {
        self.check(values)?;
        let noise = rng.uniform(values.dims4()?, values.device())?;
        let values = (values.to_dtype(DType::F32)? + noise.affine(self.spacing() as f64, 0.0)?)?;
        Ok(values.affine(2.0 / (f64::from(self.most) + 1.0), -1.0)?)
    }

    /// The image as it is: `2 v/most − 1`.
    ///
    /// # Shapes
    /// As [`dequantised`](Self::dequantised).
    /// # Errors
    /// `Config` with a value that is no level.
    pub fn pixels(self, values: &Tensor) -> Result<Tensor> {
        self.check(values)?;
        Ok(values.to_dtype(DType::F32)?.affine(2.0 / f64::from(self.most), -1.0)?)
    }

    fn check(self, values: &Tensor) -> Result<()> {
        let (spacing, last) = (self.spacing() as f32, (self.spacing() * (self.count - 1)) as f32);
        let is_level = |value: f32| (0.0..=last).contains(&value) && value % spacing == 0.0;
        let values = values.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
        let Some(value) = values.into_iter().find(|&value| !is_level(value)) else { return Ok(()) };
        let second = if self.count > 2 { format!("{spacing}, …, ") } else { String::new() };
        let expected = format!("one of the {} levels 0, {second}{last}", self.count);
        Err(Error::Config { name: "a value of the image".into(), got: value.to_string(), expected })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(values: &[f32]) -> Tensor {
        Tensor::from_slice(values, (1, 1, 1, values.len()), &Device::Cpu).unwrap()
    }

    #[test]
    fn a_level_of_eight_bits_adds_seven_bits() {
        // A density of 1/2 on [-1, 1] is one that knows nothing: 8 bits.
        let nats = 3.0 * 0.5f64.ln();
        assert_eq!(Levels::all(255).bits_per_dimension(0.0, 3), 7.0);
        assert!((Levels::all(255).bits_per_dimension(nats, 3) - 8.0).abs() < 1e-12);
        assert!((Levels::all(65535).bits_per_dimension(nats, 3) - 16.0).abs() < 1e-12);
        // The levels 0, 15, …, 240 reach over 255 of 256 parts.
        let digits = Levels::new(255, 17).unwrap();
        assert_eq!(digits.width(), 30.0 / 256.0);
        assert!((digits.bits_per_dimension(nats, 3) - (256f64 / 15.0).log2()).abs() < 1e-12);
        assert_eq!(Levels::new(255, 2).unwrap().spacing(), 255);
        assert_eq!(Levels::new(255, 256).unwrap(), Levels::all(255));
    }

    #[test]
    fn noise_fills_a_level_and_no_other() {
        for levels in [Levels::all(255), Levels::new(255, 17).unwrap(), Levels::all(65535)] {
            let last = (levels.spacing() * (levels.count - 1)) as f32;
            let values = vec![0.0; 2000].into_iter().chain(vec![last; 2000]).collect::<Vec<f32>>();
            let x = levels.dequantised(&tensor(&values), &mut Rng::new(1, 0..1)).unwrap();
            let x: Vec<f64> = x.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap();
            let (low, high) = x.split_at(2000);
            let inside = |x: &[f64], from: f64| {
                // The largest and the smallest of 2,000 lie within a hundredth of the ends, f32 rounds to 6e-8.
                let (small, large) = x.iter().fold((2.0f64, -2.0f64), |(a, b), &x| (a.min(x), b.max(x)));
                let margin = 0.01 * levels.width();
                assert!(small > from - 1e-7 && small < from + margin, "{small} from {from}");
                let end = from + levels.width();
                assert!(large < end + 1e-7 && large > end - margin, "{large} to {end}");
            };
            inside(low, -1.0);
            inside(high, -1.0 + 2.0 * f64::from(last) / (f64::from(levels.most) + 1.0));
        }
    }

    #[test]
    fn what_is_no_level_is_refused_with_the_levels_there_are() {
        let refused = |levels: Levels, value: f32| levels.pixels(&tensor(&[0.0, value])).unwrap_err().to_string();
        let digits = Levels::new(255, 17).unwrap();
        assert_eq!(refused(digits, 7.0), "a value of the image is 7, expected one of the 17 levels 0, 15, …, 240");
        assert_eq!(refused(digits, 255.0), "a value of the image is 255, expected one of the 17 levels 0, 15, …, 240");
        let two = Levels::new(255, 2).unwrap();
        assert_eq!(refused(two, 1.0), "a value of the image is 1, expected one of the 2 levels 0, 255");
        assert!(digits.pixels(&tensor(&[0.0, 15.0, 240.0])).is_ok());
        for count in [0, 1, 257] {
            let message = Levels::new(255, count).unwrap_err().to_string();
            assert_eq!(message, format!("number of levels is {count}, expected 2 to 256"));
        }
    }
}
