//! Samplers that work on one coordinate of the operator at a time, against their updates written down for single numbers.
//!
//! With independent Gaussian pixels and an operator that multiplies each pixel by a gain, every method here is arithmetic on single
//! numbers: [`Hand`] does it in double precision with the same random numbers, and the samplers, run in f64, must agree to rounding.

use crate::models::{data, scattered_image};
use candle_core::{DType, Device, Tensor};
use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicUsize, Ordering};
use tweedie::priors::{Denoiser, Gaussian as GaussianPrior};
use tweedie::samplers::{Problem, SAMPLERS, Sampler, Step, find_sampler};
use tweedie::{Error, Result};
use tweedie_operators::forward::{
    DownsampleBox, ForwardOperator, Grayscale, Identity, Inpaint, LinearOperator, SpectralOperator,
};
use tweedie_operators::noise::Gaussian;
use tweedie_operators::{Measurement, Pullback, Rng, Site};

const MEAN: f64 = 0.3;
const STD: f64 = 0.5;
const SHAPE: (usize, usize, usize) = (3, 8, 8);
const VALUES: usize = 3 * 8 * 8;
const ROWS: usize = 2;

/// In turn: seen as it is, not seen, halved, doubled, and too faint to be divided by.
const GAINS: [f64; 5] = [1.0, 0.0, 0.5, 2.0, 1e-4];

fn sampler(name: &str, settings: &str) -> Box<dyn Sampler> {
    find_sampler(SAMPLERS, name, toml::from_str(settings).unwrap()).unwrap()
}

