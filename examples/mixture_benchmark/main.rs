//! How near the draws of every method come to an exact posterior: `mixture_benchmark [--quick] [--methods a,b]
//! [--dimensions 8,80,800] [--measurements 1,2,4] [--seeds 20] [--samples 300] [--slices 1000] [--output FILE]
//! [--records FILE] [--set 'METHOD:SETTINGS']`, where settings are TOML in the place of those of the table below. The file of
//! records gets a line for each distance, and what stands in it is not drawn again: a table of hours goes on where it was.
//!
//! The prior is a mixture of 25 Gaussians of unit covariance with means `(8i, 8j, 8i, 8j, …)`, i, j from −2 to 2, and random
//! weights (squares of normal numbers); 1, 2 or 4 random projections are measured, whose singular values are uniform on
//! (0, 1), with noise of σ_y uniform on (0, largest singular value). Every method draws from the posterior with the exact
//! denoiser, and the sliced Wasserstein distance of its samples to as many exact ones is averaged over seeds. The row
//! `exact` is the distance between two sets of exact samples: nothing can be better. The row `auto` is what the program
//! chooses by itself for such a measurement.
//!
//! After Cardoso et al. (2023), <https://arxiv.org/abs/2308.07983>, section 4.

mod operator;
mod records;
mod sliced_wasserstein;

use candle_core::{DType, Device, Tensor};
use operator::Projections;
use rayon::prelude::*;
use records::{Drawn, Key, Records};
use sliced_wasserstein::sliced_wasserstein;
use std::fmt::Write;
use std::time::Instant;
use tweedie::priors::{Denoiser, Mixture};
use tweedie::samplers::{Choice, Facts, Problem, Quality, SAMPLERS, Sampler, Step, find_sampler};
use tweedie_operators::forward::ForwardOperator;
use tweedie_operators::noise::Gaussian;
use tweedie_operators::{Measurement, Rng};

type Failure = Box<dyn std::error::Error>;

/// Noise levels of all methods; the first one is limited to what hides the modes.
const ANNEALING: &str = "[annealing]\nsteps = 200\nsigma_start = 10000.0\nsigma_end = 0.02\nrho = 7.0\n";

/// What methods take beyond [`ANNEALING`]; those that are not listed take their defaults, with ancestral steps.
const SETTINGS: &[(&str, &str)] = &[
    ("ddnm", "renoise = 'ancestral'"),
    ("pigdm", "renoise = 'ancestral'"),
    ("dps", "renoise = 'ancestral'\n[top]\nscale = 0.5"),
    ("tmpd", "renoise = 'ancestral'\n[top]\niterations = 4"),
    ("mcg_diff", "renoise = 'ancestral'\n[top]\nparticles = 100\nresampling = { threshold = 0.5 }"),
    ("tds", "renoise = 'ancestral'\n[top]\nparticles = 32"),
    ("fps_smc", "renoise = 'ancestral'\n[top]\nparticles = 100\nown_noise = true\nresampling = { threshold = 0.5 }"),
    // Published for a hundred repeats.
    ("replacement", "renoise = 'ancestral'\n[top]\nrepeats = 4"),
];

/// Numbers of one batch: what is computed with stays in the cache of a core, and below the 65 536 from which candle's threads
/// wait for one another.
const BATCH: usize = 1 << 18;

/// Methods that have no schedule of their own.
const WITHOUT_SETTINGS: &[&str] = &["tweedie"];

/// What is compared.
struct Options {
    methods: Option<Vec<String>>,
    dimensions: Vec<usize>,
    measurements: Vec<usize>,
    seeds: u64,
    samples: usize,
    slices: usize,
    output: Option<String>,
    records: Option<String>,
    /// Methods with settings of their own.
    settings: Vec<(String, toml::Table)>,
}

