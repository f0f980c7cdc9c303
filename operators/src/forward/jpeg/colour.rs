//! Pixels to luma and chroma, and back.
//!
//! ITU-T T.871 (JFIF): the weights of ITU-R BT.601, all components over 0 to 255. Samples here are level-shifted: 128 less
//! for luma, and chroma around 0.

use crate::function::clamp;
use crate::map::Real;

/// Levels per unit of a pixel.
const LEVELS: f64 = 127.5;
/// Luma weights.
const RED: f64 = 0.299;
const GREEN: f64 = 0.587;
const BLUE: f64 = 0.114;
/// `Cb = (B − Y) / 1.772`, `Cr = (R − Y) / 1.402`.
const CB: f64 = 1.772;
const CR: f64 = 1.402;

/// Rows of pixels to rows of samples.
pub(super) struct Colour {
    /// Whether to round as a codec does.
    pub(super) exact: bool,
}

/// The nearest of the levels 0 to 255 for a pixel.
#[inline]
fn level<T: Real>(x: T) -> i32 {
    clamp(((x + T::one()) * T::of(LEVELS)).round(), 0.0, 255.0).to_i32().unwrap_or(0)
}

/// The pixel of a level, clipped to 0 to 255.
#[inline]
fn pixel<T: Real>(level: i32) -> T {
    T::of(f64::from(level.clamp(0, 255)) / LEVELS - 1.0)
}

/// Codecs reckon in integers, with weights in units of 2⁻¹⁶.
const UNIT: f64 = 65536.0;
const HALF: i32 = 32768;

const fn fixed(weight: f64) -> i32 {
    (weight * UNIT + 0.5) as i32
}

/// One matrix for a row: `out_i = scale Σ_j m_ij in_j + offset_i`.
#[inline]
fn mix<T: Real, const N: usize>(matrix: [[f64; 3]; N], scale: f64, rows: [&[T]; 3], out: [&mut [T]; N]) {
    for (weights, out) in matrix.into_iter().zip(out) {
        let [a, b, c] = weights.map(|weight| T::of(weight * scale));
        for (((out, &x), &y), &z) in out.iter_mut().zip(rows[0]).zip(rows[1]).zip(rows[2]) {
            *out = a * x + b * y + c * z;
        }
    }
}

/// Rows: Y, Cb, Cr; columns: R, G, B.
const TO_COMPONENTS: [[f64; 3]; 3] =
    [[RED, GREEN, BLUE], [-RED / CB, -GREEN / CB, (1.0 - BLUE) / CB], [(1.0 - RED) / CR, -GREEN / CR, -BLUE / CR]];

/// Rows: R, G, B; columns: Y, Cb, Cr.
const TO_LEVELS: [[f64; 3]; 3] = [[1.0, 0.0, CR], [1.0, -BLUE * CB / GREEN, -RED * CR / GREEN], [1.0, CB, 0.0]];

const fn transposed(matrix: [[f64; 3]; 3]) -> [[f64; 3]; 3] {
    let [[a, b, c], [d, e, f], [g, h, i]] = matrix;
    [[a, d, g], [b, e, h], [c, f, i]]
}

impl Colour {
    /// Luma, Cb and Cr of a row; the results may be longer than the row.
    pub(super) fn components<T: Real>(&self, rgb: [&[T]; 3], [luma, cb, cr]: [&mut [T]; 3]) {
        if !self.exact {
            mix(TO_COMPONENTS, LEVELS, rgb, [&mut *luma, cb, cr]);
            // Level 127.5 is pixel 0, the middle of samples is 128.
            return luma.iter_mut().for_each(|luma| *luma -= T::of(0.5));
        }
        let samples = luma.iter_mut().zip(cb).zip(cr);
        for (((luma, cb), cr), ((&r, &g), &b)) in samples.zip(rgb[0].iter().zip(rgb[1]).zip(rgb[2])) {
            let (r, g, b) = (level(r), level(g), level(b));
            let y = (fixed(0.299) * r + fixed(0.587) * g + fixed(0.114) * b + HALF) >> 16;
            // Halves go down for chroma.
            let blue = (HALF * b - fixed(0.16874) * r - fixed(0.33126) * g + HALF - 1) >> 16;
            let red = (HALF * r - fixed(0.41869) * g - fixed(0.08131) * b + HALF - 1) >> 16;
            *luma = T::of(f64::from(y - 128));
            *cb = T::of(f64::from(blue));
            *cr = T::of(f64::from(red));
        }
    }