fn values(x: &Tensor) -> Vec<f64> {
    x.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// One gain for each value, and its singular value decomposition.
#[derive(Debug)]
struct Gains(Tensor);

impl Gains {
    fn new() -> Self {
        let gains: Vec<f64> = (0..VALUES).map(|i| GAINS[i % 5]).collect();
        Self(Tensor::from_vec(gains, (1, 3, 8, 8), &Device::Cpu).unwrap())
    }
}

impl ForwardOperator for Gains {
    fn forward(&self, x: &Tensor) -> tweedie_operators::Result<Tensor> {
        Ok(x.broadcast_mul(&self.0.to_dtype(x.dtype())?)?)
    }

    fn as_linear(&self) -> Option<&dyn LinearOperator> {
        Some(self)
    }
}

impl LinearOperator for Gains {
    fn adjoint(&self, y: &Tensor) -> tweedie_operators::Result<Tensor> {
        self.forward(y)
    }

    fn as_spectral(&self) -> Option<&dyn SpectralOperator> {
        Some(self)
    }
}

impl SpectralOperator for Gains {
    fn singular_values(&self) -> &Tensor {
        &self.0
    }

    fn image_to_spectrum(&self, x: &Tensor) -> tweedie_operators::Result<Tensor> {
        Ok(x.clone())
    }

    fn spectrum_to_image(&self, spectrum: &Tensor) -> tweedie_operators::Result<Tensor> {
        Ok(spectrum.clone())
    }

    fn measurement_to_spectrum(&self, y: &Tensor) -> tweedie_operators::Result<Tensor> {
        Ok(y.broadcast_mul(&self.0.gt(0.0)?.to_dtype(y.dtype())?)?)
    }
}

/// One row of a problem as numbers.
struct Hand {
    rng: Rng,
    y: Vec<f64>,
    sigma_y: f64,
    /// Noise levels above zero, then zero.
    sigmas: Vec<f64>,
}

impl Hand {
    fn normal(&mut self) -> Vec<f64> {
        values(&self.rng.normal((1, 3, 8, 8), &Device::Cpu).unwrap())
    }

    fn start(&mut self) -> Vec<f64> {
        let sigma = self.sigmas[0];
        self.normal().into_iter().map(|n| sigma * n).collect()
    }

    fn gain(i: usize) -> f64 {
        GAINS[i % 5]
    }

    /// Whether a method that divides by the gain may do so.
    fn seen(i: usize) -> bool {
        Self::gain(i) > 0.1
    }

    /// The measurement divided by its gain.
    fn bar(&self, i: usize) -> f64 {
        self.y[i] / Self::gain(i)
    }

    fn denoise(x: &[f64], sigma: f64) -> Vec<f64> {
        let (prior, noise) = (STD * STD, sigma * sigma);
        x.iter().map(|x| (prior * x + noise * MEAN) / (prior + noise)).collect()
    }

    fn score(x: &[f64], sigma: f64) -> Vec<f64> {
        x.iter().map(|x| (MEAN - x) / (STD * STD + sigma * sigma)).collect()
    }

    fn norm(x: &[f64]) -> f64 {
        x.iter().map(|x| x * x).sum::<f64>().sqrt()
    }

    /// `λ (ȳ + σ n) + (1 − λ) x` where something is seen.
    fn pull(&mut self, x: &mut [f64], lambda: f64, sigma: f64) {
        let noise = self.normal();
        for i in (0..VALUES).filter(|&i| Self::seen(i)) {
            x[i] = lambda * (self.bar(i) + sigma * noise[i]) + (1.0 - lambda) * x[i];
        }
    }

    fn paste(&mut self, x: &mut [f64], sigma: f64) {
        self.pull(x, 1.0, sigma);
    }

    fn finish(&self, x: &mut [f64]) {
        for i in (0..VALUES).filter(|&i| Self::seen(i) && self.sigma_y == 0.0) {
            x[i] = self.bar(i);
        }
    }

    /// `D + (σ'/σ)² (x − D) + σ' √(1 − (σ'/σ)²) n`
    fn ancestral(&mut self, x: &[f64], from: f64, to: f64) -> Vec<f64> {
        let denoised = Self::denoise(x, from);
        if to == 0.0 {
            return denoised;
        }
        let (noise, ratio) = (self.normal(), (to / from).powi(2));
        let spread = to * (1.0 - ratio).sqrt();
        (0..VALUES).map(|i| denoised[i] + ratio * (x[i] - denoised[i]) + spread * noise[i]).collect()
    }

    fn correct(&mut self, x: &mut [f64], sigma: f64, snr: f64) {
        let (score, noise) = (Self::score(x, sigma), self.normal());
        let alpha = 2.0 * (snr * Self::norm(&noise) / Self::norm(&score)).powi(2);
        (0..VALUES).for_each(|i| x[i] += alpha * score[i] + (2.0 * alpha).sqrt() * noise[i]);
    }

    fn predict(&mut self, x: &mut [f64], from: f64, to: f64) {
        let (score, variance) = (Self::score(x, from), from * from - to * to);
        let noise = if to > 0.0 { self.normal() } else { vec![0.0; VALUES] };
        (0..VALUES).for_each(|i| x[i] += variance * score[i] + variance.sqrt() * noise[i]);
    }

    fn pairs(&self) -> Vec<(f64, f64)> {
        self.sigmas.windows(2).map(|pair| (pair[0], pair[1])).collect()
    }
}

fn measure<'a>(operator: &'a dyn ForwardOperator, noise: &'a Gaussian, dtype: DType, rows: usize) -> Measurement<'a> {
    let truth = scattered_image((rows, 3, 8, 8), 31).to_dtype(dtype).unwrap();
    Measurement::simulate(operator, noise, &truth, &mut Rng::new(77, 0..rows as u64)).unwrap()
}

fn draw(sampler: &dyn Sampler, prior: &dyn Denoiser, measurement: &Measurement<'_>, rng: Rng) -> Result<Tensor> {
    let problem = Problem { prior, measurement, guess: None };
    sampler.sample(&problem, SHAPE, &mut { rng }, &mut |_: &Step<'_>| Ok(()))
}

/// Compares the sampler with the same run by hand, each row on its own.
#[track_caller]
fn compare_on(
    operator: &dyn ForwardOperator,
    (name, settings): (&str, &str),
    sigma_y: f64,
    by_hand: impl Fn(&mut Hand) -> Vec<f64>,
) {
    let prior = GaussianPrior::new(MEAN, STD).unwrap();
    let noise = Gaussian::new(sigma_y).unwrap();
    let measurement = measure(operator, &noise, DType::F64, ROWS);
    let method = sampler(name, settings);
    let sigmas = method.annealing().sigmas(&prior.sigma_range());
    let x = draw(&*method, &prior, &measurement, Rng::new(8, 0..ROWS as u64)).unwrap();
    assert_eq!(x.dtype(), DType::F64);
    let (x, y) = (values(&x), values(&measurement.y));
    for row in 0..ROWS {
        let part = row * VALUES..(row + 1) * VALUES;
        let rng = Rng::new(8, row as u64..row as u64 + 1);
        let mut hand = Hand { rng, y: y[part.clone()].to_vec(), sigma_y, sigmas: sigmas.clone() };
        for (i, (x, expected)) in x[part].iter().zip(by_hand(&mut hand)).enumerate() {
            let error = (x - expected).abs() / expected.abs().max(1.0);
            assert!(error < 1e-10, "{name}, sigma_y {sigma_y}, row {row}, value {i}: {x} instead of {expected}");
        }
    }
}

#[track_caller]
fn compare(method: (&str, &str), sigma_y: f64, by_hand: impl Fn(&mut Hand) -> Vec<f64>) {
    compare_on(&Gains::new(), method, sigma_y, by_hand);
}

const LEVELS: &str = "annealing = { steps = 6, sigma_start = 5.0, sigma_end = 0.05";

#[test]
fn replacement_pastes_before_every_langevin_step_and_denoises_at_the_end() {
    let settings = format!("{LEVELS} }}\nrepeats = 3\nstep = 0.15");
    for sigma_y in [0.0, 0.2] {
        compare(("replacement", &settings), sigma_y, |hand| {
            let mut x = hand.start();
            let smallest = hand.sigmas[5];
            for (sigma, _) in hand.pairs() {
                // ε (σ/σ_L)² with ε/σ_L² = 0.15.
                let alpha = 0.15 * smallest.powi(2) * (sigma / smallest).powi(2);
                for _ in 0..3 {
                    hand.paste(&mut x, sigma);
                    let (score, noise) = (Hand::score(&x, sigma), hand.normal());
                    (0..VALUES).for_each(|i| x[i] += alpha * score[i] + (2.0 * alpha).sqrt() * noise[i]);
                }
            }
            let mut x = Hand::denoise(&x, smallest);
            hand.finish(&mut x);
            x
        });
    }
}

#[test]
fn score_sde_pastes_after_every_move_of_corrector_and_predictor() {
    let settings = format!("{LEVELS} }}\ncorrections = 2\nsnr = 0.2");
    for sigma_y in [0.0, 0.2] {
        compare(("score_sde", &settings), sigma_y, |hand| {
            let mut x = hand.start();
            (0..VALUES).filter(|&i| Hand::seen(i)).for_each(|i| x[i] = hand.bar(i));
            for (from, to) in hand.pairs() {
                for _ in 0..2 {
                    hand.correct(&mut x, from, 0.2);
                    hand.paste(&mut x, from);
                }
                hand.predict(&mut x, from, to);
                if to > 0.0 {
                    hand.paste(&mut x, to);
                }
            }
            hand.finish(&mut x);
            x
        });
    }
}

#[test]
fn projection_mixes_in_the_noisy_measurement_before_every_move() {
    let settings = format!("{LEVELS} }}\ncorrections = 1\nsnr = 0.2\nweight = 0.7");
    compare(("projection", &settings), 0.2, |hand| {
        let mut x = hand.start();
        for (from, to) in hand.pairs() {
            hand.pull(&mut x, 0.7, from);
            hand.correct(&mut x, from, 0.2);
            hand.pull(&mut x, 0.7, from);
            hand.predict(&mut x, from, to);
        }
        x
    });
}

/// The likelihood's score as a method sees it, given the state, the prior's score and σ.
type Guide<'a> = &'a dyn Fn(&Hand, &[f64], &[f64], f64) -> Vec<f64>;

#[test]
fn ald_follows_both_scores_in_the_form_of_the_paper_and_of_its_code() {
    let run = |hand: &mut Hand, guide: Guide<'_>| {
        let mut x = hand.start();
        for (sigma, _) in hand.pairs() {
            for _ in 0..2 {
                let score = Hand::score(&x, sigma);
                let guide = guide(hand, &x, &score, sigma);
                let (alpha, noise) = (0.1 * sigma * sigma, hand.normal());
                (0..VALUES).for_each(|i| x[i] += alpha * (score[i] + guide[i]) + (2.0 * alpha).sqrt() * noise[i]);
            }
        }
        Hand::denoise(&x, hand.sigmas[hand.sigmas.len() - 2])
    };
    let misfit = |hand: &Hand, x: &[f64]| -> Vec<f64> {
        (0..VALUES).map(|i| Hand::gain(i) * (hand.y[i] - Hand::gain(i) * x[i])).collect()
    };
    let paper = format!("{LEVELS} }}\nrepeats = 2\nstep = 0.1\ngamma = 0.8");
    for sigma_y in [0.0, 0.2] {
        compare(("ald", &paper), sigma_y, |hand| {
            run(hand, &|hand, x, _, sigma| {
                let variance = hand.sigma_y.powi(2) + (0.8 * sigma).powi(2);
                misfit(hand, x).into_iter().map(|g| g / variance).collect()
            })
        });
    }
    let code = format!("{LEVELS} }}\nrepeats = 2\nstep = 0.1\nform = 'code'\nweight = 0.6");
    compare(("ald", &code), 0.2, |hand| {
        run(hand, &|hand, x, score, _| {
            let gradient = misfit(hand, x);
            let length = 0.6 * Hand::norm(score) / Hand::norm(&gradient);
            gradient.into_iter().map(|g| length * g).collect()
        })
    });
}

#[test]
fn snips_takes_the_step_of_each_of_its_three_cases() {
    let settings = format!("{LEVELS} }}\nrepeats = 3\nstep = 0.1");
    for sigma_y in [0.0, 0.2] {
        compare(("snips", &settings), sigma_y, |hand| {
            let mut x = hand.start();
            for (sigma, _) in hand.pairs() {
                for _ in 0..3 {
                    let (score, noise) = (Hand::score(&x, sigma), hand.normal());
                    for i in 0..VALUES {
                        let s = if Hand::seen(i) { Hand::gain(i) } else { 0.0 };
                        let (variance, measured) = (sigma * sigma, hand.sigma_y.powi(2));
                        let misfit = s * (hand.y[i] - s * x[i]);
                        let (step, gradient) = if s == 0.0 {
                            (variance, score[i])
                        } else if s * sigma > hand.sigma_y {
                            (variance - measured / (s * s), misfit / (s * s * variance - measured))
                        } else {
                            let rest = measured - s * s * variance;
                            (variance * (1.0 - s * s * variance / measured), misfit / rest + score[i])
                        };
                        x[i] += 0.1 * step * gradient + (2.0 * 0.1 * step).sqrt() * noise[i];
                    }
                }
            }
            let mut x = Hand::denoise(&x, hand.sigmas[5]);
            hand.finish(&mut x);
            x
        });
    }
}

#[test]
fn ilvr_exchanges_what_the_filter_keeps_at_the_level_of_the_new_state() {
    for (free, refined) in [(0.0, 6), (0.34, 4), (1.0, 0)] {
        let settings = format!("{LEVELS}, renoise = 'ancestral' }}\nfree = {free}");
        compare(("ilvr", &settings), 0.0, |hand| {
            let mut x = hand.start();
            for (index, (from, to)) in hand.pairs().into_iter().enumerate() {
                x = hand.ancestral(&x, from, to);
                if index < refined && to > 0.0 {
                    // φ(ref + σ' n) − φ(x') with φ = A⁺A.
                    let noise = hand.normal();
                    (0..VALUES).filter(|&i| Hand::seen(i)).for_each(|i| x[i] += hand.bar(i) + to * noise[i] - x[i]);
                } else if index < refined {
                    hand.finish(&mut x);
                }
            }
            x
        });
    }
}

// The walk of the authors' `get_schedule_jump`, one index at a time.
fn walk(levels: usize, length: usize, visits: usize) -> Vec<usize> {
    let mut jumps: HashMap<usize, usize> =
        (0..levels.saturating_sub(length)).step_by(length).map(|at| (at, visits - 1)).collect();
    let (mut t, mut walk) = (levels, Vec::new());
    while t >= 1 {
        t -= 1;
        walk.push(t);
        if let Some(left) = jumps.get_mut(&t).filter(|left| **left > 0) {
            *left -= 1;
            for _ in 0..length {
                t += 1;
                walk.push(t);
            }
        }
    }
    walk
}

#[test]
fn repaint_goes_down_pasted_and_up_with_noise_alone() {
    let settings = format!("{LEVELS}, renoise = 'ancestral' }}\ntravel = {{ length = 2, visits = 3 }}");
    for sigma_y in [0.0, 0.2] {
        compare(("repaint", &settings), sigma_y, |hand| {
            let level: Vec<f64> = hand.sigmas.iter().rev().copied().skip(1).collect();
            let mut x = hand.start();
            let walk = walk(6, 2, 3);
            let mut at = 0;
            while at + 1 < walk.len() {
                let (now, next) = (walk[at], walk[at + 1]);
                if next < now {
                    hand.paste(&mut x, level[now]);
                    x = hand.ancestral(&x, level[now], level[next]);
                    at += 1;
                } else {
                    // Two moves up are one with the sum of their variances.
                    let up = walk[at + 2];
                    let (noise, variance) = (hand.normal(), level[up].powi(2) - level[now].powi(2));
                    (0..VALUES).for_each(|i| x[i] += variance.sqrt() * noise[i]);
                    at += 2;
                }
            }
            hand.paste(&mut x, level[0]);
            let mut x = hand.ancestral(&x, level[0], 0.0);
            hand.finish(&mut x);
            x
        });
    }
}

#[test]
fn dmps_adds_the_likelihoods_score_at_the_noisy_state() {
    let settings = format!("{LEVELS}, renoise = 'ancestral' }}\nscale = 1.75");
    compare(("dmps", &settings), 0.2, |hand| {
        let mut x = hand.start();
        for (from, to) in hand.pairs() {
            let plain = hand.ancestral(&x, from, to);
            for i in 0..VALUES {
                let gain = Hand::gain(i);
                let total = (from * gain).powi(2) + hand.sigma_y.powi(2);
                let score = gain * (hand.y[i] - gain * x[i]) / total;
                x[i] = plain[i] + 1.75 * (from * from - to * to) * score;
            }
        }
        x
    });
}

/// The table of DDRM for one value: the next state but for its noise, and the size of that.
fn ddrm_case(hand: &Hand, i: usize, (theta, eps): (f64, f64), to: f64, eta: f64, eta_b: f64) -> (f64, f64) {
    let s = if Hand::seen(i) { Hand::gain(i) } else { 0.0 };
    let kept = to * (1.0 - eta * eta).sqrt();
    if s == 0.0 {
        (theta + kept * eps, eta * to)
    } else if s * to < hand.sigma_y {
        (theta + kept * (hand.y[i] - s * theta) / hand.sigma_y, eta * to)
    } else {
        let spread = (to * to - (eta_b * hand.sigma_y / s).powi(2)).sqrt();
        ((1.0 - eta_b) * theta + eta_b * hand.bar(i), spread)
    }
}

#[test]
fn ddrm_takes_the_step_of_each_of_its_three_cases() {
    for (sigma_y, temperature) in [(0.0, 1.0), (0.2, 1.0), (0.2, 0.7)] {
        let settings =
            format!("{LEVELS}, renoise = {{ fraction = 0.64 }} }}\neta_b = 0.9\ntemperature = {temperature:.1}");
        compare(("ddrm", &settings), sigma_y, |hand| {
            let sigma = hand.sigmas[0];
            let noise: Vec<f64> = hand.normal().iter().map(|n| temperature * n).collect();
            let first = |i: usize| {
                if !Hand::seen(i) || Hand::gain(i) * sigma <= sigma_y {
                    return sigma * noise[i];
                }
                hand.bar(i) + (sigma * sigma - (sigma_y / Hand::gain(i)).powi(2)).sqrt() * noise[i]
            };
            let mut x: Vec<f64> = (0..VALUES).map(first).collect();
            for (from, to) in hand.pairs() {
                let denoised = Hand::denoise(&x, from);
                let noise = if to > 0.0 { hand.normal() } else { vec![0.0; VALUES] };
                for i in 0..VALUES {
                    let eps = (x[i] - denoised[i]) / from;
                    let (mean, spread) = ddrm_case(hand, i, (denoised[i], eps), to, 0.8, 0.9);
                    x[i] = mean + temperature * spread * noise[i];
                }
            }
            x
        });
    }
}

#[test]
fn ddnm_plus_corrects_by_its_table_and_travels_from_the_unprojected_image() {
    let settings = format!("{LEVELS}, renoise = {{ fraction = 0.64 }} }}\ntravel = {{ length = 2, visits = 2 }}");
    compare(("ddnm_plus", &settings), 0.2, |hand| {
        let level: Vec<f64> = hand.sigmas.iter().rev().copied().skip(1).collect();
        let mut x = hand.start();
        let walk = walk(6, 2, 2);
        let mut at = 0;
        loop {
            let (from, next) = (level[walk[at]], walk.get(at + 1));
            let to = next.map_or(0.0, |&next| level[next]);
            let denoised = Hand::denoise(&x, from);
            let up = next.is_some_and(|&next| walk.get(at + 2).is_some_and(|&then| then > next));
            let noise = if up || to > 0.0 { hand.normal() } else { vec![0.0; VALUES] };
            if up {
                at += 3;
                x = (0..VALUES).map(|i| denoised[i] + level[walk[at]] * noise[i]).collect();
                continue;
            }
            for i in 0..VALUES {
                // λ and noise of the paper's table; ē = (x − D)/σ.
                let eps = (x[i] - denoised[i]) / from;
                let (lambda, kept, fresh) = if !Hand::seen(i) {
                    (0.0, 0.6 * to * eps, 0.8 * to)
                } else if to >= hand.sigma_y / Hand::gain(i) {
                    (1.0, 0.0, (to * to - (hand.sigma_y / Hand::gain(i)).powi(2)).sqrt())
                } else {
                    (Hand::gain(i) * to * 0.6 / hand.sigma_y, 0.0, 0.8 * to)
                };
                let correction = if lambda > 0.0 { lambda * (denoised[i] - hand.bar(i)) } else { 0.0 };
                x[i] = denoised[i] - correction + kept + fresh * noise[i];
            }
            if next.is_none() {
                return x;
            }
            at += 1;
        }
    });
}

#[test]
fn diffpir_takes_the_authors_lambda_in_their_units() {
    let settings = format!("{LEVELS}, renoise = {{ fraction = 0.3 }} }}\nlambda = 7.0");
    let renoised = |hand: &mut Hand, x: &[f64], estimate: &[f64], from: f64, to: f64| -> Vec<f64> {
        let noise = hand.normal();
        let eps = |i: usize| (x[i] - estimate[i]) / from;
        (0..VALUES).map(|i| estimate[i] + to * (0.7_f64.sqrt() * eps(i) + 0.3_f64.sqrt() * noise[i])).collect()
    };
    for sigma_y in [0.0, 0.2] {
        compare(("diffpir", &settings), sigma_y, |hand| {
            let mut x = hand.start();
            for (from, to) in hand.pairs() {
                let denoised = Hand::denoise(&x, from);
                if to == 0.0 {
                    return denoised;
                }
                // σ_n is on [0, 1].
                let rho = 7.0 * (hand.sigma_y / 2.0).powi(2) / (from * from);
                let prox = |i: usize| match Hand::gain(i) {
                    0.0 => denoised[i],
                    gain => (gain * hand.y[i] + rho * denoised[i]) / (gain * gain + rho),
                };
                let estimate: Vec<f64> = (0..VALUES).map(prox).collect();
                x = renoised(hand, &x, &estimate, from, to);
            }
            x
        });
        compare_on(&Squared, ("diffpir", &settings), sigma_y, |hand| {
            let mut x = hand.start();
            for (from, to) in hand.pairs() {
                let denoised = Hand::denoise(&x, from);
                if to == 0.0 {
                    return denoised;
                }
                let rho = 7.0 * (hand.sigma_y / 2.0).powi(2) / (from * from);
                let step = |i: usize| denoised[i] + 2.0 * denoised[i] * (hand.y[i] - denoised[i].powi(2)) / (1.0 + rho);
                let estimate: Vec<f64> = (0..VALUES).map(step).collect();
                x = renoised(hand, &x, &estimate, from, to);
            }
            x
        });
    }
}

/// What a camera might do.
#[derive(Debug)]
struct Squared;

impl ForwardOperator for Squared {
    fn forward(&self, x: &Tensor) -> tweedie_operators::Result<Tensor> {
        Ok(x.sqr()?)
    }
}

fn chessboard() -> Inpaint {
    let mask: Vec<f32> = (0..64).map(|i| if (i / 8 + i % 8) % 2 == 0 { 1.0 } else { 0.0 }).collect();
    Inpaint::new(&Tensor::from_vec(mask, (1, 1, 8, 8), &Device::Cpu).unwrap()).unwrap()
}

fn site() -> Site<'static> {
    Site::new(SHAPE, &Device::Cpu, DType::F32)
}

