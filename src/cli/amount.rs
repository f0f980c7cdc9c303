//! Amounts of memory as they are typed: `512M`, `2GiB`, `1.5G`, `1048576`.

/// The bytes that `text` means: K, M, G and T are powers of 1024, with or without `B` or `iB`.
pub(crate) fn parse(text: &str) -> Result<u64, String> {
    const EXPECTED: &str = "expected a size from 64M on, such as 512M, 2GiB or 1.5G";
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: f64 = number.parse().map_err(|_| EXPECTED.to_string())?;
    let unit = unit.trim().to_ascii_lowercase();
    let power = match unit.trim_end_matches('b').trim_end_matches('i') {
        "" if matches!(unit.as_str(), "" | "b") => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        _ => return Err(EXPECTED.to_string()),
    };
    let bytes = number * 1024f64.powi(power);
    if !(64.0 * 1024.0 * 1024.0..=2f64.powi(62)).contains(&bytes) {
        return Err(EXPECTED.to_string());
    }
    Ok(bytes as u64)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn sizes_are_understood_as_people_type_them() {
        for (text, bytes) in [
            ("512M", 512 << 20),
            ("512mb", 512 << 20),
            ("2GiB", 2 << 30),
            ("2 GiB", 2 << 30),
            ("1.5G", 3 << 29),
            ("1T", 1 << 40),
            ("134217728", 1 << 27),
            ("134217728B", 1 << 27),
            ("131072k", 1 << 27),
        ] {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn nonsense_and_too_little_are_refused() {
        for text in ["", "G", "-1G", "2X", "2GG", "2ib", "1.2.3G", "0", "63M", "1e9T", "NaN", "99999999T"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
