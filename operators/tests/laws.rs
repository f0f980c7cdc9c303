use std::collections::HashSet;

use candle_core::{DType, Tensor};
use tweedie_operators::{
    BuildOperator, CgInfo, CgParams, Entry, Error, ForwardOperator, LinearOperator, Measurement, NOISES, OPERATORS,
    Pullback, Rng, Site, SpectralOperator, forward, noise,
};

use crate::{SIZES, inner, norm, random, relative_error, site};

/// Rounding that a law may show, relative.
const TYPES: [(DType, f64); 2] = [(DType::F32, 1e-5), (DType::F64, 1e-12)];

struct Case {
    label: String,
    operator: Box<dyn ForwardOperator>,
    dtype: DType,
    rounding: f64,
    /// Two rows.
    x: Tensor,
    /// Like `operator.forward(x)`.
    v: Tensor,
}

impl Case {
    fn linear(&self) -> Option<&dyn LinearOperator> {
        self.operator.as_linear()
    }

    fn spectral(&self) -> Option<&dyn SpectralOperator> {
        self.linear().and_then(LinearOperator::as_spectral)
    }

    fn assert_close(&self, got: f64, expected: f64, scale: f64, law: &str) {
        let error = (got - expected).abs() / scale;
        assert!(error <= self.rounding, "{}: {law}: {got} and {expected}, relative error {error:e}", self.label);
    }

    fn assert_same(&self, got: &Tensor, expected: &Tensor, law: &str) {
        let error = relative_error(got, expected);
        assert!(error <= self.rounding, "{}: {law}: relative error {error:e}", self.label);
    }
}

/// An entry built from its example, for images of any size.
///
/// The example of a program names one that no machine is sure to have, and a program has no derivative for candle to
/// find; its laws are checked in `own.rs`, with programs made for that.
pub(crate) fn build(entry: &Entry<BuildOperator>, site: Site<'_>) -> Option<Box<dyn ForwardOperator>> {
    let mut table: toml::Table = entry.example.parse().unwrap();
    let (_, height, width) = site.image;
    // A matrix fits images of one size: its file is written for the one at hand.
    let file = (entry.name == "matrix").then(|| crate::own::block_mean_file(height, width));
    if let Some(file) = &file {
        table.insert("file".into(), file.path().to_str().unwrap().into());
    }
    (entry.name != "process").then(|| entry.create(table, site).unwrap())
}

/// Every operator of the list, for every size and type.
fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for entry in OPERATORS {
        for (height, width) in SIZES {
            for (dtype, rounding) in TYPES {
                let site = site((3, height, width), dtype);
                let Some(operator) = build(entry, site) else { continue };
                let x = random(&[2, 3, height, width], 1, dtype);
                let v = random(operator.forward(&x).unwrap().dims(), 2, dtype);
                let label = format!("{} at {height}x{width} in {dtype:?}", entry.name);
                cases.push(Case { label, operator, dtype, rounding, x, v });
            }
        }
    }
    cases
}

#[test]
fn forward_keeps_type_and_rows() {
    for case in cases() {
        let y = case.operator.forward(&case.x).unwrap();
        assert_eq!((y.dtype(), y.dims()[0]), (case.dtype, 2), "{}", case.label);
        let back = case.operator.vjp(&case.x, &case.v).unwrap();
        assert_eq!((back.dtype(), back.dims()), (case.dtype, case.x.dims()), "{}", case.label);
    }
}

#[test]
fn adjoint_is_the_transpose() {
    for case in cases() {
        let Some(linear) = case.linear() else { continue };
        let (ax, atv) = (linear.forward(&case.x).unwrap(), linear.adjoint(&case.v).unwrap());
        let scale = norm(&ax) * norm(&case.v);
        case.assert_close(inner(&ax, &case.v), inner(&case.x, &atv), scale, "⟨Ax, v⟩ = ⟨x, Aᵀv⟩");
    }
}

