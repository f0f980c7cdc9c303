use candle_core::{DType, Device, Tensor};
use tweedie_operators::{
    CgParams, Error, ForwardOperator, LinearOperator, Measurement, NoiseModel, Result, Rng, conjugate_gradients,
    forward, noise,
};

use crate::{norm, random, relative_error, site, values};

/// An operator that hides its singular values.
#[derive(Debug)]
struct LinearOnly(forward::DownsampleBox);

impl ForwardOperator for LinearOnly {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.0.forward(x)
    }

    fn as_linear(&self) -> Option<&dyn LinearOperator> {
        Some(self)
    }
}

impl LinearOperator for LinearOnly {
    fn adjoint(&self, y: &Tensor) -> Result<Tensor> {
        self.0.adjoint(y)
    }
}

/// An operator that is not linear; its `vjp` comes from automatic differentiation.
#[derive(Debug)]
struct Squares;

impl ForwardOperator for Squares {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.sqr()?)
    }
}

/// Noise of another kind.
#[derive(Debug)]
struct Laplace;

impl NoiseModel for Laplace {
    fn corrupt(&self, z: &Tensor, _: &mut Rng) -> Result<Tensor> {
        Ok(z.clone())
    }

    fn log_likelihood(&self, z: &Tensor, y: &Tensor) -> Result<Tensor> {
        Ok((y - z)?.abs()?.flatten_from(1)?.sum(1)?.neg()?)
    }
}

fn downsample(dtype: DType) -> forward::DownsampleBox {
    forward::DownsampleBox::new(2, site((3, 6, 9), dtype)).unwrap()
}

#[test]
fn score_is_the_gradient_of_the_log_likelihood() {
    let gaussian = noise::Gaussian::new(0.2).unwrap();
    let downsample = downsample(DType::F64);
    let operators: [&dyn ForwardOperator; 2] = [&downsample, &Squares];
    for operator in operators {
        let truth = random(&[2, 3, 6, 9], 1, DType::F64);
        let measurement = Measurement::simulate(operator, &gaussian, &truth, &mut Rng::new(3, 0..2)).unwrap();
        let x = random(&[2, 3, 6, 9], 2, DType::F64);
        let direction = random(&[2, 3, 6, 9], 4, DType::F64);
        let step = 1e-5;
        let at = |sign: f64| {
            let moved = (&x + (&direction * (sign * step)).unwrap()).unwrap();
            values(&measurement.log_likelihood(&moved).unwrap()).iter().sum::<f64>()
        };
        let score = measurement.score(&x).unwrap();
        let difference = (at(1.0) - at(-1.0)) / (2.0 * step);
        let error = (difference - crate::inner(&score, &direction)).abs() / (norm(&score) * norm(&direction));
        assert!(error < 1e-7, "{operator:?}: relative error {error:e}");
    }
}

#[test]
fn default_score_of_a_noise_is_its_derivative() {
    let (z, y) = (random(&[2, 1, 2, 2], 1, DType::F64), random(&[2, 1, 2, 2], 2, DType::F64));
    let signs: Vec<f64> = values(&(y.clone() - &z).unwrap()).into_iter().map(f64::signum).collect();
    assert_eq!(values(&Laplace.score(&z, &y).unwrap()), signs);
}

#[test]
fn simulated_noise_has_its_standard_deviation() {
    let gaussian = noise::Gaussian::new(0.25).unwrap();
    let identity = forward::Identity::new(site((3, 100, 100), DType::F32)).unwrap();
    let x = random(&[1, 3, 100, 100], 1, DType::F32);
    let measurement = Measurement::simulate(&identity, &gaussian, &x, &mut Rng::new(2, 0..1)).unwrap();
    let deviation = norm(&(measurement.y - x).unwrap()) / (30_000f64).sqrt();
    // The relative error of a standard deviation from n numbers is 1 / √(2n) = 0.4 %.
    assert!((deviation / 0.25 - 1.0).abs() < 0.02, "{deviation}");
}

#[test]
fn noiseless_measurements_keep_the_pixels_and_count_as_a_draw() {
    let noiseless = noise::Gaussian::new(0.0).unwrap();
    let identity = forward::Identity::new(site((3, 4, 4), DType::F32)).unwrap();
    let x = random(&[1, 3, 4, 4], 1, DType::F32);
    let mut rng = Rng::new(2, 0..1);
    let measurement = Measurement::simulate(&identity, &noiseless, &x, &mut rng).unwrap();
    assert_eq!(values(&measurement.y), values(&x));
    assert_eq!(rng.draw(), 1);
}

