//! Draws from the prior itself.

use super::Mixture;
use crate::Result;
use candle_core::{Device, Tensor};
use tweedie_operators::Rng;

impl Mixture {
    /// Images of the mixture, one for each stream of `rng`; two draws, one for the component and one for the image.
    ///
    /// # Shapes
    /// Returns `[B, C, H, W]` in `f64` on the CPU.
    pub fn sample(&self, rng: &mut Rng) -> Result<Tensor> {
        let (channels, height, width) = self.shape;
        let rows = rng.streams();
        let choices = rng.uniform((rows, 1, 1, 1), &Device::Cpu)?.flatten_all()?.to_vec1::<f32>()?;
        let normals = rng.normal((rows, channels, height, width), &Device::Cpu)?.flatten_from(1)?.to_vec2::<f32>()?;
        let mut values = Vec::with_capacity(rows * self.center.len());
        for (choice, normals) in choices.into_iter().zip(normals) {
            let normals: Vec<f64> = normals.into_iter().map(f64::from).collect();
            self.transform(f64::from(choice), &normals, &mut values);
        }
        Ok(Tensor::from_vec(values, (rows, channels, height, width), &Device::Cpu)?)
    }

    /// Pushes the image that a number uniform on (0, 1) and standard normal numbers stand for.
    fn transform(&self, choice: f64, normals: &[f64], values: &mut Vec<f64>) {
        let mut below = 0.0;
        let chosen = self.components.iter().find(|component| {
            below += component.log_weight.exp();
            choice < below
        });
        // The weights add up to 1 but for rounding.
        let Some(component) = chosen.or(self.components.last()) else { return };
        let size = component.mean.len();
        let dot = |row: usize, basis: &faer::Mat<f64>| -> f64 {
            normals.iter().enumerate().map(|(j, normal)| basis[(row, j)] * normal).sum()
        };
        let coordinates: Vec<f64> = match &self.basis {
            Some(basis) => (0..size).map(|row| dot(row, basis)).collect(),
            None => normals.to_vec(),
        };
        let scaled: Vec<f64> = coordinates.iter().zip(&component.variances).map(|(u, v)| u * v.sqrt()).collect();
        let placed = |i: usize| -> f64 {
            let moved = match &component.axes {
                Some(axes) => (0..size).map(|k| axes[(i, k)] * scaled[k]).sum(),
                None => scaled[i],
            };
            component.mean[i] + moved
        };
        let placed: Vec<f64> = (0..size).map(placed).collect();
        let Some(basis) = &self.basis else {
            values.extend(self.center.iter().zip(placed).map(|(center, value)| center + value));
            return;
        };
        let std = component.rest.sqrt();
        values.extend(self.center.iter().zip(normals).enumerate().map(|(j, (center, normal))| {
            let inside: f64 = (0..size).map(|i| basis[(i, j)] * (placed[i] - std * coordinates[i])).sum();
            center + std * normal + inside
        }));
    }
}