fn gaussian_prior() -> GaussianPrior {
    GaussianPrior::new(MEAN, STD).unwrap()
}

#[test]
fn what_was_measured_without_noise_stays_what_it_was() {
    let methods = [
        ("ddnm", "annealing = { steps = 12 }\ntravel = { length = 3, visits = 2 }"),
        ("replacement", "annealing = { steps = 4 }\nrepeats = 3"),
        ("score_sde", "annealing = { steps = 8 }"),
        ("snips", "annealing = { steps = 8 }"),
        ("ilvr", "annealing = { steps = 8 }\nfree = 0.0"),
        ("repaint", "annealing = { steps = 8 }\ntravel = { length = 2, visits = 2 }"),
        ("ddrm", "annealing = { steps = 8 }"),
        ("ddnm_plus", "annealing = { steps = 12 }\ntravel = { length = 3, visits = 2 }"),
    ];
    let (mask, grey) = (chessboard(), Grayscale::rec601().unwrap());
    let blocks = DownsampleBox::new(2, site()).unwrap();
    let (prior, noise) = (gaussian_prior(), Gaussian::new(0.0).unwrap());
    for (name, settings) in methods {
        for operator in [&mask as &dyn ForwardOperator, &grey, &blocks] {
            let measurement = measure(operator, &noise, DType::F32, 3);
            let x = draw(&*sampler(name, settings), &prior, &measurement, Rng::new(3, 0..3)).unwrap();
            let misfit = (operator.forward(&x).unwrap() - &measurement.y).unwrap();
            let largest = values(&misfit).into_iter().fold(0.0, |largest: f64, m| largest.max(m.abs()));
            // What is not seen may be far off after so few steps, and rounds as it does.
            let size = values(&x).into_iter().fold(1.0, |size: f64, v| size.max(v.abs()));
            assert!(largest < 2e-6 * size, "{name} with {operator:?}: {largest} of {size}");
        }
    }
}

