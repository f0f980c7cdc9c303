//! An operator of one's own, beside the built-in ones: `cargo run --example custom_operator`.
//!
//! With arguments it is the command line of `tweedie` with one operator more:
//! `cargo run --example custom_operator -- operators vignette`.
//!
//! [`Vignette`] writes `forward` alone, which is enough for every method that differentiates; [`LinearVignette`] adds the
//! adjoint, which opens the methods that need a linear operator.

use std::process::ExitCode;

use candle_core::{DType, Device, Tensor};
use tweedie::Catalog;
use tweedie_operators::{
    BuildOperator, Entry, ForwardOperator, LinearOperator, Measurement, Result, Rng, Site, find, noise,
};

/// `y = w ⊙ x`: a lens that is darker towards its corners.
#[derive(Debug)]
struct Vignette {
    /// `[1, 1, H, W]`, 1 in the centre.
    weights: Tensor,
}

impl Vignette {
    /// `w = 1 / (1 + strength · r²)`, where `r` is 1 in the corners.
    fn new(strength: f64, site: Site<'_>) -> Result<Self> {
        let (_, height, width) = site.image;
        let offset = |i: usize, size: usize| (2 * i + 1) as f64 / size as f64 - 1.0;
        let weights: Vec<f64> = (0..height * width)
            .map(|i| {
                1.0 / (1.0 + strength * (offset(i / width, height).powi(2) + offset(i % width, width).powi(2)) / 2.0)
            })
            .collect();
        let weights = Tensor::from_vec(weights, (1, 1, height, width), &Device::Cpu)?;
        Ok(Self { weights: weights.to_dtype(site.dtype)?.to_device(site.device)? })
    }
}

impl ForwardOperator for Vignette {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.broadcast_mul(&self.weights.to_dtype(x.dtype())?)?)
    }
}

/// The same, known to be linear.
#[derive(Debug)]
struct LinearVignette(Vignette);

impl ForwardOperator for LinearVignette {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.0.forward(x)
    }

    fn as_linear(&self) -> Option<&dyn LinearOperator> {
        Some(self)
    }
}

impl LinearOperator for LinearVignette {
    /// A diagonal matrix is its own transpose.
    fn adjoint(&self, y: &Tensor) -> Result<Tensor> {
        self.0.forward(y)
    }
}

/// The name by which configurations reach it.
const VIGNETTE: Entry<BuildOperator> = Entry {
    name: "vignette",
    about: "Darker towards the corners",
    fields: &[],
    example: "",
    build: BuildOperator::same_shape(|_, site| Ok(Box::new(LinearVignette(Vignette::new(0.5, site)?)))),
};

fn main() -> Result<ExitCode, Box<dyn std::error::Error>> {
    let mut catalog = Catalog::default();
    catalog.operators.push(VIGNETTE);
    if std::env::args_os().len() > 1 {
        return Ok(tweedie::cli::run(&catalog));
    }
    check(&catalog)?;
    Ok(ExitCode::SUCCESS)
}

/// The same in a program, without a command line.
fn check(catalog: &Catalog) -> Result<(), Box<dyn std::error::Error>> {
    // Its name works inside other operators as well.
    let settings = r#"operators = [{ name = "vignette" }, { name = "downsample_box", factor = 2 }]"#;
    let site = Site { operators: &catalog.operators, ..Site::new((3, 8, 8), &Device::Cpu, DType::F64) };
    let operator = find(&catalog.operators, "compose")?.create(settings.parse()?, site)?;

    let x = Rng::new(1, 0..1).normal_like(&Tensor::zeros((1, 3, 8, 8), DType::F64, &Device::Cpu)?)?;
    let noise = noise::Gaussian::new(0.01)?;
    let measurement = Measurement::simulate(&*operator, &noise, &x, &mut Rng::new(2, 0..1))?;
    let nearest = measurement.prox(&x.zeros_like()?, 100.0)?;
    let misfit = (operator.forward(&nearest)? - &measurement.y)?.sqr()?.mean_all()?.sqrt()?.to_scalar::<f64>()?;
    println!("the flattest image that fits the measurement misses it by {misfit:.1e}");
    assert!(misfit < 1e-4);

    // Without its adjoint, candle's derivative is the same.
    let forward_only = Vignette::new(0.5, site)?;
    let by_candle = forward_only.vjp(&x, &x)?;
    let by_hand = LinearVignette(Vignette::new(0.5, site)?).adjoint(&x)?;
    assert!((by_candle - by_hand)?.abs()?.max_all()?.to_scalar::<f64>()? < 1e-15);
    Ok(())
}
