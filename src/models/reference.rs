//! How what a family's own program stores about a network relates to the denoiser here.

use crate::priors::{NoiseCoordinate, Parameterization};

/// The numbers that turn a stored case of another program into one of ours.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Reference {
    /// Noise level, pixels in [-1, 1].
    pub(super) sigma: f64,
    /// What the network is told.
    pub(super) noise: f64,
    /// `x` here is `scale · x + shift` of the one stored.
    pub(super) scale: f64,
    /// See `scale`.
    pub(super) shift: f64,
    /// `out` of the program in units of the network's output: 1/σ, say, where the program divides by σ itself.
    pub(super) out: f64,
    /// Score of the program in units of ours: with exact numbers, and with those of a table in single precision.
    pub(super) score: [f64; 2],
    /// Length of one unit of the program's pixels: 1 for [-1, 1], 2 for [0, 1].
    pub(super) pixel: f64,
    /// Whether the program cuts images whose sides are no multiples of 8 in four.
    pub(super) quarters: bool,
    /// What `grad_x` is the gradient of.
    pub(super) gradient: Gradient,
}

/// Of what a program stores the gradient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gradient {
    /// `sum(out · v)`.
    Output,
    /// `sum(denoised · v)`.
    Denoised,
}

/// Names of the conditioning, in the order in which they are looked for. `labels` go before `t`: programs that store both
/// tell the network the former.
pub(super) const CONDITIONING: [&str; 3] = ["sigma", "labels", "t"];

impl Reference {
    /// The case whose conditioning has this name and value: what a family stores is said here and nowhere else.
    ///
    /// Under `sigma` a program stores what its denoiser was given, under the other names what its network was.
    ///
    /// # Errors
    /// What the parameterization expects instead.
    pub(super) fn of(parameterization: &Parameterization, name: &str, value: f64) -> Result<Self, String> {
        let noise = |sigma: f64| parameterization.scalings(sigma).noise;
        let same = Self {
            sigma: value,
            noise: value,
            scale: 1.0,
            shift: 0.0,
            out: 1.0,
            score: [1.0; 2],
            pixel: 1.0,
            quarters: false,
            gradient: Gradient::Output,
        };
        match parameterization {
            // The whole program works in [0, 1].
            Parameterization::UnitDenoiser if name == "sigma" => Ok(Self {
                sigma: 2.0 * value,
                noise: noise(2.0 * value),
                scale: 2.0,
                shift: -1.0,
                pixel: 2.0,
                quarters: true,
                gradient: Gradient::Denoised,
                ..same
            }),
            // The level or its number, in the unit of the program's images; the score is the output over its σ. A denoiser of
            // any level stores what it was given as `sigma`, a network of numbered levels the one that its number stands for.
            Parameterization::VarianceExploding(process)
                if name != "sigma" || matches!(process.coordinate, NoiseCoordinate::Level { .. }) =>
            {
                let unit = process.unit;
                let own = if name == "sigma" { value } else { process.coordinate.sigma(value) };
                Ok(Self {
                    sigma: own / unit,
                    noise: noise(own / unit),
                    scale: 1.0 / unit,
                    shift: -(1.0 - unit) / unit,
                    out: if process.divided { 1.0 } else { 1.0 / own },
                    pixel: 1.0 / unit,
                    ..same
                })
            }
            // A program with a `sigma` for this process is EDM's, which finds the time of it in single precision.
            Parameterization::LinearProcess(process) if name == "sigma" => {
                Ok(Self { noise: process.single_precision_noise(value), gradient: Gradient::Denoised, ..same })
            }
            _ if name == "sigma" => Ok(Self { noise: noise(value), gradient: Gradient::Denoised, ..same }),
            Parameterization::Edm { .. }
            | Parameterization::Direct(_)
            | Parameterization::UnitDenoiser
            | Parameterization::VarianceExploding(_) => Err(format!("is conditioned by `{name}`, expected `sigma`")),
            // The network's own input keeps its variance.
            Parameterization::VariancePreserving(process) => {
                let time = value / process.time_scale;
                let sigma = process.levels.sigma(time);
                // Between two levels a program that is told `labels` divides its output by the std of the lower one.
                let std = |sigma: f64| sigma / (1.0 + sigma * sigma).sqrt();
                let below = process.levels.sigma(time.floor());
                // The first ᾱ are next to 1: rounded to single precision, 1 − ᾱ keeps a few digits.
                let rounded = 1.0 - (1.0 / (1.0 + below * below)) as f32;
                let score = [std(sigma) / std(below), std(sigma) / f64::from(rounded).sqrt()];
                Ok(Self { sigma, score, scale: (1.0 + sigma * sigma).sqrt(), ..same })
            }
            Parameterization::LinearProcess(process) => {
                let sigma = process.sigma(value / process.time_scale);
                Ok(Self { sigma, scale: 1.0 / process.scalings(sigma).input, ..same })
            }
        }
    }
}
