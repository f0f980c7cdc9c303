//! `--dry-run`: what a batch would do, photo by photo, and what that would cost.

use crate::batch::{BySettings, Forecast, Forecaster, Item, Name, Plan, lacks_resources};
use crate::cli::ExitCode;
use crate::cli::events::{Event, Forecasted, Total, print};
use crate::cli::failure::{Failure, Outcome};
use crate::cli::interrupt;
use crate::cli::models::table;
use crate::cli::restoring::Session;
use crate::cli::terminal::{bytes, count, duration, escape};
use crate::image::MaskSource;
use crate::program_memory;
use std::path::Path;

/// Prints the plan. Nothing is written.
pub(super) fn forecast(
    plan: &Plan,
    recipe: &BySettings<'_>,
    out: &Path,
    memory: Option<u64>,
    jobs: usize,
    session: Session<'_>,
) -> Outcome<()> {
    let Session { console, events, .. } = session;
    let mut forecaster = Forecaster::new(recipe, memory);
    let own = program_memory(recipe.model);
    let mut code = ExitCode::Failed;
    let (mut failed, mut evaluations, mut seconds, mut pixels) = (0, 0, 0.0, 0);
    // The photos that will be in memory at a time are taken for the largest.
    let mut largest = vec![0; jobs];
    for item in &plan.items {
        interrupt::check()?;
        let told = match forecaster.forecast(item) {
            Ok(forecast) => {
                evaluations += forecast.plan.evaluations;
                seconds += forecast.plan.seconds;
                pixels += forecast.width * forecast.height;
                let needed = forecast.plan.memory.saturating_sub(own);
                if let Some(least) = largest.iter_mut().min().filter(|least| **least < needed) {
                    *least = needed;
                }
                Ok(forecast)
            }
            Err(error) => {
                failed += 1;
                // As the run would end.
                if lacks_resources(&error) {
                    code = ExitCode::Resources;
                }
                Err(Failure::from(error).message())
            }
        };
        if events.wanted {
            events.emit(&Event::Forecast(Box::new(event(plan, item, &told))))?;
        } else {
            print(line(plan, item, out, &told).as_bytes())?;
        }
    }
    let memory = memory.unwrap_or(u64::MAX).min(own + largest.iter().sum::<u64>());
    let photos = plan.items.len();
    if events.wanted {
        events.emit(&Event::Total(Total { photos, total: plan.total, failed, evaluations, seconds, memory }))?;
    } else {
        let share = if photos == plan.total { String::new() } else { format!(" of {}", plan.total) };
        print(b"\n")?;
        let rows = [
            ("photos", format!("{photos}{share}, {:.1} megapixels", pixels as f64 / 1e6)),
            ("evaluations", evaluations.to_string()),
            ("time", format!("about {}, from one measured evaluation", duration(seconds))),
            ("memory", format!("about {} at {jobs} photos at a time", bytes(memory))),
        ];
        print(table(&rows).as_bytes())?;
    }
    if failed > 0 {
        let message = format!("{failed} of {} cannot be restored", count(photos, "photo"));
        return Err(Failure::new(code, message));
    }
    if plan.has_errors() {
        return Err(Failure::new(ExitCode::Failed, "some names could not be read, see above"));
    }
    console.detail("nothing was written");
    Ok(())
}

fn line(plan: &Plan, item: &Item, out: &Path, told: &Result<Forecast, String>) -> String {
    let shown = |path: &Path| escape(&path.display().to_string()).into_owned();
    let input = shown(&item.relative);
    match told {
        Err(error) => format!("{input}: {}\n", escape(error)),
        Ok(Forecast { width, height, output_width, output_height, masked_pixels, plan: cost }) => {
            let outputs = plan.outputs(item);
            let first = outputs.files().next().map_or(String::new(), |name| shown(&out.join(name)));
            let more = match outputs.files().count() - 1 {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            let mut size = format!("{width}x{height}");
            if (width, height) != (output_width, output_height) {
                size += &format!(" to {output_width}x{output_height}");
            }
            if let Some(masked) = masked_pixels {
                size += &format!(", {masked} masked");
            }
            format!(
                "{input} -> {first}{more}: {size}, {} of {}, {}, {}, {}\n",
                count(cost.windows, "window"),
                cost.tile,
                count(cost.evaluations, "evaluation"),
                duration(cost.seconds),
                bytes(cost.memory)
            )
        }
    }
}

fn event(plan: &Plan, item: &Item, told: &Result<Forecast, String>) -> Forecasted {
    let mask = match item.mask.as_deref() {
        Some(MaskSource::File(path)) => Some(Name::new(path)),
        _ => None,
    };
    let cost = told.as_ref().ok();
    Forecasted {
        input: Name::new(&item.relative),
        source: Name::new(&item.path()),
        mask,
        outputs: plan.outputs(item).files().map(Name::new).collect(),
        seed: item.seed,
        error: told.as_ref().err().cloned(),
        width: cost.map(|cost| cost.width),
        height: cost.map(|cost| cost.height),
        output_width: cost.map(|cost| cost.output_width),
        output_height: cost.map(|cost| cost.output_height),
        masked_pixels: cost.and_then(|cost| cost.masked_pixels),
        windows: cost.map(|cost| cost.plan.windows),
        tile: cost.map(|cost| cost.plan.tile),
        steps: cost.map(|cost| cost.plan.total_steps),
        evaluations: cost.map(|cost| cost.plan.evaluations),
        estimated_seconds: cost.map(|cost| cost.plan.seconds),
        estimated_memory: cost.map(|cost| cost.plan.memory),
    }
}
