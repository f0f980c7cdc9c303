//! A missing rectangle.

use serde::Deserialize;

use super::{Inpaint, Pixels};
use crate::forward::BuildOperator;
use crate::registry::{Entry, Site};
use crate::{Error, Result};

impl Inpaint {
    /// Hides a centred square of `size × size` pixels; where it cannot be centred it lies half a pixel up and left.
    ///
    /// # Errors
    /// [`Error::Config`] unless `size` is at least 1 and fits the image.
    pub fn centred_box(size: usize, site: Site<'_>) -> Result<Self> {
        let (_, height, width) = site.image;
        if size == 0 || size > height.min(width) {
            let reason =
                format!("size is {size}, expected 1 to {} for an image of {width}x{height}", height.min(width));
            return Err(Error::config("inpaint_box", reason));
        }
        Self::rectangle([size, size], None, site)
    }

    /// Hides a rectangle of `[height, width]` pixels whose first one is at `[row, column]`, counted from 0; without a
    /// position it is centred, where need be half a pixel up and left.
    ///
    /// # Errors
    /// [`Error::Config`] unless the sides are at least 1 and the rectangle lies inside the image.
    pub fn rectangle(size: [usize; 2], position: Option<[usize; 2]>, site: Site<'_>) -> Result<Self> {
        let (_, height, width) = site.image;
        if size.contains(&0) || size[0] > height || size[1] > width {
            let reason =
                format!("size is {size:?}, expected [1 to {height}, 1 to {width}] for an image of {width}x{height}");
            return Err(Error::config("inpaint_box", reason));
        }
        let room = [height - size[0], width - size[1]];
        let [top, left] = position.unwrap_or([room[0] / 2, room[1] / 2]);
        if top > room[0] || left > room[1] {
            let reason = format!(
                "position is [{top}, {left}], expected [0 to {}, 0 to {}] for a box of {size:?} in an image of \
                 {width}x{height}",
                room[0], room[1]
            );
            return Err(Error::config("inpaint_box", reason));
        }
        let (rows, columns) = (top..top + size[0], left..left + size[1]);
        Self::from_hidden(site, |row, column| rows.contains(&row) && columns.contains(&column))
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Sides of the missing box, in pixels: one number, or `[height, width]`.
    size: Pixels<2>,
    /// `[top, left]` of its first pixel, counted from 0; default centred.
    position: Option<[usize; 2]>,
}

/// `inpaint_box`
pub(crate) const ENTRY: Entry<BuildOperator> = Entry {
    name: "inpaint_box",
    about: "Rectangle of missing pixels",
    fields: &[
        ("size", "side of the missing square in pixels, at least 1; or [height, width]"),
        ("position", "[top, left] of its first pixel, counted from 0; default centred"),
    ],
    example: "size = 4",
    build: BuildOperator::same_shape(|table, site| {
        let Config { size, position } = table.try_into()?;
        Ok(Box::new(match (size, position) {
            (Pixels::All(size), None) => Inpaint::centred_box(size, site)?,
            (size, position) => Inpaint::rectangle(size.each(), position, site)?,
        }))
    }),
};