#[test]
fn noiseless_measurements_have_no_score() {
    let noiseless = noise::Gaussian::new(0.0).unwrap();
    let identity = forward::Identity::new(site((3, 4, 4), DType::F32)).unwrap();
    let x = random(&[1, 3, 4, 4], 1, DType::F32);
    let measurement = Measurement { operator: &identity, noise: &noiseless, y: x.clone() };
    assert_eq!(measurement.score(&x).unwrap_err().to_string(), "score needs noise with sigma above 0");
    assert_eq!(
        measurement.log_likelihood(&x).unwrap_err().to_string(),
        "log_likelihood needs noise with sigma above 0"
    );
}

#[test]
fn noiseless_prox_of_a_mask_returns_the_seen_pixels_bit_by_bit() {
    let noiseless = noise::Gaussian::new(0.0).unwrap();
    let inpaint = forward::Inpaint::random(0.5, 7, site((3, 8, 9), DType::F32)).unwrap();
    let (truth, x) = (random(&[2, 3, 8, 9], 1, DType::F32), random(&[2, 3, 8, 9], 2, DType::F32));
    let measurement = Measurement::simulate(&inpaint, &noiseless, &truth, &mut Rng::new(0, 0..2)).unwrap();
    let mask = values(&inpaint.mask().broadcast_as(x.shape()).unwrap());
    for r in [1e-6, 0.37, 1e6, f64::INFINITY] {
        let u = values(&measurement.prox(&x, r).unwrap());
        for ((u, seen), (truth, x)) in u.iter().zip(&mask).zip(values(&truth).iter().zip(&values(&x))) {
            assert_eq!(u, if *seen == 1.0 { truth } else { x }, "r = {r}");
        }
    }
}

#[test]
fn tiny_noise_does_not_divide_zero_by_zero() {
    let gaussian = noise::Gaussian::new(1e-30).unwrap();
    let inpaint = forward::Inpaint::random(0.5, 7, site((3, 8, 9), DType::F32)).unwrap();
    let x = random(&[1, 3, 8, 9], 2, DType::F32);
    let measurement = Measurement { operator: &inpaint, noise: &gaussian, y: inpaint.forward(&x).unwrap() };
    assert_eq!(values(&measurement.prox(&x, 1.0).unwrap()), values(&x));
}

#[test]
fn conjugate_gradients_give_the_prox_of_the_closed_form() {
    let closed = downsample(DType::F64);
    let hidden = LinearOnly(closed.clone());
    let (x, y) = (random(&[2, 3, 6, 9], 1, DType::F64), random(&[2, 3, 3, 4], 2, DType::F64));
    for sigma in [0.0, 0.1, 2.0] {
        let gaussian = noise::Gaussian::new(sigma).unwrap();
        let spectral = Measurement { operator: &closed, noise: &gaussian, y: y.clone() };
        let linear = Measurement { operator: &hidden, noise: &gaussian, y: y.clone() };
        let params = CgParams { tolerance: 1e-13, ..CgParams::default() };
        let (u, info) = linear.prox_with(&x, 0.6, &params).unwrap();
        info.unwrap().converged("prox", &params).unwrap();
        let expected = spectral.prox(&x, 0.6).unwrap();
        let error = relative_error(&u, &expected);
        assert!(error < 1e-12, "sigma {sigma}: relative error {error:e}");
        assert!(spectral.prox_with(&x, 0.6, &params).unwrap().1.is_none());
    }
}

#[test]
fn methods_say_what_they_need() {
    let gaussian = noise::Gaussian::new(0.1).unwrap();
    let y = random(&[1, 1, 2, 2], 1, DType::F32);
    let squares = Measurement { operator: &Squares, noise: &gaussian, y: y.clone() };
    assert_eq!(squares.prox(&y, 1.0).unwrap_err().to_string(), "prox needs a linear operator");
    assert_eq!(squares.linear("ddnm").unwrap_err().to_string(), "ddnm needs a linear operator");
    let message = "ddrm needs an operator with known singular values";
    assert_eq!(squares.spectral("ddrm").unwrap_err().to_string(), message);
    let hidden = LinearOnly(downsample(DType::F32));
    let hidden = Measurement { operator: &hidden, noise: &gaussian, y: y.clone() };
    assert_eq!(hidden.spectral("ddrm").unwrap_err().to_string(), message);
    assert!(hidden.linear("ddnm").is_ok());
    let identity = forward::Identity::new(site((1, 2, 2), DType::F32)).unwrap();
    let laplace = Measurement { operator: &identity, noise: &Laplace, y: y.clone() };
    assert_eq!(laplace.prox(&y, 1.0).unwrap_err().to_string(), "prox needs additive white Gaussian noise");
    assert_eq!(squares.prox(&y, 0.0).unwrap_err().to_string(), "prox: r is 0, expected a number above 0");
}