#[test]
fn ddnm_plus_without_noise_is_ddnm() {
    let (mask, blocks) = (chessboard(), DownsampleBox::new(2, site()).unwrap());
    let (prior, noise) = (gaussian_prior(), Gaussian::new(0.0).unwrap());
    for operator in [&mask as &dyn ForwardOperator, &blocks] {
        let measurement = measure(operator, &noise, DType::F64, 2);
        for fraction in [0.0, 0.7225, 1.0] {
            let settings = format!(
                "annealing = {{ steps = 12, sigma_start = 80.0, sigma_end = 0.01, rho = 7.0, schedule = 'karras', renoise = {{ fraction = {fraction} }} }}\ntravel = {{ length = 3, visits = 2 }}"
            );
            let run = |name: &str| draw(&*sampler(name, &settings), &prior, &measurement, Rng::new(3, 0..2)).unwrap();
            let worst =
                values(&(run("ddnm") - run("ddnm_plus")).unwrap()).into_iter().fold(0.0, |w: f64, d| w.max(d.abs()));
            assert!(worst < 1e-12, "fraction {fraction}: {worst}");
        }
    }
}

/// Mean and variance of the values that the chessboard hides, about the prior's mean.
fn hidden_moments(x: &Tensor) -> (f64, f64, f64) {
    let hidden = |(i, _): &(usize, f64)| (i % 64 / 8 + i % 8) % 2 == 1;
    let errors: Vec<f64> = values(x).into_iter().enumerate().filter(hidden).map(|(_, x)| x - MEAN).collect();
    moments(&errors)
}

