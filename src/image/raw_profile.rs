//! IPTC in a text chunk of a PNG, in the form that ImageMagick made common: `Raw profile type iptc`, then the name, the
//! number of bytes, and the bytes in hexadecimal.

use super::jpeg::{find_iptc, photoshop_resource};

/// Keywords of text chunks that hold IPTC; under the second one other resources may stand beside it.
pub(super) const IPTC_KEYWORDS: [&str; 2] = ["Raw profile type iptc", "Raw profile type 8bim"];
/// Bytes a line.
const LINE: usize = 36;
/// What every IPTC record begins with.
const RECORD: u8 = 0x1c;

/// A text chunk of the Photoshop resource that holds the records.
pub(super) fn of_iptc(iptc: &[u8]) -> Vec<u8> {
    let resource = photoshop_resource(iptc);
    let mut text = format!("{}\0\niptc\n{:8}", IPTC_KEYWORDS[0], resource.len());
    for (i, byte) in resource.iter().enumerate() {
        if i % LINE == 0 {
            text.push('\n');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text.push('\n');
    text.into_bytes()
}

/// The records of a chunk's text, of Photoshop's resources or alone; `None` if there are none, or not all of the bytes.
pub(super) fn iptc(text: &str) -> Option<Vec<u8>> {
    let mut lines = text.trim_start().splitn(3, '\n');
    let (_name, length, digits) = (lines.next()?, lines.next()?, lines.next()?);
    let length: usize = length.trim().parse().ok()?;
    let digits = digits.bytes().filter(|digit| !digit.is_ascii_whitespace());
    let digits: Vec<u8> =
        digits.map(|digit| char::from(digit).to_digit(16).map(|digit| digit as u8)).collect::<Option<_>>()?;
    let bytes: Vec<u8> = digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect();
    let bytes = bytes.get(..length)?;
    if bytes.first() == Some(&RECORD) { Some(bytes.into()) } else { find_iptc(bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The forms that ImageMagick and ExifTool write.
    #[test]
    fn records_are_found_alone_and_among_other_resources() {
        let caption = b"\x1c\x02\x78\x00\x03sea";
        assert_eq!(iptc("\niptc\n       8\n1c02780003736561\n").unwrap(), caption);
        let resources = "\n8bim\n      34\n3842494d03ed0000000000024848\n3842494d04040000000000081c02780003736561\n";
        assert_eq!(iptc(resources).unwrap(), caption);
        for text in ["", "\niptc\n", "\niptc\n9\n1c02780003736561", "\niptc\n8\n1c0278000373656x", "\niptc\n2\n0000"] {
            assert!(iptc(text).is_none(), "{text}");
        }
    }
}
