use candle_core::{DType, Device, Tensor};
use tweedie_operators::{
    CgParams, ForwardOperator, GramOperator, LinearOperator, OPERATORS, PowerParams, Result, SpectralOperator,
    check_adjoint, check_operator, forward, power_method, pseudo_inverse, regularized_inverse, solve_gram,
    solve_normal,
};

use crate::{SIZES, random, relative_error, site, values};

/// `y = M x` for a dense matrix `M` of `rows` by `channels · height · width`, with whatever the test says of it.
#[derive(Debug)]
struct Dense {
    matrix: Tensor,
    image: (usize, usize, usize),
    /// What `adjoint` uses in the place of the transpose.
    adjoint: Tensor,
    /// Whether a closed form of the Gram matrix is offered.
    gram: bool,
}

impl Dense {
    fn new(rows: usize, image: (usize, usize, usize), seed: u64) -> Self {
        let columns = image.0 * image.1 * image.2;
        Self::of(random(&[rows, columns], seed, DType::F64), image)
    }

    fn of(matrix: Tensor, image: (usize, usize, usize)) -> Self {
        let adjoint = matrix.t().unwrap().contiguous().unwrap();
        Self { matrix, image, adjoint, gram: false }
    }

    fn times(matrix: &Tensor, x: &Tensor) -> Result<Tensor> {
        Ok(x.flatten_from(1)?.matmul(&matrix.to_dtype(x.dtype())?.t()?)?)
    }
}

impl ForwardOperator for Dense {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Self::times(&self.matrix, x)
    }

    fn as_linear(&self) -> Option<&dyn LinearOperator> {
        Some(self)
    }
}

impl LinearOperator for Dense {
    fn adjoint(&self, y: &Tensor) -> Result<Tensor> {
        let (channels, height, width) = self.image;
        Ok(Self::times(&self.adjoint, y)?.reshape(((), channels, height, width))?)
    }

    fn as_gram(&self) -> Option<&dyn GramOperator> {
        self.gram.then_some(self)
    }
}

impl GramOperator for Dense {
    fn solve_gram(&self, y: &Tensor, ridge: f64) -> Result<Tensor> {
        let rows = self.matrix.dims()[0];
        let gram = values(&self.matrix.matmul(&self.matrix.t()?.contiguous()?)?);
        let batch: Vec<f64> =
            y.to_dtype(DType::F64)?.to_vec2::<f64>()?.iter().flat_map(|y| eliminate(&gram, y, ridge)).collect();
        Ok(Tensor::from_vec(batch, ((), rows), &Device::Cpu)?.to_dtype(y.dtype())?)
    }
}

/// `(M + λI) u = b` by Gauss's elimination with pivots, the definition.
fn eliminate(matrix: &[f64], b: &[f64], ridge: f64) -> Vec<f64> {
    let n = b.len();
    let mut rows: Vec<Vec<f64>> = (0..n)
        .map(|i| (0..n).map(|j| matrix[i * n + j] + if i == j { ridge } else { 0.0 }).chain([b[i]]).collect())
        .collect();
    for k in 0..n {
        let pivot = (k..n).max_by(|&i, &j| rows[i][k].abs().total_cmp(&rows[j][k].abs())).unwrap();
        rows.swap(k, pivot);
        for i in 0..n {
            if i != k {
                let factor = rows[i][k] / rows[k][k];
                let above = rows[k].clone();
                rows[i].iter_mut().zip(above).for_each(|(a, b)| *a -= factor * b);
            }
        }
    }
    (0..n).map(|i| rows[i][n] / rows[i][i]).collect()
}

const TIGHT: CgParams = CgParams { tolerance: 1e-13, max_iterations: 500 };

fn assert_close(got: &Tensor, expected: &[f64], what: &str) {
    let expected = Tensor::from_slice(expected, got.shape(), &Device::Cpu).unwrap();
    let error = relative_error(got, &expected);
    assert!(error < 1e-8, "{what}: relative error {error:e}");
}

