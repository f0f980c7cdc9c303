//! Every method against exact posteriors: `exactness [--samples 2000] [--methods a,b] [--table FILE]`.
//!
//! The prior is a Gaussian of 192 dimensions (three channels of 8 × 8 pixels, correlated), so that every posterior is a
//! formula ([`Mixture::posterior`]); the measurements are half the pixels, a blur, means of 2 × 2 blocks, and grey, with
//! noise and without. Each method draws samples, whose mean and covariance are compared with the exact ones in the units of
//! the posterior, direction by direction. The tables are those of docs/samplers.md.

mod moments;
mod prior;

use candle_core::{DType, Device, Tensor};
use moments::{Deviation, Whitening};
use prior::Batched;
use rayon::prelude::*;
use std::fmt::Write;
use std::time::Instant;
use tweedie::priors::Mixture;
use tweedie::samplers::{Problem, SAMPLERS, Sampler, Step, find_sampler};
use tweedie::schedules::{Karras, Schedule};
use tweedie_operators::forward::{Blur, DownsampleBox, ForwardOperator, Grayscale, Inpaint};
use tweedie_operators::noise::Gaussian;
use tweedie_operators::{Kernel, Measurement, Padding, Rng, Site};

type Failure = Box<dyn std::error::Error + Send + Sync>;

const SHAPE: (usize, usize, usize) = (3, 8, 8);

/// From where all is noise to where all that is left is well below the posterior's smallest spread, 0.05.
const RANGE: std::ops::RangeInclusive<f64> = 0.004..=20.0;

/// Standard deviation of the noise of the noisy measurements.
const SIGMA_Y: f64 = 0.1;

/// Images, or particles, of one batch: with more values than 65 536 candle's threads wait for one another.
const BATCH: usize = 340;

/// Settings to judge a method by: noise levels over the whole [`RANGE`], fresh noise as the method has it if it prescribes
/// any, else ancestral, and as many steps and particles as a table of all methods in minutes allows. `LEVELS n` stands for
/// n levels. DAPS ends at its own 0.1: its Langevin steps are too long for less.
const SETTINGS: &[(&str, &str)] = &[
    ("ddnm", "annealing = { LEVELS 100, renoise = 'ancestral' }"),
    ("pigdm", "annealing = { LEVELS 100, renoise = 'ancestral' }\nprior_std = 0.4"),
    ("dps", "annealing = { LEVELS 100, renoise = 'ancestral' }"),
    ("tmpd", "annealing = { LEVELS 30, renoise = 'ancestral' }\niterations = 15\ndraw = true"),
    ("tweedie", ""),
    ("replacement", "annealing = { LEVELS 60, schedule = 'geometric' }\nrepeats = 3"),
    ("score_sde", "annealing = { LEVELS 100, schedule = 'geometric' }"),
    ("projection", "annealing = { LEVELS 100, schedule = 'geometric' }"),
    ("ald", "annealing = { LEVELS 60, schedule = 'geometric' }\nrepeats = 3"),
    ("snips", "annealing = { LEVELS 60, schedule = 'geometric' }\nrepeats = 3\nstep = 0.2"),
    ("ilvr", "annealing = { LEVELS 100, schedule = 'karras' }"),
    ("repaint", "annealing = { LEVELS 50, schedule = 'karras' }\ntravel = { length = 5, visits = 3 }"),
    ("dmps", "annealing = { LEVELS 100, schedule = 'karras', renoise = 'ancestral' }\nscale = 1.0"),
    ("ddrm", "annealing = { LEVELS 100, schedule = 'karras' }"),
    ("ddnm_plus", "annealing = { LEVELS 100, schedule = 'karras' }"),
    ("diffpir", "annealing = { LEVELS 100, schedule = 'karras' }\nlambda = 4.0"),
    ("lgd_mc", "annealing = { LEVELS 100, renoise = 'ancestral' }"),
    ("mcg", "annealing = { LEVELS 100, renoise = 'ancestral' }"),
    ("mpgd", "annealing = { LEVELS 100, schedule = 'karras' }"),
    ("daps", "annealing = { steps = 25 }\nlangevin_steps = 30\ntau = 0.1414\nlr = 2e-3"),
    ("sitcom", "annealing = { LEVELS 10 }\niterations = 10"),
    ("red_diff", "annealing = { LEVELS 100 }"),
    ("pnp_dm", "annealing = { steps = 90, sigma_start = 3.0, sigma_end = 0.03 }\ndecay = 0.85\ngrid = 90"),
    ("mcg_diff", "annealing = { LEVELS 60, renoise = 'ancestral' }\nparticles = 8"),
    ("tds", "annealing = { LEVELS 60, renoise = 'ancestral' }\nparticles = 4\nprior_std = 0.4"),
    ("fps_smc", "annealing = { LEVELS 60, renoise = 'ancestral' }\nparticles = 8"),
];