fn moments(errors: &[f64]) -> (f64, f64, f64) {
    let count = errors.len() as f64;
    let mean = errors.iter().sum::<f64>() / count;
    let variance = errors.iter().map(|e| (e - mean).powi(2)).sum::<f64>() / (count - 1.0);
    (mean, variance, count)
}

/// To four standard errors.
#[track_caller]
fn assert_moments(what: &str, (mean, variance, count): (f64, f64, f64), expected: f64) {
    let (of_mean, of_variance) = (4.0 * (expected / count).sqrt(), 4.0 * expected * (2.0 / count).sqrt());
    assert!(mean.abs() < of_mean + 1e-3, "{what}: the mean is off by {mean}, its error is {of_mean}");
    assert!((variance - expected).abs() < of_variance, "{what}: variance {variance}, not {expected} ± {of_variance}");
}

/// The variance that steps `x' = a x + b n` make of `variance`.
fn recursion(variance: f64, steps: impl IntoIterator<Item = (f64, f64)>) -> f64 {
    steps.into_iter().fold(variance, |variance, (a, b)| a * a * variance + b * b)
}

fn slope(sigma: f64) -> f64 {
    STD * STD / (STD * STD + sigma * sigma)
}

#[test]
fn pasting_leaves_independent_pixels_to_their_prior() {
    let (operator, noise, prior) = (chessboard(), Gaussian::new(0.0).unwrap(), gaussian_prior());
    let measurement = measure(&operator, &noise, DType::F32, 96);
    let run = |name: &str, settings: &str| {
        let method = sampler(name, settings);
        let sigmas = method.annealing().sigmas(&prior.sigma_range());
        (hidden_moments(&draw(&*method, &prior, &measurement, Rng::new(5, 0..96)).unwrap()), sigmas)
    };
    // σ²s = (k − 1)(x − m), k = τ²/(τ²+σ²).
    let truth = STD * STD;

    let (moments, sigmas) = run(
        "score_sde",
        "annealing = { steps = 150, sigma_start = 20.0, sigma_end = 0.02, rho = 7.0, schedule = 'karras' }\ncorrections = 0",
    );
    let predictors = sigmas.windows(2).map(|pair| {
        let kept = (pair[1] / pair[0]).powi(2);
        let spread = if pair[1] > 0.0 { (pair[0].powi(2) - pair[1].powi(2)).sqrt() } else { 0.0 };
        (kept + (1.0 - kept) * slope(pair[0]), spread)
    });
    let variance = recursion(sigmas[0].powi(2), predictors);
    assert!((variance / truth - 1.0).abs() < 0.08, "{variance}");
    assert_moments("score_sde, predictors alone", moments, variance);

    let ((mean, variance, _), _) = run(
        "score_sde",
        "annealing = { steps = 150, sigma_start = 20.0, sigma_end = 0.02, rho = 7.0, schedule = 'karras' }\ncorrections = 1\nsnr = 0.1",
    );
    assert!(mean.abs() < 0.03 && (variance / truth - 1.0).abs() < 0.12, "score_sde: {mean} and {variance}");

    let (moments, sigmas) = run(
        "replacement",
        "annealing = { steps = 12, sigma_start = 2.0, sigma_end = 0.05, schedule = 'karras', rho = 100.0 }\nrepeats = 30\nstep = 0.2",
    );
    let langevin = sigmas[..12]
        .iter()
        .flat_map(|&sigma| std::iter::repeat_n((1.0 + 0.2 * (slope(sigma) - 1.0), (2.0 * 0.2_f64).sqrt() * sigma), 30));
    let variance = recursion(sigmas[0].powi(2), langevin) * slope(sigmas[11]).powi(2);
    assert_moments("replacement", moments, variance);

    let (moments, sigmas) = run(
        "repaint",
        "annealing = { steps = 100, sigma_start = 20.0, sigma_end = 0.02, rho = 7.0, schedule = 'karras', renoise = 'ancestral' }\n\
            travel = { length = 5, visits = 2 }",
    );
    let level: Vec<f64> = sigmas.iter().rev().copied().skip(1).collect();
    let mut walk = walk(100, 5, 2);
    walk.push(usize::MAX);
    let moves = walk.windows(2).map(|pair| {
        let (from, to) = (level[pair[0]], level.get(pair[1]).copied().unwrap_or(0.0));
        if to > from {
            return (1.0, (to * to - from * from).sqrt());
        }
        let kept = (to / from).powi(2);
        (kept + (1.0 - kept) * slope(from), to * (1.0 - kept).sqrt())
    });
    let variance = recursion(sigmas[0].powi(2), moves);
    assert!((variance / truth - 1.0).abs() < 0.12, "{variance}");
    assert_moments("repaint", moments, variance);
}

/// `x' = a x + b n` of a pixel that DDRM sees with gain 1 through noise of σ_y, η = 0.85, η_b = 1, and the state's mean
/// as a mix of the measurement and the prior's mean.
struct Ddrm1d {
    variance: f64,
    /// Part of the measurement in the mean; the rest is the prior's.
    measured: f64,
}

fn ddrm_1d(sigmas: &[f64], sigma_y: f64) -> Ddrm1d {
    let eta: f64 = 0.85;
    let mut state = Ddrm1d { variance: sigmas[0].powi(2) - sigma_y.powi(2), measured: 1.0 };
    for pair in sigmas.windows(2) {
        let (from, to) = (pair[0], pair[1]);
        if to >= sigma_y {
            state = Ddrm1d { variance: to * to - sigma_y * sigma_y, measured: 1.0 };
            continue;
        }
        let towards = to * (1.0 - eta * eta).sqrt() / sigma_y;
        let kept = (1.0 - towards) * slope(from);
        let variance = kept * kept * state.variance + (eta * to).powi(2);
        state = Ddrm1d { variance, measured: kept * state.measured + towards };
    }
    state
}