    /// Luma of a grey row.
    pub(super) fn grey<T: Real>(&self, x: &[T], luma: &mut [T]) {
        for (luma, &x) in luma.iter_mut().zip(x) {
            *luma = if self.exact { T::of(f64::from(level(x) - 128)) } else { x * T::of(LEVELS) - T::of(0.5) };
        }
    }

    /// Pixels of a row of samples.
    pub(super) fn levels<T: Real>(&self, components: [&[T]; 3], [red, green, blue]: [&mut [T]; 3]) {
        if !self.exact {
            mix(TO_LEVELS, 1.0 / LEVELS, components, [&mut *red, &mut *green, &mut *blue]);
            let offset = T::of(0.5 / LEVELS);
            for row in [red, green, blue] {
                row.iter_mut().for_each(|value| *value += offset);
            }
            return;
        }
        let whole = |value: T| value.to_i32().unwrap_or(0);
        let pixels = red.iter_mut().zip(green).zip(blue);
        let [luma, cb, cr] = components;
        for (((red, green), blue), ((&luma, &cb), &cr)) in pixels.zip(luma.iter().zip(cb).zip(cr)) {
            let (y, cb, cr) = (whole(luma) + 128, whole(cb), whole(cr));
            *red = pixel(y + ((fixed(1.402) * cr + HALF) >> 16));
            *green = pixel(y + ((HALF - fixed(0.34414) * cb - fixed(0.71414) * cr) >> 16));
            *blue = pixel(y + ((fixed(1.772) * cb + HALF) >> 16));
        }
    }

    /// Pixels of a row of luma.
    pub(super) fn level<T: Real>(&self, luma: &[T], y: &mut [T]) {
        for (y, &luma) in y.iter_mut().zip(luma) {
            *y = match self.exact {
                true => pixel(luma.to_i32().unwrap_or(0) + 128),
                false => (luma + T::of(0.5)) * T::of(1.0 / LEVELS),
            };
        }
    }

    /// Transpose of [`components`](Self::components) without rounding.
    pub(super) fn components_transposed<T: Real>(&self, components: [&[T]; 3], rgb: [&mut [T]; 3]) {
        mix(transposed(TO_COMPONENTS), LEVELS, components, rgb);
    }

    /// Transpose of [`grey`](Self::grey) without rounding.
    pub(super) fn grey_transposed<T: Real>(&self, luma: &[T], x: &mut [T]) {
        x.iter_mut().zip(luma).for_each(|(x, &luma)| *x = luma * T::of(LEVELS));
    }

    /// Transpose of [`level`](Self::level) without rounding.
    pub(super) fn level_transposed<T: Real>(&self, y: &[T], luma: &mut [T]) {
        luma.iter_mut().zip(y).for_each(|(luma, &y)| *luma = y * T::of(1.0 / LEVELS));
    }

    /// The luma of the transpose of [`levels`](Self::levels) without rounding.
    pub(super) fn luma_transposed<T: Real>(&self, rgb: [&[T]; 3], luma: &mut [T]) {
        let [luma_row, ..] = transposed(TO_LEVELS);
        mix([luma_row], 1.0 / LEVELS, rgb, [luma]);
    }

    /// The chroma of the transpose of [`levels`](Self::levels) without rounding.
    pub(super) fn chroma_transposed<T: Real>(&self, rgb: [&[T]; 3], chroma: [&mut [T]; 2]) {
        let [_, cb, cr] = transposed(TO_LEVELS);
        mix([cb, cr], 1.0 / LEVELS, rgb, chroma);
    }
}
