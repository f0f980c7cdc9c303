//! Which pixels are to be filled.

use candle_core::{Device, Tensor};

use super::Region;
use super::distance::squared_distances;

/// Which pixels are to be filled, in the upright frame of the photo: one flag per pixel.
#[derive(Clone, Debug)]
pub struct Mask {
    width: usize,
    height: usize,
    /// Row by row.
    set: Vec<bool>,
    pub(super) warnings: Vec<String>,
}

const NOTHING: &str = "nothing masked";
const EVERYTHING: &str = "everything is masked: the whole image will be invented";

/// Two masks are equal if the same pixels are set; remarks do not count.
impl PartialEq for Mask {
    fn eq(&self, other: &Self) -> bool {
        (self.width, self.height, &self.set) == (other.width, other.height, &other.set)
    }
}

impl Mask {
    /// The mask of the pixels at which `is_set(x, y)`.
    pub fn from_fn(width: usize, height: usize, mut is_set: impl FnMut(usize, usize) -> bool) -> Self {
        let mut set = Vec::with_capacity(width * height);
        for y in 0..height {
            set.extend((0..width).map(|x| is_set(x, y)));
        }
        Self { width, height, set, warnings: Vec::new() }
    }

    /// Whether pixel `(x, y)` is to be filled.
    /// # Panics
    /// Outside the mask.
    pub fn is_set(&self, x: usize, y: usize) -> bool {
        assert!(x < self.width && y < self.height, "({x}, {y}) is outside {}x{}", self.width, self.height);
        self.set[y * self.width + x]
    }

    pub(super) fn is_pixel_set(&self, pixel: usize) -> bool {
        self.set[pixel]
    }

    /// Width in pixels.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Height in pixels.
    pub fn height(&self) -> usize {
        self.height
    }

    /// Number of pixels to be filled.
    pub fn count(&self) -> usize {
        self.set.iter().filter(|&&set| set).count()
    }

    /// Remarks from [`Mask::open`], one line each.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The smallest region with all pixels to be filled; `None` if there is none.
    pub fn bounding_box(&self) -> Option<Region> {
        let (mut left, mut right) = (usize::MAX, 0);
        let (mut top, mut bottom) = (usize::MAX, 0);
        for (y, row) in self.set.chunks(self.width.max(1)).enumerate() {
            if let (Some(first), Some(last)) = (row.iter().position(|&set| set), row.iter().rposition(|&set| set)) {
                left = left.min(first);
                right = right.max(last);
                top = top.min(y);
                bottom = y;
            }
        }
        (top != usize::MAX).then(|| Region { x: left, y: top, width: right - left + 1, height: bottom - top + 1 })
    }

    /// Exchanges filled and known pixels.
    #[must_use]
    pub fn invert(mut self) -> Self {
        self.set.iter_mut().for_each(|set| *set = !*set);
        self
    }

    /// Remarks on a mask of nothing or of everything, which take the place of earlier ones.
    pub(super) fn remark_on_extent(&mut self) {
        self.warnings.retain(|warning| warning != NOTHING && warning != EVERYTHING);
        match self.count() {
            0 => self.warnings.push(NOTHING.into()),
            count if count == self.set.len() => self.warnings.push(EVERYTHING.into()),
            _ => {}
        }
    }

    /// Pixels of either mask.
    /// # Panics
    /// If the sizes differ.
    #[must_use]
    pub fn union(mut self, other: &Self) -> Self {
        assert_eq!((self.width, self.height), (other.width, other.height), "masks differ in size");
        self.set.iter_mut().zip(&other.set).for_each(|(set, &other)| *set |= other);
        self.remark_on_extent();
        self
    }

    /// Adds all pixels whose centre is at most `radius` pixels from that of a masked one, in Euclidean distance.
    ///
    /// A radius of zero or less changes nothing.
    #[must_use]
    pub fn grow(mut self, radius: f64) -> Self {
        if radius > 0.0 {
            let mut grown = Vec::with_capacity(self.set.len());
            squared_distances(
                self.width,
                self.height,
                |i| self.set[i],
                |_, row| {
                    grown.extend(row.iter().map(|d| d.is_some_and(|d| d as f64 <= radius * radius)));
                },
            );
            self.set = grown;
        }
        self
    }

    /// Euclidean distance in pixels of every masked pixel to the nearest known one, row by row: 0 where known,
    /// infinite if nothing is known.
    pub fn distance(&self) -> Vec<f32> {
        let mut distances = Vec::with_capacity(self.set.len());
        squared_distances(
            self.width,
            self.height,
            |i| !self.set[i],
            |_, row| {
                distances.extend(row.iter().map(|d| d.map_or(f32::INFINITY, |d| (d as f64).sqrt() as f32)));
            },
        );
        distances
    }

    /// The pixels of `region` as a mask of their own.
    /// # Panics
    /// If the region leaves the mask.
    pub fn crop(&self, region: Region) -> Self {
        Self::from_fn(region.width, region.height, |x, y| self.is_set(region.x + x, region.y + y))
    }

    /// The observation mask of a region: 1 where the photo is known, 0 where it is to be filled.
    ///
    /// # Shapes
    /// Returns `[1, 1, h, w]`, `f32`.
    /// # Errors
    /// If the region is empty or leaves the mask.
    pub fn tensor(&self, region: Region, device: &Device) -> candle_core::Result<Tensor> {
        if !region.fits(self.width, self.height) {
            candle_core::bail!("region {region:?} is not inside the mask, {}x{}", self.width, self.height);
        }
        let values: Vec<f32> = (0..region.height)
            .flat_map(|y| &self.set[(region.y + y) * self.width + region.x..][..region.width])
            .map(|&set| if set { 0.0 } else { 1.0 })
            .collect();
        Tensor::from_vec(values, (1, 1, region.height, region.width), device)
    }
}
