//! Whether a model computes what its own program computed: inputs and outputs stored in a safetensors file.
//!
//! | tensor | meaning |
//! | --- | --- |
//! | `x` | what the program was given, `[B, C, H, W]` |
//! | `sigma`, `t`, `labels` | conditioning, `[B]` |
//! | `class` | what the image is of, `[B]`, a negative number for no class |
//! | `out` | output of the network itself |
//! | `denoised`, `pred_x0`, `pred_xstart` | the clean image that it stands for |
//! | `score` | `∇ log p` at `x` |
//! | `v`, `grad_x` | cotangent, and the gradient of `sum(out · v)` (for preconditioned networks `sum(denoised · v)`) at `x` |
//! | `v_x0`, `grad_x0` | cotangent, and the gradient of `sum(pred_xstart · v_x0)` at `x` |
//! | `net_in`, `c_noise` | what a preconditioned network was given inside |
//! | `grad_net_in` | the gradient of `sum(out · v)` at `net_in` |
//!
//! Several cases in one file are told apart by what precedes a point: `32x32.x`, `32x32.out`.

use super::Model;
use super::quarters::{Quartered, is_quartered};
use super::reference::{CONDITIONING, Gradient, Reference};
use crate::priors::{Denoiser, Preconditioned};
use crate::{Error, Result};
use candle_core::{Device, Tensor};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// The tensors of one file, by name, in single precision.
#[derive(Debug)]
pub struct Stored {
    path: String,
    tensors: BTreeMap<String, Tensor>,
    /// Names of those that hold no numbers that are read.
    unread: Vec<String>,
}

/// Names that mean something beside those of the conditioning.
const MEANT: [&str; 14] = [
    "x",
    CLASS,
    "out",
    "denoised",
    "pred_x0",
    "pred_xstart",
    "score",
    "v",
    "grad_x",
    "v_x0",
    "grad_x0",
    "net_in",
    "c_noise",
    "grad_net_in",
];

/// Name of the classes.
const CLASS: &str = "class";

/// A stored tensor beside what the model makes of the same input.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Comparison {
    /// Its name.
    pub tensor: String,
    /// Which entry of the batch.
    pub entry: usize,
    /// `|a − b| / |b|`.
    pub error: f64,
    /// Whether it is a gradient, which gathers more rounding.
    pub gradient: bool,
}

/// What came of all tensors of a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Verification {
    /// In the order of the names.
    pub comparisons: Vec<Comparison>,
    /// Names of tensors that were neither used nor compared, also because they hold no numbers.
    pub unused: Vec<String>,
}

impl Stored {
    /// Reads a safetensors file of numbers.
    ///
    /// # Errors
    /// `Model` with the path and what is wrong.
    pub fn read(path: &Path) -> Result<Self> {
        let name = path.to_string_lossy().into_owned();
        let refuse = |reason: String| Error::Model { model: name.clone(), reason };
        let bytes = fs::read(path).map_err(|error| refuse(format!("cannot be read: {error}")))?;
        let file = SafeTensors::deserialize(&bytes)
            .map_err(|error| refuse(format!("is not a whole safetensors file ({error})")))?;
        let (mut tensors, mut unread) = (BTreeMap::new(), Vec::new());
        for (tensor, view) in file.iter() {
            match numbers(&view) {
                Some(numbers) => drop(tensors.insert(tensor.to_owned(), numbers)),
                // Passing over an output that is there to be compared would look like agreement.
                None if is_meant(&file, tensor) => {
                    let (got, expected) = (view.dtype(), "F32, F16, BF16, F64, I64 or I32");
                    return Err(refuse(format!("{tensor} is of type {got:?}, expected {expected}")));
                }
                None => unread.push(tensor.to_owned()),
            }
        }
        Ok(Self { path: name, tensors, unread })
    }

    /// What precedes the names of a case's tensors, for every case.
    fn cases(&self) -> Vec<&str> {
        self.tensors
            .keys()
            .filter_map(|name| name.strip_suffix('x'))
            .filter(|p| p.is_empty() || p.ends_with('.'))
            .collect()
    }

