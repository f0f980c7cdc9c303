//! Colours that differ for everybody: Okabe and Ito (2008), <https://jfly.uni-koeln.de/color/>.

pub(crate) const BLACK: &str = "#222222";
pub(crate) const GREY: &str = "#666666";
pub(crate) const BLUE: &str = "#0072b2";
pub(crate) const SKY: &str = "#56b4e9";
pub(crate) const GREEN: &str = "#009e73";
pub(crate) const ORANGE: &str = "#e69f00";
pub(crate) const RED: &str = "#d55e00";
pub(crate) const PURPLE: &str = "#cc79a7";

/// A colour for every number from 0 to 1.
#[derive(Clone, Copy)]
pub(crate) enum Ramp {
    /// White to blue: how much there is.
    Amount,
    /// Green, white, red: good below a half, bad above.
    Error,
}

impl Ramp {
    /// Red, green and blue at `share`, limited to 0 and 1.
    pub(crate) fn at(self, share: f64) -> String {
        let stops: &[[f64; 3]] = match self {
            Self::Amount => {
                &[[255.0, 255.0, 255.0], [198.0, 219.0, 239.0], [107.0, 174.0, 214.0], [33.0, 113.0, 181.0]]
            }
            Self::Error => &[
                [0.0, 104.0, 80.0],
                [120.0, 190.0, 160.0],
                [248.0, 248.0, 240.0],
                [240.0, 150.0, 90.0],
                [165.0, 30.0, 10.0],
            ],
        };
        let place = share.clamp(0.0, 1.0) * (stops.len() - 1) as f64;
        let first = (place as usize).min(stops.len() - 2);
        let part = place - first as f64;
        let channel = |k: usize| (stops[first][k] + part * (stops[first + 1][k] - stops[first][k])).round() as u8;
        format!("#{:02x}{:02x}{:02x}", channel(0), channel(1), channel(2))
    }
}
