//! What a run leaves: the samples, their mean and spread, and whether they look right.

use super::Plan;
use crate::Result;
use crate::image::{Mask, Photo, Region};
use candle_core::{Device, Tensor};

/// The drawn samples.
#[derive(Debug)]
pub struct Restored {
    pub(super) samples: Vec<Photo>,
    /// Of every part, if there is more than one sample.
    pub(super) moments: Vec<Moments>,
    /// What was planned and done.
    pub plan: Plan,
    /// Seconds of sampling, without decoding and encoding.
    pub seconds: f64,
}

/// Mean and sum of squared deviations of the filled pixels of one part, over the samples so far.
#[derive(Debug)]
pub(super) struct Moments {
    region: Region,
    fill: Mask,
    count: f32,
    mean: Vec<f32>,
    squares: Vec<f32>,
}

impl Moments {
    /// Of no sample yet.
    pub(super) fn new(region: Region, fill: &Mask) -> Self {
        let values = 3 * region.width * region.height;
        let (mean, squares) = (vec![0.0; values], vec![0.0; values]);
        Self { region, fill: fill.clone(), count: 0.0, mean, squares }
    }

    /// Welford's update.
    pub(super) fn add(&mut self, values: &[f32]) {
        self.count += 1.0;
        for ((value, mean), squares) in values.iter().zip(&mut self.mean).zip(&mut self.squares) {
            let difference = value - *mean;
            *mean += difference / self.count;
            *squares += difference * (value - *mean);
        }
    }

    fn picture(&self, values: Vec<f32>) -> candle_core::Result<Tensor> {
        Tensor::from_vec(values, (3, self.region.height, self.region.width), &Device::Cpu)
    }
}

impl Restored {
    /// Number of samples.
    pub fn len(&self) -> usize {
        self.samples.len()
    }