#[test]
fn vjp_is_the_derivative() {
    for case in cases().into_iter().filter(|case| case.dtype == DType::F64) {
        let direction = random(case.x.dims(), 3, case.dtype);
        let step = 1e-4;
        let at = |sign: f64| {
            let moved = (&case.x + (&direction * (sign * step)).unwrap()).unwrap();
            inner(&case.operator.forward(&moved).unwrap(), &case.v)
        };
        let difference = (at(1.0) - at(-1.0)) / (2.0 * step);
        let derivative = inner(&case.operator.vjp(&case.x, &case.v).unwrap(), &direction);
        let error = (difference - derivative).abs() / (norm(&direction) * norm(&case.v));
        assert!(error < 1e-8, "{}: {difference} and {derivative}", case.label);
    }
}

#[test]
fn vjp_agrees_with_automatic_differentiation() {
    for case in cases() {
        let (_, pullback) = tweedie_operators::pullback(&case.x, |x| case.operator.forward(x)).unwrap();
        case.assert_same(
            &case.operator.vjp(&case.x, &case.v).unwrap(),
            &pullback.apply(&case.v).unwrap(),
            "vjp and autograd",
        );
    }
}

#[test]
fn linear_operators_are_linear() {
    for case in cases().iter().filter(|case| case.linear().is_some()) {
        let z = random(case.x.dims(), 4, case.dtype);
        let sum = ((&case.x * 0.7).unwrap() + (&z * -1.9).unwrap()).unwrap();
        let a = |x: &Tensor| case.operator.forward(x).unwrap();
        let expected = ((a(&case.x) * 0.7).unwrap() + (a(&z) * -1.9).unwrap()).unwrap();
        case.assert_same(&a(&sum), &expected, "linearity");
    }
}

#[test]
fn rows_of_an_operator_are_independent_to_the_bit() {
    for case in cases() {
        let both = case.operator.forward(&case.x).unwrap();
        let both_back = case.operator.vjp(&case.x, &case.v).unwrap();
        for row in 0..2 {
            let (x, v) = (case.x.narrow(0, row, 1).unwrap(), case.v.narrow(0, row, 1).unwrap());
            let one = case.operator.forward(&x).unwrap();
            assert_eq!(crate::values(&one), crate::values(&both.narrow(0, row, 1).unwrap()), "{}", case.label);
            let back = case.operator.vjp(&x, &v).unwrap();
            assert_eq!(crate::values(&back), crate::values(&both_back.narrow(0, row, 1).unwrap()), "{}", case.label);
        }
    }
}

#[test]
fn spectral_factors_are_orthonormal() {
    for case in cases() {
        let Some(spectral) = case.spectral() else { continue };
        let spectrum = spectral.image_to_spectrum(&case.x).unwrap();
        assert_eq!(spectrum.dims(), case.x.dims(), "{}", case.label);
        case.assert_same(&spectral.spectrum_to_image(&spectrum).unwrap(), &case.x, "V Vᵀ x = x");
        let other = random(case.x.dims(), 5, case.dtype);
        let scale = norm(&case.x) * norm(&other);
        let image = spectral.spectrum_to_image(&other).unwrap();
        case.assert_close(inner(&spectrum, &other), inner(&case.x, &image), scale, "Vᵀ is the transpose of V");

        // Uᵀ keeps lengths of what A can produce, and is zero where s is.
        let range = case.operator.forward(&case.x).unwrap();
        let seen = spectral.measurement_to_spectrum(&range).unwrap();
        case.assert_close(norm(&seen), norm(&range), norm(&range), "‖Uᵀ A x‖ = ‖A x‖");
        let s = spectral.singular_values().to_dtype(case.dtype).unwrap().broadcast_as(case.x.shape()).unwrap();
        let noise = crate::values(&spectral.measurement_to_spectrum(&case.v).unwrap());
        for (s, coefficient) in crate::values(&s).into_iter().zip(noise) {
            assert!(s >= 0.0 && (s > 0.0 || coefficient == 0.0), "{}: s {s}, Uᵀv {coefficient}", case.label);
        }
    }
}

