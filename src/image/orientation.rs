//! The eight orientations of a photo.

/// How stored pixels are turned to be upright: the EXIF tag's values 1 to 8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Orientation(u8);

impl Orientation {
    pub(super) const UPRIGHT: Self = Self(1);

    /// `None` for a value that means nothing.
    pub(super) fn from_tag(value: u32) -> Option<Self> {
        (1..=8).contains(&value).then_some(Self(value as u8))
    }

    pub(super) fn is_upright(self) -> bool {
        self == Self::UPRIGHT
    }

    /// Whether turning exchanges width and height.
    pub(super) fn swaps_sides(self) -> bool {
        self.0 >= 5
    }

    /// The upright size of a stored `width × height`.
    pub(super) fn size(self, width: usize, height: usize) -> (usize, usize) {
        if self.swaps_sides() { (height, width) } else { (width, height) }
    }

    /// The samples of a stored `width × height`, turned upright.
    pub(super) fn turn<T: Copy>(self, samples: Vec<T>, width: usize, height: usize, channels: usize) -> Vec<T> {
        if self.is_upright() {
            return samples;
        }
        let (upright_width, upright_height) = self.size(width, height);
        let (last_x, last_y) = (width - 1, height - 1);
        let mut upright = Vec::with_capacity(samples.len());
        for y in 0..upright_height {
            for x in 0..upright_width {
                let (stored_x, stored_y) = match self.0 {
                    2 => (last_x - x, y),
                    3 => (last_x - x, last_y - y),
                    4 => (x, last_y - y),
                    5 => (y, x),
                    6 => (y, last_y - x),
                    7 => (last_x - y, last_y - x),
                    8 => (last_x - y, x),
                    _ => (x, y),
                };
                let at = (stored_y * width + stored_x) * channels;
                upright.extend_from_slice(&samples[at..at + channels]);
            }
        }
        upright
    }
}
