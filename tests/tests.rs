//! Integration tests.

// The binary, from the outside.
mod cli;
// A folder to run the binary in, photos and masks.
mod harness;
// Photos, masks, metadata, files.
mod image;
