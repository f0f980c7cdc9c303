//! What the arguments ask for, checked as far as that is possible without decoding anything.

use super::Common;
use crate::batch::Stamp;
use crate::cli::ExitCode;
use crate::cli::failure::{Failure, Outcome};
use crate::cli::flags::SideFlags;
use crate::cli::outputs::{Input, Outputs, Target, Wanted};
use crate::image::{DecodeOptions, EncodeOptions, OutputFormat, Photo};
use std::io::{IsTerminal, Read};
use std::path::Path;

/// Inputs and outputs of one run.
#[derive(Debug)]
pub(crate) struct Job<'a> {
    /// Name of the command.
    pub(super) verb: &'static str,
    pub(super) arguments: &'a Common,
    pub(super) input: Input,
    pub(super) outputs: Outputs,
    /// The input's file before it was read.
    seen: Option<Stamp>,
}

impl<'a> Job<'a> {
    /// `others` are the files that are read beside the photo.
    pub(super) fn new(verb: &'static str, arguments: &'a Common, others: &[&Path]) -> Outcome<Self> {
        let input = Input::new(&arguments.image);
        if arguments.samples < 2 && (arguments.sides.mean || arguments.sides.std) {
            let flag = if arguments.sides.mean { "--mean" } else { "--std" };
            return Err(Failure::usage(format!("{flag} is taken over several samples, --samples is 1"))
                .hint("--samples 8 draws eight"));
        }
        if input == Input::Stdin && std::io::stdin().is_terminal() {
            return Err(Failure::usage("standard input is a terminal, expected a photo")
                .hint(format!("name the photo, or pipe it in: tweedie {verb} - … -o OUT < photo.png")));
        }
        for path in input.path().into_iter().chain(others.iter().copied()) {
            if let Err(error) = path.metadata() {
                let reason = match error.kind() {
                    std::io::ErrorKind::NotFound => "no such file".into(),
                    _ => error.to_string(),
                };
                return Err(Failure::usage(format!("{}: {reason}", path.display())));
            }
        }
        let Common { samples, sides: SideFlags { mean, std, sheet }, .. } = *arguments;
        let wanted = Wanted { samples, mean, std, sheet, format: arguments.writing.default_format() };
        let outputs = Outputs::new(&input, verb, arguments.output.as_deref(), wanted)?;
        if outputs.samples.contains(&Target::Stdout) {
            if arguments.json {
                return Err(Failure::usage("standard output takes the photo or the events of --json, not both")
                    .hint("-o FILE leaves standard output to the events"));
            }
            if std::io::stdout().is_terminal() && !arguments.dry_run {
                return Err(Failure::usage("standard output is a terminal, which cannot show a photo")
                    .hint("redirect it: -o - > out.png"));
            }
        }
        for output in outputs.pictures() {
            arguments.writing.format_of(output)?;
        }
        let inputs: Vec<&Path> = input.path().into_iter().chain(others.iter().copied()).collect();
        outputs.check(&inputs, arguments.force)?;
        let seen = input.path().and_then(|path| Stamp::of(path).ok());
        Ok(Self { verb, arguments, input, outputs, seen })
    }

    /// How the photo is decoded.
    pub(crate) fn decoding(&self) -> DecodeOptions {
        DecodeOptions { max_pixels: self.arguments.max_pixels, allow_truncated: self.arguments.allow_truncated }
    }

    /// Decodes the photo, and makes sure that the outputs can hold such a photo.
    pub(crate) fn read(&self) -> Outcome<Photo> {
        let photo = match &self.input {
            Input::File(path) => Photo::open(path, &self.decoding())?,
            Input::Stdin => {
                let (name, options) = (Path::new("-"), self.decoding());
                let mut content = Vec::new();
                // What never ends is read up to the first byte too many.
                let read = std::io::stdin().lock().take(options.max_file().saturating_add(1)).read_to_end(&mut content);
                read.map_err(|source| crate::Error::Io { path: name.into(), source })?;
                options.check_length(name, content.len() as u64)?;
                Photo::decode(&content, name, &options)?
            }
        };
        for format in self.photo_formats()? {
            photo.check_encode(format, &self.encoding())?;
        }
        Ok(photo)
    }

    /// The formats in which the photo itself is written.
    pub(super) fn photo_formats(&self) -> Outcome<Vec<OutputFormat>> {
        let paths = self.outputs.samples.iter().filter_map(Target::path).chain(self.outputs.mean.as_deref());
        let mut formats = paths.map(|path| self.arguments.writing.format_of(path)).collect::<Result<Vec<_>, _>>()?;
        if self.outputs.samples.contains(&Target::Stdout) {
            formats.push(self.arguments.writing.default_format());
        }
        formats.dedup();
        Ok(formats)
    }

    /// How pictures are encoded, without their provenance.
    pub(super) fn encoding(&self) -> EncodeOptions {
        self.arguments.writing.encoding()
    }

    /// An input that changed while it was worked on is another photo than the one that was restored.
    pub(super) fn check_unchanged(&self) -> Outcome<()> {
        let now = self.input.path().and_then(|path| Stamp::of(path).ok());
        if now == self.seen {
            return Ok(());
        }
        let what = if now.is_none() { "deleted" } else { "changed" };
        let message = format!("{}: was {what} while it was being restored", self.input.name().display());
        Err(Failure::new(ExitCode::Failed, message).hint("nothing was written"))
    }
}
