//! Batches that are made while the one before is trained on.

use super::examples::Examples;
use crate::{Error, Result};
use candle_core::Tensor;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

/// What the thread sends: a batch, and photos that it found it could not decode.
type Made = (Result<Tensor>, Vec<(PathBuf, String)>);

/// Examples in their order, made ahead by a thread of its own.
#[derive(Debug)]
pub(super) struct Batches {
    ready: Receiver<Made>,
    /// How long batches were waited for.
    pub(super) waited: Duration,
    /// Photos that could not be decoded, with the reason.
    pub(super) failed: Vec<(PathBuf, String)>,
}

/// Batches that lie ready.
const AHEAD: usize = 2;

impl Batches {
    /// Batches of `size` examples, from example `first` on.
    pub(super) fn new(mut examples: Box<dyn Examples>, first: u64, size: usize) -> Self {
        let (send, ready) = sync_channel(AHEAD);
        std::thread::spawn(move || {
            for number in 0_u64.. {
                let batch = examples.batch(first + number * size as u64, size);
                // Nobody waits for more after an error, or once training has ended.
                let last = batch.is_err();
                if send.send((batch, examples.take_failed())).is_err() || last {
                    return;
                }
            }
        });
        Self { ready, waited: Duration::ZERO, failed: Vec::new() }
    }

    /// The next one.
    ///
    /// # Errors
    /// Those of [`Examples::batch`].
    pub(super) fn next(&mut self) -> Result<Tensor> {
        let start = Instant::now();
        let made = self.ready.recv();
        self.waited += start.elapsed();
        let (batch, failed) = made.map_err(|_| {
            let reason = "the thread that makes batches".to_owned();
            Error::Panicked { photo: PathBuf::new(), reason }
        })?;
        self.failed.extend(failed);
        batch
    }
}
