//! Files that are old or new, never partial.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use super::ImageError;

/// Writes `bytes` to `path` so that at every moment the path holds what it held before, or all of `bytes`.
///
/// A temporary file in the same folder is written, synced and renamed, then the folder is synced. Without `replace` an
/// existing file is left alone, also one that appears while this function runs.
/// # Errors
/// [`ImageError::Exists`] if the path is taken and `replace` is false; [`ImageError::Write`] for all else, after which
/// no temporary file is left.
pub fn write_atomically(path: &Path, bytes: &[u8], replace: bool) -> Result<(), ImageError> {
    let failed = |source: io::Error| ImageError::Write { path: path.into(), source };
    write_atomically_with(path, replace, |file, _| file.write_all(bytes).map_err(failed))
}

/// As [`write_atomically`], where `write` fills the temporary file, whose path it is told, piece by piece.
///
/// # Errors
/// The same, and those of `write`, after which no temporary file is left.
pub fn write_atomically_with<E: From<ImageError>>(
    path: &Path,
    replace: bool,
    write: impl FnOnce(&mut File, &Path) -> Result<(), E>,
) -> Result<(), E> {
    let failed = |source: io::Error| ImageError::Write { path: path.into(), source };
    if path.is_dir() {
        return Err(failed(io::ErrorKind::IsADirectory.into()).into());
    }
    if !replace && path.symlink_metadata().is_ok() {
        return Err(ImageError::Exists { path: path.into() }.into());
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    builder.prefix(".tweedie-").suffix(".part");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // The creation mask of the process applies to it, as to any other new file; the default would be private.
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    let mut file = builder.tempfile_in(folder).map_err(failed)?;
    let temporary = file.path().to_path_buf();
    write(file.as_file_mut(), &temporary)?;
    file.as_file().sync_all().map_err(failed)?;
    if replace {
        file.persist(path).map_err(|e| failed(e.error))?;
    } else {
        file.persist_noclobber(path).map_err(|e| match e.error.kind() {
            io::ErrorKind::AlreadyExists => ImageError::Exists { path: path.into() },
            _ => failed(e.error),
        })?;
    }
    // The rename itself is durable only once the folder is; not every file system can sync one.
    if cfg!(unix) {
        match File::open(folder).and_then(|folder| folder.sync_all()) {
            Err(e) if !matches!(e.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::PermissionDenied) => {
                return Err(failed(e).into());
            }
            _ => {}
        }
    }
    Ok(())
}
