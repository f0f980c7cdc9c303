//! Measurements on the disk.
//!
//! A safetensors file with one tensor `y`, `[1, ..]` in f32, and the metadata `format` (`tweedie measurement 1`), `operator` (the
//! TOML that describes operator and noise), `folder` (where the files start that it names) and `image` (`CxHxW`).

use super::case::{colours, sigma};
use super::{Case, colorize};
use crate::image::{Photo, write_atomically};
use crate::{Catalog, Error, Result};
use candle_core::{DType, Device, Tensor};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use std::collections::HashMap;
use std::path::Path;
use tweedie_operators::noise::Gaussian;
use tweedie_operators::{Description, ForwardOperator, NoiseModel, Site};

/// Largest side of an image that a file may claim, in pixels.
const MAX_SIDE: usize = 16_384;

const FORMAT: &str = "tweedie measurement 1";

/// A measurement with the description of how it was made.
#[derive(Clone, Debug)]
pub struct Measured {
    /// `[1, ..]`.
    pub y: Tensor,
    /// TOML of operator and noise.
    pub description: String,
    /// The folder that relative names of files in the description start from, itself relative to the measurement's.
    pub folder: String,
    /// `(channels, height, width)` of what was measured.
    pub image: (usize, usize, usize),
}

impl Measured {
    /// Writes the file: complete or not at all.
    ///
    /// # Errors
    /// `Image` if it cannot be written or exists and must not be replaced.
    pub fn save(&self, path: &Path, replace: bool) -> Result<()> {
        let values = self.y.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let refuse = |error: safetensors::SafeTensorError| Error::Config {
            name: path.display().to_string(),
            got: error.to_string(),
            expected: "a measurement that fits a safetensors file".into(),
        };
        let view = TensorView::new(Dtype::F32, self.y.dims().to_vec(), &bytes).map_err(refuse)?;
        let (channels, height, width) = self.image;
        let metadata = HashMap::from([
            ("format".to_string(), FORMAT.to_string()),
            ("operator".into(), self.description.clone()),
            ("folder".into(), self.folder.clone()),
            ("image".into(), format!("{channels}x{height}x{width}")),
        ]);
        let content = safetensors::serialize([("y", view)], Some(metadata)).map_err(refuse)?;
        Ok(write_atomically(path, &content, replace)?)
    }