/// The same for measurements without noise, where they are others.
const NOISELESS: &[(&str, &str)] =
    &[("daps", "annealing = { steps = 25 }\nlangevin_steps = 30\ntau = 0.01\nlr = 2e-5")];

/// The method `name` with the settings to judge it by.
fn judged(name: &str, noiseless: bool) -> Result<Box<dyn Sampler>, Failure> {
    let find = |list: &[(&str, &'static str)]| list.iter().find(|(other, _)| *other == name).map(|(_, text)| *text);
    let special = if noiseless { find(NOISELESS) } else { None };
    let Some(text) = special.or_else(|| find(SETTINGS)) else {
        return Err(format!("no settings to judge {name} by: add a line to SETTINGS").into());
    };
    let levels = format!("sigma_start = {:?}, sigma_end = {:?}, rho = 7.0, steps =", RANGE.end(), RANGE.start());
    Ok(find_sampler(SAMPLERS, name, toml::from_str(&text.replace("LEVELS", &levels))?)?)
}

/// What is measured of an image.
struct Case {
    name: &'static str,
    operator: Box<dyn ForwardOperator>,
    noise: Gaussian,
    /// One row.
    y: Tensor,
    exact: Whitening,
}

impl Case {
    fn new(
        name: &'static str,
        operator: Box<dyn ForwardOperator>,
        sigma: f64,
        prior: &Mixture,
    ) -> Result<Self, Failure> {
        let noise = Gaussian::new(sigma)?;
        let mut rng = Rng::new(1, 0..1);
        let truth = prior.sample(&mut rng)?.to_dtype(DType::F64)?;
        let y = Measurement::simulate(&*operator, &noise, &truth, &mut rng)?.y;
        let linear = operator.as_linear().ok_or("a linear operator is needed")?;
        let exact = Whitening::new(&prior.posterior(linear, sigma, &y)?)?;
        Ok(Self { name, operator, noise, y, exact })
    }

    /// Without noise as many numbers are known exactly as directions have no variance.
    fn settled(&self) -> usize {
        SHAPE.0 * SHAPE.1 * SHAPE.2 - self.exact.rank()
    }

    /// A cell of the table; a dash if the method is not for this.
    fn judge(&self, sampler: &dyn Sampler, prior: &Batched, samples: usize) -> Result<String, Failure> {
        let size = (BATCH / sampler.particles()).max(1);
        let batch = |from: usize| -> Result<Tensor, Failure> {
            let rows = size.min(samples - from);
            let measurement =
                Measurement { operator: &*self.operator, noise: &self.noise, y: repeated(&self.y, rows)? };
            let problem = Problem { prior, measurement: &measurement, guess: None };
            let mut rng = Rng::new(2, from as u64..(from + rows) as u64);
            Ok(sampler.sample(&problem, SHAPE, &mut rng, &mut |_: &Step<'_>| Ok(()))?)
        };
        let measurement = Measurement { operator: &*self.operator, noise: &self.noise, y: self.y.clone() };
        if sampler.check(&measurement).is_err() {
            return Ok("–".into());
        }
        let batches: Vec<usize> = (0..samples).step_by(size).collect();
        let drawn: Vec<Tensor> = match batches.into_par_iter().map(batch).collect::<Result<_, _>>() {
            Ok(drawn) => drawn,
            Err(error) => match error.downcast_ref::<tweedie::Error>() {
                Some(tweedie::Error::NonFinite { .. }) => return Ok("diverges".into()),
                _ => return Err(error),
            },
        };
        let drawn = Tensor::cat(&drawn, 0)?;
        let mut cells = Vec::new();
        if let Some(deviation) = self.exact.deviation(&drawn)? {
            cells.push(cell(&deviation));
        }
        if self.settled() > 0 {
            let misfit = (repeated(&self.y, samples)? - self.operator.forward(&drawn)?)?.sqr()?.sum_all()?;
            let residual = (misfit.to_scalar::<f64>()? / (self.settled() * samples) as f64).sqrt();
            cells.push(format!("r {residual:.0e}"));
        }
        Ok(cells.join(" · "))
    }
}

fn cell(deviation: &Deviation) -> String {
    let along = deviation.along.map(short).join(" ");
    format!("{} · {} · {along}", short(deviation.mean), short(deviation.variance))
}

fn repeated(y: &Tensor, rows: usize) -> candle_core::Result<Tensor> {
    let mut shape = y.dims().to_vec();
    shape[0] = rows;
    y.broadcast_as(shape)?.contiguous()
}

fn cases(sigma: f64, prior: &Mixture) -> Result<Vec<Case>, Failure> {
    let site = Site::new(SHAPE, &Device::Cpu, DType::F64);
    let kernel = Kernel::gaussian([0.75, 0.75], 0.0, None)?;
    let operators: [(&str, Box<dyn ForwardOperator>); 4] = [
        ("half the pixels", Box::new(Inpaint::random(0.5, 3, site)?)),
        ("blur", Box::new(Blur::new(&kernel, Padding::Circular, Blur::CUTOFF, site)?)),
        ("means of 2 × 2", Box::new(DownsampleBox::new(2, site)?)),
        ("grey", Box::new(Grayscale::rec601()?)),
    ];
    operators.into_iter().map(|(name, operator)| Case::new(name, operator, sigma, prior)).collect()
}

/// Three digits at most, and no more places than matter here.
fn short(value: f64) -> String {
    match value.abs() {
        size if size >= 99.5 || (size < 0.001 && size > 0.0) => format!("{value:.0e}"),
        size if size >= 9.95 => format!("{value:.0}"),
        size if size >= 0.0995 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

fn main() -> Result<(), Failure> {
    let (mut samples, mut methods, mut table) = (2000, None, None);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("{argument} needs a value"));
        match argument.as_str() {
            "--samples" => samples = value()?.parse::<usize>()?.max(2),
            "--methods" => methods = Some(value()?.split(',').map(str::to_owned).collect::<Vec<_>>()),
            "--table" => table = Some(value()?),
            _ => return Err(format!("{argument} is unknown: --samples N, --methods A,B or --table FILE").into()),
        }
    }
    let (mean, covariance) = prior::moments(SHAPE)?;
    let exact = Mixture::gaussian(&mean, &covariance)?;
    let prior = Batched::new(&mean, &covariance, RANGE)?;
    let mut text = String::new();
    for sigma in [SIGMA_Y, 0.0] {
        let cases = cases(sigma, &exact)?;
        let names: Vec<&str> = cases.iter().map(|case| case.name).collect();
        writeln!(
            text,
            "σ_y = {sigma}, {samples} samples; Monte-Carlo error of the mean {}\n",
            short((samples as f64).powf(-0.5))
        )?;
        writeln!(text, "| method | calls | {} |\n| --- | --- |{}", names.join(" | "), " --- |".repeat(names.len()))?;
        for steps in [60, 100] {
            write!(text, "| exact mean, ancestral steps | {steps} |")?;
            let sigmas = Karras { steps, rho: 7.0 }.sigmas(&RANGE);
            for case in &cases {
                write!(text, " {} |", case.exact.of_steps(&sigmas)?.as_ref().map_or("–".into(), cell))?;
            }
            writeln!(text)?;
        }
        for entry in SAMPLERS {
            if methods.as_ref().is_some_and(|methods| !methods.iter().any(|method| method == entry.name)) {
                continue;
            }
            let sampler = judged(entry.name, sigma == 0.0)?;
            let (clock, mut row) = (Instant::now(), String::new());
            for case in &cases {
                write!(row, " {} |", case.judge(&*sampler, &prior, samples)?)?;
            }
            eprintln!("{:12} {:6.1} s {row}", entry.name, clock.elapsed().as_secs_f64());
            writeln!(text, "| `{}` | {} |{row}", entry.name, sampler.evaluations(&RANGE))?;
        }
        writeln!(text)?;
    }
    match table {
        Some(path) => std::fs::write(path, text)?,
        None => print!("{text}"),
    }
    Ok(())
}
