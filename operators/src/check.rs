//! Laws of an operator, measured: for operators that are not in the list.

use std::fmt;

use candle_core::{DType, Device, Tensor};

use crate::forward::{ForwardOperator, GramOperator, LinearOperator, SpectralOperator, like};
use crate::rng::Rng;
use crate::rows::dot;
use crate::{Error, Result};

/// How well an adjoint is one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdjointCheck {
    /// `⟨A x, y⟩`
    pub forward: f64,
    /// `⟨x, Aᵀ y⟩`
    pub adjoint: f64,
    /// `⟨A x, y⟩ / ⟨x, Aᵀ y⟩`: 1, or the factor that is missing in an adjoint of the right form.
    pub ratio: f64,
    /// `|⟨A x, y⟩ − ⟨x, Aᵀ y⟩| / (‖A x‖ ‖y‖)`
    pub gap: f64,
}

/// Compares `⟨A x, y⟩` with `⟨x, Aᵀ y⟩`.
///
/// `x` is a random image of `shape`, `(channels, height, width)`; `y` is `A x` and as much random noise, so that the
/// products are far from zero and their ratio means something.
///
/// # Errors
/// Those of the operator; [`Error::Shape`] if the adjoint's result is not shaped like an image.
pub fn check_adjoint(
    operator: &dyn LinearOperator,
    shape: (usize, usize, usize),
    dtype: DType,
    device: &Device,
    seed: u64,
) -> Result<AdjointCheck> {
    let x = image(shape, dtype, device, seed, 1)?;
    let ax = operator.forward(&x)?;
    let y = probe(&ax, seed)?;
    let aty = operator.adjoint(&y)?;
    same_shape("adjoint of the measurement", &aty, &x)?;
    let (forward, adjoint) = (inner(&ax, &y)?, inner(&x, &aty)?);
    let gap = relative((forward - adjoint).abs(), norm(&ax)? * norm(&y)?);
    // An operator that sees nothing has the adjoint that returns nothing.
    let ratio = if forward == adjoint { 1.0 } else { forward / adjoint };
    Ok(AdjointCheck { forward, adjoint, ratio, gap })
}

/// One law, with what was measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Law {
    /// What should hold.
    pub name: &'static str,
    /// Relative deviation from it; not a number if it could not be measured.
    pub measured: f64,
    /// The deviation that rounding may cause.
    pub limit: f64,
    /// More numbers, or why it could not be measured.
    pub note: String,
}

impl Law {
    /// Whether it holds.
    pub fn passed(&self) -> bool {
        self.measured <= self.limit
    }
}

impl fmt::Display for Law {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, measured, limit, note } = self;
        let verdict = if self.passed() { "ok    " } else { "FAILED" };
        write!(formatter, "{verdict} {name}: {measured:.1e}, limit {limit:.0e}")?;
        if note.is_empty() { Ok(()) } else { write!(formatter, " ({note})") }
    }
}

/// What [`check_operator`] found; its text has one line per law.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// The laws that apply, in the order of measuring.
    pub laws: Vec<Law>,
}

impl Report {
    /// Whether all laws hold.
    pub fn passed(&self) -> bool {
        self.laws.iter().all(Law::passed)
    }

    fn measure(&mut self, name: &'static str, limit: f64, deviation: impl FnOnce() -> Result<(f64, String)>) {
        // A failure inside is the operator's: it becomes a line, and the other laws are still measured.
        let (measured, note) = deviation().unwrap_or_else(|error| (f64::NAN, error.to_string()));
        self.laws.push(Law { name, measured, limit, note });
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.laws.iter().try_for_each(|law| writeln!(formatter, "{law}"))
    }
}

