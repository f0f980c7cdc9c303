//! What a photo of a batch will cost, before it is restored.

use super::decoder::decoded_bytes;
use super::fitting::{check_decoded, fitted};
use super::recipe::{Prepared, Recipe};
use super::{BySettings, Item};
use crate::image::{ImageError, Photo};
use crate::{Result, Work, program_memory};
use std::collections::HashMap;

/// What a photo will cost.
#[derive(Clone, Debug)]
pub struct Forecast {
    /// Width of the photo in pixels.
    pub width: usize,
    /// Height of the photo in pixels.
    pub height: usize,
    /// Width of the result.
    pub output_width: usize,
    /// Height of the result.
    pub output_height: usize,
    /// Pixels to be filled; `None` where all are new.
    pub masked_pixels: Option<usize>,
    /// What will be done. Its time is from one measured evaluation of the model.
    pub plan: crate::Plan,
}

/// Makes forecasts. Where every pixel is new, photos of one size cost the same: only the first of them is decoded.
#[derive(Debug)]
pub struct Forecaster<'a> {
    recipe: &'a BySettings<'a>,
    memory: Option<u64>,
    known: HashMap<(u32, u32), Forecast>,
}

impl<'a> Forecaster<'a> {
    /// For a run that may use so many bytes of memory.
    pub fn new(recipe: &'a BySettings<'a>, memory: Option<u64>) -> Self {
        Self { recipe, memory, known: HashMap::new() }
    }

    /// What `item` will cost.
    ///
    /// # Errors
    /// What its restoration would fail with, as far as that shows before.
    pub fn forecast(&mut self, item: &Item) -> Result<Forecast> {
        let path = item.path();
        let content = std::fs::read(&path).map_err(|source| ImageError::Read { path: path.clone(), source })?;
        let size = Photo::announced_size(&content, &path)?.filter(|_| !item.has_sidecar && item.mask.is_none());
        if let Some(known) = size.and_then(|size| self.known.get(&size)) {
            return Ok(known.clone());
        }
        let model = self.recipe.model;
        check_decoded(decoded_bytes(&content, &path), self.memory, program_memory(model))?;
        let Prepared { photo, work, options, .. } = self.recipe.prepare(item, &content)?;
        let plan = fitted(&work, &photo, &options, model, self.memory)?.plan().clone();
        let canvas = work.canvas(&photo);
        let forecast = Forecast {
            width: photo.width(),
            height: photo.height(),
            output_width: canvas.width(),
            output_height: canvas.height(),
            masked_pixels: work.mask().map(crate::image::Mask::count),
            plan,
        };
        if let (Some(size), Work::Whole(_)) = (size, &work) {
            self.known.insert(size, forecast.clone());
        }
        Ok(forecast)
    }
}