/// `Gᵀ G` for each row its own random `G`.
fn products(size: usize) -> (Tensor, impl Fn(&Tensor) -> Result<Tensor>) {
    let g = random(&[2, 1, size, size], 5, DType::F64);
    let matrix = g.t().unwrap().matmul(&g).unwrap();
    let kept = matrix.clone();
    (matrix, move |x: &Tensor| {
        let rows = x.dims()[0];
        Ok(kept.narrow(0, 0, rows)?.matmul(x)?)
    })
}

#[test]
fn conjugate_gradients_solve_in_as_many_steps_as_there_are_unknowns() {
    let (matrix, product) = products(6);
    let solution = random(&[2, 1, 6, 1], 6, DType::F64);
    let b = matrix.matmul(&solution).unwrap();
    let params = CgParams { tolerance: 1e-9, max_iterations: 12 };
    let (u, info) = conjugate_gradients(product, &b, &params).unwrap();
    info.converged("test", &params).unwrap();
    assert!(info.iterations.iter().all(|&n| (1..=8).contains(&n)), "{info:?}");
    assert!(relative_error(&u, &solution) < 1e-6, "{info:?}");
    let residual = relative_error(&matrix.matmul(&u).unwrap(), &b);
    assert!(residual < 1e-8, "{residual:e}");
}

#[test]
fn rows_of_a_system_do_not_influence_one_another() {
    // An easy row that stops early, a hard one, and one that is solved before it starts.
    let diagonals = [1., 1.1, 1.2, 1.3, 1., 10., 100., 1000., 1., 1., 1., 1.];
    let diagonals = Tensor::from_slice(&diagonals, (3, 1, 1, 4), &Device::Cpu).unwrap();
    let b = random(&[2, 1, 1, 4], 6, DType::F64).pad_with_zeros(0, 0, 1).unwrap();
    let params = CgParams { tolerance: 1e-2, max_iterations: 12 };
    let (together, info) = conjugate_gradients(|x| Ok((x * &diagonals)?), &b, &params).unwrap();
    assert!(0 < info.iterations[0] && info.iterations[0] < info.iterations[1], "{info:?}");
    for row in 0..3 {
        let diagonal = diagonals.narrow(0, row, 1).unwrap();
        let (alone, alone_info) =
            conjugate_gradients(|x| Ok((x * &diagonal)?), &b.narrow(0, row, 1).unwrap(), &params).unwrap();
        assert_eq!(values(&together)[4 * row..4 * row + 4], values(&alone));
        assert_eq!((info.iterations[row], info.residual[row]), (alone_info.iterations[0], alone_info.residual[0]));
    }
    assert_eq!(info.iterations[2], 0);
}

#[test]
fn an_iteration_that_ends_early_says_so_with_its_numbers() {
    let (_, product) = products(6);
    let b = random(&[2, 1, 6, 1], 6, DType::F64);
    let params = CgParams { tolerance: 1e-9, max_iterations: 2 };
    let (_, info) = conjugate_gradients(product, &b, &params).unwrap();
    assert_eq!(info.iterations, [2, 2]);
    let error = info.converged("prox", &params).unwrap_err();
    assert!(matches!(error, Error::NotConverged { iterations: 2, .. }));
    let message = error.to_string();
    assert!(message.starts_with("prox stopped after 2 iterations with a relative residual of "), "{message}");
    assert!(message.ends_with(", above 1e-9"), "{message}");
}

#[test]
fn a_residual_that_is_not_a_number_is_an_error() {
    let b = Tensor::ones((1, 1, 1, 2), DType::F64, &Device::Cpu).unwrap();
    let error = conjugate_gradients(|x| Ok((x * f64::NAN)?), &b, &CgParams::default()).unwrap_err();
    assert!(matches!(error, Error::NonFinite { .. }), "{error}");
}
