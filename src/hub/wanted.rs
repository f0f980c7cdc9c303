//! A name that a user gave for a model that is not a file of theirs.

use super::cache::entries;
use super::hash::is_hash;
use super::{Cache, Entry, Repository, Settings, index};
use crate::digest::sha256_of_file;
use crate::{Error, Result};
use std::path::{Path, PathBuf};

/// Endings of files with weights, the one that is loaded as it is first.
pub(super) const WEIGHTS: [&str; 6] = ["safetensors", "bin", "pt", "pth", "ckpt", "pkl"];

/// A model by its name in the index, or by its repository.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// As it was given.
    pub name: String,
    /// Its entry, if it is in the index.
    pub entry: Option<&'static Entry>,
    /// Where it is hosted.
    pub repository: Repository,
}

/// A model in a cache.
#[derive(Debug)]
struct Found {
    /// The file, or the folder of files.
    path: PathBuf,
    weights: Vec<PathBuf>,
}

impl Wanted {
    /// What `name` stands for; `None` if it is neither in the index nor `owner/repo[@revision]`.
    ///
    /// # Errors
    /// `Model` for a model of the index that has to be fetched by hand, with its address, and for the one inside the program,
    /// which has no files.
    pub fn parse(name: &str) -> Option<Result<Self>> {
        let Some(entry) = index().iter().find(|entry| entry.name == name) else {
            // `folder/file.pt` has the form of a repository, but nobody means one.
            let repository = if is_weights(Path::new(name)) { None } else { name.parse().ok() };
            return repository.map(|repository| Ok(Self { name: name.into(), entry: None, repository }));
        };
        Some(match (entry.repository(), &entry.address) {
            (Some(repository), _) => Ok(Self { name: name.into(), entry: Some(entry), repository }),
            (None, Some(address)) => Err(Error::Model {
                model: name.into(),
                reason: format!(
                    "is not on the hub; fetch it by hand from {address}, then `tweedie models convert FILE \
                     OUT.safetensors` makes what --model takes"
                ),
            }),
            (None, None) => {
                Err(Error::Model { model: name.into(), reason: "is inside the program and has no files".into() })
            }
        })
    }

    /// Its page on the hub.
    pub fn address(&self, settings: &Settings) -> String {
        format!("{}/{}", settings.endpoint, self.repository.id())
    }

    /// The command that fetches it.
    pub fn command(&self) -> String {
        format!("tweedie models pull {}", self.name)
    }

    /// Whether one revision is meant and no other.
    pub fn is_pinned(&self) -> bool {
        self.name.contains('@')
    }

    /// Its file or folder in the cache, whole or not; `None` if it was never fetched.
    ///
    /// # Errors
    /// `Model` if the repository's files in the cache are several models.
    pub fn find(&self, cache: &Cache) -> Result<Option<PathBuf>> {
        Ok(self.found(cache)?.map(|found| found.path))
    }

    /// Its file or folder in the cache, after its weights were compared with the SHA-256 that the index states or, if it
    /// states none, that the hub calls the blob by.
    ///
    /// Blobs that are called by git's SHA-1 instead, those of files that the hub does not keep apart as large ones, are not
    /// checked: git takes that hash of more than the contents, and SHA-1 would not find what was changed on purpose.
    ///
    /// # Errors
    /// `Model` if it is not there, with the command that fetches it and its address, or if it is damaged.
    pub fn open(&self, settings: &Settings) -> Result<PathBuf> {
        let refuse = |reason: String| Error::Model { model: self.name.clone(), reason };
        let cache = Cache::new(&settings.cache);
        let Some(found) = self.found(&cache)? else {
            return Err(refuse(format!(
                "is not in the cache {}; `{}` fetches it from {}",
                cache.root().display(),
                self.command(),
                self.address(settings)
            )));
        };
        for file in &found.weights {
            let unreadable = |error| refuse(format!("{} cannot be read: {error}", file.display()));
            let blob = file.canonicalize().map_err(unreadable)?;
            let blob =
                blob.file_name().map(|name| name.to_string_lossy().into_owned()).filter(|name| is_hash(name, 64));
            let stated = self.stated_hash(file).map(str::to_owned).or(blob);
            let Some(expected) = stated else { continue };
            let got = sha256_of_file(file).map_err(unreadable)?;
            if got != expected {
                let command = self.command();
                let file = file.display();
                return Err(refuse(format!(
                    "SHA-256 mismatch, run `{command} --force`: {file} has {got}, expected {expected}"
                )));
            }
        }
        Ok(found.path)
    }

    /// The hash that the index states for a file.
    pub(super) fn stated_hash(&self, file: &Path) -> Option<&'static str> {
        let stated = &self.entry?.sha256;
        stated.iter().find(|(name, _)| file.ends_with(name)).map(|(_, hash)| hash.as_str())
    }

    fn found(&self, cache: &Cache) -> Result<Option<Found>> {
        let Some(snapshot) = cache.snapshot(&self.repository) else { return Ok(None) };
        let files = self.entry.map_or(&[][..], |entry| entry.files.as_slice());
        if !files.is_empty() {
            let paths: Vec<PathBuf> = files.iter().map(|file| snapshot.join(file)).collect();
            if !paths.iter().all(|path| path.is_file()) {
                return Ok(None);
            }
            let single = (paths.len() == 1).then(|| paths[0].clone());
            let weights = paths.into_iter().filter(|path| is_weights(path)).collect();
            return Ok(Some(Found { path: single.unwrap_or(snapshot), weights }));
        }
        for folder in [snapshot.join("unet"), snapshot.clone()] {
            let weights = best_weights(&folder);
            if folder.join("config.json").is_file() && !weights.is_empty() {
                return Ok(Some(Found { path: snapshot, weights }));
            }
        }
        let mut weights = best_weights(&snapshot);
        if weights.len() > 1 {
            let names: Vec<_> = weights.iter().map(|path| path.to_string_lossy()).collect();
            let reason = format!("has several files with weights; name one of {}", names.join(", "));
            return Err(Error::Model { model: self.name.clone(), reason });
        }
        Ok(weights.pop().map(|path| Found { path: path.clone(), weights: vec![path] }))
    }
}

/// Whether a file's name says that it holds weights.
pub(super) fn is_weights(path: &Path) -> bool {
    path.extension().is_some_and(|ending| WEIGHTS.iter().any(|weights| ending == *weights))
}

/// The files with weights of a folder that have the best ending that there is; none if a part of several is missing.
fn best_weights(folder: &Path) -> Vec<PathBuf> {
    let files: Vec<PathBuf> = entries(folder).into_iter().filter(|path| path.is_file()).collect();
    let of = |ending: &&str| -> Vec<PathBuf> {
        files.iter().filter(|path| path.extension().is_some_and(|e| e == *ending)).cloned().collect()
    };
    let found = WEIGHTS.iter().map(of).find(|found| !found.is_empty()).unwrap_or_default();
    let whole = found.iter().all(|path| parts(path).is_none_or(|parts| found.len() >= parts));
    if whole { found } else { Vec::new() }
}

/// How many parts a file is one of: `model-00001-of-00003.safetensors`.
fn parts(path: &Path) -> Option<usize> {
    let stem = path.file_stem()?.to_str()?;
    let (front, count) = stem.rsplit_once("-of-")?;
    let (_, number) = front.rsplit_once('-')?;
    number.parse::<usize>().ok()?;
    count.parse().ok()
}
