//! The log as event files of TensorBoard.
//!
//! A file is a row of records ([`record`]), each an `Event` of TensorFlow's protocol buffers ([`message`]). Every process
//! begins a file of its own, as TensorBoard expects; one that resumes says in its second event, a session that starts at a
//! step, that events of that step and later ones in earlier files are void: TensorBoard then drops them. Two crates write
//! such files, `tensorboard-rs` and `tfrecord`; neither is kept up, and what is needed of the format is a page.
//!
//! `tensorflow/core/util/event.proto`, `tensorflow/core/framework/summary.proto`,
//! <https://www.tensorflow.org/tutorials/load_data/tfrecord>

mod message;
mod record;

use super::journal::{Line, Progress, Validation};
use crate::{Error, Result};
use message::{Event, Value, What};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// The file of a process.
#[derive(Debug)]
pub(super) struct Events {
    folder: PathBuf,
    path: PathBuf,
    file: File,
    /// Validations of the run.
    validations: u64,
}

impl Events {
    /// Begins a file in `folder`, in which events after `step` replace those of other files there; `validations` were before.
    ///
    /// # Errors
    /// `Io` if it cannot be written.
    pub(super) fn open(folder: &Path, step: u64, validations: u64) -> Result<Self> {
        // Files are read in the order of their names.
        let name = format!("events.out.tfevents.{:010}.tweedie.{}", now() as u64, std::process::id());
        let path = folder.join(name);
        let opened = OpenOptions::new().create(true).append(true).open(&path);
        let file = opened.map_err(|source| Error::Io { path: path.clone(), source })?;
        let mut events = Self { folder: folder.into(), path, file, validations };
        events.write(step, What::Version)?;
        if step > 0 {
            events.write(step + 1, What::Start)?;
        }
        Ok(events)
    }

    /// Adds what a line of the log says, and the pictures of every validation whose number is a power of two from the folder:
    /// all of them would be hundreds of megabytes.
    ///
    /// # Errors
    /// `Io` if it cannot be written.
    pub(super) fn line(&mut self, line: &Line) -> Result<()> {
        let values = match line {
            Line::Step(progress) => of_progress(progress),
            Line::Validation(validation) => {
                self.validations += 1;
                self.of_validation(validation)
            }
            _ => return Ok(()),
        };
        self.write(line.step(), What::Summary(values))
    }

    fn of_validation(&self, validation: &Validation) -> Vec<Value> {
        let mut values = vec![Value::scalar("validation/loss", validation.loss)];
        let psnr = validation.psnr.iter();
        values.extend(psnr.map(|(sigma, psnr)| Value::scalar(&format!("psnr/{:.0}_of_255", sigma * 127.5), *psnr)));
        if !self.validations.is_power_of_two() {
            return values;
        }
        let pictures = [("validation/photos", &validation.picture), ("validation/samples", &validation.samples)];
        for (tag, name) in pictures {
            let bytes = name.as_ref().and_then(|name| std::fs::read(self.folder.join(name)).ok());
            values.extend(bytes.and_then(|png| Value::image(tag, png)));
        }
        values
    }

    fn write(&mut self, step: u64, what: What) -> Result<()> {
        let event = Event { wall_time: now(), step, what };
        let written = self.file.write_all(&record::framed(&event.encode()));
        written.map_err(|source| Error::Io { path: self.path.clone(), source })
    }
}

fn of_progress(progress: &Progress) -> Vec<Value> {
    let mut values = vec![
        Value::scalar("loss", progress.loss),
        Value::scalar("gradient_norm", progress.gradient_norm),
        Value::scalar("learning_rate", progress.learning_rate),
        Value::scalar("speed/patches_per_second", progress.images_per_second),
        Value::scalar("speed/waiting", progress.waiting),
    ];
    let quarters = progress.quarters.iter().zip(1..);
    values.extend(quarters.map(|((_, loss), number)| Value::scalar(&format!("loss_of_quarter/{number}"), *loss)));
    values
}

