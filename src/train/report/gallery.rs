//! The pictures of validations, as files beside the log.

use super::grid::{Tile, picture, png};
use crate::image::write_atomically;
use crate::train::journal::{Line, Validation};
use crate::train::validation::Shown;
use crate::{Error, Result};
use candle_core::Tensor;
use std::collections::BTreeSet;
use std::path::Path;

/// Side of what is shown of a held-out photo, in pixels.
const SIDE: usize = 128;
/// Drawn images in a row.
const COLUMNS: usize = 8;

/// Writes `validation-STEP.png` and `samples-STEP.png` into `folder`, and their names into `validation`.
///
/// # Errors
/// `Image` if they cannot be written.
pub(in crate::train) fn write_pictures(
    folder: &Path,
    validation: &mut Validation,
    shown: &[Shown],
    samples: Option<&Tensor>,
) -> Result<()> {
    let step = validation.step;
    if !shown.is_empty() {
        validation.picture = Some(write(folder, "validation", step, &denoised(shown)?)?);
    }
    if let Some(samples) = samples {
        let tile =
            |index| Ok(Tile { words: Vec::new(), picture: Some(picture(&samples.narrow(0, index, 1)?, usize::MAX)?) });
        let tiles = (0..samples.dim(0)?).map(tile).collect::<Result<Vec<_>>>()?;
        let rows: Vec<Vec<Tile>> = tiles.chunks(COLUMNS).map(<[Tile]>::to_vec).collect();
        validation.samples = Some(write(folder, "samples", step, &rows)?);
    }
    Ok(())
}

fn write(folder: &Path, kind: &str, step: u64, rows: &[Vec<Tile>]) -> Result<String> {
    let name = format!("{kind}-{step:09}.png");
    write_atomically(&folder.join(&name), &png(rows)?, true)?;
    Ok(name)
}

/// Two rows for each photo: it and noisy ones; below these, what they were denoised to.
fn denoised(shown: &[Shown]) -> Result<Vec<Vec<Tile>>> {
    let mut rows = Vec::new();
    for photo in shown {
        let mut above = vec![Tile::new("clean", picture(&photo.clean, SIDE)?)];
        let mut below = vec![Tile { words: vec!["above: noisy,".into(), "here: denoised".into()], picture: None }];
        for one in &photo.levels {
            above.push(Tile::new(
                format!("σ {:.3} = {:.0}/255", one.sigma, one.sigma * 127.5),
                picture(&one.noisy, SIDE)?,
            ));
            below.push(Tile::new(format!("{:.2} dB", one.psnr), picture(&one.denoised, SIDE)?));
        }
        rows.extend([above, below]);
    }
    Ok(rows)
}

/// The validations whose drawn images are worth keeping: the newest, and those whose number is a power of two.
pub(super) fn milestones(lines: &[Line]) -> Vec<&Validation> {
    let validations: Vec<&Validation> = lines
        .iter()
        .filter_map(|line| match line {
            Line::Validation(validation) => Some(validation),
            _ => None,
        })
        .collect();
    let count = validations.len();
    let kept =
        |(index, validation): (usize, _)| ((index + 1).is_power_of_two() || index + 1 == count).then_some(validation);
    validations.into_iter().enumerate().filter_map(kept).collect()
}

/// Removes pictures of validations in `folder` but for those of [`milestones`].
///
/// # Errors
/// `Io` if one cannot be removed.
pub(in crate::train) fn keep_few(folder: &Path, lines: &[Line]) -> Result<()> {
    let kept: BTreeSet<u64> = milestones(lines).into_iter().map(|validation| validation.step).collect();
    let failed = |source| Error::Io { path: folder.into(), source };
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        let step = name.to_str().and_then(|name| {
            let rest = name.strip_prefix("validation-").or_else(|| name.strip_prefix("samples-"))?;
            rest.strip_suffix(".png").filter(|step| step.len() == 9)?.parse().ok()
        });
        if step.is_some_and(|step: u64| !kept.contains(&step)) {
            std::fs::remove_file(entry.path()).map_err(|source| Error::Io { path: entry.path(), source })?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn validation(step: u64) -> Line {
        Line::Validation(Validation { step, psnr: Vec::new(), loss: 1.0, picture: None, samples: None })
    }

    #[test]
    fn the_first_few_and_every_power_of_two_are_kept_and_nothing_else_is_touched() {
        let lines: Vec<Line> = (1..=11).map(|number| validation(100 * number)).collect();
        let folder = tempfile::tempdir().unwrap();
        for line in &lines {
            for kind in ["validation", "samples"] {
                std::fs::write(folder.path().join(format!("{kind}-{:09}.png", line.step())), b"").unwrap();
            }
        }
        for other in ["validation-my.png", "samples-1.png", "log.jsonl"] {
            std::fs::write(folder.path().join(other), b"").unwrap();
        }
        keep_few(folder.path(), &lines).unwrap();
        let entries = std::fs::read_dir(folder.path()).unwrap();
        let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        let steps = [100, 200, 400, 800, 1100];
        let mut expected: Vec<String> = steps.iter().map(|step| format!("samples-{step:09}.png")).collect();
        expected.extend(steps.iter().map(|step| format!("validation-{step:09}.png")));
        expected.extend(["validation-my.png", "samples-1.png", "log.jsonl"].map(String::from));
        expected.sort();
        assert_eq!(names, expected);
    }
}
