//! Fetching a model into the cache.

use super::cache::Cache;
use super::choice::choose;
use super::client::Client;
use super::download::Download;
use super::hash::is_hash;
use super::{Settings, Wanted};
use crate::{Error, Result};
use serde::Deserialize;
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

/// How a model is fetched.
#[derive(Clone, Debug, Default)]
pub struct PullOptions {
    /// Also what is in the cache already.
    pub force: bool,
    /// This file of the repository and no other.
    pub file: Option<String>,
}

/// What was fetched.
#[derive(Clone, Debug)]
pub struct Pulled {
    /// The model's file or folder.
    pub path: PathBuf,
    /// The commit that the revision stands for now; `None` if nobody was asked.
    pub commit: Option<String>,
    /// Files that were not in the cache.
    pub files: usize,
    /// What was received.
    pub bytes: u64,
}

/// What happens meanwhile.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A file begins to arrive.
    File {
        /// Its name in the repository.
        name: &'a str,
        /// Its size in bytes, if the hub says it.
        size: Option<u64>,
        /// How much of it is there from an earlier attempt.
        present: u64,
    },
    /// So much of the file is there.
    Bytes(u64),
    /// The file has the hash it should have.
    Verified,
    /// A request failed and is repeated.
    Again {
        /// Why it failed.
        reason: &'a str,
        /// How long is waited before.
        pause: Duration,
    },
    /// Another process is fetching the same file.
    Waiting {
        /// The lock that it holds.
        lock: &'a Path,
        /// How long it is waited for.
        limit: Duration,
    },
    /// Nothing: an opportunity to stop.
    Idle,
}

/// What the hub says about a repository at a revision.
#[derive(Deserialize)]
struct Listing {
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
}