/// Seconds since 1970.
fn now() -> f64 {
    SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fields of a message: number, wire type, and what it holds (the bytes of a number or of a length-delimited field).
    fn fields(mut bytes: &[u8]) -> Vec<(u64, u64, Vec<u8>)> {
        fn varint(bytes: &mut &[u8]) -> u64 {
            let mut value = 0;
            for shift in (0..).step_by(7) {
                let (first, rest) = bytes.split_first().unwrap();
                *bytes = rest;
                value |= u64::from(first & 0x7f) << shift;
                if first & 0x80 == 0 {
                    break;
                }
            }
            value
        }
        let mut found = Vec::new();
        while !bytes.is_empty() {
            let key = varint(&mut bytes);
            let length = match key & 7 {
                0 => {
                    let value = varint(&mut bytes);
                    found.push((key >> 3, 0, value.to_le_bytes().to_vec()));
                    continue;
                }
                1 => 8,
                2 => varint(&mut bytes) as usize,
                5 => 4,
                other => panic!("wire type {other}"),
            };
            found.push((key >> 3, key & 7, bytes[..length].to_vec()));
            bytes = &bytes[length..];
        }
        found
    }

    /// The records of a file, by the definition of the format: length, its checksum, data, their checksum.
    fn records(mut bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut found = Vec::new();
        while !bytes.is_empty() {
            let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
            found.push(bytes[12..12 + length].to_vec());
            bytes = &bytes[16 + length..];
        }
        found
    }

    fn one(fields: &[(u64, u64, Vec<u8>)], number: u64) -> &[u8] {
        &fields.iter().find(|field| field.0 == number).unwrap_or_else(|| panic!("field {number}")).2
    }

    fn lines() -> [Line; 2] {
        let progress = Progress {
            step: 300,
            images: 4800,
            loss: 0.25,
            quarters: vec![(0.1, 1.0), (9.0, 0.5)],
            gradient_norm: 2.0,
            learning_rate: 5e-4,
            images_per_second: 20.0,
            waiting: 0.01,
            seconds: 3.0,
        };
        let picture = Some("validation-000000300.png".to_owned());
        let psnr = vec![(25.0 / 127.5, 30.0)];
        [Line::Step(progress), Line::Validation(Validation { step: 300, psnr, loss: 0.5, picture, samples: None })]
    }

    #[test]
    fn a_file_holds_the_events_of_the_format() {
        let folder = tempfile::tempdir().unwrap();
        let mut png = Vec::new();
        let encoder = image::codecs::png::PngEncoder::new(&mut png);
        image::ImageEncoder::write_image(encoder, &[7; 2 * 3 * 4], 2, 3, image::ExtendedColorType::Rgba8).unwrap();
        std::fs::write(folder.path().join("validation-000000300.png"), &png).unwrap();
        let mut events = Events::open(folder.path(), 200, 3).unwrap();
        for line in &lines() {
            events.line(line).unwrap();
        }
        let found = records(&std::fs::read(&events.path).unwrap());
        assert_eq!(found.len(), 4);
        let found: Vec<_> = found.iter().map(|record| fields(record)).collect();
        // 1 wall_time, 2 step, 3 file_version, 5 summary, 7 session_log.
        let wall = f64::from_le_bytes(one(&found[0], 1).try_into().unwrap());
        assert!((now() - wall).abs() < 60.0);
        assert_eq!(one(&found[0], 3), b"brain.Event:2");
        let step = |event: &[(u64, u64, Vec<u8>)]| u64::from_le_bytes(one(event, 2).try_into().unwrap());
        // Whatever another process wrote of step 201 and later is void; status 1 is START.
        assert_eq!((step(&found[1]), fields(one(&found[1], 7))), (201, vec![(1, 0, 1_u64.to_le_bytes().to_vec())]));
        assert_eq!((step(&found[2]), step(&found[3])), (300, 300));
        let values = |event: &[(u64, u64, Vec<u8>)]| {
            let summary = fields(one(event, 5));
            summary
                .iter()
                .map(|(number, _, value)| {
                    assert_eq!(*number, 1);
                    let value = fields(value);
                    (String::from_utf8(one(&value, 1).to_vec()).unwrap(), value)
                })
                .collect::<Vec<_>>()
        };
        let scalars: Vec<(String, f32)> = values(&found[2])
            .into_iter()
            .map(|(tag, value)| (tag, f32::from_le_bytes(one(&value, 2).try_into().unwrap())))
            .collect();
        let expected = [
            ("loss", 0.25),
            ("gradient_norm", 2.0),
            ("learning_rate", 5e-4),
            ("speed/patches_per_second", 20.0),
            ("speed/waiting", 0.01),
            ("loss_of_quarter/1", 1.0),
            ("loss_of_quarter/2", 0.5),
        ];
        assert_eq!(scalars, expected.map(|(tag, value)| (tag.to_owned(), value)));
        let validation = values(&found[3]);
        let tags: Vec<&str> = validation.iter().map(|(tag, _)| tag.as_str()).collect();
        assert_eq!(tags, ["validation/loss", "psnr/25_of_255", "validation/photos"]);
        // 1 height, 2 width, 3 colour space (4 is RGBA), 4 the encoded picture.
        // Of the fifth validation there is no picture.
        events.line(&lines()[1]).unwrap();
        let last = records(&std::fs::read(&events.path).unwrap()).pop().unwrap();
        assert_eq!(values(&fields(&last)).len(), 2);
        let picture = fields(one(&validation[2].1, 4));
        let number = |field| u64::from_le_bytes(one(&picture, field).try_into().unwrap());
        assert_eq!((number(1), number(2), number(3), one(&picture, 4)), (3, 2, 4, &png[..]));
    }

    #[test]
    fn a_run_from_the_beginning_voids_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let events = Events::open(folder.path(), 0, 0).unwrap();
        assert_eq!(records(&std::fs::read(&events.path).unwrap()).len(), 1);
        assert!(events.path.file_name().unwrap().to_str().unwrap().starts_with("events.out.tfevents."));
    }
}
