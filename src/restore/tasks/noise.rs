//! How noisy a photo is taken to be.

use crate::image::Photo;
use crate::restore::estimate_levels;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::str::FromStr;

/// The standard deviation of white Gaussian noise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Form", into = "Form")]
pub enum NoiseLevel {
    /// As estimated from the photo.
    #[default]
    Auto,
    /// In 8-bit levels, 0 to 1000; 0 is none beyond rounding.
    Levels(f64),
}

/// As it is written: a number, or a word.
#[derive(Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a standard deviation in 8-bit levels from 0 to 1000, or \"auto\"")]
enum Form {
    Number(f64),
    Text(String),
}

const EXPECTED: &str = "expected a standard deviation in 8-bit levels from 0 to 1000, or auto";

impl TryFrom<Form> for NoiseLevel {
    type Error = String;

    fn try_from(form: Form) -> Result<Self, String> {
        match form {
            Form::Number(levels) if (0.0..=1000.0).contains(&levels) => Ok(Self::Levels(levels)),
            Form::Number(levels) => Err(format!("noise is {levels}, {EXPECTED}")),
            Form::Text(text) => text.parse(),
        }
    }
}

impl From<NoiseLevel> for Form {
    fn from(level: NoiseLevel) -> Self {
        match level {
            NoiseLevel::Auto => Self::Text("auto".into()),
            NoiseLevel::Levels(levels) => Self::Number(levels),
        }
    }
}

impl FromStr for NoiseLevel {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            _ if text == "auto" => Ok(Self::Auto),
            Ok(levels) if (0.0..=1000.0).contains(&levels) => Ok(Self::Levels(levels)),
            _ => Err(EXPECTED.into()),
        }
    }
}

impl NoiseLevel {
    /// The levels given, or those estimated from the photo.
    ///
    /// # Errors
    /// `Config` if the photo is too small to say.
    pub(super) fn levels(self, photo: &Photo) -> Result<f64> {
        match self {
            Self::Levels(levels) => Ok(levels),
            Self::Auto => estimate_levels(photo).map_err(|error| match error {
                Error::Operator(error) => Error::Config {
                    name: "noise".into(),
                    got: format!("auto, but {error}"),
                    expected: "a photo that tells; --noise L gives it, in 8-bit levels, 0 is none beyond rounding"
                        .into(),
                },
                other => other,
            }),
        }
    }
}
