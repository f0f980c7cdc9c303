//! The third stage: the bytes of a photo's outputs.

use super::Outputs;
use super::recipe::Prepared;
use crate::image::{EncodeOptions, Photo};
use crate::models::Model;
use crate::{Picture, Provenance, Restored, Result};
use std::path::PathBuf;

/// Encodes what `outputs` names, in the order of [`Outputs::files`].
///
/// # Errors
/// `Image` for what the format cannot hold.
pub(super) fn encode(
    outputs: &Outputs,
    prepared: &Prepared<'_>,
    restored: &Restored,
    model: &Model,
) -> Result<Vec<(PathBuf, Vec<u8>)>> {
    let Prepared { work, photo, command, options, format, encoding, .. } = prepared;
    let bytes = |picture: Picture, of: &Photo| -> Result<Vec<u8>> {
        let provenance =
            Provenance { command, model, plan: &restored.plan, seed: options.seed, samples: restored.len(), picture };
        let options = EncodeOptions { software: Some(provenance.to_string()), ..encoding.clone() };
        Ok(of.encode(*format, &options)?)
    };
    let mut files = Vec::with_capacity(outputs.files().count());
    for (k, name) in outputs.samples.iter().enumerate() {
        files.push((name.clone(), bytes(Picture::Sample(k), restored.sample(k))?));
    }
    if let Some(name) = &outputs.mean {
        files.push((name.clone(), bytes(Picture::Mean, &restored.mean()?)?));
    }
    if let Some(name) = &outputs.std {
        files.push((name.clone(), bytes(Picture::Std, &restored.std()?)?));
    }
    if let Some(name) = &outputs.sheet {
        let sheet = restored.sheet(photo, work.mask(), outputs.mean.is_some(), outputs.std.is_some())?;
        files.push((name.clone(), sheet));
    }
    Ok(files)
}