#[test]
fn the_decomposition_gives_the_operator_back() {
    for case in cases() {
        let Some(spectral) = case.spectral() else { continue };
        let s = spectral.singular_values().to_dtype(case.dtype).unwrap();
        let left = spectral.measurement_to_spectrum(&case.operator.forward(&case.x).unwrap()).unwrap();
        let right = spectral.image_to_spectrum(&case.x).unwrap().broadcast_mul(&s).unwrap();
        case.assert_same(&left, &right, "Uᵀ A x = s Vᵀ x");
        // And the transpose: V s Uᵀ v = Aᵀ v.
        let spectrum = spectral.measurement_to_spectrum(&case.v).unwrap().broadcast_mul(&s).unwrap();
        let adjoint = spectral.adjoint(&case.v).unwrap();
        case.assert_same(&spectral.spectrum_to_image(&spectrum).unwrap(), &adjoint, "V s Uᵀ v = Aᵀ v");
    }
}

#[test]
fn pseudo_inverse_is_the_one_of_moore_and_penrose() {
    for case in cases() {
        let Some(spectral) = case.spectral() else { continue };
        let a = |x: &Tensor| case.operator.forward(x).unwrap();
        let pinv = |y: &Tensor| spectral.pseudo_inverse(y).unwrap();
        case.assert_same(&a(&pinv(&a(&case.x))), &a(&case.x), "A A⁺ A = A");
        case.assert_same(&pinv(&a(&pinv(&case.v))), &pinv(&case.v), "A⁺ A A⁺ = A⁺");
        let (x, z) = (&case.x, random(case.x.dims(), 6, case.dtype));
        let scale = norm(x) * norm(&z);
        case.assert_close(inner(&pinv(&a(x)), &z), inner(x, &pinv(&a(&z))), scale, "A⁺ A is symmetric");
        let (v, w) = (&case.v, random(case.v.dims(), 7, case.dtype));
        let scale = norm(v) * norm(&w);
        case.assert_close(inner(&a(&pinv(v)), &w), inner(v, &a(&pinv(&w))), scale, "A A⁺ is symmetric");
    }
}

#[test]
fn prox_is_where_the_gradient_vanishes() {
    let gaussian = noise::Gaussian::new(0.3).unwrap();
    for case in cases().iter().filter(|case| case.linear().is_some()) {
        let measurement = Measurement { operator: &*case.operator, noise: &gaussian, y: case.v.clone() };
        let r = 0.8;
        // Conjugate gradients, where nothing better is known, go on to the rounding that is asked for.
        let params = CgParams { tolerance: 0.1 * case.rounding, max_iterations: 1000 };
        let u = measurement.prox_with(&case.x, r, &params).unwrap().0;
        let pull = ((&case.x - &u).unwrap() * (1.0 / (r * r))).unwrap();
        let gradient = (measurement.score(&u).unwrap() + &pull).unwrap();
        let size = norm(&gradient) / norm(&pull);
        assert!(size < 10.0 * case.rounding, "{}: gradient {size:e} of the pull", case.label);
    }
}

#[test]
fn noiseless_prox_is_the_nearest_image_that_fits() {
    let noiseless = noise::Gaussian::new(0.0).unwrap();
    for case in cases() {
        let Some(spectral) = case.spectral() else { continue };
        let y = case.operator.forward(&random(case.x.dims(), 8, case.dtype)).unwrap();
        let measurement = Measurement { operator: &*case.operator, noise: &noiseless, y: y.clone() };
        let u = measurement.prox(&case.x, 0.5).unwrap();
        case.assert_same(&case.operator.forward(&u).unwrap(), &y, "A u = y");
        // The change has no part in the null space.
        let change = (&u - &case.x).unwrap();
        let seen = spectral.pseudo_inverse(&case.operator.forward(&change).unwrap()).unwrap();
        case.assert_same(&seen, &change, "A⁺ A (u − x) = u − x");
    }
}

