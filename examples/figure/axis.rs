//! What the numbers along a side of a panel are.

/// One side of a panel.
#[derive(Clone)]
pub(crate) struct Axis {
    low: f64,
    high: f64,
    logarithmic: bool,
    /// In the place of numbers.
    names: Vec<String>,
    pub(crate) label: String,
    numbered: bool,
}

impl Axis {
    /// From `low` to `high`, evenly.
    pub(crate) fn linear(low: f64, high: f64, label: &str) -> Self {
        Self { low, high, logarithmic: false, names: Vec::new(), label: label.into(), numbered: true }
    }

    /// From `low` to `high`, both above 0, evenly in their logarithm.
    pub(crate) fn logarithmic(low: f64, high: f64, label: &str) -> Self {
        Self { logarithmic: true, ..Self::linear(low, high, label) }
    }

    /// From 0 to the number of `names`, which stand in the middle of their units.
    pub(crate) fn named(names: &[&str], label: &str) -> Self {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        Self { names: names.clone(), ..Self::linear(0.0, names.len() as f64, label) }
    }

    /// The same without numbers.
    pub(crate) fn bare(self) -> Self {
        Self { numbered: false, ..self }
    }

    /// The share of the way from one end to the other at which `value` is.
    pub(super) fn place(&self, value: f64) -> f64 {
        if self.logarithmic {
            (value.max(f64::MIN_POSITIVE) / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        }
    }

    /// The value at a share of the way.
    pub(super) fn value(&self, share: f64) -> f64 {
        if self.logarithmic {
            self.low * (self.high / self.low).powf(share)
        } else {
            self.low + share * (self.high - self.low)
        }
    }

    /// Places and what stands there.
    pub(super) fn ticks(&self) -> Vec<(f64, String)> {
        if !self.numbered {
            return Vec::new();
        }
        if !self.names.is_empty() {
            return self.names.iter().enumerate().map(|(k, name)| (self.place(k as f64 + 0.5), name.clone())).collect();
        }
        if self.logarithmic {
            let decades = (self.low.log10() - 1e-9).ceil() as i32..=(self.high.log10() + 1e-9).floor() as i32;
            return decades.map(|k| (self.place(10f64.powi(k)), power(k))).collect();
        }
        let rough = (self.high - self.low) / 4.5;
        let unit = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * unit).into_iter().find(|step| *step >= rough);
        let step = step.unwrap_or(rough);
        let decimals = (-(step.log10() + 1e-9).floor()).max(0.0) as usize;
        let places = (self.low / step - 1e-6).ceil() as i64..=(self.high / step + 1e-6).floor() as i64;
        places.map(|k| (self.place(k as f64 * step), number(k as f64 * step, decimals))).collect()
    }
}

/// With a minus sign as long as a plus sign.
fn number(value: f64, decimals: usize) -> String {
    let text = format!("{:.decimals$}", value.abs());
    if value < -1e-12 { format!("−{text}") } else { text }
}

/// `10^k`.
fn power(k: i32) -> String {
    if (-2..=3).contains(&k) {
        return number(10f64.powi(k), (-k).max(0) as usize);
    }
    let digit = |c: char| match c {
        '-' => '⁻',
        c => ['⁰', '¹', '²', '³', '⁴', '⁵', '⁶', '⁷', '⁸', '⁹'][c as usize - '0' as usize],
    };
    format!("10{}", k.to_string().chars().map(digit).collect::<String>())
}
