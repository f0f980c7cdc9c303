//! Amounts of memory and time as they are typed: `512M`, `2GiB`, `1.5G`, `1048576`; `20s`, `1.5m`, `2h`, `20`.

use std::time::Duration;

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

/// The time that `text` means: seconds, or a number with `s`, `m` or `h`.
pub(crate) fn parse_time(text: &str) -> Result<Duration, String> {
    const EXPECTED: &str = "expected a time of at least a second, such as 20s, 1.5m or 2h";
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: f64 = number.parse().map_err(|_| EXPECTED.to_string())?;
    let seconds = match unit.trim() {
        "" | "s" => number,
        "m" | "min" => 60.0 * number,
        "h" => 3600.0 * number,
        _ => return Err(EXPECTED.to_string()),
    };
    // A year is no limit.
    if (1.0..=365.0 * 86_400.0).contains(&seconds) {
        Ok(Duration::from_secs_f64(seconds))
    } else {
        Err(EXPECTED.into())
    }
}

#[cfg(test)]
mod tests {
    use super::{parse, parse_time};
    use std::time::Duration;

    #[test]
    fn times_are_understood_as_people_type_them() {
        for (text, seconds) in [("20", 20.0), ("20s", 20.0), ("1.5m", 90.0), ("5 min", 300.0), ("2h", 7200.0)] {
            assert_eq!(parse_time(text), Ok(Duration::from_secs_f64(seconds)), "{text}");
        }
        for text in ["", "s", "-3", "0.5", "3d", "1e9h", "NaN"] {
            assert!(parse_time(text).is_err(), "{text}");
        }
    }

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