    /// Whether there is none; never after a successful run.
    pub fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }

    /// The photo as sample `k` has it; what was not to be filled is the photo's own.
    ///
    /// # Panics
    /// If there are not so many samples.
    pub fn sample(&self, k: usize) -> &Photo {
        &self.samples[k]
    }

    /// The photo as the mean of all samples has it, taken before rounding.
    ///
    /// # Errors
    /// `Tensor` if memory runs out.
    pub fn mean(&self) -> Result<Photo> {
        let mut photo = self.samples[0].clone();
        for moments in &self.moments {
            photo.paint(moments.region, &moments.fill, &moments.picture(moments.mean.clone())?)?;
        }
        Ok(photo)
    }

    /// The standard deviation of the samples as a picture: black where known or certain; a level is a quarter of an 8-bit
    /// level of standard deviation, white 63 levels and more.
    ///
    /// # Errors
    /// `Tensor` if memory runs out.
    pub fn std(&self) -> Result<Photo> {
        let (width, height) = (self.samples[0].width(), self.samples[0].height());
        let mut photo = Photo::from_u8(width, height, 3, vec![0; width * height * 3])?;
        for moments in &self.moments {
            let divisor = (moments.count - 1.0).max(1.0);
            // A level of 8 bits is 2/255, and so is one of the picture, in [-1, 1]: four times, from black at -1.
            let level = |square: &f32| (4.0 * (square / divisor).sqrt() - 1.0).min(1.0);
            let picture = moments.picture(moments.squares.iter().map(level).collect())?;
            photo.paint(moments.region, &moments.fill, &picture)?;
        }
        Ok(photo)
    }

    /// Lines about samples that look wrong where every pixel is new: of one colour, or saturated, where the photo is not.
    ///
    /// Without a photo to compare with, as for a measurement, such samples are always told.
    pub fn warnings_of_whole(&self, photo: Option<&Photo>) -> Vec<String> {
        let everywhere = |photo: &Photo| {
            let last = photo.channels() - 1;
            let visible = move |photo: &Photo, x, y| !photo.has_alpha() || photo.sample(x, y, last) > 0;
            (saturated(photo, |x, y| visible(photo, x, y)), has_one_color(photo, |x, y| visible(photo, x, y)))
        };
        let (known, known_flat) = photo.map_or((0.0, false), everywhere);
        let of = self.samples.len();
        let found: Vec<_> = self.samples.iter().map(everywhere).collect();
        let at_end = found.iter().filter(|(share, _)| known < 0.25 && *share > 0.5).count();
        let flat = found.iter().filter(|(_, flat)| !known_flat && *flat).count();
        let mut lines = Vec::new();
        if at_end > 0 {
            lines.push(format!(
                "{at_end} of {of} samples are black or white in more than half of their pixels, {:.0} % of the photo's \
                 are: look at the picture before you use it",
                100.0 * known
            ));
        }
        if flat > 0 {
            lines.push(format!("{flat} of {of} samples have one colour only: look at the picture before you use it"));
        }
        lines
    }

    /// Lines about samples that look wrong: of one colour, or saturated, where the known surroundings are not.
    pub fn warnings(&self, photo: &Photo, mask: &Mask) -> Vec<String> {
        if mask.count() <= FEW {
            return Vec::new();
        }
        // Pixels with alpha 0 are never filled, and their colour is nobody's fault.
        let visible = |x, y| !photo.has_alpha() || photo.sample(x, y, photo.channels() - 1) > 0;
        let grown = mask.clone().grow(RIM);
        let rim = |x, y| grown.is_set(x, y) && !mask.is_set(x, y) && visible(x, y);
        let filled = |x, y| mask.is_set(x, y) && visible(x, y);
        let known = saturated(photo, rim);
        let is_saturated = |sample: &Photo| known < 0.25 && saturated(sample, filled) > 0.5;
        let varies_around = !has_one_color(photo, rim);
        let (mut at_end, mut flat) = (0, 0);
        for sample in &self.samples {
            if is_saturated(sample) {
                at_end += 1;
            } else if varies_around && has_one_color(sample, filled) {
                flat += 1;
            }
        }
        let of = self.samples.len();
        let mut lines = Vec::new();
        if at_end > 0 {
            lines.push(format!(
                "{at_end} of {of} samples are black or white in more than half of the filled pixels, {:.0} % of what \
                 surrounds them is: look at the picture before you use it",
                100.0 * known
            ));
        }
        if flat > 0 {
            lines.push(format!(
                "{flat} of {of} samples have one colour in all filled pixels, what surrounds them has more: look at the \
                 picture before you use it"
            ));
        }
        lines
    }
}

/// So few filled pixels may well be all alike.
const FEW: usize = 64;

/// Width in pixels of the known surroundings that filled pixels are compared with.
const RIM: f64 = 2.0;

/// The share of black or white pixels among those at which `is_one`; 0 if there is none.
fn saturated(photo: &Photo, is_one: impl Fn(usize, usize) -> bool) -> f64 {
    let (mut all, mut at_end) = (0_usize, 0_usize);
    for y in 0..photo.height() {
        for x in (0..photo.width()).filter(|&x| is_one(x, y)) {
            let end = |c: usize| [0, photo.max_value()].contains(&photo.sample(x, y, c));
            all += 1;
            at_end += usize::from((0..photo.color_channels()).all(end));
        }
    }
    at_end as f64 / all.max(1) as f64
}

/// Whether all pixels at which `is_one` have the same colour; true if there is none.
fn has_one_color(photo: &Photo, is_one: impl Fn(usize, usize) -> bool) -> bool {
    let mut first = None;
    (0..photo.height()).all(|y| {
        (0..photo.width()).filter(|&x| is_one(x, y)).all(|x| {
            let (u, v) = *first.get_or_insert((x, y));
            (0..photo.color_channels()).all(|c| photo.sample(x, y, c) == photo.sample(u, v, c))
        })
    })
}
