//! What the hub promises about a file's contents, and whether they keep it.

use super::hash::is_hash;
use crate::digest::hexadecimal;
use sha1::Sha1;
use sha2::{Digest as _, Sha256};

/// The hashes of a file while it arrives.
///
/// A large file's etag is the SHA-256 of its contents; a small one's is git's name of a blob, the SHA-1 of
/// `blob <size>\0` and the contents (<https://git-scm.com/book/en/v2/Git-Internals-Git-Objects>). A mirror may make up
/// etags of its own, which promise nothing.
#[derive(Clone)]
pub(super) struct Digest {
    sha256: Sha256,
    git: Option<Sha1>,
}

impl Digest {
    /// Of a file with this etag, and of this size if it is known.
    pub(super) fn new(etag: &str, size: Option<u64>) -> Self {
        let git = size.filter(|_| is_hash(etag, 40)).map(|size| Sha1::new().chain_update(format!("blob {size}\0")));
        Self { sha256: Sha256::new(), git }
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.sha256.update(bytes);
        if let Some(git) = &mut self.git {
            git.update(bytes);
        }
    }

    /// Whether the contents are what `etag` and `stated`, a SHA-256, promise.
    ///
    /// # Errors
    /// The kind of hash, what was expected and what was got.
    pub(super) fn check(self, etag: &str, stated: Option<&str>) -> Result<(), String> {
        let sha256 = hexadecimal(&self.sha256.finalize());
        let promised = is_hash(etag, 64).then_some(etag);
        for expected in [stated, promised].into_iter().flatten() {
            if sha256 != expected {
                return Err(format!("SHA-256 mismatch: got {sha256}, expected {expected}"));
            }
        }
        match self.git.map(|git| hexadecimal(&git.finalize())) {
            Some(git) if git != etag => Err(format!("git hash mismatch: got {git}, expected {etag}")),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // `printf 'hello\n' | git hash-object --stdin` and `printf 'hello\n' | sha256sum`.
    const GIT: &str = "ce013625030ba8dba906f756967f9e9ca394464a";
    const SHA256: &str = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";

    #[test]
    fn both_kinds_of_etag_are_checked_and_others_promise_nothing() {
        let digest = |etag: &str, contents: &str| {
            let mut digest = Digest::new(etag, Some(6));
            contents.as_bytes().chunks(4).for_each(|piece| digest.update(piece));
            digest
        };
        for etag in [GIT, SHA256, "made-up"] {
            digest(etag, "hello\n").check(etag, Some(SHA256)).unwrap();
            digest(etag, "hello\n").check(etag, None).unwrap();
            assert!(
                digest(etag, "hellO\n").check(etag, Some(SHA256)).unwrap_err().starts_with("SHA-256 mismatch: got ")
            );
            assert_eq!(digest(etag, "hellO\n").check(etag, None).is_ok(), etag == "made-up");
        }
        assert!(digest(GIT, "hellO\n").check(GIT, None).unwrap_err().starts_with("git hash mismatch: got "));
    }
}
