//! Integration tests.

// Mixtures of Gaussians, where everything is a formula.
mod analytic;
// The direction of imports.
mod architecture;
// Whole folders, from the outside.
mod batch_cli;
// Files of tensors, genuine and hostile.
mod checkpoints;
// Photos of a batch on their way through the pipeline, and everything that can stop them.
mod batch_pipeline;
// The binary, from the outside.
mod cli;
// What fuzzing starts from and what it found.
mod fuzz;
// Small networks of every family, as their programs store them.
mod goldens;
// A folder to run the binary in, photos and masks.
mod harness;
// Methods that are exact for every Gaussian.
mod exactness;
// Which photos a batch is of, and the record of what was done.
mod batch_record;
// Photos, masks, metadata, files.
mod image;
// How likely images are.
mod likelihood;
// Fetching models from a hub on loopback, with everything that can go wrong.
#[cfg(feature = "hub")]
mod hub;
// The main job as a library call.
mod inpaint;
// Tables of methods.
mod evaluate;
// The list of what can be wrong, and whether each item has its test.
mod faults;
// How good a restoration is.
mod metrics;
// Networks and their files.
mod models;
// Networks of a size or of channels of their own.
mod networks;
// What networks are trained to do, and how their parameters get a gradient.
mod objectives;
// Photos at the size of a model.
mod resize_fit;
// The commands about operators.
mod operators_cli;
// The commands that restore whole photos.
mod restoring_cli;
// Particle methods against exact posteriors.
mod particles;
// Samplers against exact posteriors.
mod posterior;
// Samplers against their updates by hand.
mod posterior_spectral;
// Samplers that follow a gradient, and those beside them, against their updates written by hand.
mod posterior_gradient;
// Denoisers, padded and tiled.
mod priors;
// Models against what their own programs stored.
mod verify;
// The commands that draw from the prior and list methods.
mod sampling_cli;
// Schedules and solvers against the programs of their authors, and against closed forms.
mod schedules;
// Networks of other programs, against those programs.
mod score_networks;
// The command that trains.
mod train_cli;
// What the pictures of the theory claim.
mod theory;
// U-Nets of other programs.
mod unets;
// What every solver promises.
mod solvers;
// Training: gradients, runs that are resumed, the data they see.
mod train;
