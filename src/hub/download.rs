//! One file: from the hub to its blob, and a link to it in the snapshot.

use super::client::{Ask, Client, Followed, Trouble};
use super::digest::Digest;
use super::lock::Lock;
use super::pull::Event;
use super::{Cache, Repository, Settings};
use crate::digest::PIECE;
use crate::{Error, Result};
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use ureq::http::{HeaderMap, StatusCode};

/// A file of a repository at a commit.
pub(super) struct Download<'a> {
    pub(super) client: &'a Client<'a>,
    pub(super) settings: &'a Settings,
    pub(super) cache: &'a Cache,
    pub(super) repository: &'a Repository,
    pub(super) commit: &'a str,
    pub(super) file: &'a str,
    /// SHA-256 that the index states.
    pub(super) stated: Option<&'a str>,
    /// The command that repeats the whole.
    pub(super) command: &'a str,
}

/// What the hub says about a file.
struct Remote {
    /// Names the contents.
    etag: String,
    size: Option<u64>,
    /// Whether the hub itself sends the contents, so that its etag is the sender's.
    direct: bool,
}

/// A file that is arriving.
struct Arriving {
    path: PathBuf,
    file: File,
    digest: Digest,
    length: u64,
    received: u64,
    /// The etag of whoever sends the contents, which need not be the hub's.
    sender: Option<String>,
    /// Whether the sender's etags are of use: one that changes with every answer is not.
    steady: bool,
}

