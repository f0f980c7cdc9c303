//! Missing rows or columns: scan lines that were lost.

use serde::Deserialize;

use super::{Inpaint, draw, missing_count, smallest};
use crate::forward::BuildOperator;
use crate::registry::{Entry, Site};
use crate::{Error, Result};

/// The direction of lines.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// A line is a row of pixels.
    #[default]
    Rows,
    /// A line is a column of pixels.
    Columns,
}

/// Which lines are missing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Lines {
    /// `⌊missing · n⌋` of `n` lines, drawn without replacement from `seed`.
    Random {
        /// Fraction of missing lines, 0 to 1.
        missing: f64,
        /// Seed of the draw.
        seed: u64,
    },
    /// Of every `period` lines, from the first on, all but the first `keep`.
    Periodic {
        /// Lines after which the pattern repeats, at least 1.
        period: usize,
        /// Lines seen of each period, 1 to `period`.
        keep: usize,
    },
}

impl Inpaint {
    /// Hides lines.
    ///
    /// # Errors
    /// [`Error::Config`] unless `missing` is in `[0, 1]`, or `keep` is from 1 to `period`.
    pub fn lines(lines: Lines, direction: Direction, site: Site<'_>) -> Result<Self> {
        let (_, height, width) = site.image;
        let count = match direction {
            Direction::Rows => height,
            Direction::Columns => width,
        };
        let hidden: Vec<bool> = match lines {
            Lines::Random { missing, seed } => {
                let missing = missing_count("inpaint_lines", missing, count)?;
                let mut hidden = vec![false; count];
                smallest(&draw(seed, (1, 1, count))?, missing).for_each(|line| hidden[line] = true);
                hidden
            }
            Lines::Periodic { period, keep } => {
                if keep == 0 || keep > period {
                    let reason = format!("keep is {keep}, expected 1 to {period}, the period");
                    return Err(Error::config("inpaint_lines", reason));
                }
                (0..count).map(|line| line % period >= keep).collect()
            }
        };
        Self::from_hidden(site, |row, column| match direction {
            Direction::Rows => hidden[row],
            Direction::Columns => hidden[column],
        })
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Fraction of missing lines, 0 to 1; not together with `period`.
    missing: Option<f64>,
    /// Seed of the lines drawn for `missing`; default 0.
    seed: Option<u64>,
    /// Lines after which the pattern repeats; not together with `missing`.
    period: Option<usize>,
    /// Lines seen at the start of each period; default 1.
    keep: Option<usize>,
    /// Whether a line is a row or a column; default rows.
    #[serde(default)]
    direction: Direction,
}

/// `inpaint_lines`
pub(crate) const ENTRY: Entry<BuildOperator> = Entry {
    name: "inpaint_lines",
    about: "Missing rows or columns",
    fields: &[
        ("missing", "fraction of missing lines, 0 to 1; not together with period"),
        ("seed", "seed of the lines drawn for missing; default 0"),
        ("period", "lines after which the pattern repeats, at least 1; not together with missing"),
        ("keep", "lines seen at the start of each period, 1 to period; default 1"),
        ("direction", "rows or columns; default rows"),
    ],
    example: "missing = 0.5",
    build: BuildOperator::same_shape(|table, site| {
        let Config { missing, seed, period, keep, direction } = table.try_into()?;
        let lines = match (missing, period) {
            (Some(missing), None) if keep.is_none() => Lines::Random { missing, seed: seed.unwrap_or(0) },
            (None, Some(period)) if seed.is_none() => Lines::Periodic { period, keep: keep.unwrap_or(1) },
            _ => {
                let reason = "expected either missing, with seed if wanted, or period, with keep if wanted";
                return Err(Error::config("inpaint_lines", reason));
            }
        };
        Ok(Box::new(Inpaint::lines(lines, direction, site)?))
    }),
};
