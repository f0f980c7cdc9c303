//! Colour profiles: kept byte for byte, so only looked at as far as needed to tell one from garbage.

use super::metadata::MAX_BLOCK;

/// The colour space that a profile converts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Space {
    Grey,
    Rgb,
    Cmyk,
}

/// Why a profile is not kept for pixels of `space`; `None` if it is.
pub(super) fn objection(profile: &[u8], space: Space) -> Option<String> {
    if profile.len() > MAX_BLOCK {
        return Some(format!("it has {} bytes, at most {MAX_BLOCK} are kept", profile.len()));
    }
    if profile.len() < 132 || &profile[36..40] != b"acsp" {
        return Some("it is damaged".into());
    }
    let u32_at = |at: usize| profile.get(at..at + 4).map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]) as usize);
    let tags = u32_at(128).unwrap_or(0);
    // Writers pad the block; they do not cut it.
    let is_whole = u32_at(0).is_some_and(|size| size <= profile.len())
        && tags <= 1000
        && (0..tags).all(|i| {
            let entry = 132 + i * 12;
            match (u32_at(entry + 4), u32_at(entry + 8)) {
                (Some(offset), Some(size)) => offset.checked_add(size).is_some_and(|end| end <= profile.len()),
                _ => false,
            }
        });
    if !is_whole {
        return Some("it is damaged".into());
    }
    let found = match &profile[16..20] {
        b"GRAY" => Space::Grey,
        b"RGB " => Space::Rgb,
        b"CMYK" => Space::Cmyk,
        other => return Some(format!("it is for colour space {:?}", String::from_utf8_lossy(other))),
    };
    (found != space).then(|| format!("it is for {found:?} pixels and these are {space:?}"))
}
