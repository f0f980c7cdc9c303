//! Puts the results where they were asked for, and looks at what was put there.

use super::report::Report;
use crate::cli::events::{Event, Events, Name, Written, print};
use crate::cli::failure::Outcome;
use crate::cli::interrupt;
use crate::cli::outputs::Target;
use crate::cli::progress::Bar;
use crate::cli::terminal::{Console, count, duration};
use crate::image::{DecodeOptions, EncodeOptions, Photo, write_atomically};
use crate::{Picture, Provenance, Restored};
use std::path::Path;

#[derive(Debug)]
pub(super) struct Writer<'a> {
    pub(super) report: &'a Report<'a>,
    pub(super) result: &'a Restored,
    pub(super) warnings: &'a [String],
    pub(super) bar: &'a Bar,
    pub(super) console: Console,
    pub(super) events: Events,
}

impl Writer<'_> {
    /// Writes everything; returns the number of pictures.
    pub(super) fn write(&self) -> Outcome<usize> {
        let outputs = &self.report.job.outputs;
        for (k, target) in outputs.samples.iter().enumerate() {
            let bytes = self.encode(self.result.sample(k), target, Picture::Sample(k))?;
            match target {
                Target::Stdout => print(&bytes)?,
                Target::File(path) => self.put(path, &bytes, Picture::Sample(k))?,
            }
        }
        let sides = [(&outputs.mean, Picture::Mean), (&outputs.std, Picture::Std), (&outputs.sheet, Picture::Sheet)];
        let mut files = outputs.samples.len();
        for (path, kind) in sides {
            let Some(path) = path else { continue };
            let target = Target::File(path.clone());
            let bytes = match kind {
                Picture::Mean => self.encode(&self.result.mean()?, &target, kind)?,
                Picture::Std => self.encode(&self.result.std()?, &target, kind)?,
                Picture::Sheet | Picture::Sample(_) => {
                    let Report { photo, mask, .. } = *self.report;
                    self.result.sheet(photo, mask, outputs.mean.is_some(), outputs.std.is_some())?
                }
            };
            self.put(path, &bytes, kind)?;
            files += 1;
        }
        Ok(files)
    }

    fn encode(&self, photo: &Photo, target: &Target, kind: Picture) -> Outcome<Vec<u8>> {
        let format = match target {
            Target::Stdout => self.report.job.arguments.writing.default_format(),
            Target::File(path) => self.report.job.arguments.writing.format_of(path)?,
        };
        let options = EncodeOptions { software: Some(self.provenance(kind)), ..self.report.job.encoding() };
        Ok(photo.encode(format, &options)?)
    }

    /// How the picture came to be, for its metadata.
    fn provenance(&self, picture: Picture) -> String {
        let Report { plan, model, job, measurement, .. } = *self.report;
        let command = match self.report.mask {
            Some(_) => job.verb.to_string(),
            None => format!("{} ({measurement})", job.verb),
        };
        let (seed, samples) = (job.arguments.sampler.seed, self.result.len());
        Provenance { command: &command, model, plan, seed, samples, picture }.to_string()
    }

    fn put(&self, path: &Path, bytes: &[u8], kind: Picture) -> Outcome<()> {
        interrupt::check()?;
        write_atomically(path, bytes, self.report.job.arguments.force)?;
        let largest_known_change = if self.events.wanted && kind.is_photo() { self.known_change(path)? } else { None };
        let samples = self.result.len();
        // A sample costs its share of the run, everything else is made of all of them.
        let share = if matches!(kind, Picture::Sample(_)) { samples } else { 1 };
        let seconds = self.result.seconds / share as f64;
        let plan = &self.result.plan;
        let seed = self.report.job.arguments.sampler.seed;
        let (sampler, steps) = plan.of_sample(kind.sample());
        let (input, output) = (Name::new(self.report.job.input.name()), Name::new(path));
        self.events.emit(&Event::File(Box::new(Written {
            lossy_name: input.lossy || output.lossy,
            input,
            output,
            kind: kind.name(),
            sample: if let Picture::Sample(k) = kind { Some(k) } else { None },
            seed,
            sampler,
            steps,
            evaluations: plan.evaluations / share,
            seconds,
            peak_memory: crate::evaluate::memory::largest(),
            largest_known_change,
            warnings: self.warnings,
        })))?;
        let name = path.display();
        let line = match kind {
            Picture::Sample(_) => {
                let cost = count(plan.evaluations / share, "evaluation");
                format!("wrote {name} ({sampler}, seed {seed}, {cost}, {})", duration(seconds))
            }
            _ => format!("wrote {name}"),
        };
        self.bar.aside(|| self.console.note(&line));
        Ok(())
    }

    /// Largest difference of a sample outside the mask between the input and the file at `path`; `None` if the file
    /// has another depth, so that its samples cannot be compared.
    fn known_change(&self, path: &Path) -> Outcome<Option<u16>> {
        let Report { photo, mask: Some(mask), .. } = self.report else { return Ok(None) };
        let options = DecodeOptions { max_pixels: u64::MAX, ..DecodeOptions::default() };
        let written = Photo::open(path, &options)?;
        let form = |photo: &Photo| (photo.width(), photo.height(), photo.depth(), photo.has_alpha());
        if form(&written) != form(photo) {
            return Ok(None);
        }
        // Some formats know no grey: each of their colours is compared with it.
        let pairs: Vec<(usize, usize)> = (0..written.channels())
            .map(|c| {
                (c, if c < written.color_channels() { c.min(photo.color_channels() - 1) } else { photo.channels() - 1 })
            })
            .collect();
        let mut largest = 0;
        for y in 0..photo.height() {
            for x in (0..photo.width()).filter(|&x| !mask.is_set(x, y)) {
                for &(there, here) in &pairs {
                    largest = largest.max(written.sample(x, y, there).abs_diff(photo.sample(x, y, here)));
                }
            }
        }
        Ok(Some(largest))
    }
}
