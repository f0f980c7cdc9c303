//! Where a number lies on an axis, and which numbers are written beside it.

/// How numbers are spread along an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spread {
    /// Evenly.
    Linear,
    /// By their logarithm; only positive numbers are on it.
    Logarithmic,
}

/// An axis of a drawing, from the place of its smallest number to that of its largest.
#[derive(Clone, Copy, Debug)]
pub(super) struct Axis {
    spread: Spread,
    low: f64,
    high: f64,
    start: f64,
    end: f64,
}

/// Numbers written beside an axis, about.
const TICKS: f64 = 5.0;

impl Axis {
    /// An axis that holds these values, those that are none left out, with `margin` of its length free at both ends; `None`
    /// without any value.
    pub(super) fn holding(
        spread: Spread,
        values: impl Iterator<Item = f64>,
        (start, end): (f64, f64),
        margin: f64,
    ) -> Option<Self> {
        let on = |value: &f64| value.is_finite() && (spread == Spread::Linear || *value > 0.0);
        let transformed = values.filter(on).map(|value| transform(spread, value));
        let (low, high) = transformed
            .fold(None, |range: Option<(f64, f64)>, value| {
                Some(range.map_or((value, value), |(low, high)| (low.min(value), high.max(value))))
            })
            .map(|(low, high)| {
                // A single number gets an axis, too.
                let least = if spread == Spread::Linear { (1e-3 * high.abs()).max(1e-12) } else { 0.004 };
                let widen = (least - (high - low)).max(0.0) / 2.0;
                (low - widen, high + widen)
            })?;
        let free = margin * (high - low);
        Some(Self { spread, low: low - free, high: high + free, start, end })
    }

    /// Where `value` lies; `None` if it is not on the axis.
    pub(super) fn place(&self, value: f64) -> Option<f64> {
        if !value.is_finite() || self.spread == Spread::Logarithmic && value <= 0.0 {
            return None;
        }
        let share = (transform(self.spread, value) - self.low) / (self.high - self.low);
        Some(self.start + share * (self.end - self.start))
    }

    /// Round numbers on the axis with the text that stands there, in order.
    pub(super) fn ticks(&self) -> Vec<(f64, String)> {
        match self.spread {
            Spread::Linear => linear(self.low, self.high),
            Spread::Logarithmic => {
                let decades = self.high - self.low;
                let leading: &[f64] = if decades > 3.0 { &[1.0] } else { &[1.0, 2.0, 5.0] };
                let every = (decades / TICKS).ceil().max(1.0) as i32;
                let exponents = self.low.floor() as i32..=self.high.ceil() as i32;
                let exponents = exponents.filter(|exponent| leading.len() > 1 || exponent.rem_euclid(every) == 0);
                let values: Vec<f64> = exponents
                    .flat_map(|exponent| leading.iter().map(move |digit| digit * 10_f64.powi(exponent)))
                    .filter(|value| (self.low..=self.high).contains(&value.log10()))
                    .collect();
                if values.len() < 3 {
                    return linear(10_f64.powf(self.low), 10_f64.powf(self.high));
                }
                values.into_iter().map(|value| (value, number(value))).collect()
            }
        }
    }
}

fn transform(spread: Spread, value: f64) -> f64 {
    match spread {
        Spread::Linear => value,
        Spread::Logarithmic => value.log10(),
    }
}

/// Multiples of 1, 2 or 5 times a power of ten.
fn linear(low: f64, high: f64) -> Vec<(f64, String)> {
    let rough = (high - low) / TICKS;
    let power = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|digit| digit * power).into_iter().find(|step| *step >= rough * 0.999);
    let step = step.unwrap_or(rough);
    // So many decimals that two neighbours differ; a power of ten may be a little less than it should.
    let decimals = (-(step * 1.001).log10().floor()).max(0.0) as usize;
    let multiples = (low / step).ceil() as i64..=(high / step).floor() as i64;
    multiples
        .map(|multiple| {
            let value = multiple as f64 * step;
            let short = step >= 100.0 || decimals > 4 || value == 0.0;
            (value, if short { number(value) } else { format!("{value:.decimals$}") })
        })
        .collect()
}

/// A number as it is written beside an axis: 3 digits, thousands as k, millions as M.
pub(super) fn number(value: f64) -> String {
    let size = value.abs();
    let digits = |value: f64| {
        let decimals = (2.0 - value.abs().log10().floor()).clamp(0.0, 6.0) as usize;
        let text = format!("{value:.decimals$}");
        if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
    };
    match size {
        _ if value == 0.0 => "0".into(),
        _ if !value.is_finite() => value.to_string(),
        s if s >= 1e6 => format!("{}M", digits(value / 1e6)),
        s if s >= 1e3 => format!("{}k", digits(value / 1e3)),
        s if s < 1e-3 => {
            let exponent = size.log10().floor();
            format!("{}e{exponent}", digits(value / 10_f64.powf(exponent)))
        }
        _ => digits(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(axis: &Axis) -> Vec<String> {
        axis.ticks().into_iter().map(|(_, text)| text).collect()
    }

    #[test]
    fn ticks_are_round_numbers_that_differ() {
        let axis =
            |spread, low: f64, high: f64| Axis::holding(spread, [low, high].into_iter(), (0.0, 1.0), 0.0).unwrap();
        assert_eq!(texts(&axis(Spread::Linear, 0.0, 10.0)), ["0", "2", "4", "6", "8", "10"]);
        assert_eq!(texts(&axis(Spread::Linear, 28.1, 29.0)), ["28.2", "28.4", "28.6", "28.8", "29.0"]);
        assert_eq!(texts(&axis(Spread::Linear, 0.0, 5e-4)), ["0", "0.0001", "0.0002", "0.0003", "0.0004", "0.0005"]);
        assert_eq!(texts(&axis(Spread::Logarithmic, 100.0, 1e6)), ["100", "1k", "10k", "100k", "1M"]);
        assert_eq!(texts(&axis(Spread::Logarithmic, 0.9, 12.0)), ["1", "2", "5", "10"]);
        // No power of ten and hardly a 1, 2 or 5 lies between: round numbers of another kind.
        assert_eq!(texts(&axis(Spread::Logarithmic, 0.62, 0.79)), ["0.65", "0.70", "0.75"]);
    }

    #[test]
    fn places_are_linear_in_the_number_or_in_its_logarithm() {
        let axis = Axis::holding(Spread::Linear, [1.0, 3.0, f64::NAN].into_iter(), (10.0, 0.0), 0.0).unwrap();
        assert_eq!(axis.place(1.5), Some(7.5));
        assert_eq!(axis.place(f64::INFINITY), None);
        let axis = Axis::holding(Spread::Logarithmic, [0.0, 1.0, 100.0].into_iter(), (0.0, 1.0), 0.0).unwrap();
        assert_eq!((axis.place(10.0), axis.place(0.0)), (Some(0.5), None));
        assert!(Axis::holding(Spread::Logarithmic, [0.0, f64::NAN].into_iter(), (0.0, 1.0), 0.0).is_none());
        // One value lies in the middle.
        let axis = Axis::holding(Spread::Linear, [7.0].into_iter(), (0.0, 1.0), 0.0).unwrap();
        assert!((axis.place(7.0).unwrap() - 0.5).abs() < 1e-12);
    }

    #[test]
    fn numbers_have_three_digits() {
        let cases =
            [(0.0, "0"), (1234.0, "1.23k"), (2e5, "200k"), (5e-4, "5e-4"), (0.0785, "0.0785"), (28.456, "28.5")];
        for (value, text) in cases {
            assert_eq!(number(value), text);
        }
    }
}