#[test]
fn systems_are_those_of_gauss() {
    let image = (1, 3, 4);
    for (rows, gram) in [(5, false), (5, true), (20, false)] {
        let operator = Dense { gram, ..Dense::new(rows, image, 1) };
        let (m, mt) = (&operator.matrix, &operator.adjoint);
        let (normal, outer) = (values(&mt.matmul(m).unwrap()), values(&m.matmul(mt).unwrap()));
        let (b, y) = (random(&[1, 1, 3, 4], 2, DType::F64), random(&[1, rows], 3, DType::F64));
        for ridge in [0.5, 3.0] {
            let (u, info) = solve_normal(&operator, &b, ridge, &TIGHT).unwrap();
            assert_eq!(info.is_none(), gram);
            assert_close(&u, &eliminate(&normal, &values(&b), ridge), "AᵀA + λ");
            let (u, info) = solve_gram(&operator, &y, ridge, &TIGHT).unwrap();
            assert_eq!(info.is_none(), gram);
            assert_close(&u, &eliminate(&outer, &values(&y), ridge), "AAᵀ + λ");
            let (u, _) = regularized_inverse(&operator, &y, ridge, &TIGHT).unwrap();
            let right = values(&operator.adjoint(&y).unwrap());
            assert_close(&u, &eliminate(&normal, &right, ridge), "(AᵀA + λ)⁻¹ Aᵀ");
        }
        // Of full rank: Aᵀ (AAᵀ)⁻¹ y if y is the smaller, (AᵀA)⁻¹ Aᵀ y if the image is.
        let (x, info) = pseudo_inverse(&operator, &y, &TIGHT).unwrap();
        assert!(info.is_none_or(|info| info.converged("test", &TIGHT).is_ok()));
        let expected = if rows < 12 {
            let u = Tensor::from_vec(eliminate(&outer, &values(&y), 0.0), (1, rows), &Device::Cpu).unwrap();
            values(&operator.adjoint(&u).unwrap())
        } else {
            eliminate(&normal, &values(&operator.adjoint(&y).unwrap()), 0.0)
        };
        assert_close(&x, &expected, "A⁺ y");
    }
}

#[test]
fn measurements_that_no_image_has_are_answered_with_the_nearest() {
    // Two equal rows that say different things: the mean of the two is the nearest that an image can have.
    let matrix = Tensor::new(&[[1.0, 1.0], [1.0, 1.0]], &Device::Cpu).unwrap();
    let operator = Dense::of(matrix, (1, 1, 2));
    let y = Tensor::new(&[[1.0, 3.0]], &Device::Cpu).unwrap();
    let (x, info) = pseudo_inverse(&operator, &y, &TIGHT).unwrap();
    assert!(info.unwrap().converged("test", &TIGHT).is_ok());
    assert_close(&x, &[1.0, 1.0], "A⁺ y");
}

/// An operator of the list that hides what it knows.
#[derive(Debug)]
struct Hidden<'a>(&'a dyn LinearOperator);

impl ForwardOperator for Hidden<'_> {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.0.forward(x)
    }

    fn as_linear(&self) -> Option<&dyn LinearOperator> {
        Some(self)
    }
}

impl LinearOperator for Hidden<'_> {
    fn adjoint(&self, y: &Tensor) -> Result<Tensor> {
        self.0.adjoint(y)
    }
}