/// Measures every law that an operator claims, on random images of `(channels, height, width)`.
///
/// All: type and rows kept, rows independent, the same answer twice, `vjp` against central differences. Linear:
/// linearity, adjoint. With singular values: `V` orthonormal, `U s Vᵀ = A`, pseudo-inverse. With a Gram matrix: its
/// systems.
///
/// # Errors
/// [`Error::Config`] unless `dtype` is `f32` or `f64`; those of `forward` on a first image. Later failures are laws
/// that do not hold, with the error as their note.
pub fn check_operator(
    operator: &dyn ForwardOperator,
    shape: (usize, usize, usize),
    dtype: DType,
    device: &Device,
    seed: u64,
) -> Result<Report> {
    // The step of a difference is a compromise of rounding, ε / step, and curvature, step².
    let (rounding, step, difference) = match dtype {
        DType::F32 => (1e-4, 1e-2, 1e-2),
        DType::F64 => (1e-10, 1e-4, 1e-6),
        other => return Err(Error::config("check", format!("type is {other:?}, expected F32 or F64"))),
    };
    let one = image(shape, dtype, device, seed, 1)?;
    let other = image(shape, dtype, device, seed, 2)?;
    let both = Tensor::cat(&[&one, &other], 0)?;
    let a = |x: &Tensor| operator.forward(x);
    let y = a(&both)?;

    let mut report = Report { laws: Vec::new() };
    report.measure("A keeps the type and the number of rows", 0.0, || {
        let (got, rows) = (y.dtype(), y.dims().first().copied().unwrap_or(0));
        let kept = got == dtype && rows == 2;
        Ok((if kept { 0.0 } else { 1.0 }, if kept { String::new() } else { format!("{got:?}, {rows} rows of 2") }))
    });
    report.measure("A x is finite", 0.0, || {
        let finite = inner(&y, &y)?.is_finite();
        Ok((if finite { 0.0 } else { 1.0 }, String::new()))
    });
    report.measure("A gives the same twice", 0.0, || deviation(&a(&both)?, &y));
    report.measure("rows are independent", rounding, || deviation(&Tensor::cat(&[a(&one)?, a(&other)?], 0)?, &y));
    report.measure("vjp is the derivative", difference, || {
        let direction = image(shape, dtype, device, seed, 3)?;
        let at = |sign: f64| a(&(&one + (&direction * (sign * step))?)?);
        let slope = ((at(1.0)? - at(-1.0)?)? / (2.0 * step))?;
        let v = probe(&slope, seed)?;
        let back = operator.vjp(&one, &v)?;
        same_shape("vjp", &back, &one)?;
        let (expected, got) = (inner(&slope, &v)?, inner(&direction, &back)?);
        let note = format!("{got:.6e}, by differences {expected:.6e}");
        Ok((relative((expected - got).abs(), norm(&slope)? * norm(&v)?), note))
    });
    let Some(linear) = operator.as_linear() else { return Ok(report) };
    report.measure("A (a x + b z) = a A x + b A z", rounding, || {
        // Factors whose sum is not 1, so that a constant shift is found.
        let mixed = a(&((&one * 0.7)? + (&other * -1.9)?)?)?;
        deviation(&mixed, &((a(&one)? * 0.7)? + (a(&other)? * -1.9)?)?)
    });
    report.measure("⟨A x, y⟩ = ⟨x, Aᵀ y⟩", rounding, || {
        let AdjointCheck { forward, adjoint, ratio, gap } = check_adjoint(linear, shape, dtype, device, seed)?;
        Ok((gap, format!("{forward:.6e} / {adjoint:.6e} = {ratio:.6}")))
    });
    if let Some(spectral) = linear.as_spectral() {
        check_spectral(&mut report, spectral, &one, &other, rounding, seed);
    }
    if let Some(gram) = linear.as_gram() {
        check_gram(&mut report, gram, &one, rounding, seed);
    }
    Ok(report)
}

