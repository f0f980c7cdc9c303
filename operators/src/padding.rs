//! What lies beyond the border of an image.

use serde::Deserialize;

use crate::{Error, Result};

/// How an image goes on beyond its border, by the word that configurations use; `a b c` stands for one of its lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Padding {
    /// `b c | a b c | a b`
    Circular,
    /// `0 0 | a b c | 0 0`
    Zero,
    /// `c b | a b c | b a`
    Reflect,
    /// `a a | a b c | c c`
    Replicate,
    /// `b a | a b c | c b`
    Symmetric,
    /// `| a b c |`, nothing: a measurement holds the pixels whose whole neighbourhood is inside. Only blurs know it.
    Valid,
}

impl Padding {
    /// Refuses a border of nothing in the name of an operator whose measurements have one size whatever the kernel.
    pub(crate) fn fills(self, name: &str) -> Result<()> {
        match self {
            Self::Valid => {
                let reason = "padding is valid, expected circular, zero, reflect, replicate or symmetric";
                Err(Error::config(name, reason))
            }
            _ => Ok(()),
        }
    }

    /// Which of `size ≥ 1` pixels is seen at `index`; none where the border is zero or nothing.
    pub(crate) fn pixel(self, index: i64, size: usize) -> Option<usize> {
        let size = size as i64;
        let mirrored = |period: i64, last: i64| match index.rem_euclid(period) {
            inside if inside < size => inside,
            outside => last - outside,
        };
        let pixel = match self {
            Self::Circular => index.rem_euclid(size),
            Self::Zero | Self::Valid => return (0..size).contains(&index).then_some(index as usize),
            Self::Reflect => mirrored((2 * size - 2).max(1), 2 * size - 2),
            Self::Replicate => index.clamp(0, size - 1),
            Self::Symmetric => mirrored(2 * size, 2 * size - 1),
        };
        Some(pixel as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_go_on_as_drawn() {
        let drawn = |padding: Padding, size: usize| -> String {
            let letter = |index| padding.pixel(index, size).map_or('0', |pixel| (b'a' + pixel as u8) as char);
            (-5..8).map(letter).collect()
        };
        assert_eq!(drawn(Padding::Circular, 3), "bcabcabcabcab");
        assert_eq!(drawn(Padding::Zero, 3), "00000abc00000");
        assert_eq!(drawn(Padding::Reflect, 3), "babcbabcbabcb");
        assert_eq!(drawn(Padding::Replicate, 3), "aaaaaabcccccc");
        assert_eq!(drawn(Padding::Symmetric, 3), "bccbaabccbaab");
        for padding in [Padding::Circular, Padding::Reflect, Padding::Replicate, Padding::Symmetric] {
            assert_eq!(drawn(padding, 1), "aaaaaaaaaaaaa", "{padding:?}");
        }
    }
}