impl Options {
    fn parse(arguments: impl Iterator<Item = String>) -> Result<Self, Failure> {
        let mut options = Self {
            methods: None,
            dimensions: vec![8, 80, 800],
            measurements: vec![1, 2, 4],
            seeds: 20,
            samples: 300,
            slices: 1000,
            output: None,
            records: None,
            settings: Vec::new(),
        };
        let mut arguments = arguments;
        while let Some(flag) = arguments.next() {
            if flag == "--quick" {
                (options.seeds, options.samples, options.slices) = (4, 100, 200);
                continue;
            }
            let value = arguments.next().ok_or_else(|| format!("{flag} needs a value, or is unknown"))?;
            let list = || value.split(',').map(str::parse).collect::<Result<Vec<usize>, _>>();
            match flag.as_str() {
                "--methods" => options.methods = Some(value.split(',').map(str::to_owned).collect()),
                "--dimensions" => options.dimensions = list()?,
                "--measurements" => options.measurements = list()?,
                "--seeds" => options.seeds = value.parse()?,
                "--samples" => options.samples = value.parse()?,
                "--slices" => options.slices = value.parse()?,
                "--set" => {
                    let (method, settings) = value.split_once(':').ok_or("--set needs METHOD:SETTINGS")?;
                    options.settings.push((method.to_owned(), toml::from_str(settings)?));
                }
                "--records" => options.records = Some(value),
                "--output" => options.output = Some(value),
                _ => return Err(format!("unknown option {flag}").into()),
            }
        }
        Ok(options)
    }
}

/// A random prior, what was measured of one of its images, and exact draws from the posterior.
struct Case {
    prior: Mixture,
    operator: Projections,
    noise: Gaussian,
    /// One row.
    y: Tensor,
    exact: Tensor,
    again: Tensor,
}

impl Case {
    fn new(dimensions: usize, rows: usize, seed: u64, samples: usize) -> Result<Self, Failure> {
        // One seed for each thing to draw.
        let seeds = |what: u64| seed * 16 + what;
        let numbers = |what: u64, count: usize| Rng::new(seeds(what), 0..1).normal((1, 1, 1, count), &Device::Cpu);
        let squares = numbers(0, 25)?.sqr()?.flatten_all()?.to_dtype(DType::F64)?.to_vec1::<f64>()?;
        let total: f64 = squares.iter().sum();
        let weights: Vec<f64> = squares.iter().map(|square| square / total).collect();
        let mean =
            |k: usize, at: usize| 8.0 * if at.is_multiple_of(2) { (k / 5) as f64 - 2.0 } else { (k % 5) as f64 - 2.0 };
        let means: Vec<f64> = (0..25 * dimensions).map(|at| mean(at / dimensions, at % dimensions)).collect();
        let means = Tensor::from_vec(means, (25, 1, 1, dimensions), &Device::Cpu)?;
        let prior = Mixture::isotropic(&weights, &means, &[1.0; 25])?;

        let uniform = Rng::new(seeds(1), 0..1).uniform((1, 1, 1, rows + 1), &Device::Cpu)?.flatten_all()?;
        let uniform = uniform.to_dtype(DType::F64)?.to_vec1::<f64>()?;
        let mut gains = uniform[..rows].to_vec();
        gains.sort_by(|a, b| b.total_cmp(a));
        let sigma_y = uniform[rows] * gains[0];
        let operator = Projections::new(&gains, dimensions, seeds(2))?;
        let noise = Gaussian::new(sigma_y)?;
        let truth = prior.sample(&mut Rng::new(seeds(3), 0..1))?;
        let y = Measurement::simulate(&operator, &noise, &truth, &mut Rng::new(seeds(4), 0..1))?.y;

        let linear = operator.as_linear().ok_or("projections are linear")?;
        let posterior = prior.posterior(linear, sigma_y, &y)?;
        let exact = posterior.sample(&mut Rng::new(seeds(5), 0..samples as u64))?;
        let again = posterior.sample(&mut Rng::new(seeds(6), 0..samples as u64))?;
        let y = y.to_dtype(DType::F32)?;
        Ok(Self { prior, operator, noise, y, exact, again })
    }

