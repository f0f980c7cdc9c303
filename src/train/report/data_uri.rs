//! Pictures inside a page.

/// A PNG as `data:image/png;base64,…`.
pub(super) fn data_uri(png: &[u8]) -> String {
    let mut text = String::from("data:image/png;base64,");
    text.reserve(png.len().div_ceil(3) * 4);
    encode(png, &mut text);
    text
}

/// Base 64 of RFC 4648, <https://www.rfc-editor.org/rfc/rfc4648#section-4>.
fn encode(bytes: &[u8], text: &mut String) {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for group in bytes.chunks(3) {
        let bits = (0..3).fold(0_u32, |bits, index| bits << 8 | u32::from(*group.get(index).unwrap_or(&0)));
        for letter in 0..4 {
            let index = (bits >> (18 - 6 * letter)) & 63;
            text.push(if letter <= group.len() { char::from(LETTERS[index as usize]) } else { '=' });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_64_is_that_of_the_rfc() {
        let cases =
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("foobar", "Zm9vYmFy")];
        for (bytes, expected) in cases {
            let mut text = String::new();
            encode(bytes.as_bytes(), &mut text);
            assert_eq!(text, expected);
        }
        let mut text = String::new();
        encode(&[0xfb, 0xff, 0xbf], &mut text);
        assert_eq!(text, "+/+/");
    }
}
