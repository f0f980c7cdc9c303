//! The models that are known by a name: `configs/models.toml`.

use super::Repository;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::LazyLock;

/// A model that is known by a name.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// What `--model` and `tweedie models pull` take.
    pub name: String,
    /// What it was trained on, in a few words.
    pub about: String,
    /// The architecture.
    pub family: String,
    /// Side of the images it was trained on, in pixels; `None` if any will do.
    pub resolution: Option<usize>,
    /// Numbers of the network, where they are known.
    pub parameters: Option<u64>,
    /// What there is to fetch, in millions of bytes, where it is known.
    pub megabytes: Option<u64>,
    /// Repository of the hub; `None` if it is to be had elsewhere or inside the program.
    pub repository: Option<String>,
    /// Files of the repository; none: those that make a model are chosen.
    #[serde(default)]
    pub files: Vec<String>,
    /// SHA-256 in hexadecimal of those files of which it is known.
    #[serde(default)]
    pub sha256: BTreeMap<String, String>,
    /// Where it is to be fetched by hand.
    pub address: Option<String>,
    /// Licence of the weights, as their origin states it.
    pub licence: String,
    /// Who trained it, and who hosts it.
    pub origin: String,
    /// Whether it is inside the program.
    #[serde(default)]
    pub embedded: bool,
}

impl Entry {
    /// The repository of the hub.
    pub fn repository(&self) -> Option<Repository> {
        self.repository.as_ref()?.parse().ok()
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    model: Vec<Entry>,
}

static INDEX: LazyLock<Vec<Entry>> = LazyLock::new(|| {
    let file: File = toml::from_str(include_str!("../../configs/models.toml")).expect("a test reads the same text");
    file.model
});

/// All entries, in the order of the file.
pub fn index() -> &'static [Entry] {
    &INDEX
}

#[cfg(test)]
mod tests {
    use super::super::hash::is_hash;
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn entries_are_complete_and_their_names_unique() {
        let mut names = BTreeSet::new();
        for entry in index() {
            let name = &entry.name;
            assert!(names.insert(name), "{name} twice");
            assert!(name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'), "{name}");
            for text in [&entry.about, &entry.licence, &entry.origin] {
                assert!(!text.is_empty() && !text.contains('\n') && !text.ends_with('.'), "{name}: {text:?}");
            }
            let places =
                [entry.repository.is_some(), entry.address.is_some(), entry.embedded].iter().filter(|x| **x).count();
            assert_eq!(places, 1, "{name} is to be had in {places} places");
            assert_eq!(entry.repository.is_some(), entry.repository().is_some(), "{name}: {:?}", entry.repository);
            assert!(entry.address.as_ref().is_none_or(|a| a.starts_with("https://")), "{name}");
            for (file, hash) in &entry.sha256 {
                assert!(entry.files.contains(file) && is_hash(hash, 64), "{name}: {file}");
            }
        }
        assert!(names.len() > 30);
    }
}
