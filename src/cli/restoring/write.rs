//! Puts the results where they were asked for, and looks at what was put there.

use super::report::Report;
use crate::Restored;
use crate::cli::events::{Event, Events, Name, Written, print};
use crate::cli::failure::{Failure, Outcome};
use crate::cli::outputs::Target;
use crate::cli::progress::Bar;
use crate::cli::sheet::{Sheet, overlay, picture};
use crate::cli::terminal::{Console, count, duration};
use crate::cli::{ExitCode, interrupt};
use crate::image::{DecodeOptions, EncodeOptions, OutputFormat, Photo, write_atomically};
use image::ImageEncoder;
use image::codecs::png::PngEncoder;
use std::path::Path;

/// More samples than this are not put on a sheet.
const SHEET_SAMPLES: usize = 9;

/// What a written picture shows.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Sample(usize),
    Mean,
    Std,
    Sheet,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Sample(_) => "sample",
            Self::Mean => "mean",
            Self::Std => "std",
            Self::Sheet => "sheet",
        }
    }

    /// The sample that says how it was drawn; what is made of all was drawn as most were.
    fn sample(self) -> usize {
        match self {
            Self::Sample(k) => k,
            Self::Sheet => 0,
            Self::Mean | Self::Std => 1,
        }
    }

    /// Whether the picture is the photo outside the mask.
    fn is_photo(self) -> bool {
        matches!(self, Self::Sample(_) | Self::Mean)
    }
}

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
            let bytes = self.encode(self.result.sample(k), target, Kind::Sample(k))?;
            match target {
                Target::Stdout => print(&bytes)?,
                Target::File(path) => self.put(path, &bytes, Kind::Sample(k))?,
            }
        }
        let sides = [(&outputs.mean, Kind::Mean), (&outputs.std, Kind::Std), (&outputs.sheet, Kind::Sheet)];
        let mut files = outputs.samples.len();
        for (path, kind) in sides {
            let Some(path) = path else { continue };
            let target = Target::File(path.clone());
            let bytes = match kind {
                Kind::Mean => self.encode(&self.result.mean()?, &target, kind)?,
                Kind::Std => self.encode(&self.result.std()?, &target, kind)?,
                Kind::Sheet | Kind::Sample(_) => self.sheet(path)?,
            };
            self.put(path, &bytes, kind)?;
            files += 1;
        }
        Ok(files)
    }

    fn encode(&self, photo: &Photo, target: &Target, kind: Kind) -> Outcome<Vec<u8>> {
        let format = match target {
            Target::Stdout => OutputFormat::Png,
            Target::File(path) => OutputFormat::from_path(path)?,
        };
        let options = EncodeOptions { software: Some(self.provenance(kind)), ..self.report.job.encoding() };
        Ok(photo.encode(format, &options)?)
    }

    /// How the picture came to be, for its metadata: enough to make it again.
    fn provenance(&self, kind: Kind) -> String {
        let Report { plan, model, job, .. } = self.report;
        let sample = match kind {
            Kind::Sample(k) => format!("sample {k}"),
            other => other.name().to_string(),
        };
        let command = match self.report.mask {
            Some(_) => job.verb.to_string(),
            None => format!("{} ({})", job.verb, self.report.measurement),
        };
        let (sampler, steps) = plan.of_sample(kind.sample());
        let hash = if model.hash.is_empty() { String::new() } else { format!(" sha256 {}", model.hash) };
        let class = model.class().map_or_else(String::new, |class| format!(", class {class}"));
        format!(
            "tweedie {} {}, model {}{hash}{class}, sampler {}, steps {}, windows of {}, kernels {}, precision {}, seed {}, \
             {sample} of {}",
            env!("CARGO_PKG_VERSION"),
            command,
            model.name,
            sampler,
            steps,
            plan.tile,
            model.instruction_set(),
            model.precision(),
            job.arguments.sampler.seed,
            self.result.len()
        )
    }

    fn put(&self, path: &Path, bytes: &[u8], kind: Kind) -> Outcome<()> {
        interrupt::check()?;
        write_atomically(path, bytes, self.report.job.arguments.force)?;
        let largest_known_change = if self.events.wanted && kind.is_photo() { self.known_change(path)? } else { None };
        let samples = self.result.len();
        // A sample costs its share of the run, everything else is made of all of them.
        let share = if matches!(kind, Kind::Sample(_)) { samples } else { 1 };
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
            sample: if let Kind::Sample(k) = kind { Some(k) } else { None },
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
            Kind::Sample(_) => {
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

    fn sheet(&self, path: &Path) -> Outcome<Vec<u8>> {
        let Report { photo, mask, .. } = self.report;
        let mut sheet = Sheet::default();
        sheet.add("before", picture(photo));
        if let Some(mask) = mask {
            sheet.add("mask", overlay(photo, mask));
        }
        let samples = self.result.len();
        if samples == 1 {
            sheet.add("after", picture(self.result.sample(0)));
        } else {
            for k in 0..samples.min(SHEET_SAMPLES) {
                sheet.add(format!("after, sample {k}"), picture(self.result.sample(k)));
            }
            if self.report.job.outputs.mean.is_some() {
                sheet.add("mean", picture(&self.result.mean()?));
            }
            if self.report.job.outputs.std.is_some() {
                sheet.add("std", picture(&self.result.std()?));
            }
        }
        let mut content = Vec::new();
        let mut encoder = PngEncoder::new(&mut content);
        // The colours are the photo's own; a profile for grey has no place in a file in colour.
        if let Some(profile) = photo.icc_profile().filter(|_| photo.color_channels() == 3) {
            let _ = encoder.set_icc_profile(profile.to_vec());
        }
        let drawn = sheet.draw();
        let encoded = encoder.write_image(&drawn, drawn.width(), drawn.height(), image::ExtendedColorType::Rgb8);
        encoded.map_err(|error| {
            Failure::new(ExitCode::Failed, format!("{}: cannot encode the sheet: {error}", path.display()))
        })?;
        Ok(content)
    }
}