// Not exact in the limit of many steps: the variance falls to nothing, where the posterior's is 0.066.
#[test]
fn ddrm_has_the_variance_of_its_own_closed_form() {
    let (prior, noise) = (gaussian_prior(), Gaussian::new(0.3).unwrap());
    let identity = Identity::new(site()).unwrap();
    let measurement = measure(&identity, &noise, DType::F32, 64);
    let truth = (STD * 0.3).powi(2) / (STD.powi(2) + 0.3_f64.powi(2));
    assert!((truth - 0.066).abs() < 5e-4, "{truth}");
    for (steps, variance) in [(20, 0.013), (1000, 0.001)] {
        // On geometric levels, and on ours.
        let geometric: Vec<f64> = (0..steps)
            .map(|i| 80.0 * (0.002_f64 / 80.0).powf(f64::from(i) / f64::from(steps - 1)))
            .chain([0.0])
            .collect();
        let known = ddrm_1d(&geometric, 0.3).variance;
        assert!((known - variance).abs() < 5e-4, "{steps} steps: {known}");

        let settings = format!(
            "annealing = {{ steps = {steps}, sigma_start = 80.0, sigma_end = 0.002, rho = 100.0, schedule = 'karras', renoise = {{ fraction = 0.7225 }} }}"
        );
        let ddrm = sampler("ddrm", &settings);
        let expected = ddrm_1d(&ddrm.annealing().sigmas(&prior.sigma_range()), 0.3);
        assert!(expected.variance < 0.3 * truth, "{steps} steps: {}", expected.variance);
        let rows = if steps > 100 { 8 } else { 64 };
        let measurement = Measurement { y: measurement.y.narrow(0, 0, rows).unwrap(), ..measurement.clone() };
        let x = draw(&*ddrm, &prior, &measurement, Rng::new(5, 0..rows as u64)).unwrap();
        let errors: Vec<f64> = values(&x)
            .into_iter()
            .zip(values(&measurement.y))
            .map(|(x, y)| x - expected.measured * y - (1.0 - expected.measured) * MEAN)
            .collect();
        assert_moments(&format!("ddrm, {steps} steps"), moments(&errors), expected.variance);
    }
}

/// A Gaussian of independent pixels with means of their own.
#[derive(Debug)]
struct Located {
    mean: Tensor,
    std: f64,
}

impl Denoiser for Located {
    fn denoise(&self, x: &Tensor, sigma: f64) -> Result<Tensor> {
        let (prior, noise) = (self.std * self.std, sigma * sigma);
        let mean = (&self.mean * (noise / (prior + noise)))?;
        Ok((x * (prior / (prior + noise)))?.broadcast_add(&mean)?)
    }

    fn channels(&self) -> Option<usize> {
        None
    }

    fn sigma_range(&self) -> RangeInclusive<f64> {
        1e-4..=1e4
    }
}

type Turn = Box<dyn Fn(&[f64]) -> Vec<f64>>;

/// How a reference's vectors lie in an image.
struct Layout {
    operator: Box<dyn SpectralOperator>,
    /// Singular values by the reference's index.
    singular: Vec<f64>,
    /// The reference's `V`: from spectrum to image.
    image: Turn,
    y: Tensor,
}

// `data/schedules/loops_ddrm.safetensors`: bahjat-kawar/ddrm at 32b6b3c, `efficient_generalized_steps` with η = η_A = η_C = 0.85 and
// η_b = 1, ten steps of a thousand, betas linear from 1e-4 to 0.02, on a Gaussian of standard deviation 0.3. States there are
// `√ᾱ x`; the first one is divided by σ in the place of √(1+σ²), so every step is compared on its own. Its noise is drawn in the
// coordinates of its V, three times a step: for what is unseen, what is less noisy than y, and what is noisier.
#[test]
fn ddrm_takes_the_steps_of_the_authors_program() {
    let golden = candle_core::safetensors::load(data("schedules/loops_ddrm.safetensors"), &Device::Cpu).unwrap();
    let get = |name: &str| golden[name].to_dtype(DType::F64).unwrap();
    let prior = Located { mean: get("mu"), std: 0.3 };
    let mut product = 1.0;
    let sigmas: Vec<f64> = (0..1000)
        .map(|k| {
            product *= 1.0 - (1e-4 + (0.02 - 1e-4) * f64::from(k) / 999.0);
            ((1.0 - product) / product).sqrt()
        })
        .collect();
    let levels: Vec<f64> = (0..10).rev().map(|k| sigmas[100 * k]).chain([0.0]).collect();
    let site = Site::new(SHAPE, &Device::Cpu, DType::F64);
    let image = |values: Vec<f64>| Tensor::from_vec(values, (1, 3, 8, 8), &Device::Cpu).unwrap();

    for (task, sigma_y) in [("sr2", 0.05), ("inp", 0.1), ("deno", 0.3)] {
        let y = values(&get(&format!("{task}.y")));
        let layout = match task {
            "sr2" => {
                let v = values(&get("sr2.V"));
                Layout {
                    operator: Box::new(DownsampleBox::new(2, site).unwrap()),
                    singular: (0..VALUES).map(|j| if j < 48 { 0.5 } else { 0.0 }).collect(),
                    image: Box::new(move |e| {
                        (0..VALUES).map(|i| (0..VALUES).map(|j| v[i * VALUES + j] * e[j]).sum()).collect()
                    }),
                    y: Tensor::from_vec(y, (1, 3, 4, 4), &Device::Cpu).unwrap(),
                }
            }
            "inp" => {
                // Their order is pixel by pixel, ours channel by channel; first what is kept, then what is missing.
                let ours = |index: usize| index % 3 * 64 + index / 3;
                let missing: Vec<usize> = values(&get("inp.missing_indices")).into_iter().map(|i| i as usize).collect();
                let kept: Vec<usize> = (0..VALUES).filter(|i| !missing.contains(i)).collect();
                let mut mask = vec![0.0; VALUES];
                let mut measured = vec![0.0; VALUES];
                for (&index, y) in kept.iter().zip(y) {
                    (mask[ours(index)], measured[ours(index)]) = (1.0, y);
                }
                let order: Vec<usize> = kept.iter().chain(&missing).map(|&index| ours(index)).collect();
                Layout {
                    operator: Box::new(Inpaint::new(&image(mask)).unwrap()),
                    singular: (0..VALUES).map(|j| if j < kept.len() { 1.0 } else { 0.0 }).collect(),
                    image: Box::new(move |e| {
                        let mut x = vec![0.0; VALUES];
                        order.iter().zip(e).for_each(|(&at, &e)| x[at] = e);
                        x
                    }),
                    y: image(measured),
                }
            }
            _ => Layout {
                operator: Box::new(Identity::new(site).unwrap()),
                singular: vec![1.0; VALUES],
                image: Box::new(<[f64]>::to_vec),
                y: image(y),
            },
        };
        let noise = Gaussian::new(sigma_y).unwrap();
        let measurement = Measurement { operator: &*layout.operator, noise: &noise, y: layout.y.clone() };
        let trajectory = get(&format!("{task}.trajectory"));
        let state = |k: usize| (trajectory.get(k).unwrap() * (1.0 + levels[k].powi(2)).sqrt()).unwrap();
        let clean = get(&format!("{task}.x0"));
        let close = |what: &str, got: &Tensor, expected: &Tensor| {
            let scale = values(expected).into_iter().fold(1.0, |scale: f64, x| scale.max(x.abs()));
            let error = values(&(got - expected).unwrap()).into_iter().fold(0.0, |worst: f64, d| worst.max(d.abs()));
            assert!(error < 2e-5 * scale, "{task}, {what}: {error} of {scale}");
        };
        // From the draws to what the run makes of them: first state, first estimate, second state.
        let run = |k: usize, draws: Vec<Tensor>| {
            let (from, to) = (levels[k], levels[k + 1]);
            let renoise = "renoise = { fraction = 0.7225 }, rho = 1.0";
            let settings = if to > 0.0 {
                format!("annealing = {{ steps = 2, sigma_start = {from:e}, sigma_end = {to:e}, {renoise} }}")
            } else {
                format!("annealing = {{ steps = 1, sigma_start = {from:e}, sigma_end = {from:e}, {renoise} }}")
            };
            let mut seen = Vec::new();
            let mut watch = |step: &Step<'_>| {
                seen.push((step.x.clone(), step.x0.clone()));
                Ok(())
            };
            let problem = Problem { prior: &prior, measurement: &measurement, guess: None };
            let mut rng = Rng::recorded(1, draws);
            let x = sampler("ddrm", &settings).sample(&problem, SHAPE, &mut rng, &mut watch).unwrap();
            let next = seen.get(1).map_or(x, |(next, _)| next.clone());
            let (first, estimate) = seen.swap_remove(0);
            (first, estimate, next)
        };

        // The start.
        let noise_image = |e: &[f64]| image((layout.image)(e));
        let zeros = noise_image(&[0.0; VALUES]);
        let first = noise_image(&values(&get(&format!("{task}.x_T"))));
        let (x, ..) = run(0, vec![first, zeros]);
        close("start", &x, &(trajectory.get(0).unwrap() * levels[0]).unwrap());

        // Every step from the reference's own state.
        let spectral = &*layout.operator;
        let s = spectral.singular_values().to_dtype(DType::F64).unwrap().broadcast_as((1, 3, 8, 8)).unwrap();
        let s = values(&s);
        for k in 0..10 {
            let (from, to) = (levels[k], levels[k + 1]);
            // The draw that starts there.
            let target = values(&spectral.image_to_spectrum(&state(k)).unwrap());
            let measured = values(&spectral.measurement_to_spectrum(&layout.y).unwrap());
            let start: Vec<f64> = (0..VALUES)
                .map(|i| {
                    if s[i] * from > sigma_y {
                        return (target[i] - measured[i] / s[i]) / (from * from - (sigma_y / s[i]).powi(2)).sqrt();
                    }
                    target[i] / from
                })
                .collect();
            let mut draws = vec![spectral.spectrum_to_image(&image(start)).unwrap()];
            if to > 0.0 {
                let drawn = |which: usize| values(&get(&format!("{task}.noise{}", 3 * k + which)));
                let (unseen, after, before) = (drawn(0), drawn(1), drawn(2));
                let mut after = after.into_iter();
                let assembled: Vec<f64> = (0..VALUES)
                    .map(|j| match layout.singular[j] {
                        0.0 => unseen[j],
                        s if s * to < sigma_y => after.next().unwrap(),
                        _ => before[j],
                    })
                    .collect();
                draws.push(noise_image(&assembled));
            }
            let (x, estimate, next) = run(k, draws);
            close(&format!("state {k}"), &x, &state(k));
            if to > 0.0 {
                close(&format!("estimate {k}"), &estimate, &clean.get(k).unwrap());
            }
            close(&format!("step {k}"), &next, &state(k + 1));
        }
    }
}

