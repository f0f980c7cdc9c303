//! Plans of restorations within what the run may use, whose errors name the run's own limits.

use super::pipeline::{AHEAD_SHARE, memory_of_photo};
use crate::image::Photo;
use crate::models::Model;
use crate::{Error, Restoration, RestoreOptions, Result, Work, program_memory};

/// Plans what fits into a run that may use `memory` bytes.
///
/// # Errors
/// Those of [`Restoration::of`]; `Memory` says what the whole run would have to be allowed, and `Time` names the limit of one
/// photo.
pub(super) fn fitted<'a>(
    work: &'a Work,
    photo: &'a Photo,
    options: &RestoreOptions<'_>,
    model: &'a Model,
    memory: Option<u64>,
) -> Result<Restoration<'a>> {
    let own = program_memory(model);
    let options = RestoreOptions { memory: memory_of_photo(memory, own), ..options.clone() };
    Restoration::of(work, photo, &options, model).map_err(|error| match (error, memory) {
        (Error::Memory { needs, advice, .. }, Some(limit)) => {
            Error::Memory { needs: run_for(needs, own), limit, advice }
        }
        (Error::Time { needs, limit, advice }, _) => {
            Error::Time { needs, limit, advice: advice.replace("--time-limit", "--photo-time-limit") }
        }
        (error, _) => error,
    })
}

/// Makes sure that a photo can be read and decoded, which takes `bytes`, in a run that may use `memory` bytes, `own` of them for
/// the program.
///
/// # Errors
/// `Memory`, which says what the whole run would have to be allowed.
pub(super) fn check_decoded(bytes: u64, memory: Option<u64>, own: u64) -> Result<()> {
    let needs = own.saturating_add(bytes);
    match memory.filter(|&memory| needs > memory) {
        Some(limit) => Err(Error::Memory { needs, limit, advice: "allow more with --memory".into() }),
        None => Ok(()),
    }
}

/// Bytes that a run must be allowed so that the plan of one photo may come to `bytes`: the inverse of [`memory_of_photo`].
fn run_for(bytes: u64, own: u64) -> u64 {
    // Of `m` bytes beyond the program's `m − ⌊m / s⌋` are the photo's, s = AHEAD_SHARE.
    let others = |beyond: u64| (beyond - 1) * AHEAD_SHARE / (AHEAD_SHARE - 1) + 1;
    own + Some(bytes.saturating_sub(own)).filter(|&beyond| beyond > 0).map_or(0, others)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_is_allowed_what_was_named_has_room_for_the_photo() {
        for own in [0, 5, 1 << 20] {
            for bytes in (own..own + 100).chain([own + 123_456_789]) {
                let run = run_for(bytes, own);
                assert!(memory_of_photo(Some(run), own).unwrap() >= bytes, "{own} {bytes}");
                assert!(run == own || memory_of_photo(Some(run - 1), own).unwrap() < bytes, "{own} {bytes}");
            }
        }
    }
}
