//! How what a family's own program stores about a network relates to the denoiser here.

use crate::priors::Parameterization;

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
    /// `out` of the program in units of the network's output: −1/σ, say, where the program divides by σ itself.
    pub(super) out: f64,
    /// Length of one unit of the program's pixels: 1 for [-1, 1], 2 for [0, 1].
    pub(super) pixel: f64,
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

/// Names of the conditioning, in the order in which they are looked for.
pub(super) const CONDITIONING: [&str; 3] = ["sigma", "t", "labels"];

impl Reference {
    /// The case whose conditioning has this name and value: what a family stores is said here and nowhere else.
    ///
    /// # Errors
    /// What the parameterization expects instead.
    pub(super) fn of(parameterization: &Parameterization, name: &str, value: f64) -> Result<Self, String> {
        let expect = |expected: &str| Err(format!("is conditioned by `{name}`, expected `{expected}`"));
        match parameterization {
            // EDM's programs store what the preconditioned network is given and gives.
            Parameterization::Edm { .. } if name == "sigma" => Ok(Self {
                sigma: value,
                noise: parameterization.scalings(value).noise,
                scale: 1.0,
                shift: 0.0,
                out: 1.0,
                pixel: 1.0,
                gradient: Gradient::Denoised,
            }),
            Parameterization::Edm { .. } => expect("sigma"),
            // Those of a discrete process store the network's own input, which keeps its variance.
            Parameterization::VariancePreserving(process) if name == "t" => {
                let sigma = process.levels.sigma(value);
                let (noise, scale) = (value * process.time_scale, (1.0 + sigma * sigma).sqrt());
                Ok(Self { sigma, noise, scale, shift: 0.0, out: 1.0, pixel: 1.0, gradient: Gradient::Output })
            }
            Parameterization::VariancePreserving(_) => expect("t"),
        }
    }
}
