//! Integration tests.

// Mixtures of Gaussians, where everything is a formula.
mod analytic;
// The direction of imports.
mod architecture;
// The binary, from the outside.
mod cli;
// A folder to run the binary in, photos and masks.
mod harness;
// Photos, masks, metadata, files.
mod image;
// The main job as a library call.
mod inpaint;
// Networks and their files.
mod models;
// The commands about operators.
mod operators_cli;
// The commands that restore whole photos.
mod restoring_cli;
// Particle methods against exact posteriors.
mod particles;
// Samplers against exact posteriors.
mod posterior;
// Denoisers, padded and tiled.
mod priors;
