//! Integration tests.

/// Photos, masks, metadata, files.
mod image;
