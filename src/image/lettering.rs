//! Words on pictures.

use embedded_graphics::mono_font::MonoTextStyle;
use embedded_graphics::pixelcolor::Rgb888;
use embedded_graphics::prelude::{DrawTarget, Drawable, OriginDimensions, Pixel, Point, RgbColor, Size};
use embedded_graphics::text::{Baseline, Text};
use image::ImageBuffer;

/// Writes `text` with its upper left corner at `(left, top)`; what leaves the picture is cut off.
pub(crate) fn write<P: image::Pixel<Subpixel = u8>>(
    picture: &mut ImageBuffer<P, Vec<u8>>,
    text: &str,
    (left, top): (u32, u32),
    style: MonoTextStyle<'_, Rgb888>,
) {
    let at = Point::new(left as i32, top as i32);
    let Ok(_) = Text::with_baseline(text, at, style, Baseline::Top).draw(&mut Canvas(picture));
}

/// What the text renderer draws on.
struct Canvas<'a, P: image::Pixel<Subpixel = u8>>(&'a mut ImageBuffer<P, Vec<u8>>);

impl<P: image::Pixel<Subpixel = u8>> OriginDimensions for Canvas<'_, P> {
    fn size(&self) -> Size {
        Size::new(self.0.width(), self.0.height())
    }
}

impl<P: image::Pixel<Subpixel = u8>> DrawTarget for Canvas<'_, P> {
    type Color = Rgb888;
    type Error = std::convert::Infallible;

    fn draw_iter<I: IntoIterator<Item = Pixel<Rgb888>>>(&mut self, pixels: I) -> Result<(), Self::Error> {
        for Pixel(Point { x, y }, colour) in pixels {
            if let Ok((x, y)) = u32::try_from(x).and_then(|x| Ok((x, u32::try_from(y)?)))
                && let Some(pixel) = self.0.get_pixel_mut_checked(x, y)
            {
                // Opaque where there is an alpha.
                let samples = [colour.r(), colour.g(), colour.b(), u8::MAX];
                *pixel = *P::from_slice(&samples[..usize::from(P::CHANNEL_COUNT)]);
            }
        }
        Ok(())
    }
}
