//! The levels that a discrete variance-preserving network was trained at.

/// Noise levels `σ_k = √((1 − ᾱ_k)/ᾱ_k)`, `ᾱ_k = Π_{j ≤ k} (1 − β_j)`, of a training process with levels `k = 0 … T − 1`.
///
/// Between two of them `ln ᾱ` is interpolated, so that every level above zero has a place; beyond the last one the last β
/// goes on.
///
/// Ho et al. (2020), <https://arxiv.org/abs/2006.11239>.
#[derive(Clone, Debug, PartialEq)]
pub struct Discrete {
    betas: Vec<f64>,
    /// `−ln ᾱ = ln(1 + σ²)` before level 0, where nothing is noisy, and at all levels.
    logs: Vec<f64>,
}

impl Discrete {
    /// β evenly spaced from `0.1/T` to `20/T`, for 1000 levels 1e-4 to 0.02: DDPM.
    pub fn linear(count: usize) -> Self {
        let scale = 1000.0 / count as f64;
        let place = |k: usize| if count > 1 { k as f64 / (count - 1) as f64 } else { 0.0 };
        Self::new((0..count).map(|k| scale * (1e-4 + place(k) * (0.02 - 1e-4))).collect())
    }

    /// `ᾱ(t) = cos²(π/2 · (t + 0.008)/1.008)`, β at most 0.999.
    ///
    /// Nichol and Dhariwal (2021), <https://arxiv.org/abs/2102.09672>.
    pub fn cosine(count: usize) -> Self {
        let alpha_bar = |k: usize| {
            let t = k as f64 / count as f64;
            ((t + 0.008) / 1.008 * std::f64::consts::FRAC_PI_2).cos().powi(2)
        };
        Self::new((0..count).map(|k| (1.0 - alpha_bar(k + 1) / alpha_bar(k)).min(0.999)).collect())
    }

    /// A process with these β; `None` unless they are two or more, each above 0 and below 1.
    pub fn of_betas(betas: Vec<f64>) -> Option<Self> {
        let between = |&beta: &f64| beta > 0.0 && beta < 1.0;
        (betas.len() > 1 && betas.iter().all(between)).then(|| Self::new(betas))
    }

    /// A process with these β, each above 0 and below 1, at least one.
    fn new(betas: Vec<f64>) -> Self {
        let mut logs = vec![0.0];
        let mut log = 0.0;
        for beta in &betas {
            log -= (-beta).ln_1p();
            logs.push(log);
        }
        Self { betas, logs }
    }

    /// `β_k`
    pub fn betas(&self) -> &[f64] {
        &self.betas
    }

    /// `ᾱ_k`
    pub fn alpha_bars(&self) -> Vec<f64> {
        self.logs[1..].iter().map(|log| (-log).exp()).collect()
    }

    /// σ at place `k`, which need not be whole; −1 is no noise.
    pub fn sigma(&self, k: f64) -> f64 {
        let place = (k + 1.0).max(0.0);
        let below = (place.floor() as usize).min(self.logs.len() - 2);
        let slope = self.logs[below + 1] - self.logs[below];
        (self.logs[below] + (place - below as f64) * slope).exp_m1().sqrt()
    }

    /// The place of σ: [`sigma`](Self::sigma) inverted.
    pub fn place(&self, sigma: f64) -> f64 {
        let log = (sigma * sigma).ln_1p();
        let above = self.logs.partition_point(|&at| at < log).clamp(1, self.logs.len() - 1);
        let slope = self.logs[above] - self.logs[above - 1];
        (above - 1) as f64 + (log - self.logs[above - 1]) / slope - 1.0
    }
}

/// `count` of `total` training levels, evenly spaced from the first to the last, ascending, rounded to the nearest; with
/// several counts, so many in each of as many equal sections.
///
/// Nichol and Dhariwal (2021), <https://arxiv.org/abs/2102.09672>, section 4.
pub fn respaced(total: usize, counts: &[usize]) -> Vec<usize> {
    let sections = counts.len().max(1);
    let mut start = 0;
    let mut levels = Vec::new();
    for (index, &count) in counts.iter().enumerate() {
        let size = total / sections + usize::from(index < total % sections);
        let stride = if count > 1 { size.saturating_sub(1) as f64 / (count - 1) as f64 } else { 1.0 };
        levels.extend((0..count).map(|k| start + (k as f64 * stride).round_ties_even() as usize));
        start += size;
    }
    levels
}

/// Every `⌊total/count⌋`-th training level from the first on, ascending.
///
/// Song et al. (2021), <https://arxiv.org/abs/2010.02502>, appendix D.2.
pub fn strided(total: usize, count: usize) -> Vec<usize> {
    let stride = (total / count.max(1)).max(1);
    (0..count).map(|k| k * stride).collect()
}