#[test]
fn closed_forms_and_conjugate_gradients_agree_for_every_operator() {
    for entry in OPERATORS {
        let Some(operator) = crate::laws::build(entry, site((3, 6, 11), DType::F64)) else { continue };
        let Some(linear) = operator.as_linear() else { continue };
        let hidden = Hidden(linear);
        let x = random(&[2, 3, 6, 11], 1, DType::F64);
        let ax = linear.forward(&x).unwrap();
        let y = random(ax.dims(), 2, DType::F64);
        let same = |closed: Tensor, iterated: Tensor, what: &str| {
            let error = relative_error(&iterated, &closed);
            assert!(error < 1e-7, "{}: {what}: relative error {error:e}", entry.name);
        };
        let params = CgParams { tolerance: 1e-12, max_iterations: 2000 };
        for ridge in [0.0, 0.4] {
            // Without a ridge only what the operator can produce has a solution.
            let b = if ridge == 0.0 { linear.adjoint(&y).unwrap() } else { x.clone() };
            let c = if ridge == 0.0 { ax.clone() } else { y.clone() };
            let of = |operator: &dyn LinearOperator| {
                let normal = solve_normal(operator, &b, ridge, &params).unwrap().0;
                let gram = solve_gram(operator, &c, ridge, &params).unwrap().0;
                [normal, gram, regularized_inverse(operator, &c, ridge, &params).unwrap().0]
            };
            let names = ["AᵀA + λ", "AAᵀ + λ", "(AᵀA + λ)⁻¹ Aᵀ"];
            for ((closed, iterated), name) in of(linear).into_iter().zip(of(&hidden)).zip(names) {
                same(closed, iterated, name);
            }
        }
    }
}

#[test]
fn ridges_below_zero_are_refused() {
    let operator = Dense::new(3, (1, 2, 2), 1);
    let error = solve_normal(&operator, &random(&[1, 1, 2, 2], 1, DType::F64), -1.0, &TIGHT).unwrap_err();
    assert_eq!(error.to_string(), "solve_normal: ridge is -1, expected a finite number of at least 0");
}

#[test]
fn the_norm_is_the_largest_singular_value() {
    for entry in OPERATORS {
        let Some(operator) = crate::laws::build(entry, site((3, 8, 8), DType::F64)) else { continue };
        let Some(spectral) = operator.as_linear().and_then(LinearOperator::as_spectral) else { continue };
        let largest = values(spectral.singular_values()).into_iter().fold(0.0, f64::max);
        let params = PowerParams { tolerance: 1e-4, max_iterations: 5000, ..PowerParams::default() };
        let (norm, info) = power_method(spectral, (3, 8, 8), &params).unwrap();
        info.converged(&params).unwrap();
        assert!((norm / largest - 1.0).abs() < 1e-4, "{}: {norm} and {largest}", entry.name);
    }
    // diag(1, 2, 5) with signs.
    let matrix = Tensor::new(&[[-1.0, 0.0, 0.0], [0.0, 0.0, -5.0], [0.0, 2.0, 0.0]], &Device::Cpu).unwrap();
    let (norm, info) = power_method(&Dense::of(matrix, (1, 1, 3)), (1, 1, 3), &PowerParams::default()).unwrap();
    assert!((norm - 5.0).abs() < 1e-3 && info.iterations < 20, "{norm}, {info:?}");
}

#[test]
fn the_norm_of_nothing_is_zero_and_an_early_end_is_reported() {
    let nothing = Dense::of(Tensor::zeros((2, 4), DType::F64, &Device::Cpu).unwrap(), (1, 2, 2));
    assert_eq!(power_method(&nothing, (1, 2, 2), &PowerParams::default()).unwrap().0, 0.0);
    let params = PowerParams { tolerance: 1e-12, max_iterations: 2, seed: 0 };
    let (_, info) = power_method(&Dense::new(9, (1, 3, 3), 1), (1, 3, 3), &params).unwrap();
    assert_eq!(info.iterations, 2);
    let message = info.converged(&params).unwrap_err().to_string();
    assert!(message.starts_with("power method stopped after 2 iterations with a relative residual of "), "{message}");
    let broken = Dense::of(Tensor::full(f64::NAN, (2, 4), &Device::Cpu).unwrap(), (1, 2, 2));
    let error = power_method(&broken, (1, 2, 2), &PowerParams::default()).unwrap_err();
    assert_eq!(error.to_string(), "product of the power method at iteration 1 is not finite");
}