/// Fetches a model into the cache of `settings`: the files that its index entry names, or those of the repository that make
/// a model. What is there already and whole is kept.
///
/// `tell` hears what happens; an error of it stops the work, and what has arrived is used the next time.
///
/// # Errors
/// `Model` if there is no such model, the hub cannot be reached or what arrives has another hash than it should;
/// `Cache` if it cannot be written; `Locked` if another process fetches it for too long; those of `tell`.
pub fn pull(
    wanted: &Wanted,
    settings: &Settings,
    options: &PullOptions,
    tell: &mut dyn FnMut(Event<'_>) -> Result<()>,
) -> Result<Pulled> {
    let refuse = |reason: String| Error::Model { model: wanted.name.clone(), reason };
    let cache = Cache::new(&settings.cache);
    if settings.offline {
        let (there, file) = match &options.file {
            Some(file) => (in_snapshot(&cache, wanted, file), format!(" --file {file}")),
            None => (wanted.find(&cache)?, String::new()),
        };
        return match there {
            Some(path) if !options.force => Ok(Pulled { path, commit: None, files: 0, bytes: 0 }),
            _ => Err(refuse(format!(
                "HF_HUB_OFFLINE is set, so nothing is fetched; without it, `{}{file}` fetches it from {}",
                wanted.command(),
                wanted.address(settings)
            ))),
        };
    }
    let client = Client::new(settings, &wanted.name)?;
    let listing = list(&client, wanted, settings, tell)?;
    let listed: Vec<String> = listing.siblings.into_iter().map(|sibling| sibling.rfilename).collect();
    let files = match (&options.file, wanted.entry.map(|entry| &entry.files)) {
        (Some(file), _) => vec![file.clone()],
        (None, Some(files)) if !files.is_empty() => files.clone(),
        _ => choose(&listed).map_err(refuse)?,
    };
    if let Some(file) = files.iter().find(|file| !listed.contains(file)) {
        let address = wanted.address(settings);
        return Err(refuse(format!("{address} has no file {file}; it has {}", some(&listed))));
    }
    let mut pulled = Pulled { path: PathBuf::new(), commit: Some(listing.sha.clone()), files: 0, bytes: 0 };
    for file in &files {
        if !is_plain(file) {
            return Err(refuse(format!("has a file called {file:?}, which would leave its folder")));
        }
        let download = Download {
            client: &client,
            settings,
            cache: &cache,
            repository: &wanted.repository,
            commit: &listing.sha,
            file,
            stated: wanted.stated_hash(Path::new(file)),
            command: &wanted.command(),
        };
        let (path, received) = download.fetch(options.force, tell)?;
        pulled.files += usize::from(received.is_some());
        pulled.bytes += received.unwrap_or(0);
        pulled.path = path;
    }
    refer(&cache, wanted, &listing.sha)?;
    // Several files are a folder; which one, the cache knows.
    if options.file.is_none()
        && let Some(path) = wanted.find(&cache)?
    {
        pulled.path = path;
    }
    Ok(pulled)
}

/// A file of the repository in the cache.
fn in_snapshot(cache: &Cache, wanted: &Wanted, file: &str) -> Option<PathBuf> {
    let path = cache.snapshot(&wanted.repository)?.join(file);
    (is_plain(file) && path.is_file()).then_some(path)
}

/// Asks the hub which files there are at the revision, and which commit that is.
fn list(
    client: &Client<'_>,
    wanted: &Wanted,
    settings: &Settings,
    tell: &mut dyn FnMut(Event<'_>) -> Result<()>,
) -> Result<Listing> {
    let repository = &wanted.repository;
    let revision = repository.revision().replace('/', "%2F");
    let url = format!("{}/api/models/{}/revision/{revision}", settings.endpoint, repository.id());
    let text = client.persist(tell, |_, _| client.text(&url))?;
    let listing: Listing = serde_json::from_str(&text)
        .map_err(|error| client.refuse(format!("{url} does not answer as the hub does ({error}); HF_ENDPOINT?")))?;
    if !is_hash(&listing.sha, 40) {
        return Err(client.refuse(format!("{url} names the commit {:?}, expected 40 hexadecimal digits", listing.sha)));
    }
    Ok(listing)
}

/// Writes down which commit the revision stands for.
fn refer(cache: &Cache, wanted: &Wanted, commit: &str) -> Result<()> {
    let revision = wanted.repository.revision();
    if revision == commit {
        return Ok(());
    }
    let path = cache.repository(&wanted.repository).join("refs").join(revision);
    let failed = |source| Error::Cache { path: path.clone(), needs: commit.len() as u64, source };
    if fs::read_to_string(&path).is_ok_and(|there| there == commit) {
        return Ok(());
    }
    let folder = path.parent().unwrap_or(cache.root());
    fs::create_dir_all(folder).map_err(failed)?;
    let mut file = tempfile::Builder::new().prefix(".tweedie-").tempfile_in(folder).map_err(failed)?;
    std::io::Write::write_all(&mut file, commit.as_bytes()).map_err(failed)?;
    file.persist(&path).map_err(|error| failed(error.error))?;
    Ok(())
}

/// Whether a file's name stays below its folder and is written as it is in an address.
fn is_plain(file: &str) -> bool {
    let character = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/' | '+' | '=' | ',');
    let part = |part: Component<'_>| matches!(part, Component::Normal(_));
    !file.is_empty()
        && file.chars().all(character)
        && !file.split('/').any(|part| part.is_empty() || part == "." || part == "..")
        && Path::new(file).components().all(part)
}

/// The first of many names.
fn some(names: &[String]) -> String {
    let more = names.len().saturating_sub(20);
    let shown: Vec<&str> = names.iter().take(20).map(String::as_str).collect();
    if more > 0 { format!("{} and {more} more", shown.join(", ")) } else { shown.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::is_plain;

    #[test]
    fn names_of_files_stay_in_their_folder() {
        for name in ["config.json", "unet/diffusion_pytorch_model.safetensors", "a-1_b.pt"] {
            assert!(is_plain(name), "{name}");
        }
        for name in ["", "/etc/passwd", "../x", "a/../b", "a//b", "a/", "a\\b", "a\nb", "C:x", "a b", "a?b", "./a"] {
            assert!(!is_plain(name), "{name:?}");
        }
    }
}
