//! A relative path as the same bytes on every machine.

use std::path::{Component, Path};
use unicode_normalization::UnicodeNormalization;

/// The path with `/` between its parts and its text in composed form (NFC); bytes that are no text stay as they are.
///
/// File systems of macOS hand out decomposed names (NFD), others whatever was written: the order, the seeds and the shards
/// of a folder do not change when it is copied between them.
pub(super) fn key(relative: &Path) -> Vec<u8> {
    let mut key = Vec::with_capacity(relative.as_os_str().len());
    for part in relative.components() {
        let Component::Normal(part) = part else { continue };
        if !key.is_empty() {
            key.push(b'/');
        }
        let bytes = part.as_encoded_bytes();
        if bytes.is_ascii() {
            key.extend_from_slice(bytes);
        } else {
            each_text(bytes, |text| match text {
                Ok(text) => key.extend(text.nfc().collect::<String>().into_bytes()),
                Err(bytes) => key.extend_from_slice(bytes),
            });
        }
    }
    key
}

/// [`key`] without the difference of upper and lower case: two paths that a file system without this difference, or without
/// that of composed and decomposed text, takes for one have the same.
///
/// Every character goes to upper case and from there to lower case, which also makes `ß` and `ss`, `ſ` and `s` the same. That
/// is more than any one file system does; at worst a photo is to be renamed without need.
pub(super) fn folded(relative: &Path) -> Vec<u8> {
    let key = key(relative);
    if key.is_ascii() {
        return key.to_ascii_lowercase();
    }
    let mut folded = Vec::with_capacity(key.len());
    each_text(&key, |text| match text {
        Ok(text) => {
            let lower = text.nfd().flat_map(char::to_uppercase).flat_map(char::to_lowercase);
            folded.extend(lower.nfc().collect::<String>().into_bytes());
        }
        Err(bytes) => folded.extend_from_slice(bytes),
    });
    folded
}

fn each_text(bytes: &[u8], mut visit: impl FnMut(Result<&str, &[u8]>)) {
    for chunk in bytes.utf8_chunks() {
        visit(Ok(chunk.valid()));
        if !chunk.invalid().is_empty() {
            visit(Err(chunk.invalid()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Decompositions and foldings as the Unicode character database has them.
    #[test]
    fn the_same_name_in_other_characters_is_the_same() {
        assert_eq!(key(Path::new("./a//b.png")), b"a/b.png");
        assert_eq!(key(Path::new("cafe\u{301}/x")), "caf\u{e9}/x".as_bytes());
        assert_ne!(key(Path::new("A.jpg")), key(Path::new("a.jpg")));
        for (one, other) in [
            ("A/B.JPG", "a/b.jpg"),
            ("CAFE\u{301}.png", "caf\u{e9}.png"),
            ("Stra\u{df}e", "STRASSE"),
            ("\u{3a3}\u{3a3}", "\u{3c3}\u{3c2}"),
        ] {
            assert_eq!(folded(Path::new(one)), folded(Path::new(other)), "{one} {other}");
        }
        assert_ne!(folded(Path::new("a b")), folded(Path::new("ab")));
    }

    #[cfg(unix)]
    #[test]
    fn bytes_that_are_no_text_stay() {
        use std::os::unix::ffi::OsStrExt;
        let path = |bytes: &'static [u8]| Path::new(std::ffi::OsStr::from_bytes(bytes));
        assert_eq!(key(path(b"\xff/e\xcc\x81\xfe")), b"\xff/\xc3\xa9\xfe");
        assert_ne!(folded(path(b"\xff")), folded(path(b"\xfe")));
    }
}