#[test]
fn every_operator_of_the_list_passes_its_check() {
    for entry in OPERATORS {
        for (height, width) in SIZES {
            for dtype in [DType::F32, DType::F64] {
                let Some(operator) = crate::laws::build(entry, site((3, height, width), dtype)) else { continue };
                // A difference in f32 needs a step that is wider than those of a quantiser.
                if dtype == DType::F32 && ["quantize", "jpeg"].contains(&entry.name) {
                    continue;
                }
                let report = check_operator(&*operator, (3, height, width), dtype, &Device::Cpu, 0).unwrap();
                assert!(report.passed(), "{} at {height}x{width} in {dtype:?}\n{report}", entry.name);
                let spectral = operator.as_linear().is_some_and(|linear| linear.as_spectral().is_some());
                assert!(report.laws.len() >= if spectral { 17 } else { 5 }, "{}\n{report}", entry.name);
            }
        }
    }
    let gram = Dense { gram: true, ..Dense::new(5, (1, 3, 4), 1) };
    let report = check_operator(&gram, (1, 3, 4), DType::F64, &Device::Cpu, 0).unwrap();
    assert!(report.passed() && report.laws.len() == 9, "{report}");
}

/// The names of the laws that do not hold.
fn broken(operator: &dyn ForwardOperator, image: (usize, usize, usize), dtype: DType) -> Vec<&'static str> {
    let report = check_operator(operator, image, dtype, &Device::Cpu, 0).unwrap();
    report.laws.iter().filter(|law| !law.passed()).map(|law| law.name).collect()
}

/// Fault 58.
#[test]
fn an_adjoint_that_is_twice_too_large_fails_with_its_ratio() {
    for dtype in [DType::F32, DType::F64] {
        let mut operator = Dense::new(7, (1, 3, 4), 1);
        operator.adjoint = (operator.adjoint * 2.0).unwrap();
        let check = check_adjoint(&operator, (1, 3, 4), dtype, &Device::Cpu, 0).unwrap();
        assert!((check.ratio - 0.5).abs() < 1e-5 && check.gap > 0.1, "{check:?}");
        assert_eq!(broken(&operator, (1, 3, 4), dtype), ["vjp is the derivative", "⟨A x, y⟩ = ⟨x, Aᵀ y⟩"]);
        let report = check_operator(&operator, (1, 3, 4), dtype, &Device::Cpu, 0).unwrap().to_string();
        let line = report.lines().find(|line| line.contains("⟨A x, y⟩")).unwrap();
        assert!(line.starts_with("FAILED ⟨A x, y⟩ = ⟨x, Aᵀ y⟩: ") && line.ends_with(" = 0.500000)"), "{line}");
    }
}

#[test]
fn a_matrix_in_the_place_of_its_transpose_fails() {
    // Square, so that the shapes fit.
    let mut operator = Dense::new(12, (1, 3, 4), 1);
    operator.adjoint = operator.matrix.clone();
    let check = check_adjoint(&operator, (1, 3, 4), DType::F64, &Device::Cpu, 0).unwrap();
    assert!(check.gap > 0.01, "{check:?}");
    assert_eq!(broken(&operator, (1, 3, 4), DType::F64), ["vjp is the derivative", "⟨A x, y⟩ = ⟨x, Aᵀ y⟩"]);
    let right = check_adjoint(&Dense::new(12, (1, 3, 4), 1), (1, 3, 4), DType::F64, &Device::Cpu, 0).unwrap();
    assert!((right.ratio - 1.0).abs() < 1e-12 && right.gap < 1e-14, "{right:?}");
}

#[test]
fn a_single_wrong_number_in_an_adjoint_fails() {
    let mut operator = Dense::new(7, (1, 3, 4), 1);
    let mut elements = values(&operator.adjoint);
    elements[5] *= 1.001;
    operator.adjoint = Tensor::from_vec(elements, (12, 7), &Device::Cpu).unwrap();
    assert!(broken(&operator, (1, 3, 4), DType::F64).contains(&"⟨A x, y⟩ = ⟨x, Aᵀ y⟩"));
}

/// What can be wrong with an operator of a user.
#[derive(Debug)]
enum Fault {
    Shift,
    Rows,
    Derivative,
    Refusal,
}

