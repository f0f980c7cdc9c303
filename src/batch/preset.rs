//! Settings with a name.

use super::Layer;
use crate::{Error, Result};
use std::path::Path;

/// The presets inside the program: name and content, those of `configs/tasks`.
const PRESETS: &[(&str, &str)] = &[
    ("denoise", include_str!("../../configs/tasks/denoise.toml")),
    ("proofs", include_str!("../../configs/tasks/proofs.toml")),
    ("scratches", include_str!("../../configs/tasks/scratches.toml")),
    ("soft", include_str!("../../configs/tasks/soft.toml")),
    ("upscale_x2", include_str!("../../configs/tasks/upscale_x2.toml")),
    ("upscale_x4", include_str!("../../configs/tasks/upscale_x4.toml")),
];

/// Name and purpose of every preset.
pub fn presets() -> impl Iterator<Item = (&'static str, String)> {
    PRESETS.iter().map(|&(name, text)| {
        let table: toml::Table = text.parse().unwrap_or_default();
        (name, table.get("about").and_then(toml::Value::as_str).unwrap_or_default().to_owned())
    })
}

impl Layer {
    /// The preset of a name, or a TOML file in its form.
    ///
    /// # Errors
    /// `Unknown` with the names there are, and those of [`Layer::read`].
    pub fn preset(name: &str) -> Result<Self> {
        let mut layer = match PRESETS.iter().find(|(known, _)| *known == name) {
            Some((_, text)) => Self::parse(&format!("preset {name}"), text)?,
            None if Path::new(name).extension().is_some_and(|extension| extension == "toml") => {
                Self::read(Path::new(name))?
            }
            None => {
                let known: Vec<&str> = PRESETS.iter().map(|(name, _)| *name).collect();
                let known = format!("{}, or a file whose name ends with .toml", known.join(", "));
                return Err(Error::Unknown { kind: "preset", name: name.into(), known });
            }
        };
        layer.table.remove("about");
        Ok(layer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::Settings;

    #[test]
    fn every_preset_of_the_folder_is_inside_and_can_be() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/tasks");
        let mut files: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
            .collect();
        files.sort();
        assert_eq!(files, PRESETS.iter().map(|(name, _)| *name).collect::<Vec<_>>());
        for (name, about) in presets() {
            Settings::of(&[Layer::preset(name).unwrap()]).unwrap();
            assert!(!about.is_empty() && !about.ends_with('.') && about.len() < 90, "{name}: {about}");
        }
    }

    #[test]
    fn unknown_presets_are_refused_with_those_there_are() {
        let error = Layer::preset("scratch").unwrap_err().to_string();
        assert!(error.starts_with("unknown preset `scratch`; known: denoise, proofs, scratches"), "{error}");
    }
}
