//! A repository of the hub at a revision.

use std::fmt;
use std::str::FromStr;

/// `owner/repo` at a revision: a branch, a tag or a commit; `main` unless `@revision` follows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Repository {
    owner: String,
    name: String,
    revision: String,
}

/// The branch that is meant where none is named.
const DEFAULT_REVISION: &str = "main";

impl Repository {
    /// `owner/repo`.
    pub fn id(&self) -> String {
        format!("{}/{}", self.owner, self.name)
    }

    /// Branch, tag or commit.
    pub fn revision(&self) -> &str {
        &self.revision
    }

    /// The same repository at another revision.
    pub fn at(&self, revision: &str) -> Self {
        Self { revision: revision.into(), ..self.clone() }
    }

    /// Name of its folder in a cache.
    pub(super) fn folder(&self) -> String {
        format!("models--{}--{}", self.owner, self.name)
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.owner, self.name)?;
        if self.revision == DEFAULT_REVISION { Ok(()) } else { write!(f, "@{}", self.revision) }
    }
}

impl FromStr for Repository {
    type Err = String;

    /// The hub's own rules for names, which keep every part of a path inside the cache.
    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || format!("`{text}` is no repository of the hub, expected owner/repo or owner/repo@revision");
        let (id, revision) = text.split_once('@').unwrap_or((text, DEFAULT_REVISION));
        let (owner, name) = id.split_once('/').ok_or_else(expected)?;
        let character = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let part = |part: &str| {
            (1..=96).contains(&part.len())
                && part.chars().all(character)
                && !part.starts_with(['-', '.'])
                && !part.ends_with(['-', '.'])
                && !part.contains("--")
                && !part.contains("..")
        };
        let branch = |revision: &str| {
            revision.len() <= 200
                && revision.split('/').all(|part| {
                    !part.is_empty() && !part.starts_with('.') && !part.contains("..") && part.chars().all(character)
                })
        };
        if !(part(owner) && part(name) && branch(revision)) {
            return Err(expected());
        }
        Ok(Self { owner: owner.into(), name: name.into(), revision: revision.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_hub_and_nothing_that_leaves_a_folder() {
        let parsed: Repository = "google/ddpm-cifar10-32".parse().unwrap();
        assert_eq!((parsed.id().as_str(), parsed.revision()), ("google/ddpm-cifar10-32", "main"));
        assert_eq!(
            (parsed.folder().as_str(), parsed.to_string().as_str()),
            ("models--google--ddpm-cifar10-32", "google/ddpm-cifar10-32")
        );
        let parsed: Repository = "a/b@refs/pr/1".parse().unwrap();
        assert_eq!((parsed.revision(), parsed.to_string().as_str()), ("refs/pr/1", "a/b@refs/pr/1"));
        for text in [
            "",
            "a",
            "a/",
            "/b",
            "a/b/c",
            "../b",
            "a/..",
            "a/b@",
            "a/b@..",
            "a/b@x/../y",
            "a/b@/x",
            "a--b/c",
            "a/b c",
            "a/b\n",
        ] {
            assert!(text.parse::<Repository>().is_err(), "{text:?}");
        }
    }
}