impl ForwardOperator for Fault {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Shift => Ok((x + 0.1)?),
            Self::Rows => Ok(x.broadcast_sub(&x.mean_keepdim(0)?)?),
            Self::Derivative | Self::Refusal => Ok(x.sqr()?),
        }
    }

    fn vjp(&self, x: &Tensor, v: &Tensor) -> Result<Tensor> {
        match self {
            Self::Shift | Self::Rows => Ok(v.clone()),
            Self::Derivative => Ok((x * v)?),
            Self::Refusal => Err(tweedie_operators::Error::NoGradient),
        }
    }

    fn as_linear(&self) -> Option<&dyn LinearOperator> {
        matches!(self, Self::Shift).then_some(self)
    }
}

impl LinearOperator for Fault {
    fn adjoint(&self, y: &Tensor) -> Result<Tensor> {
        Ok(y.clone())
    }
}

#[test]
fn other_faults_are_found_by_their_law() {
    let image = (1, 4, 5);
    assert!(broken(&Fault::Shift, image, DType::F64).contains(&"A (a x + b z) = a A x + b A z"));
    assert!(broken(&Fault::Rows, image, DType::F64).contains(&"rows are independent"));
    assert_eq!(broken(&Fault::Derivative, image, DType::F64), ["vjp is the derivative"]);
    let report = check_operator(&Fault::Refusal, image, DType::F32, &Device::Cpu, 0).unwrap();
    assert!(!report.passed());
    let line = report.laws.iter().find(|law| !law.passed()).unwrap().to_string();
    let expected = "FAILED vjp is the derivative: NaN, limit 1e-2 (no gradient reaches the input: an operation on the \
                    way has no derivative)";
    assert_eq!(line, expected);
}

/// Singular values or vectors that are not the operator's.
#[derive(Debug)]
struct WrongSpectrum {
    mask: forward::Inpaint,
    s: Tensor,
}

impl ForwardOperator for WrongSpectrum {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.mask.forward(x)
    }

    fn as_linear(&self) -> Option<&dyn LinearOperator> {
        Some(self)
    }
}

impl LinearOperator for WrongSpectrum {
    fn adjoint(&self, y: &Tensor) -> Result<Tensor> {
        self.mask.adjoint(y)
    }

    fn as_spectral(&self) -> Option<&dyn SpectralOperator> {
        Some(self)
    }
}

impl SpectralOperator for WrongSpectrum {
    fn singular_values(&self) -> &Tensor {
        &self.s
    }

    fn image_to_spectrum(&self, x: &Tensor) -> Result<Tensor> {
        Ok((x * 1.5)?)
    }

    fn spectrum_to_image(&self, spectrum: &Tensor) -> Result<Tensor> {
        Ok(spectrum.clone())
    }

    fn measurement_to_spectrum(&self, y: &Tensor) -> Result<Tensor> {
        Ok(y.clone())
    }
}

#[test]
fn wrong_singular_values_are_found() {
    let mask = forward::Inpaint::centred_box(2, site((1, 4, 5), DType::F64)).unwrap();
    let s = (mask.mask() * 0.5).unwrap();
    let laws = broken(&WrongSpectrum { mask, s }, (1, 4, 5), DType::F64);
    for law in
        ["V Vᵀ x = x", "⟨Vᵀ x, w⟩ = ⟨x, V w⟩", "Uᵀ A x = s Vᵀ x", "A A⁺ A = A", "s ≥ 0, and Uᵀ y = 0 where s = 0"]
    {
        assert!(laws.contains(&law), "{law} in {laws:?}");
    }
}

#[test]
fn types_that_are_no_floats_of_32_or_64_bits_are_refused() {
    let identity = forward::Identity::new(site((1, 4, 5), DType::F32)).unwrap();
    let error = check_operator(&identity, (1, 4, 5), DType::BF16, &Device::Cpu, 0).unwrap_err();
    assert_eq!(error.to_string(), "check: type is BF16, expected F32 or F64");
}