type Tell<'t> = &'t mut dyn FnMut(Event<'_>) -> Result<()>;

impl Download<'_> {
    /// The file in the cache, and the bytes that were received; `None` if it was there.
    pub(super) fn fetch(&self, force: bool, tell: Tell<'_>) -> Result<(PathBuf, Option<u64>)> {
        let remote = self.client.persist(tell, |_, _| self.remote())?;
        if let Some(stated) = self.stated.filter(|stated| remote.etag.len() == 64 && remote.etag != **stated) {
            let reason = format!("{}: the hub has SHA-256 {}, the index states {stated}", self.file, remote.etag);
            return Err(self.client.refuse(reason));
        }
        let folder = self.cache.repository(self.repository);
        let blob = folder.join("blobs").join(&remote.etag);
        let pointer = folder.join("snapshots").join(self.commit).join(self.file);
        let lock = self.cache.lock(self.repository, &remote.etag);
        let needs = remote.size.unwrap_or(0);
        let whole = |path: &Path| {
            path.metadata().is_ok_and(|data| data.is_file() && remote.size.is_none_or(|size| size == data.len()))
        };
        if !force && whole(&pointer) {
            return Ok((pointer, None));
        }
        for path in [&blob, &pointer, &lock] {
            let folder = path.parent().unwrap_or(path);
            fs::create_dir_all(folder).map_err(|source| Error::Cache { path: folder.into(), needs, source })?;
        }
        let _lock = Lock::acquire(&lock, self.settings.lock_timeout, needs, tell)?;
        let mut received = None;
        if force || !whole(&blob) {
            received = Some(self.receive(&remote, &blob, force, tell)?);
        }
        link(&blob, &pointer, Path::new(self.file).components().count() + 1).map_err(|source| Error::Cache {
            path: pointer.clone(),
            needs,
            source,
        })?;
        Ok((pointer, received))
    }

    fn url(&self) -> String {
        format!("{}/{}/resolve/{}/{}", self.settings.endpoint, self.repository.id(), self.commit, self.file)
    }

    fn remote(&self) -> Result<Remote, Trouble> {
        let ask = Ask { head: true, ..Ask::default() };
        let Followed { response, first, address } = self.client.follow(&self.url(), &ask)?;
        let status = response.status();
        let linked = response.headers().contains_key("x-linked-etag");
        if !(status.is_success() || status.is_redirection() && linked) {
            return Err(self.client.status(&response, &address));
        }
        let last = response.headers();
        // Whoever is behind a redirect has etags of its own; the hub's first answer counts.
        let find = |names: [&str; 2]| {
            [&first, last].into_iter().find_map(|headers| names.iter().find_map(|name| text(headers, name)))
        };
        let etag = [text(&first, "x-linked-etag"), text(last, "x-linked-etag"), text(last, "etag")];
        let etag = etag.into_iter().flatten().next().map(|etag| plain(&etag)).unwrap_or_default();
        let character = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if etag.is_empty() || etag.len() > 128 || etag.starts_with('.') || !etag.chars().all(character) {
            let reason = format!("{} answers without an etag that can name a file: {etag:?}", self.url());
            return Err(self.client.refuse(reason).into());
        }
        if let Some(commit) = find(["x-repo-commit", "x-repo-commit"]).filter(|commit| commit != self.commit) {
            let reason = format!("{} answers with commit {commit}, asked for {}", self.url(), self.commit);
            return Err(self.client.refuse(reason).into());
        }
        let length = if status.is_success() { text(last, "content-length") } else { None };
        let size = find(["x-linked-size", "x-linked-size"]).or(length).and_then(|size| size.parse().ok());
        Ok(Remote { etag, size, direct: !first.contains_key("x-linked-etag") && status.is_success() })
    }

    /// Receives the contents, goes on where an earlier attempt ended, and gives them their name once they are right.
    fn receive(&self, remote: &Remote, blob: &Path, force: bool, tell: Tell<'_>) -> Result<u64> {
        let mut arriving = Arriving::open(blob, remote)?;
        if force {
            arriving.restart(remote)?;
        }
        let mut kept = arriving.length > 0;
        tell(Event::File { name: self.file, size: remote.size, present: arriving.length })?;
        loop {
            self.client.persist(tell, |progress, tell| self.transfer(remote, &mut arriving, progress, tell))?;
            let Err(mismatch) = arriving.digest.clone().check(&remote.etag, self.stated) else { break };
            if !kept {
                // Nothing of it is worth keeping.
                let _ = fs::remove_file(&arriving.path);
                let (file, command) = (self.file, self.command);
                return Err(self.client.refuse(format!("{file}: {mismatch}; run `{command} --force`")));
            }
            // What an earlier attempt left may be what is wrong.
            kept = false;
            arriving.restart(remote)?;
            tell(Event::Again { reason: &mismatch, pause: std::time::Duration::ZERO })?;
        }
        tell(Event::Verified)?;
        let received = arriving.received;
        arriving.settle(blob, remote)?;
        Ok(received)
    }

    /// One attempt at what is missing.
    fn transfer(
        &self,
        remote: &Remote,
        arriving: &mut Arriving,
        progress: &mut u64,
        tell: Tell<'_>,
    ) -> Result<(), Trouble> {
        if remote.size == Some(arriving.length) && arriving.length > 0 {
            return Ok(());
        }
        let if_match = arriving.sender.clone().filter(|_| arriving.length > 0 && arriving.steady);
        let ask = Ask { from: arriving.length, if_match, head: false };
        let Followed { response, address, .. } = self.client.follow(&self.url(), &ask)?;
        let headers = response.headers().clone();
        let passing = |reason: String| Trouble::Passing { reason, pause: None };
        match response.status() {
            StatusCode::OK => {
                // The server knows no ranges, or it has the file only as a whole.
                if arriving.length > 0 {
                    arriving.restart(remote)?;
                    tell(Event::Bytes(0))?;
                }
            }
            StatusCode::PARTIAL_CONTENT => {
                let range = text(&headers, "content-range").unwrap_or_default();
                let begins = format!("bytes {}-", arriving.length);
                let ends = remote.size.map_or_else(String::new, |size| format!("/{size}"));
                if !(range.starts_with(&begins) && (range.ends_with(&ends) || range.ends_with("/*"))) {
                    let asked = format!("{}: asked for bytes from {}", self.file, arriving.length);
                    arriving.restart(remote)?;
                    return Err(passing(format!("{asked}, got `{range}`")));
                }
            }
            // What is there is longer than the file, or of another file.
            StatusCode::RANGE_NOT_SATISFIABLE | StatusCode::PRECONDITION_FAILED if arriving.length > 0 => {
                let status = response.status();
                arriving.steady &= status != StatusCode::PRECONDITION_FAILED;
                arriving.restart(remote)?;
                return Err(passing(format!("{}: status {status}, starting anew", self.file)));
            }
            _ => return Err(self.client.status(&response, &address)),
        }
        arriving.sender = text(&headers, "etag").filter(|etag| !etag.starts_with("W/"));
        let expected = text(&headers, "content-length").and_then(|length| length.parse::<u64>().ok());
        let end = remote.size.or(expected.map(|length| arriving.length + length));
        let mut body = response.into_body().into_reader();
        let mut piece = vec![0; PIECE];
        loop {
            let count = match body.read(&mut piece) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(passing(format!("{}: {error}", self.file))),
            };
            if end.is_some_and(|end| arriving.length + count as u64 > end) {
                let reason = format!("{}: the server sends more than {} bytes", self.file, end.unwrap_or(0));
                arriving.restart(remote)?;
                return Err(self.client.refuse(reason).into());
            }
            arriving.append(&piece[..count], remote)?;
            // What arrives a second time is no progress.
            *progress = arriving.length.max(*progress);
            tell(Event::Bytes(arriving.length))?;
        }
        match end {
            Some(end) if arriving.length < end => {
                Err(passing(format!("{}: the connection ended at {} of {end} bytes", self.file, arriving.length)))
            }
            _ => Ok(()),
        }
    }
}