/// The prior with a tally of what is asked of it.
#[derive(Debug)]
struct Counting {
    prior: GaussianPrior,
    evaluations: AtomicUsize,
    pullbacks: AtomicUsize,
}

impl Denoiser for Counting {
    fn denoise(&self, x: &Tensor, sigma: f64) -> Result<Tensor> {
        // Particles of the two images count.
        self.evaluations.fetch_add(x.dim(0)? / 2, Ordering::Relaxed);
        self.prior.denoise(x, sigma)
    }

    fn channels(&self) -> Option<usize> {
        None
    }

    fn sigma_range(&self) -> RangeInclusive<f64> {
        self.prior.sigma_range()
    }

    fn denoise_with_pullback<'a>(&'a self, x: &Tensor, sigma: f64) -> Result<(Tensor, Pullback<'a>)> {
        // Particles of the two images count.
        self.evaluations.fetch_add(x.dim(0)? / 2, Ordering::Relaxed);
        let (denoised, pullback) = self.prior.denoise_with_pullback(x, sigma)?;
        let counted = move |v: &Tensor| {
            self.pullbacks.fetch_add(v.dim(0)? / 2, Ordering::Relaxed);
            pullback.apply(v)
        };
        Ok((denoised, Pullback::new(counted)))
    }
}

#[test]
fn every_sampler_costs_the_evaluations_and_pullbacks_that_it_names() {
    let (mask, identity) = (chessboard(), Identity::new(site()).unwrap());
    let noise = Gaussian::new(0.2).unwrap();
    let steps = |steps: usize| format!("annealing = {{ steps = {steps} }}");
    for entry in SAMPLERS {
        // As the example has it, and with more levels but for the one that has none.
        let example: toml::Table = toml::from_str(entry.example).unwrap();
        let mut longer = example.clone();
        if example.contains_key("annealing") {
            longer.extend(toml::from_str::<toml::Table>(&steps(7)).unwrap());
        }
        for settings in [example, longer] {
            let sampler = find_sampler(SAMPLERS, entry.name, settings.clone()).unwrap();
            let zero = AtomicUsize::default;
            let prior = Counting { prior: gaussian_prior(), evaluations: zero(), pullbacks: zero() };
            // Not all methods take a mask.
            let masked = measure(&mask, &noise, DType::F32, 2);
            let whole = measure(&identity, &noise, DType::F32, 2);
            let measurement = if sampler.check(&masked).is_ok() { masked } else { whole };
            draw(&*sampler, &prior, &measurement, Rng::new(1, 0..2)).unwrap();
            let evaluations = prior.evaluations.into_inner();
            let what = format!("{} with {settings:?}", entry.name);
            assert_eq!(evaluations, sampler.evaluations(&prior.prior.sigma_range()), "evaluations of {what}");
            let pullbacks = prior.pullbacks.into_inner();
            // The last evaluation of a level needs none there.
            let spared = if entry.name == "sitcom" { sampler.steps(&prior.prior.sigma_range()) } else { 0 };
            assert_eq!(pullbacks, sampler.pullbacks() * (evaluations - spared), "pullbacks of {what}");
        }
    }
}

#[test]
fn what_a_method_needs_is_named_and_settings_have_their_ranges() {
    let (prior, noise) = (gaussian_prior(), Gaussian::new(0.1).unwrap());
    let measurement = measure(&Squared, &noise, DType::F32, 1);
    let message = |name: &str| {
        let run = draw(&*sampler(name, "annealing = { steps = 2 }"), &prior, &measurement, Rng::new(1, 0..1));
        run.unwrap_err().to_string()
    };
    for name in ["replacement", "score_sde", "projection", "snips", "ilvr", "repaint", "ddrm", "ddnm_plus"] {
        assert_eq!(message(name), format!("{name} needs an operator with known singular values"));
    }
    assert_eq!(message("dmps"), "dmps needs a linear operator");
    let refused = |name: &str, settings: &str| -> Error {
        find_sampler(SAMPLERS, name, toml::from_str(settings).unwrap()).unwrap_err()
    };
    for (name, settings, expected) in [
        ("replacement", "repeats = 0", "repeats is 0, expected 1 to 10000"),
        ("replacement", "step = 2.5", "step is 2.5, expected 0 to 2"),
        ("score_sde", "snr = -0.1", "snr is -0.1, expected 0 to 1"),
        ("projection", "weight = 1.5", "weight is 1.5, expected 0 to 1"),
        ("ald", "gamma = 0.0", "gamma is 0, expected 0.001 to 1000"),
        ("snips", "step = -1.0", "step is -1, expected 0 to 2"),
        ("ilvr", "free = 1.5", "free is 1.5, expected 0 to 1"),
        ("repaint", "travel = { length = 0 }", "length is 0, expected 1 to 10000"),
        ("ddnm", "travel = { visits = 0 }", "visits is 0, expected 1 to 1000"),
        ("ddnm_plus", "travel = { visits = 2000 }", "visits is 2000, expected 1 to 1000"),
        ("dmps", "scale = -1.0", "scale is -1, expected 0 to 1000"),
        ("ddrm", "eta_b = 1.1", "eta_b is 1.1, expected 0 to 1"),
        ("diffpir", "lambda = 0.0", "lambda is 0, expected 0.000001 to 1000000"),
    ] {
        assert_eq!(refused(name, settings).to_string(), expected, "{name}");
    }
}