fn check_spectral(
    report: &mut Report,
    operator: &dyn SpectralOperator,
    x: &Tensor,
    other: &Tensor,
    rounding: f64,
    seed: u64,
) {
    let a = |x: &Tensor| operator.forward(x);
    let weighted = |spectrum: &Tensor| -> Result<Tensor> {
        Ok(spectrum.broadcast_mul(&like(operator.singular_values(), spectrum)?)?)
    };
    report.measure("V Vᵀ x = x", rounding, || {
        let spectrum = operator.image_to_spectrum(x)?;
        same_shape("spectrum", &spectrum, x)?;
        deviation(&operator.spectrum_to_image(&spectrum)?, x)
    });
    report.measure("⟨Vᵀ x, w⟩ = ⟨x, V w⟩", rounding, || {
        let w = probe(&operator.image_to_spectrum(x)?, seed)?;
        let (left, right) = (inner(&operator.image_to_spectrum(x)?, &w)?, inner(x, &operator.spectrum_to_image(&w)?)?);
        Ok((relative((left - right).abs(), norm(x)? * norm(&w)?), String::new()))
    });
    report.measure("Uᵀ A x = s Vᵀ x", rounding, || {
        deviation(&operator.measurement_to_spectrum(&a(x)?)?, &weighted(&operator.image_to_spectrum(x)?)?)
    });
    report.measure("‖Uᵀ A x‖ = ‖A x‖", rounding, || {
        let ax = a(x)?;
        let (left, right) = (norm(&operator.measurement_to_spectrum(&ax)?)?, norm(&ax)?);
        Ok((relative((left - right).abs(), right), String::new()))
    });
    report.measure("V s Uᵀ y = Aᵀ y", rounding, || {
        let y = probe(&a(x)?, seed)?;
        let spectrum = weighted(&operator.measurement_to_spectrum(&y)?)?;
        deviation(&operator.spectrum_to_image(&spectrum)?, &operator.adjoint(&y)?)
    });
    report.measure("s ≥ 0, and Uᵀ y = 0 where s = 0", 0.0, || {
        let spectrum = operator.measurement_to_spectrum(&probe(&a(x)?, seed)?)?;
        let s = like(operator.singular_values(), &spectrum)?.broadcast_as(spectrum.shape())?;
        let negative = s.lt(0.0)?.to_dtype(DType::F32)?.sum_all()?.to_scalar::<f32>()?;
        let unseen = s.eq(0.0)?.to_dtype(spectrum.dtype())?;
        Ok((f64::from(negative) + norm(&(spectrum * unseen)?)?, String::new()))
    });
    let pinv = |y: &Tensor| operator.pseudo_inverse(y);
    report.measure("A A⁺ A = A", rounding, || deviation(&a(&pinv(&a(x)?)?)?, &a(x)?));
    report.measure("A⁺ A A⁺ = A⁺", rounding, || {
        let back = pinv(&probe(&a(x)?, seed)?)?;
        deviation(&pinv(&a(&back)?)?, &back)
    });
    report.measure("A⁺ A is symmetric", rounding, || {
        let (left, right) = (inner(&pinv(&a(x)?)?, other)?, inner(x, &pinv(&a(other)?)?)?);
        Ok((relative((left - right).abs(), norm(x)? * norm(other)?), String::new()))
    });
    report.measure("A A⁺ is symmetric", rounding, || {
        let (y, w) = (probe(&a(x)?, seed)?, probe(&a(other)?, seed + 1)?);
        let (left, right) = (inner(&a(&pinv(&y)?)?, &w)?, inner(&y, &a(&pinv(&w)?)?)?);
        Ok((relative((left - right).abs(), norm(&y)? * norm(&w)?), String::new()))
    });
}

fn check_gram(report: &mut Report, operator: &dyn GramOperator, x: &Tensor, rounding: f64, seed: u64) {
    let aat = |u: &Tensor| operator.forward(&operator.adjoint(u)?);
    report.measure("(AAᵀ + λI) solve_gram(y, λ) = y", rounding, || {
        let y = probe(&operator.forward(x)?, seed)?;
        let u = operator.solve_gram(&y, 0.3)?;
        deviation(&(aat(&u)? + (u * 0.3)?)?, &y)
    });
    report.measure("AAᵀ solve_gram(A x, 0) = A x", rounding, || {
        let ax = operator.forward(x)?;
        deviation(&aat(&operator.solve_gram(&ax, 0.0)?)?, &ax)
    });
}

/// A random image; every `draw` is another.
fn image(
    (channels, height, width): (usize, usize, usize),
    dtype: DType,
    device: &Device,
    seed: u64,
    draw: u64,
) -> Result<Tensor> {
    Rng::new(seed, draw..draw + 1).normal_like(&Tensor::zeros((1, channels, height, width), dtype, device)?)
}

/// `direction` and as much noise.
fn probe(direction: &Tensor, seed: u64) -> Result<Tensor> {
    let rows = direction.dims().first().copied().unwrap_or(1) as u64;
    let noise = Rng::new(seed, 16..16 + rows).normal_like(direction)?;
    let (length, noise_length) = (norm(direction)?, norm(&noise)?);
    if length == 0.0 || noise_length == 0.0 {
        return Ok(noise);
    }
    Ok((direction + (noise * (length / noise_length))?)?)
}

fn same_shape(what: &str, got: &Tensor, like: &Tensor) -> Result<()> {
    if got.dims() == like.dims() {
        return Ok(());
    }
    Err(Error::Shape { what: what.into(), got: got.dims().to_vec(), expected: format!("{:?}", like.dims()) })
}

fn inner(a: &Tensor, b: &Tensor) -> Result<f64> {
    Ok(dot(a, b)?.into_iter().sum())
}

fn norm(a: &Tensor) -> Result<f64> {
    Ok(inner(a, a)?.sqrt())
}

/// `‖got − expected‖ / ‖expected‖`, with an empty note.
fn deviation(got: &Tensor, expected: &Tensor) -> Result<(f64, String)> {
    same_shape("result", got, expected)?;
    Ok((relative(norm(&(got - expected)?)?, norm(expected)?), String::new()))
}

/// A deviation as a fraction of `scale`; of zero, any is infinite.
fn relative(deviation: f64, scale: f64) -> f64 {
    if deviation == 0.0 { 0.0 } else { deviation / scale }
}