#[test]
fn score_of_a_noise_is_the_derivative_of_its_log_likelihood() {
    for entry in NOISES {
        let noise = entry.create(entry.example.parse().unwrap()).unwrap();
        let z = random(&[2, 3, 4, 5], 1, DType::F64);
        let y = noise.corrupt(&z, &mut Rng::new(2, 0..2)).unwrap();
        let direction = random(z.dims(), 3, DType::F64);
        let step = 1e-5;
        let at = |sign: f64| {
            let moved = (&z + (&direction * (sign * step)).unwrap()).unwrap();
            crate::values(&noise.log_likelihood(&moved, &y).unwrap())
        };
        let score = noise.score(&z, &y).unwrap();
        for row in 0..2 {
            let difference = (at(1.0)[row] - at(-1.0)[row]) / (2.0 * step);
            let (score, direction) = (score.narrow(0, row, 1).unwrap(), direction.narrow(0, row, 1).unwrap());
            let derivative = inner(&score, &direction);
            let error = (difference - derivative).abs() / (norm(&score) * norm(&direction));
            assert!(error < 1e-6, "{}: {difference} and {derivative}", entry.name);
        }
    }
}

#[test]
fn rows_of_a_noise_are_independent_to_the_bit() {
    for entry in NOISES {
        let noise = entry.create(entry.example.parse().unwrap()).unwrap();
        let z = random(&[2, 3, 4, 5], 1, DType::F32);
        let both = noise.corrupt(&z, &mut Rng::new(2, 0..2)).unwrap();
        let second = z.narrow(0, 1, 1).unwrap();
        let alone = noise.corrupt(&second, &mut Rng::new(2, 1..2)).unwrap();
        let row = both.narrow(0, 1, 1).unwrap();
        assert_eq!(crate::values(&alone), crate::values(&row), "{}", entry.name);
        assert_ne!(crate::values(&alone), crate::values(&second), "{}: nothing was drawn", entry.name);
        let likelihood = crate::values(&noise.log_likelihood(&z, &both).unwrap());
        let alone = crate::values(&noise.log_likelihood(&second, &alone).unwrap());
        assert_eq!(likelihood[1], alone[0], "{}", entry.name);
    }
}

fn check_names<F>(list: &[Entry<F>]) {
    let mut seen = HashSet::new();
    for Entry { name, about, .. } in list {
        assert!(seen.insert(name), "{name} appears twice");
        let snake = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
        assert!(snake && name.starts_with(|c: char| c.is_ascii_lowercase()), "{name} is not snake_case");
        assert!(!about.is_empty() && !about.contains('\n') && !about.ends_with('.'), "{name}: {about}");
    }
}

#[test]
fn names_are_unique_and_descriptions_are_one_line() {
    check_names(OPERATORS);
    check_names(NOISES);
}

#[test]
fn settings_that_do_not_exist_are_refused_by_every_entry() {
    let table = |example: &str| format!("{example}\nno_such_setting = 1").parse().unwrap();
    let check = |name: &str, error: Error| {
        let message = error.to_string();
        assert!(message.starts_with(&format!("{name}: unknown field `no_such_setting`")), "{message}");
    };
    for entry in OPERATORS {
        check(entry.name, entry.create(table(entry.example), site((3, 8, 8), DType::F32)).unwrap_err());
    }
    for entry in NOISES {
        check(entry.name, entry.create(table(entry.example)).unwrap_err());
    }
}

