//! The description of a measurement from a stranger: built and applied, or refused with a reason.
//!
//! Descriptions are trusted as far as the program named by `process` goes, which is started, and files are read from the
//! folder they name: neither is tried here. No number in one may cause a panic or take memory without measure.

use std::path::Path;
use std::sync::LazyLock;

use candle_core::{DType, Device, Tensor};
use tweedie_operators::{BuildOperator, Description, Entry, NOISES, OPERATORS, Site};

/// Longer texts say nothing new.
const MAX_TEXT: usize = 2048;

static HARMLESS: LazyLock<Vec<Entry<BuildOperator>>> =
    LazyLock::new(|| OPERATORS.iter().filter(|entry| entry.name != "process").copied().collect());

/// Parses `data`, builds what it says for images of two sizes, and applies it.
/// # Panics
/// If parsing or building does, or if an operator that was built does not take the image it was built for.
pub(crate) fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if text.len() > MAX_TEXT {
        return;
    }
    let Ok(description) = Description::parse(text, "/nonexistent") else { return };
    for (channels, height, width) in [(3, 16, 16), (1, 5, 8)] {
        let site = Site {
            image: (channels, height, width),
            device: &Device::Cpu,
            dtype: DType::F32,
            operators: &HARMLESS,
            folder: Path::new("/nonexistent"),
        };
        let Ok((operator, _)) = description.build(site, NOISES) else { continue };
        let x = Tensor::full(0.25f32, (1, channels, height, width), &Device::Cpu).expect("a small image");
        let y = operator.forward(&x).unwrap_or_else(|error| panic!("{text}\n{error}"));
        // The measurement's shape either tells the image's or is refused.
        let _ = description.image_shape(&y.dims()[1..], site);
        if let Some(linear) = operator.as_linear() {
            let back = linear.adjoint(&y).unwrap_or_else(|error| panic!("{text}\n{error}"));
            assert_eq!(back.dims(), x.dims(), "{text}");
        }
    }
}
