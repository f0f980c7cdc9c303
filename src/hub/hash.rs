//! Hashes as the hub writes them.

/// Whether `text` is a hash of this many hexadecimal digits, as the hub writes it.
pub(super) fn is_hash(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::is_hash;

    #[test]
    fn hashes_have_their_digits_in_lower_case() {
        let hash = "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0";
        assert!(is_hash(hash, 64) && !is_hash(hash, 40) && !is_hash(&hash.to_uppercase(), 64));
    }
}