/// The names in "unknown field `x`, expected one of `a`, `b`".
fn accepted(message: &str) -> HashSet<String> {
    let (_, list) = message.split_once("expected").unwrap_or_default();
    list.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn every_setting_is_documented_and_nothing_else() {
    let check = |name: &str, fields: &[(&str, &str)], error: Error| {
        let documented: HashSet<String> = fields.iter().map(|(name, _)| name.to_string()).collect();
        assert_eq!(documented, accepted(&error.to_string()), "{name}: {error}");
        for (field, about) in fields {
            assert!(!about.is_empty() && !about.contains('\n') && !about.ends_with('.'), "{name}: {field}: {about}");
        }
    };
    let table = || "no_such_setting = 1".parse().unwrap();
    for entry in OPERATORS {
        check(entry.name, entry.fields, entry.create(table(), site((3, 8, 8), DType::F32)).unwrap_err());
    }
    for entry in NOISES {
        check(entry.name, entry.fields, entry.create(table()).unwrap_err());
    }
}

#[test]
fn the_shape_of_an_image_follows_from_that_of_its_measurement() {
    for entry in OPERATORS {
        for (height, width) in SIZES {
            let Some(operator) = build(entry, site((3, height, width), DType::F32)) else { continue };
            let y = operator.forward(&random(&[1, 3, height, width], 1, DType::F32)).unwrap();
            let Ok(shape) =
                entry.image_shape(&entry.example.parse().unwrap(), &y.dims()[1..], site((0, 0, 0), DType::F32))
            else {
                continue;
            };
            let again = entry.create(entry.example.parse().unwrap(), site(shape, DType::F32)).unwrap();
            let image = random(&[1, shape.0, shape.1, shape.2], 1, DType::F32);
            assert_eq!(again.forward(&image).unwrap().dims(), y.dims(), "{} from {shape:?}", entry.name);
        }
    }
}

#[test]
fn closed_forms_of_the_gram_matrix_solve_its_systems() {
    for case in cases() {
        let Some(gram) = case.linear().and_then(LinearOperator::as_gram) else { continue };
        let aat = |y: &Tensor| gram.forward(&gram.adjoint(y).unwrap()).unwrap();
        let u = gram.solve_gram(&case.v, 0.3).unwrap();
        case.assert_same(&(aat(&u) + (&u * 0.3).unwrap()).unwrap(), &case.v, "(AAᵀ + λ) u = v");
        let ax = gram.forward(&case.x).unwrap();
        case.assert_same(&aat(&gram.solve_gram(&ax, 0.0).unwrap()), &ax, "AAᵀ (AAᵀ)⁺ A x = A x");
    }
}

#[test]
fn public_types_are_debug_send_and_sync() {
    fn check<T: std::fmt::Debug + Send + Sync>() {}
    check::<Measurement<'static>>();
    check::<Pullback<'static>>();
    check::<Entry<tweedie_operators::BuildOperator>>();
    check::<Site<'static>>();
    check::<Rng>();
    check::<Error>();
    check::<CgParams>();
    check::<CgInfo>();
    check::<tweedie_operators::PowerParams>();
    check::<tweedie_operators::PowerInfo>();
    check::<tweedie_operators::AdjointCheck>();
    check::<tweedie_operators::Report>();
    check::<forward::Identity>();
    check::<forward::Inpaint>();
    check::<forward::Grayscale>();
    check::<forward::BlurSeparable>();
    check::<forward::DownsampleBox>();
    check::<forward::Compose>();
    check::<forward::Stack>();
    check::<forward::Scale>();
    check::<forward::Matrix>();
    check::<forward::Process>();
    check::<forward::GrayscaleHints>();
    check::<forward::Bayer>();
    check::<forward::SelectChannels>();
    check::<forward::Clip>();
    check::<forward::Gamma>();
    check::<forward::Quantize>();
    check::<forward::Jpeg>();
    check::<forward::Blur>();
    check::<forward::BlurVarying>();
    check::<tweedie_operators::Kernel>();
    check::<forward::FourierSubsample>();
    check::<forward::PhaseRetrieval>();
    check::<forward::CompressedSensing>();
    check::<forward::GaussianMatrix>();
    check::<forward::Radon>();
    check::<forward::DownsampleKernel>();
    check::<forward::Resize>();
    check::<noise::Gaussian>();
    check::<noise::Poisson>();
    check::<noise::PoissonGaussian>();
    check::<noise::Uniform>();
    check::<noise::SaltAndPepper>();
    check::<noise::Laplace>();
    check::<noise::Speckle>();
    check::<Box<dyn SpectralOperator>>();
    check::<Box<dyn tweedie_operators::NoiseModel>>();
}