    /// What the entries of a case are of; `otherwise` where the file does not say it.
    fn classes(&self, prefix: &str, otherwise: Option<usize>) -> Result<Vec<Option<usize>>> {
        let batch = self.tensors[&format!("{prefix}x")].dims().first().copied().unwrap_or(0);
        let name = format!("{prefix}{CLASS}");
        let refuse = |reason: String| Error::Model { model: self.path.clone(), reason };
        let Some(stored) = self.tensors.get(&name) else { return Ok(vec![otherwise; batch]) };
        if stored.dims() != [batch] {
            return Err(refuse(format!("{name} has the shape {:?}, expected [{batch}]", stored.dims())));
        }
        let class = |value: f32| match value {
            value if value.fract() != 0.0 || !value.is_finite() => Err(refuse(format!("{name} is {value}, no class"))),
            value if value < 0.0 => Ok(None),
            value => Ok(Some(value as usize)),
        };
        stored.to_vec1::<f32>()?.into_iter().map(class).collect()
    }
}

/// Whether a tensor belongs to a case under a name that means something: `out` beside `x`, `32x32.out` beside `32x32.x`.
fn is_meant(file: &SafeTensors<'_>, tensor: &str) -> bool {
    let at = tensor.rfind('.').map_or(0, |point| point + 1);
    let (prefix, name) = tensor.split_at(at);
    let known = MEANT.contains(&name) || CONDITIONING.contains(&name);
    known && file.tensor(&format!("{prefix}x")).is_ok()
}

/// A tensor of any kind of numbers in single precision; `None` for one that holds something else.
fn numbers(view: &TensorView<'_>) -> Option<Tensor> {
    let data = view.data();
    let values: Vec<f32> = match view.dtype() {
        Dtype::F32 => data.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
        Dtype::F16 => data.chunks_exact(2).map(|b| half::f16::from_le_bytes([b[0], b[1]]).to_f32()).collect(),
        Dtype::BF16 => data.chunks_exact(2).map(|b| half::bf16::from_le_bytes([b[0], b[1]]).to_f32()).collect(),
        Dtype::F64 => eights(data).map(|b| f64::from_le_bytes(b) as f32).collect(),
        Dtype::I64 => eights(data).map(|b| i64::from_le_bytes(b) as f32).collect(),
        Dtype::I32 => data.chunks_exact(4).map(|b| i32::from_le_bytes([b[0], b[1], b[2], b[3]]) as f32).collect(),
        _ => return None,
    };
    Tensor::from_vec(values, view.shape(), &Device::Cpu).ok()
}

fn eights(data: &[u8]) -> impl Iterator<Item = [u8; 8]> + '_ {
    data.chunks_exact(8).map(|b| [b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]])
}

/// Evaluates a model's network on every stored case, entry by entry.
///
/// `open` gives the model of images of one class, or of none: those that the file stores, and `class` where it stores none.
///
/// # Errors
/// Those of `open`;
/// `Model` for a prior that is a formula, for a file that stores nothing to compare, or in a way that the model's family does
/// not; those of the network.
pub fn verify(
    stored: &Stored,
    class: Option<usize>,
    open: &dyn Fn(Option<usize>) -> Result<Model>,
) -> Result<Verification> {
    let refuse = |reason: String| Error::Model { model: stored.path.clone(), reason };
    let cases = stored.cases();
    if cases.is_empty() {
        let names: Vec<&str> = stored.tensors.keys().map(String::as_str).take(10).collect();
        return Err(refuse(format!("stores no input `x`; it has {}", names.join(", "))));
    }
    let cases: Vec<(&str, Vec<Option<usize>>)> =
        cases.into_iter().map(|prefix| Ok((prefix, stored.classes(prefix, class)?))).collect::<Result<_>>()?;
    let classes: BTreeSet<Option<usize>> = cases.iter().flat_map(|(_, classes)| classes.iter().copied()).collect();
    let mut comparisons = Vec::new();
    let mut used = BTreeSet::new();
    for class in classes {
        let model = open(class)?;
        let Some(prior) = model.denoiser().preconditioned() else {
            return Err(Error::Model {
                model: model.name.clone(),
                reason: "is a formula, there is no network in it".into(),
            });
        };
        for (prefix, classes) in &cases {
            let case = Case { stored, prefix, prior, device: model.device() };
            let entries = (0..classes.len()).filter(|&entry| classes[entry] == class);
            comparisons.extend(case.compare(entries, &mut used)?);
        }
    }
    if comparisons.is_empty() {
        return Err(refuse("stores no output to compare with: out, denoised, score, …".into()));
    }
    comparisons.sort_by(|a, b| (&a.tensor, a.entry).cmp(&(&b.tensor, b.entry)));
    let names = stored.tensors.keys().filter(|name| !used.contains(*name)).chain(&stored.unread);
    let mut unused: Vec<String> = names.cloned().collect();
    unused.sort();
    Ok(Verification { comparisons, unused })
}

