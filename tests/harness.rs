//! The binary under test in a folder of its own.

use image::{DynamicImage, GrayImage, ImageBuffer, Luma, LumaA, Pixel, Rgb, Rgba};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A temporary folder in which commands run; it disappears with the value.
pub(crate) struct Folder(tempfile::TempDir);

/// What a command did.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.0.path().join(name)
    }

    /// A command in this folder that nothing outside of it influences.
    pub(crate) fn command(&self, arguments: &[impl AsRef<OsStr>]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tweedie"));
        command.args(arguments).current_dir(self.0.path()).stdin(Stdio::null());
        for (name, _) in std::env::vars_os() {
            let name_text = name.to_string_lossy();
            if name_text.starts_with("TWEEDIE_") || ["NO_COLOR", "CLICOLOR_FORCE", "COLUMNS"].contains(&&*name_text) {
                command.env_remove(&name);
            }
        }
        command
    }

    pub(crate) fn run(&self, arguments: &[impl AsRef<OsStr>]) -> Ran {
        self.command(arguments).output().unwrap().into()
    }

    /// Runs a command line that has no quoted words.
    pub(crate) fn tweedie(&self, line: &str) -> Ran {
        self.run(&line.split_whitespace().collect::<Vec<_>>())
    }

    /// Runs a command line that must succeed.
    #[track_caller]
    pub(crate) fn succeed(&self, line: &str) -> Ran {
        let ran = self.tweedie(line);
        assert_eq!(ran.code, 0, "tweedie {line}\n{}", ran.stderr);
        ran
    }

    /// Everything in the folder, sorted.
    pub(crate) fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.0.path()).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into()).collect();
        names.sort();
        names
    }

    pub(crate) fn open(&self, name: impl AsRef<Path>) -> DynamicImage {
        image::open(self.path(name)).unwrap()
    }

    pub(crate) fn bytes(&self, name: impl AsRef<Path>) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap()
    }

    pub(crate) fn write(&self, name: impl AsRef<Path>, content: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), content).unwrap();
    }

    /// `photo.png`, 8-bit RGB, and `mask.png` with a hole in it.
    pub(crate) fn with_photo(width: u32, height: u32) -> Self {
        let folder = Self::new();
        photo(width, height, Kind::Rgb8).save(folder.path("photo.png")).unwrap();
        mask(width, height).save(folder.path("mask.png")).unwrap();
        folder
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: output.stdout,
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Ran {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).unwrap()
    }

    /// The events of `--json`.
    pub(crate) fn events(&self) -> Vec<serde_json::Value> {
        self.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The only event of this kind.
    #[track_caller]
    pub(crate) fn event(&self, kind: &str) -> serde_json::Value {
        let mut found = self.events().into_iter().filter(|event| event["event"] == kind);
        let event = found.next().unwrap_or_else(|| panic!("no event {kind} in {}", self.text()));
        assert!(found.next().is_none(), "several events {kind}");
        event
    }
}

/// A pixel format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Grey8,
    GreyAlpha8,
    Rgb8,
    Rgba8,
    Grey16,
    GreyAlpha16,
    Rgb16,
    Rgba16,
}

/// A smooth picture with some noise in every sample, alpha included, and values that 8 bits cannot hold if it has 16.
pub(crate) fn photo(width: u32, height: u32, kind: Kind) -> DynamicImage {
    let level = |x: u32, y: u32, c: u32| {
        let smooth = 20_000 + 20_000 * x / width.max(1) + 15_000 * y / height.max(1);
        let noise = (x.wrapping_mul(2_654_435_761) ^ y.wrapping_mul(40_503) ^ c.wrapping_mul(97)) % 5000;
        (smooth + noise + 700 * c) as u16
    };
    let high = |x, y, c| (level(x, y, c) >> 8) as u8;
    fn fill<P: Pixel>(w: u32, h: u32, f: impl Fn(u32, u32) -> P) -> ImageBuffer<P, Vec<P::Subpixel>> {
        ImageBuffer::from_fn(w, h, f)
    }
    let (w, h) = (width, height);
    match kind {
        Kind::Grey8 => fill(w, h, |x, y| Luma([high(x, y, 0)])).into(),
        Kind::GreyAlpha8 => fill(w, h, |x, y| LumaA([0, 1].map(|c| high(x, y, c)))).into(),
        Kind::Rgb8 => fill(w, h, |x, y| Rgb([0, 1, 2].map(|c| high(x, y, c)))).into(),
        Kind::Rgba8 => fill(w, h, |x, y| Rgba([0, 1, 2, 3].map(|c| high(x, y, c)))).into(),
        Kind::Grey16 => fill(w, h, |x, y| Luma([level(x, y, 0)])).into(),
        Kind::GreyAlpha16 => fill(w, h, |x, y| LumaA([0, 1].map(|c| level(x, y, c)))).into(),
        Kind::Rgb16 => fill(w, h, |x, y| Rgb([0, 1, 2].map(|c| level(x, y, c)))).into(),
        Kind::Rgba16 => fill(w, h, |x, y| Rgba([0, 1, 2, 3].map(|c| level(x, y, c)))).into(),
    }
}

/// Whether [`mask`] fills a pixel: a bar across the upper left quarter.
pub(crate) fn masked(x: u32, y: u32, width: u32, height: u32) -> bool {
    (width / 4..width / 2).contains(&x) && (height / 4..height / 4 + height.div_ceil(8)).contains(&y)
}

pub(crate) fn mask(width: u32, height: u32) -> GrayImage {
    GrayImage::from_fn(width, height, |x, y| Luma([if masked(x, y, width, height) { 255 } else { 0 }]))
}