    /// So many samples of a method, a few at a time on every core: a sample does not depend on the others.
    fn draw(&self, method: &dyn Sampler, seed: u64, samples: usize) -> Result<Tensor, Failure> {
        let (_, _, dimensions) = self.prior.shape();
        let batch = (BATCH / (dimensions.max(25 * 8) * method.particles())).clamp(1, samples);
        let starts: Vec<usize> = (0..samples).step_by(batch).collect();
        let drawn = starts.into_par_iter().map(|first| -> Result<Tensor, tweedie::Error> {
            let rows = batch.min(samples - first);
            let y = self.y.repeat((rows, 1, 1, 1))?;
            let measurement = Measurement { operator: &self.operator, noise: &self.noise, y };
            let problem = Problem { prior: &self.prior, measurement: &measurement, guess: None };
            let mut rng = Rng::new(1000 + seed, first as u64..(first + rows) as u64);
            method.sample(&problem, (1, 1, dimensions), &mut rng, &mut |_: &Step<'_>| Ok(()))
        });
        Ok(Tensor::cat(&drawn.collect::<Result<Vec<_>, _>>()?, 0)?)
    }
}

/// What a method did for one number of dimensions and measurements.
#[derive(Default)]
struct Score {
    distances: Vec<f64>,
    seconds: f64,
    evaluations: usize,
}

impl Score {
    /// The mean and its 95 % confidence interval.
    fn cell(&self) -> String {
        let count = self.distances.len() as f64;
        if count == 0.0 {
            return "–".into();
        }
        let mean = self.distances.iter().sum::<f64>() / count;
        let variance = self.distances.iter().map(|d| (d - mean).powi(2)).sum::<f64>() / (count - 1.0).max(1.0);
        format!("{mean:.2} ± {:.2}", 1.96 * (variance / count).sqrt())
    }
}

/// A method with the settings of this comparison.
///
/// Also says in words which sampler it is and how it is set.
fn sampler(name: &str, settings: &[(String, toml::Table)]) -> Result<(Box<dyn Sampler>, String), Failure> {
    if name == "auto" {
        return auto();
    }
    if WITHOUT_SETTINGS.contains(&name) {
        return Ok((find_sampler(SAMPLERS, name, toml::Table::new())?, name.into()));
    }
    let own = SETTINGS.iter().find(|(method, _)| *method == name).map_or("renoise = 'ancestral'", |(_, own)| own);
    let mut table: toml::Table = toml::from_str(&format!("{ANNEALING}{own}"))?;
    if let Some(toml::Value::Table(top)) = table.remove("top") {
        table.extend(top);
    }
    for (_, own) in settings.iter().filter(|(method, _)| method == name) {
        table.extend(own.clone());
    }
    let set = format!("{name} {}", serde_json::to_string(&table)?);
    Ok((find_sampler(SAMPLERS, name, table)?, set))
}

/// What the program chooses where a few numbers are measured; the same for every case here.
fn auto() -> Result<(Box<dyn Sampler>, String), Failure> {
    let case = Case::new(8, 4, 0, 1)?;
    let measurement = Measurement { operator: &case.operator, noise: &case.noise, y: case.y };
    let choice = Choice::auto(&Facts::of(&measurement, (1, 1, 8))?, Quality::Standard)?;
    let set = format!("{} {}", choice.sampler, serde_json::to_string(&choice.settings)?);
    Ok((choice.build(SAMPLERS)?, set))
}

fn main() -> Result<(), Failure> {
    let options = Options::parse(std::env::args().skip(1))?;
    let names: Vec<&str> = ["auto"].into_iter().chain(SAMPLERS.iter().map(|entry| entry.name)).collect();
    if let Some(unknown) = options.methods.iter().flatten().find(|name| !names.contains(&name.as_str())) {
        return Err(format!("unknown method {unknown}; known: {}", names.join(", ")).into());
    }
    let mut left_out = Vec::new();
    let mut methods: Vec<(&str, Box<dyn Sampler>)> = Vec::new();
    let mut sets = Vec::new();
    for name in names.into_iter().filter(|name| options.methods.as_ref().is_none_or(|m| m.iter().any(|m| m == name))) {
        match sampler(name, &options.settings) {
            Ok((sampler, set)) => {
                methods.push((name, sampler));
                sets.push(set);
            }
            Err(error) => left_out.push((name, error.to_string())),
        }
    }
    let columns: Vec<(usize, usize)> =
        options.dimensions.iter().flat_map(|&d| options.measurements.iter().map(move |&m| (d, m))).collect();
    // The last row is the exact one.
    let mut scores: Vec<Vec<Score>> = Vec::new();
    scores.resize_with(methods.len() + 1, || columns.iter().map(|_| Score::default()).collect());
    let mut records = Records::open(options.records.as_deref())?;
    for (column, &(dimensions, rows)) in columns.iter().enumerate() {
        for seed in 0..options.seeds {
            let case = Case::new(dimensions, rows, seed, options.samples)?;
            let distance = |x: &Tensor| sliced_wasserstein(x, &case.exact, options.slices, seed);
            scores[methods.len()][column].distances.push(distance(&case.again)?);
            let measurement = Measurement { operator: &case.operator, noise: &case.noise, y: case.y.clone() };
            for (((name, method), set), scores) in methods.iter().zip(&sets).zip(&mut scores) {
                let score = &mut scores[column];
                score.evaluations = method.evaluations(&case.prior.sigma_range());
                if let Err(error) = method.check(&measurement) {
                    if !left_out.iter().any(|(other, _)| other == name) {
                        left_out.push((*name, error.to_string()));
                    }
                    continue;
                }
                let (samples, slices) = (options.samples, options.slices);
                let key = Key { dimensions, measured: rows, seed, samples, slices, set: set.clone() };
                let start = Instant::now();
                let drawn = match records.get(&key) {
                    Some(drawn) => Ok(drawn),
                    None => case.draw(method.as_ref(), seed, samples).and_then(|x| {
                        let drawn = Drawn { distance: distance(&x)?, seconds: start.elapsed().as_secs_f64() };
                        records.add(key, drawn)?;
                        Ok(drawn)
                    }),
                };
                match drawn {
                    Ok(Drawn { distance, seconds }) if distance.is_finite() => {
                        score.distances.push(distance);
                        score.seconds += seconds;
                    }
                    failed => {
                        let reason = failed
                            .map_or_else(|error| error.to_string(), |drawn| format!("distance {}", drawn.distance));
                        left_out.push((*name, format!("d = {dimensions}, {rows} measured, seed {seed}: {reason}")));
                    }
                }
            }
            eprintln!("d = {dimensions}, {rows} measured, seed {seed}");
        }
    }
    let table = report(&options, &columns, &methods, &scores, &left_out)?;
    match &options.output {
        Some(path) => std::fs::write(path, table)?,
        None => print!("{table}"),
    }
    Ok(())
}

/// The table in Markdown.
fn report(
    options: &Options,
    columns: &[(usize, usize)],
    methods: &[(&str, Box<dyn Sampler>)],
    scores: &[Vec<Score>],
    left_out: &[(&str, String)],
) -> Result<String, Failure> {
    let Options { seeds, samples, slices, .. } = options;
    let mut text = format!(
        "Sliced Wasserstein distance to the posterior, {samples} samples, {slices} slices, mean of {seeds} seeds and its \
         95 % confidence interval; network evaluations a sample; seconds for {samples} samples.\n\n"
    );
    let heads = columns.iter().map(|(d, m)| format!("d = {d}, m = {m}")).collect::<Vec<_>>().join(" | ");
    writeln!(text, "| method | {heads} | evaluations | seconds |")?;
    writeln!(text, "| --- |{} ---: | ---: |", " ---: |".repeat(columns.len()))?;
    for (index, scores) in scores.iter().enumerate() {
        let cells = scores.iter().map(Score::cell).collect::<Vec<_>>().join(" | ");
        let Some((name, _)) = methods.get(index) else {
            writeln!(text, "| exact | {cells} | | |")?;
            continue;
        };
        let runs = scores.iter().map(|score| score.distances.len()).sum::<usize>().max(1);
        let seconds = scores.iter().map(|score| score.seconds).sum::<f64>() / runs as f64;
        let evaluations = scores.iter().map(|score| score.evaluations).max().unwrap_or(0);
        writeln!(text, "| {name} | {cells} | {evaluations} | {seconds:.1} |")?;
    }
    if !left_out.is_empty() {
        writeln!(text, "\nLeft out:\n")?;
        for (name, reason) in left_out {
            writeln!(text, "- {name}: {reason}")?;
        }
    }
    Ok(text)
}
