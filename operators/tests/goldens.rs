use std::collections::HashMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use tweedie_operators::{CgParams, LinearOperator, Measurement, OPERATORS, find, forward, noise};

use crate::{relative_error, site};

/// Numbers of deepinv 0.5.0 and torch 2.15 (`avg_pool2d`), float32 on a CPU.
pub(crate) struct Golden {
    pub(crate) file: HashMap<String, Tensor>,
    pub(crate) inputs: HashMap<String, Tensor>,
    pub(crate) size: &'static str,
}

pub(crate) const SIZES: [(&str, usize, usize); 2] = [("32x32", 32, 32), ("33x47", 33, 47)];

impl Golden {
    pub(crate) fn load(name: &str, size: &'static str) -> Self {
        let load = |name: &str| {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/data/{name}.safetensors"));
            candle_core::safetensors::load(path, &Device::Cpu).unwrap()
        };
        Self { file: load(name), inputs: load("inputs"), size }
    }

    pub(crate) fn get(&self, name: &str) -> &Tensor {
        &self.file[&format!("{}.{name}", self.size)]
    }

    pub(crate) fn input(&self, name: &str) -> &Tensor {
        &self.inputs[&format!("{name}_{}", self.size)]
    }

    /// The cotangent: in the file if measurements have another shape than images.
    pub(crate) fn v(&self) -> &Tensor {
        self.file.get(&format!("{}.v", self.size)).unwrap_or_else(|| self.input("v"))
    }

    /// `A x`, `Aᵀ v`, and whatever else the file holds of what the operator claims: `A⁺ v` and the proximal map.
    pub(crate) fn check(&self, operator: &dyn LinearOperator) {
        let near = |got: Tensor, expected: &Tensor, tolerance: f64, what: &str| {
            let error = relative_error(&got, expected);
            assert!(error <= tolerance, "{what} at {}: relative error {error:e}", self.size);
        };
        let v = self.v();
        near(operator.forward(self.input("x")).unwrap(), self.get("y"), 2e-6, "A x");
        near(operator.adjoint(v).unwrap(), self.get("At_v"), 2e-6, "Aᵀ v");
        let optional = |name: &str| self.file.get(&format!("{}.{name}", self.size));
        if let Some(pinv) = optional("pinv_v") {
            let got = match (operator.as_spectral(), operator.as_gram()) {
                (Some(spectral), _) => spectral.pseudo_inverse(v),
                (None, Some(gram)) => gram.solve_gram(v, 0.0).and_then(|u| operator.adjoint(&u)),
                (None, None) => panic!("no pseudo-inverse is claimed, the file has one"),
            };
            near(got.unwrap(), pinv, 1e-5, "A⁺ v");
        }
        if let Some(prox) = optional("prox") {
            // argmin 0.7/2 ‖A u − v‖² + ½ ‖u − z‖²: σ² = r² / 0.7.
            let gaussian = noise::Gaussian::new(0.7f64.powf(-0.5)).unwrap();
            let measurement = Measurement { operator, noise: &gaussian, y: v.clone() };
            let params = CgParams { tolerance: 1e-7, ..CgParams::default() };
            near(measurement.prox_with(self.input("z"), 1.0, &params).unwrap().0, prox, 1e-5, "prox");
        }
    }
}

#[test]
fn masks_give_the_numbers_of_deepinv() {
    for name in ["inpainting_pixels", "inpainting_box"] {
        for (size, ..) in SIZES {
            let golden = Golden::load(name, size);
            assert!(golden.file.contains_key(&format!("{size}.prox")));
            golden.check(&forward::Inpaint::new(golden.get("mask")).unwrap());
        }
    }
}

#[test]
fn block_means_give_the_numbers_of_torch() {
    for (name, factor) in [("box_average_x2", 2), ("box_average_x4", 4)] {
        for (size, height, width) in SIZES {
            let site = site((3, height, width), DType::F32);
            Golden::load(name, size).check(&forward::DownsampleBox::new(factor, site).unwrap());
        }
    }
}

#[test]
fn grey_values_give_the_numbers_of_deepinv() {
    for (size, ..) in SIZES {
        for name in ["decolorize_rec601", "decolorize_flat"] {
            let golden = Golden::load(name, size);
            // deepinv's weights of rec. 601 are rounded to four digits, so they come from the file.
            let weights = crate::values(&golden.file["weights"]);
            golden.check(&forward::Grayscale::new(&weights).unwrap());
        }
        let mean = find(OPERATORS, "grayscale")
            .unwrap()
            .create("weights = 'mean'".parse().unwrap(), site((3, 8, 8), DType::F32));
        Golden::load("decolorize_flat", size).check(mean.unwrap().as_linear().unwrap());
    }
}

#[test]
fn rec601_weights_are_those_of_deepinv_to_its_four_digits() {
    let golden = Golden::load("decolorize_rec601", "32x32");
    let y = forward::ForwardOperator::forward(&forward::Grayscale::rec601().unwrap(), golden.input("x")).unwrap();
    let error = relative_error(&y, golden.get("y"));
    assert!(error < 2e-4, "relative error {error:e}");
}