impl Arriving {
    fn open(blob: &Path, remote: &Remote) -> Result<Self> {
        let mut name = blob.file_name().unwrap_or_default().to_owned();
        name.push(".incomplete");
        let path = blob.with_file_name(name);
        let failed = |source: io::Error| Error::Cache { path: path.clone(), needs: remote.size.unwrap_or(0), source };
        let file = File::options().read(true).write(true).create(true).truncate(false).open(&path).map_err(failed)?;
        let digest = Digest::new(&remote.etag, remote.size);
        // A hub that sends its files itself is asked whether the file is still the same.
        let sender = remote.direct.then(|| format!("\"{}\"", remote.etag));
        let mut arriving = Self { path: path.clone(), file, digest, length: 0, received: 0, sender, steady: true };
        // What is there counts for the hash as if it had just arrived.
        let mut piece = vec![0; PIECE];
        loop {
            match arriving.file.read(&mut piece).map_err(failed)? {
                0 => break,
                count => {
                    arriving.digest.update(&piece[..count]);
                    arriving.length += count as u64;
                }
            }
        }
        if remote.size.is_none_or(|size| arriving.length > size) {
            arriving.restart(remote)?;
        }
        Ok(arriving)
    }

    fn restart(&mut self, remote: &Remote) -> Result<()> {
        self.digest = Digest::new(&remote.etag, remote.size);
        self.length = 0;
        self.sender = None;
        let emptied = self.file.set_len(0).and_then(|()| self.file.seek(SeekFrom::Start(0)));
        emptied.map(|_| ()).map_err(|source| self.failed(remote, source))
    }

    fn append(&mut self, bytes: &[u8], remote: &Remote) -> Result<()> {
        self.file.write_all(bytes).map_err(|source| self.failed(remote, source))?;
        self.digest.update(bytes);
        self.length += bytes.len() as u64;
        self.received += bytes.len() as u64;
        Ok(())
    }

    /// Gives the file its final name, on the disk as well.
    fn settle(self, blob: &Path, remote: &Remote) -> Result<()> {
        let settled = self.file.sync_all().and_then(|()| fs::rename(&self.path, blob)).and_then(|()| sync_folder(blob));
        settled.map_err(|source| self.failed(remote, source))
    }

    fn failed(&self, remote: &Remote, source: io::Error) -> Error {
        Error::Cache { path: self.path.clone(), needs: remote.size.unwrap_or(0), source }
    }
}

/// Makes a rename durable; not every file system can sync a folder.
fn sync_folder(path: &Path) -> io::Result<()> {
    if cfg!(unix) {
        match path.parent().map(|folder| File::open(folder)?.sync_all()) {
            Some(Err(error)) if !matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::PermissionDenied) => {
                return Err(error);
            }
            _ => {}
        }
    }
    Ok(())
}

/// Makes `pointer` stand for `blob`, `depth` folders below the repository's; what was there is replaced at once.
fn link(blob: &Path, pointer: &Path, depth: usize) -> io::Result<()> {
    let name = blob.file_name().unwrap_or_default();
    let target: PathBuf = std::iter::repeat_n(Path::new(".."), depth).collect();
    let target = target.join("blobs").join(name);
    if fs::read_link(pointer).is_ok_and(|there| there == target) {
        return Ok(());
    }
    let folder = pointer.parent().unwrap_or(pointer);
    let beside = tempfile::Builder::new().prefix(".tweedie-").make_in(folder, |path| symlink(&target, blob, path))?;
    beside.into_temp_path().persist(pointer).map_err(|error| error.error)
}

#[cfg(unix)]
fn symlink(target: &Path, _blob: &Path, path: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, path)
}

/// Links need a privilege on Windows; a copy serves as well, which is what `huggingface_hub` makes of it.
#[cfg(windows)]
fn symlink(target: &Path, blob: &Path, path: &Path) -> io::Result<()> {
    std::os::windows::fs::symlink_file(target, path).or_else(|_| fs::copy(blob, path).map(|_| ()))
}

#[cfg(not(any(unix, windows)))]
fn symlink(_target: &Path, blob: &Path, path: &Path) -> io::Result<()> {
    fs::copy(blob, path).map(|_| ())
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

/// An etag without its quotes and its mark of weakness.
fn plain(etag: &str) -> String {
    etag.trim_start_matches("W/").trim_matches('"').to_owned()
}
