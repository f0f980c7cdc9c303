//! What photos of a task can be for `auto`, before there is one.

use super::Sampling;
use crate::samplers::{Choice, Damage, Facts, Structure};
use crate::{Catalog, Resize, Result, Task};

/// Builds what `auto` can come to for some photo of the task, with the settings of the run.
///
/// # Errors
/// Of the most usual photo, if not one of the samplers takes the settings.
pub(super) fn check_auto(task: &Task, sampling: &Sampling, catalog: &Catalog) -> Result<()> {
    let mut refused = None;
    for facts in facts(task, sampling) {
        let choice = Choice::auto(&facts, sampling.quality)?.with(sampling.set.clone());
        let choice = sampling.steps.map_or(choice.clone(), |steps| choice.with_steps(steps));
        let mut both = [&choice].into_iter().chain(choice.others.as_deref());
        match both.try_for_each(|choice| choice.build(&catalog.samplers).map(drop)) {
            Ok(()) => return Ok(()),
            Err(error) => refused = refused.or(Some(error)),
        }
    }
    refused.map_or(Ok(()), Err)
}

/// What photos of the task can be, the most usual first.
fn facts(task: &Task, sampling: &Sampling) -> Vec<Facts> {
    // Of a photo in an image of the model's own size no singular values are known.
    let is_fitted = sampling.resize == Resize::Fit;
    let damages: &[Damage] = match task {
        Task::Inpaint(_) => &[Damage::Holes],
        Task::Colorize(_) => &[Damage::Colours],
        Task::Upscale(_) | Task::Deblur(_) | Task::Denoise(_) if is_fitted => {
            &[Damage::Detail, Damage::Other, Damage::Noise, Damage::Holes]
        }
        Task::Upscale(_) | Task::Deblur(_) => &[Damage::Detail, Damage::Other],
        // Who asks for steps asks for a walk.
        Task::Denoise(_) if sampling.steps.is_some() => &[Damage::Other],
        Task::Denoise(_) => &[Damage::Noise],
        Task::Restore(_) => &[Damage::Other, Damage::Detail, Damage::Noise, Damage::Holes, Damage::Colours],
    };
    // Only an operator of the user's own can be anything, and measure very little.
    let (structures, noises, sizes): (&[_], &[_], &[_]) = match task {
        Task::Restore(_) => {
            (&[Structure::SingularValues, Structure::Linear, Structure::Derivative], &[true, false], &[1 << 20, 1])
        }
        _ if is_fitted => (&[Structure::Linear], &[true], &[1 << 20]),
        _ => (&[Structure::SingularValues, Structure::Linear], &[true], &[1 << 20]),
    };
    let mut all = Vec::new();
    for &measured in sizes {
        for &gaussian in noises {
            for &structure in structures {
                let fact = |&damage| Facts { damage, structure, gaussian, values: 2 * measured, measured };
                all.extend(damages.iter().map(fact));
            }
        }
    }
    all
}
