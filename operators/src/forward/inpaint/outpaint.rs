//! Missing surroundings.

use serde::Deserialize;

use super::{Inpaint, Pixels};
use crate::forward::BuildOperator;
use crate::registry::{Entry, Site};
use crate::{Error, Result};

impl Inpaint {
    /// Hides margins of `[top, right, bottom, left]` pixels and sees the rectangle between them.
    ///
    /// # Errors
    /// [`Error::Config`] if nothing is left between the margins.
    pub fn outpaint(margin: [usize; 4], site: Site<'_>) -> Result<Self> {
        let (_, height, width) = site.image;
        let [top, right, bottom, left] = margin;
        let (vertical, horizontal) = (top.saturating_add(bottom), left.saturating_add(right));
        if vertical >= height || horizontal >= width {
            let reason = format!(
                "margin is {margin:?}, expected top + bottom below {height} and left + right below {width} for an image \
                 of {width}x{height}"
            );
            return Err(Error::config("outpaint", reason));
        }
        let (rows, columns) = (top..height - bottom, left..width - right);
        Self::from_hidden(site, |row, column| !(rows.contains(&row) && columns.contains(&column)))
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Missing pixels at every side: one number, or `[top, right, bottom, left]`.
    margin: Pixels<4>,
}

/// `outpaint`
pub(crate) const ENTRY: Entry<BuildOperator> = Entry {
    name: "outpaint",
    about: "All but a rectangle inside the image is missing",
    fields: &[("margin", "missing pixels at every side, or [top, right, bottom, left]")],
    example: "margin = [1, 2, 0, 1]",
    build: BuildOperator::same_shape(|table, site| {
        let Config { margin } = table.try_into()?;
        Ok(Box::new(Inpaint::outpaint(margin.each(), site)?))
    }),
};
