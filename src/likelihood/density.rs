//! What is found out about an image.

/// The density of an image under a prior.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Density {
    /// `log p(x)`, the mean over the probes.
    pub nats: f64,
    /// Standard error of it: what another choice of the probes would change. 0 for an exact trace, `None` for a single
    /// probe, which does not say.
    pub standard_error: Option<f64>,
    /// Evaluations of the prior.
    pub evaluations: usize,
    /// Applications of its pullback.
    pub pullbacks: usize,
}

impl Density {
    /// The mean of several, as of one image with different noise, and the sums of what they cost; `None` of nothing. The
    /// standard error comes from how much they differ, which contains that of the probes.
    pub fn pooled(densities: &[Self]) -> Option<Self> {
        let &first = densities.first()?;
        let nats: Vec<f64> = densities.iter().map(|density| density.nats).collect();
        let (nats, standard_error) = mean(&nats);
        Some(Self {
            nats,
            standard_error: if densities.len() > 1 { standard_error } else { first.standard_error },
            evaluations: densities.iter().map(|density| density.evaluations).sum(),
            pullbacks: densities.iter().map(|density| density.pullbacks).sum(),
        })
    }
}

/// The mean of independent numbers and its standard error, `None` for a single one.
pub(super) fn mean(values: &[f64]) -> (f64, Option<f64>) {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (mean, (values.len() > 1).then(|| (squares / (count - 1.0) / count).sqrt()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_draws_say_how_sure_their_mean_is() {
        let of = |nats, standard_error| Density { nats, standard_error, evaluations: 10, pullbacks: 20 };
        assert_eq!(Density::pooled(&[]), None);
        assert_eq!(Density::pooled(&[of(3.0, None)]), Some(of(3.0, None)));
        assert_eq!(Density::pooled(&[of(3.0, Some(0.5))]), Some(of(3.0, Some(0.5))));
        // Deviations −2, 0 and 2: a variance of 4, of their mean 4/3.
        let pooled = Density::pooled(&[of(1.0, Some(9.0)), of(3.0, None), of(5.0, Some(0.0))]).unwrap();
        assert_eq!((pooled.nats, pooled.evaluations, pooled.pullbacks), (3.0, 30, 60));
        assert!((pooled.standard_error.unwrap() - (4f64 / 3.0).sqrt()).abs() < 1e-15);
    }
}