/// The tensors behind one prefix.
struct Case<'a> {
    stored: &'a Stored,
    prefix: &'a str,
    prior: &'a Preconditioned,
    device: &'a Device,
}

/// What one entry of a case gives.
struct Results<'a> {
    rows: &'a mut Vec<Comparison>,
    case: &'a Case<'a>,
    used: &'a mut BTreeSet<String>,
    entry: usize,
}

impl Case<'_> {
    fn refuse(&self, reason: String) -> Error {
        Error::Model { model: self.stored.path.clone(), reason }
    }

    fn name(&self, tensor: &str) -> String {
        format!("{}{tensor}", self.prefix)
    }

    /// One entry of a tensor, its batch kept as an axis; `None` if there is no such tensor.
    fn entry(&self, tensor: &str, entry: usize) -> Result<Option<Tensor>> {
        let Some(all) = self.stored.tensors.get(&self.name(tensor)) else { return Ok(None) };
        match all.dims().first() {
            Some(&batch) if entry < batch => Ok(Some(all.narrow(0, entry, 1)?.to_device(self.device)?)),
            _ => Err(self.refuse(format!("{} has the shape {:?}, no entry {entry}", self.name(tensor), all.dims()))),
        }
    }

    /// Compares the entries, which are of the class of the prior.
    fn compare(&self, entries: impl Iterator<Item = usize>, used: &mut BTreeSet<String>) -> Result<Vec<Comparison>> {
        let x = &self.stored.tensors[&self.name("x")];
        let &[_, channels, height, width] = x.dims() else {
            return Err(self.refuse(format!("{} has the shape {:?}, expected four axes", self.name("x"), x.dims())));
        };
        let expected = self.prior.model().channels();
        if channels != expected {
            return Err(self.refuse(format!("{} has {channels} channels, the model {expected}", self.name("x"))));
        }
        let conditioning = CONDITIONING.into_iter().find(|name| self.stored.tensors.contains_key(&self.name(name)));
        let Some(conditioning) = conditioning else {
            let names = CONDITIONING.join(", ");
            return Err(self.refuse(format!("{} has none of {names} beside it", self.name("x"))));
        };
        used.extend([self.name("x"), self.name(conditioning), self.name(CLASS)]);
        let stride = self.prior.model().stride();
        let mut rows = Vec::new();
        for entry in entries {
            let input = self.entry("x", entry)?.ok_or_else(|| self.refuse("has no x".into()))?;
            let value = self.entry(conditioning, entry)?.map(|value| value.flatten_all()?.to_vec1::<f32>());
            let value = value.transpose()?.and_then(|values| values.first().copied()).unwrap_or(f32::NAN);
            let case = Reference::of(self.prior.parameterization(), conditioning, f64::from(value))
                .map_err(|reason| self.refuse(reason))?;
            if !(case.sigma > 0.0 && case.sigma.is_finite()) {
                return Err(self.refuse(format!("{} is {value}, no noise level", self.name(conditioning))));
            }
            let mut results = Results { rows: &mut rows, case: self, used, entry };
            if case.quarters && is_quartered(height, width) {
                results.denoiser(&input, &case, &Quartered(self.prior))?;
                continue;
            }
            // Only whole blocks go through the network itself; the denoiser pads others.
            if height % stride == 0 && width % stride == 0 {
                results.network(&input, &case)?;
            }
            results.denoiser(&input, &case, self.prior)?;
        }
        Ok(rows)
    }
}

