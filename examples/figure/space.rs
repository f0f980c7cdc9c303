//! Points of space on paper.

/// Where one looks from, infinitely far away.
#[derive(Clone, Copy)]
pub(crate) struct View {
    /// Turn around the vertical, in radians.
    pub(crate) turn: f64,
    /// Height above the horizon, in radians.
    pub(crate) height: f64,
}

impl View {
    /// To the right, and upwards.
    pub(crate) fn project(self, [x, y, z]: [f64; 3]) -> [f64; 2] {
        let (sin, cos) = self.turn.sin_cos();
        let (right, away) = (cos * x + sin * y, -sin * x + cos * y);
        [right, self.height.cos() * z + self.height.sin() * away]
    }
}