    /// Reads such a file.
    ///
    /// # Errors
    /// `Config` saying what is wrong with it, `Io` if it cannot be read.
    pub fn open(path: &Path) -> Result<Self> {
        let content = std::fs::read(path).map_err(|source| Error::Io { path: path.into(), source })?;
        let refuse = |got: String| Error::Config {
            name: path.display().to_string(),
            got,
            expected: "a measurement as `tweedie degrade --save-measurement` writes it".into(),
        };
        let (_, header) = SafeTensors::read_metadata(&content).map_err(|error| refuse(error.to_string()))?;
        let file = SafeTensors::deserialize(&content).map_err(|error| refuse(error.to_string()))?;
        let metadata = header.metadata().clone().unwrap_or_default();
        let get = |name: &str| metadata.get(name).cloned().ok_or_else(|| refuse(format!("a file without `{name}`")));
        let format = get("format")?;
        if format != FORMAT {
            return Err(refuse(format!("a file of the format `{format}`")));
        }
        let image = get("image")?;
        let sizes: Result<Vec<usize>, _> = image.split('x').map(str::parse).collect();
        let (channels, height, width) = match sizes.as_deref() {
            Ok(&[channels @ 1..=16, height @ 1..=MAX_SIDE, width @ 1..=MAX_SIDE]) => (channels, height, width),
            _ => return Err(refuse(format!("an image of `{image}`"))),
        };
        let y = file.tensor("y").map_err(|error| refuse(error.to_string()))?;
        if y.dtype() != Dtype::F32 || y.shape().first() != Some(&1) {
            return Err(refuse(format!("y of {:?} in {:?}", y.shape(), y.dtype())));
        }
        let values: Vec<f32> = y
            .data()
            .chunks_exact(4)
            .map(|bytes| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
            .collect();
        if values.iter().any(|value| !value.is_finite()) {
            return Err(refuse("y that is not finite".into()));
        }
        let y = Tensor::from_vec(values, y.shape(), &Device::Cpu)?;
        Ok(Self { y, description: get("operator")?, folder: get("folder")?, image: (channels, height, width) })
    }
}

/// Whether a description would start a program.
fn starts_program(value: &toml::Value) -> bool {
    match value {
        toml::Value::Table(table) => {
            table.get("name").and_then(toml::Value::as_str) == Some("process") || table.values().any(starts_program)
        }
        toml::Value::Array(values) => values.iter().any(starts_program),
        _ => false,
    }
}

impl Measured {
    /// The description that came with the measurement at `path`.
    ///
    /// # Errors
    /// `Operator` if it is none; `Config` if it would start a program: a measurement is data, and whoever wants a program
    /// run says so in a description of their own.
    pub fn described(&self, path: &Path) -> Result<Description> {
        let folder = path.parent().unwrap_or(Path::new("")).join(&self.folder);
        let description = Description::parse(&self.description, folder)?;
        if starts_program(&toml::Value::Table(description.operator.clone())) {
            return Err(Error::Config {
                name: path.display().to_string(),
                got: "a measurement whose operator is a program".into(),
                expected:
                    "that operator in a file of its own, with --operator FILE.toml: measurements start no programs"
                        .into(),
            });
        }
        Ok(description)
    }
}

impl Case {
    /// A photo as a measurement by the operator of `description`, with its noise; `size` is height and width of the image
    /// where the operator does not tell.
    ///
    /// The photo's colours are `y`, or its luma where the operator measures one channel. The rounding of the file's samples
    /// is added to Gaussian noise.
    ///
    /// # Errors
    /// `Operator` if the photo is no measurement of such an operator.
    pub fn described(
        photo: &Photo,
        description: &Description,
        size: Option<(usize, usize)>,
        catalog: &Catalog,
    ) -> Result<Self> {
        let colour = colours(photo)?;
        let grey = colorize::luma(&colour)?;
        let mut candidates = [colour, grey];
        if photo.color_channels() == 1 {
            candidates.reverse();
        }
        let mut refusal = None;
        for y in candidates {
            match built(description, &y, size, catalog) {
                Ok((operator, noise, (height, width))) => {
                    let noise = match noise.gaussian_sigma() {
                        Some(of_noise) => Box::new(Gaussian::new(of_noise.hypot(sigma(0.0, photo)))?),
                        None => noise,
                    };
                    let mut canvas = photo.clone();
                    if (height, width) != (photo.height(), photo.width()) {
                        canvas = photo.resized(width, height);
                    }
                    if y.dim(1)? == 1 {
                        canvas = canvas.in_colour();
                    }
                    return Self::new(operator, noise, y, canvas);
                }
                Err(error) => refusal = refusal.or(Some(error)),
            }
        }
        Err(refusal.expect("two candidates were tried"))
    }

    /// A measurement from a file, with the operator and noise of `description`.
    ///
    /// # Errors
    /// `Operator` if the operator makes no such measurement of such an image, `Config` for images of other than 3 channels.
    pub fn measured(measured: &Measured, description: &Description, catalog: &Catalog) -> Result<Self> {
        let (channels, height, width) = measured.image;
        if channels != 3 {
            let expected = "3, which the prior has".into();
            return Err(Error::Config { name: "channels of the image".into(), got: channels.to_string(), expected });
        }
        let (operator, noise, _) = built(description, &measured.y, Some((height, width)), catalog)?;
        let canvas = Photo::from_u8(width, height, 3, vec![0; 3 * width * height])?;
        Self::new(operator, noise, measured.y.clone(), canvas)
    }
}

type Built = (Box<dyn ForwardOperator>, Box<dyn NoiseModel>, (usize, usize));

/// Operator and noise for images of 3 channels, if `y` is a measurement of such an image; and its height and width.
fn built(description: &Description, y: &Tensor, size: Option<(usize, usize)>, catalog: &Catalog) -> Result<Built> {
    let site = |image| Site { operators: &catalog.operators, ..Site::new(image, &Device::Cpu, DType::F32) };
    let (height, width) = match size {
        Some(size) => size,
        None => {
            let (channels, height, width) = description.image_shape(&y.dims()[1..], site((0, 0, 0)))?;
            if channels != 3 {
                let expected = "3, which the prior has".into();
                return Err(Error::Config {
                    name: "channels of the image".into(),
                    got: channels.to_string(),
                    expected,
                });
            }
            (height, width)
        }
    };
    let (operator, noise) = description.build(site((3, height, width)), &catalog.noises)?;
    let shape = operator.forward(&Tensor::zeros((1, 3, height, width), DType::F32, &Device::Cpu)?)?;
    if shape.dims() != y.dims() {
        return Err(tweedie_operators::Error::Shape {
            what: format!("measurement of an image of {width}x{height}"),
            got: y.dims().to_vec(),
            expected: format!("{:?}", shape.dims()),
        }
        .into());
    }
    Ok((operator, noise, (height, width)))
}
