//! Two photos never share an output.

use super::{BatchError, Item, Naming, relative};
use crate::Result;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::{Path, PathBuf};

/// Refuses items of which two would have the same output, on any file system, or one an output inside of another's.
pub(super) fn check(items: &[Item], naming: &Naming) -> Result<()> {
    let mut taken: HashMap<Box<[u8]>, u32> = HashMap::with_capacity(items.len());
    for (at, item) in items.iter().enumerate() {
        for output in naming.telling(&item.relative).files() {
            match taken.entry(relative::folded(output).into()) {
                Entry::Vacant(entry) => drop(entry.insert(u32::try_from(at).unwrap_or(u32::MAX))),
                Entry::Occupied(entry) => {
                    let first = &items[*entry.get() as usize];
                    let differ = !naming.telling(&first.relative).files().any(|name| name == output);
                    let (first, second, output) = (first.path(), item.path(), output.into());
                    return Err(BatchError::SharedOutput { first, second, output, differ }.into());
                }
            }
        }
    }
    for item in items {
        let key = relative::folded(&item.relative);
        for (at, _) in key.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
            if let Some(&first) = taken.get(&key[..at]) {
                let first = &items[first as usize];
                let is_folder = |output: &&Path| relative::folded(output) == key[..at];
                let outputs = naming.telling(&first.relative);
                let output = outputs.files().find(is_folder).map(Path::to_path_buf).unwrap_or_default();
                let (first, second) = (first.path(), item.path());
                return Err(BatchError::OutputIsFolder { first, second, output }.into());
            }
        }
    }
    Ok(())
}

/// Refuses an output folder in which a link leads back to the photos: an output would replace one of them.
pub(super) fn check_links(items: &[Item], out: &Path) -> Result<()> {
    // Nothing is in a folder that is not there.
    let Ok(there) = out.canonicalize() else { return Ok(()) };
    let mut roots: Vec<&Path> = Vec::new();
    let mut folders: Vec<&Path> = Vec::new();
    for item in items {
        if !roots.contains(&&*item.root) {
            roots.push(&item.root);
        }
        let folder = item.relative.parent().unwrap_or(Path::new(""));
        // The items are sorted, so that those of a folder mostly follow one another.
        if folders.last() != Some(&folder) {
            folders.push(folder);
        }
    }
    let here = |root: &Path| if root.as_os_str().is_empty() { PathBuf::from(".") } else { root.into() };
    let roots: Vec<PathBuf> = roots.into_iter().filter_map(|root| here(root).canonicalize().ok()).collect();
    for folder in folders {
        let Ok(real) = out.join(folder).canonicalize() else { continue };
        if real != there.join(folder) && !real.starts_with(&there) && roots.iter().any(|root| real.starts_with(root)) {
            let reason = format!("is a link to {}, among the photos; results must not lie there", real.display());
            return Err(BatchError::OutputFolder { path: out.join(folder), reason }.into());
        }
    }
    Ok(())
}