impl Results<'_> {
    /// Compares what is stored under the name, if anything is.
    fn add(&mut self, tensor: &str, got: &Tensor, gradient: bool) -> Result<()> {
        let Some(expected) = self.case.entry(tensor, self.entry)? else { return Ok(()) };
        let name = self.case.name(tensor);
        if got.dims() != expected.dims() {
            let (got, expected) = (got.dims(), expected.dims());
            return Err(self.case.refuse(format!("{name} has entries of shape {expected:?}, the model gives {got:?}")));
        }
        let error = relative_error(got, &expected)?;
        self.used.insert(name.clone());
        self.rows.push(Comparison { tensor: name, entry: self.entry, error, gradient });
        Ok(())
    }

    /// A cotangent, if both it and its gradient are stored.
    fn cotangent(&mut self, cotangent: &str, gradient: &str) -> Result<Option<Tensor>> {
        let there = self.case.stored.tensors.contains_key(&self.case.name(gradient));
        let Some(v) = self.case.entry(cotangent, self.entry)?.filter(|_| there) else { return Ok(None) };
        self.used.insert(self.case.name(cotangent));
        Ok(Some(v))
    }

    /// The network without what is around it.
    fn network(&mut self, x: &Tensor, case: &Reference) -> Result<()> {
        let scalings = self.case.prior.parameterization().scalings(case.sigma);
        let factor = scalings.input * case.scale;
        let input = x.affine(factor, scalings.input * case.shift + scalings.shift)?;
        self.add("net_in", &input, false)?;
        let noise = Tensor::from_vec(vec![case.noise as f32], 1, x.device())?;
        self.add("c_noise", &noise, false)?;
        let (f, pullback) = self.case.prior.model().forward_with_pullback(&input, case.noise)?;
        self.add("out", &f.affine(case.out, 0.0)?, false)?;
        // `D − x` from what it is made of: at small σ the difference of the two would be rounding.
        let own = f.narrow(1, 0, x.dim(1)?)?.affine(scalings.out, scalings.offset)?;
        let difference = (x.affine(case.scale, case.shift)?.affine(scalings.skip - 1.0, 0.0)? + own)?;
        self.score(&difference, case)?;
        if let Some(v) = self.cotangent("v", "grad_net_in")? {
            self.add("grad_net_in", &pullback.apply(&widened(&v, f.dim(1)?)?)?, true)?;
        }
        if case.gradient == Gradient::Output
            && let Some(v) = self.cotangent("v", "grad_x")?
        {
            let through = pullback.apply(&widened(&v, f.dim(1)?)?)?;
            self.add("grad_x", &through.affine(factor * case.out, 0.0)?, true)?;
        }
        Ok(())
    }

    /// The score of `D − x`, as one of the two that a program may have meant, whichever is closer.
    fn score(&mut self, difference: &Tensor, case: &Reference) -> Result<()> {
        let Some(expected) = self.case.entry("score", self.entry)? else { return Ok(()) };
        let unit = case.scale / (case.sigma * case.sigma);
        let [exact, rounded] = case.score;
        let (exact, rounded) = (difference.affine(exact * unit, 0.0)?, difference.affine(rounded * unit, 0.0)?);
        let same = exact.dims() == expected.dims();
        let closer = same && relative_error(&rounded, &expected)? < relative_error(&exact, &expected)?;
        self.add("score", if closer { &rounded } else { &exact }, false)
    }

    /// The clean image and its gradients; the score where the network itself was not asked.
    fn denoiser(&mut self, x: &Tensor, case: &Reference, prior: &dyn Denoiser) -> Result<()> {
        let &Reference { sigma, scale, shift, pixel, .. } = case;
        let x = x.affine(scale, shift)?;
        let (denoised, pullback) = prior.denoise_with_pullback(&x, sigma)?;
        let clean = denoised.affine(1.0 / pixel, (pixel - 1.0) / pixel)?;
        for name in ["denoised", "pred_x0", "pred_xstart"] {
            self.add(name, &clean, false)?;
        }
        let stride = self.case.prior.model().stride();
        if x.dim(2)? % stride != 0 || x.dim(3)? % stride != 0 {
            self.score(&(denoised - &x)?, case)?;
        }
        let back = |v: &Tensor| -> Result<Tensor> { Ok(pullback.apply(v)?.affine(scale / pixel, 0.0)?) };
        if let Some(v) = self.cotangent("v_x0", "grad_x0")? {
            self.add("grad_x0", &back(&v)?, true)?;
        }
        if case.gradient == Gradient::Denoised
            && let Some(v) = self.cotangent("v", "grad_x")?
        {
            self.add("grad_x", &back(&v)?, true)?;
        }
        Ok(())
    }
}

/// A cotangent for the first of so many channels.
fn widened(v: &Tensor, channels: usize) -> Result<Tensor> {
    Ok(v.pad_with_zeros(1, 0, channels.saturating_sub(v.dim(1)?))?)
}

/// `|a − b| / |b|` in double precision; `|a|` where b is zero.
fn relative_error(a: &Tensor, b: &Tensor) -> Result<f64> {
    let values = |x: &Tensor| x.flatten_all()?.to_vec1::<f32>();
    let square = |x: f64| x * x;
    let (a, b) = (values(a)?, values(b)?);
    let error: f64 = a.iter().zip(&b).map(|(&a, &b)| square(f64::from(a) - f64::from(b))).sum();
    let size: f64 = b.iter().map(|&b| square(f64::from(b))).sum();
    Ok(if size > 0.0 { (error / size).sqrt() } else { error.sqrt() })
}