/// `x' = a x + b y + (1 − a − b) m + c n`: what a step does to a pixel seen with gain 1.
#[derive(Clone, Copy)]
struct Affine {
    a: f64,
    b: f64,
    c: f64,
}

/// A method, its settings, and its steps given the noise levels.
type AffineRun = (&'static str, &'static str, fn(&[f64]) -> Vec<Affine>);

// σ_y = 0.3 throughout.
const AFFINE: &[AffineRun] = &[
    ("ald", "repeats = 2\nstep = 0.15\ngamma = 0.7", |sigmas| {
        let langevin = |&sigma: &f64| {
            let measured = 0.15 * sigma * sigma / (0.09 + 0.49 * sigma * sigma);
            Affine { a: 1.0 - 0.15 * (1.0 - slope(sigma)) - measured, b: measured, c: 0.3_f64.sqrt() * sigma }
        };
        let last = Affine { a: slope(sigmas[29]), b: 0.0, c: 0.0 };
        sigmas[..30].iter().flat_map(|sigma| [langevin(sigma); 2]).chain([last]).collect()
    }),
    ("snips", "repeats = 2\nstep = 0.15", |sigmas| {
        let langevin = |&sigma: &f64| {
            let q = (sigma / 0.3).powi(2).min(1.0);
            let variance = if q == 1.0 { sigma * sigma - 0.09 } else { sigma * sigma * (1.0 - q) };
            let a = 1.0 - 0.15 * (q + (1.0 - q) * (1.0 - slope(sigma)));
            Affine { a, b: 0.15 * q, c: (0.3 * variance).sqrt() }
        };
        let last = Affine { a: slope(sigmas[29]), b: 0.0, c: 0.0 };
        sigmas[..30].iter().flat_map(|sigma| [langevin(sigma); 2]).chain([last]).collect()
    }),
    ("dmps", "scale = 1.2", |sigmas| {
        let step = |pair: &[f64]| {
            let (variance, kept) = (pair[0] * pair[0], (pair[1] / pair[0]).powi(2));
            let measured = 1.2 * variance / (variance + 0.09);
            let a = kept + (1.0 - kept) * (slope(pair[0]) - measured);
            Affine { a, b: (1.0 - kept) * measured, c: pair[1] * (1.0 - kept).sqrt() }
        };
        sigmas.windows(2).map(step).collect()
    }),
    ("diffpir", "lambda = 4.0", |sigmas| {
        let step = |pair: &[f64]| {
            let rho = 0.09 / (pair[0] * pair[0]);
            let measured = if pair[1] > 0.0 { 1.0 / (1.0 + rho) } else { 0.0 };
            let kept = pair[1] * 0.5_f64.sqrt() / pair[0];
            let estimate = (1.0 - measured) * slope(pair[0]);
            Affine { a: estimate + kept * (1.0 - estimate), b: (1.0 - kept) * measured, c: pair[1] * 0.5_f64.sqrt() }
        };
        sigmas.windows(2).map(step).collect()
    }),
];

/// These are biased by construction: their law on a Gaussian prior is their own, and it is not the posterior.
#[test]
fn biased_methods_have_the_law_of_their_own_recursion() {
    let (prior, noise, identity) = (gaussian_prior(), Gaussian::new(0.3).unwrap(), Identity::new(site()).unwrap());
    let measurement = measure(&identity, &noise, DType::F32, 64);
    for &(name, settings, steps) in AFFINE {
        let renoise = if name == "dmps" { "'ancestral'" } else { "{ fraction = 0.5 }" };
        let annealing = format!(
            "annealing = {{ steps = 30, sigma_start = 3.0, sigma_end = 0.05, rho = 7.0, renoise = {renoise} }}\n"
        );
        let method = sampler(name, &(annealing + settings));
        let sigmas = method.annealing().sigmas(&prior.sigma_range());
        let (mut of_y, mut of_mean, mut variance) = (0.0, 0.0, sigmas[0].powi(2));
        for Affine { a, b, c } in steps(&sigmas) {
            (of_y, of_mean, variance) = (a * of_y + b, a * of_mean + 1.0 - a - b, a * a * variance + c * c);
        }
        let x = draw(&*method, &prior, &measurement, Rng::new(5, 0..64)).unwrap();
        let pairs = values(&x).into_iter().zip(values(&measurement.y));
        let errors: Vec<f64> = pairs.map(|(x, y)| x - of_y * y - of_mean * MEAN).collect();
        assert_moments(name, moments(&errors), variance);
        let truth = (STD * 0.3).powi(2) / (STD.powi(2) + 0.3_f64.powi(2));
        assert!((variance / truth - 1.0).abs() > 0.1, "{name}: {variance} of {truth}");
    }
}

#[test]
fn a_jump_back_up_renoises_the_unprojected_image() {
    let (prior, noise, operator) = (gaussian_prior(), Gaussian::new(0.0).unwrap(), chessboard());
    let measurement = measure(&operator, &noise, DType::F64, 1);
    for name in ["ddnm", "ddnm_plus"] {
        let method = sampler(name, "annealing = { steps = 6 }\ntravel = { length = 2, visits = 2 }");
        let mut states: Vec<(f64, Tensor)> = Vec::new();
        let mut watch = |step: &Step<'_>| {
            states.push((step.sigma, step.x.clone()));
            Ok(())
        };
        // Noise of zero, so that a state shows what it was made of.
        let zeros = Tensor::zeros((1, 3, 8, 8), DType::F64, &Device::Cpu).unwrap();
        let mut rng = Rng::recorded(1, vec![zeros; 20]);
        let problem = Problem { prior: &prior, measurement: &measurement, guess: None };
        method.sample(&problem, SHAPE, &mut rng, &mut watch).unwrap();
        let jumps: Vec<_> = states.windows(2).filter(|pair| pair[1].0 > pair[0].0).collect();
        assert_eq!(jumps.len(), 2, "{name}");
        for pair in jumps {
            let denoised = Hand::denoise(&values(&pair[0].1), pair[0].0);
            let error = values(&pair[1].1).iter().zip(&denoised).map(|(x, d)| (x - d).abs()).fold(0.0, f64::max);
            assert!(error < 1e-12, "{name}: {error}");
        }
    }
}
