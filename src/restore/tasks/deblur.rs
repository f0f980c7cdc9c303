//! A sharper photo.

use super::NoiseLevel;
use crate::Result;
use crate::image::Photo;
use crate::restore::{Case, Work};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::Path;
use std::str::FromStr;

/// Which blur a photo has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deblur {
    /// What the blur makes of one bright pixel.
    pub kernel: BlurKernel,
    /// Noise of the blurred photo; default estimated.
    #[serde(default)]
    pub noise: NoiseLevel,
}

impl Deblur {
    pub(super) fn work(&self, photo: &Photo) -> Result<(Work, String)> {
        let levels = self.noise.levels(photo)?;
        let case = Case::deblur(photo, self.kernel.table.clone(), levels, Path::new(""))?;
        Ok((Work::Whole(Box::new(case)), format!("blur {}, noise of {levels:.2} levels", self.kernel)))
    }
}

/// A kernel as text, `gaussian:SIGMA`, `disk:RADIUS`, `motion:LENGTH[,ANGLE]` or `file:PICTURE`, and as a table of the operator
/// `blur`.
///
/// Standard deviation, radius and length are in pixels; the angle in degrees, counter-clockwise from the right.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BlurKernel {
    text: String,
    table: toml::Table,
}

impl BlurKernel {
    /// The picture of the kernel.
    pub fn file(&self) -> Option<&Path> {
        self.table.get("file").and_then(toml::Value::as_str).map(Path::new)
    }
}

impl fmt::Display for BlurKernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<BlurKernel> for String {
    fn from(kernel: BlurKernel) -> Self {
        kernel.text
    }
}

impl TryFrom<String> for BlurKernel {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl FromStr for BlurKernel {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const EXPECTED: &str = "expected gaussian:SIGMA, disk:RADIUS, motion:LENGTH,ANGLE or file:PICTURE";
        let (shape, values) = text.split_once(':').ok_or(EXPECTED)?;
        let number = |text: &str, what: &str, least: f64, most: f64| match text.trim().parse::<f64>() {
            Ok(value) if (least..=most).contains(&value) => Ok(toml::Value::Float(value)),
            _ => Err(format!("{what} is {text}, expected a number from {least} to {most}")),
        };
        let settings = match shape {
            "gaussian" => {
                vec![("shape", "gaussian".into()), ("sigma", number(values, "standard deviation", 0.05, 100.0)?)]
            }
            "disk" => vec![("shape", "disk".into()), ("radius", number(values, "radius", 0.1, 200.0)?)],
            "motion" => {
                let (length, angle) = values.split_once(',').unwrap_or((values, "0"));
                vec![
                    ("shape", "line".into()),
                    ("length", number(length, "length", 1.0, 500.0)?),
                    ("angle", number(angle, "angle", -360.0, 360.0)?),
                ]
            }
            "file" => vec![("shape", "image".into()), ("file", toml::Value::String(values.into()))],
            _ => return Err(EXPECTED.into()),
        };
        let table = settings.into_iter().map(|(name, value): (&str, toml::Value)| (name.to_string(), value)).collect();
        Ok(Self { text: text.into(), table })
    }
}
