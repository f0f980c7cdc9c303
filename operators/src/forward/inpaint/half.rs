//! A missing half.

use serde::Deserialize;

use super::Inpaint;
use crate::Result;
use crate::forward::BuildOperator;
use crate::registry::{Entry, Site};

/// A side of an image.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names say it")]
pub enum Side {
    Left,
    Right,
    Top,
    Bottom,
}

impl Inpaint {
    /// Hides the half at `side`: `⌊W / 2⌋` columns or `⌊H / 2⌋` rows.
    pub fn half(side: Side, site: Site<'_>) -> Result<Self> {
        let (_, height, width) = site.image;
        Self::from_hidden(site, |row, column| match side {
            Side::Left => column < width / 2,
            Side::Right => column >= width - width / 2,
            Side::Top => row < height / 2,
            Side::Bottom => row >= height - height / 2,
        })
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// The missing side.
    side: Side,
}

/// `inpaint_half`
pub(crate) const ENTRY: Entry<BuildOperator> = Entry {
    name: "inpaint_half",
    about: "Half of the image is missing",
    fields: &[("side", "missing side: left, right, top or bottom; the smaller half of an odd size")],
    example: "side = 'left'",
    build: BuildOperator::same_shape(|table, site| {
        let Config { side } = table.try_into()?;
        Ok(Box::new(Inpaint::half(side, site)?))
    }),
};
