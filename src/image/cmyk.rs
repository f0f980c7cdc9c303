//! Ink to light: CMYK becomes sRGB, the only conversion of colour that is made.

use moxcms::{ColorProfile, Layout, TransformOptions};

use super::icc::{self, Space};

/// Converts interleaved ink amounts (0 = no ink) to sRGB, through `profile` if it is a usable one, else by
/// `R = (1 − C)(1 − K)`. Says which.
pub(super) fn to_srgb(inks: &[u8], width: usize, profile: Option<&[u8]>) -> (Vec<u8>, &'static str) {
    let mut rgb = vec![0; inks.len() / 4 * 3];
    if let Some(profile) = profile
        && icc::objection(profile, Space::Cmyk).is_none()
        && let Ok(source) = ColorProfile::new_from_slice(profile)
        && let Ok(transform) = source.create_transform_8bit(
            Layout::Rgba,
            &ColorProfile::new_srgb(),
            Layout::Rgb,
            TransformOptions::default(),
        )
        && inks
            .chunks_exact(width * 4)
            .zip(rgb.chunks_exact_mut(width * 3))
            .all(|(inks, rgb)| transform.transform(inks, rgb).is_ok())
    {
        return (rgb, "through its ICC profile");
    }
    for (ink, light) in inks.chunks_exact(4).zip(rgb.chunks_exact_mut(3)) {
        let paper = 255 - u32::from(ink[3]);
        for (light, &ink) in light.iter_mut().zip(ink) {
            *light = (((255 - u32::from(ink)) * paper + 127) / 255) as u8;
        }
    }
    (rgb, "without an ICC profile, so colours are approximate")
}
