//! Any damage that a file describes.

use crate::image::Photo;
use crate::restore::{Case, Measured, Work};
use crate::{Catalog, Error, Result};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use tweedie_operators::Description;

/// What happened to a photo.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Restore {
    /// A TOML file with the tables `operator` and `noise`; needless for a measurement.
    pub operator: Option<PathBuf>,
    /// Height and width of the image in pixels, where the operator does not tell.
    pub size: Option<(usize, usize)>,
}

impl Restore {
    fn description(&self) -> Result<Option<Description>> {
        Ok(self.operator.as_deref().map(Description::open).transpose()?)
    }

    /// The operator, which a photo needs and a measurement brings along.
    ///
    /// # Errors
    /// `Config` if there is none.
    pub fn needs_operator(&self) -> Result<&Path> {
        self.operator.as_deref().ok_or_else(|| Error::Config {
            name: "operator".into(),
            got: "not given".into(),
            expected: "a TOML file that says what happened to the photo; `tweedie operators` lists what there is"
                .into(),
        })
    }

    pub(super) fn check(&self) -> Result<()> {
        const SIDES: std::ops::RangeInclusive<usize> = 1..=16_384;
        if let Some((height, width)) = self.size
            && !(SIDES.contains(&height) && SIDES.contains(&width))
        {
            let expected = "sides from 1 to 16384".into();
            return Err(Error::Config { name: "size".into(), got: format!("{height}x{width}"), expected });
        }
        self.description().map(|_| ())
    }

    pub(super) fn work(&self, photo: &Photo, catalog: &Catalog) -> Result<(Work, String)> {
        let path = self.needs_operator()?;
        let case = Case::described(photo, &Description::open(path)?, self.size, catalog)?;
        Ok((Work::Whole(Box::new(case)), told(path)))
    }

    /// The work that a measurement in a file is, and the black photo of the image's size that it stands for.
    ///
    /// # Errors
    /// As [`Measured::open`], [`Measured::described`] and [`Case::measured`].
    pub fn of_measurement(&self, file: &Path, catalog: &Catalog) -> Result<(Photo, Work, String)> {
        let mut measured = Measured::open(file)?;
        if let Some((height, width)) = self.size {
            measured.image = (3, height, width);
        }
        let description = match self.description()? {
            Some(description) => description,
            None => measured.described(file)?,
        };
        let case = Case::measured(&measured, &description, catalog)?;
        let blank = case.canvas.clone();
        let told = self.operator.as_deref().map_or("operator of the measurement".into(), told);
        Ok((blank, Work::Whole(Box::new(case)), told))
    }
}

fn told(path: &Path) -> String {
    format!("operator of {}", path.display())
}
