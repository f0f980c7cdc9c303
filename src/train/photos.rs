//! A folder of photos as an endless sequence of examples.

use super::examples::Examples;
use crate::digest::{number, sha256};
use crate::image::{DecodeOptions, ImageError, Photo, Region};
use crate::likelihood::Levels;
use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use tweedie_operators::forward::{ForwardOperator, Resize, ResizeKernel};
use tweedie_operators::{Rng, Site};

/// Where examples come from and what is done to them.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// A folder of photos of any size, with those in its folders, or one photo; relative to the configuration.
    pub folder: PathBuf,
    /// Photos to validate on, as `folder`; relative to the configuration. By default some of `folder`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation: Option<PathBuf>,
    /// Photos of `folder` that are never trained on, where there is no folder for it; default 4.
    #[serde(default = "held_out")]
    pub held_out: usize,
    /// Side of the square patches that are cut out, in pixels; default 64.
    #[serde(default = "patch")]
    pub patch: usize,
    /// Whether every photo is a sheet of images of a patch's size, side by side: patches are whole ones of them then.
    #[serde(default)]
    pub sheet: bool,
    /// Levels of grey that the photos have, 256 or fewer: noise of a level's width makes them continuous, as the density that
    /// `tweedie likelihood` computes needs it. By default no noise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub levels: Option<usize>,
    /// Whether half of the patches are mirrored from left to right; default true.
    #[serde(default = "yes")]
    pub flip: bool,
    /// Whether patches are turned by quarters as well; default false: skies are above.
    #[serde(default)]
    pub turn: bool,
    /// Patches are reduced by a factor between 1 and this, half of them by 1; default 1.
    #[serde(default = "one")]
    pub rescale: f64,
    /// How often a pixel is in a patch before other photos are decoded, where not all fit into the memory; default 4.
    #[serde(default = "reuse")]
    pub reuse: f64,
    /// Bytes of decoded photos that are held; default 2 GiB.
    #[serde(default = "memory")]
    pub memory: u64,
}

impl DataConfig {
    /// Where a square of `side` pixels begins on a line of `size`, for a number in [0, 1).
    pub(super) fn start(&self, share: f64, size: usize, side: usize) -> usize {
        match self.sheet {
            false => ((share * (size - side + 1) as f64) as usize).min(size - side),
            true => (share * (size / side) as f64) as usize * side,
        }
    }
}

impl Default for DataConfig {
    /// No folder: the examples of a run in memory.
    fn default() -> Self {
        Self {
            folder: PathBuf::new(),
            validation: None,
            held_out: held_out(),
            patch: patch(),
            sheet: false,
            levels: None,
            flip: yes(),
            turn: false,
            rescale: one(),
            reuse: reuse(),
            memory: memory(),
        }
    }
}

fn held_out() -> usize {
    4
}

fn patch() -> usize {
    64
}

fn yes() -> bool {
    true
}

fn one() -> f64 {
    1.0
}

fn reuse() -> f64 {
    4.0
}

fn memory() -> u64 {
    2 << 30
}

/// A photo that has not been decoded.
#[derive(Clone, Debug)]
struct Entry {
    path: PathBuf,
    /// Width times height, by the file's header.
    pixels: u64,
}

/// What is known of a folder before training: which photos there are and how large they are.
#[derive(Clone, Debug)]
pub struct Photos {
    entries: Vec<Entry>,
    /// What was passed over, with the reason.
    pub skipped: Vec<(PathBuf, String)>,
}

impl Photos {
    /// Looks at the headers of all files of a folder and its folders, in the order of their names.
    ///
    /// Files that are no photos, and photos smaller than `side` in either direction, are passed over.
    ///
    /// # Errors
    /// `Config` if there is no such folder or nothing is left; `Io` for a folder that cannot be read.
    pub fn open(folder: &Path, side: usize) -> Result<Self> {
        let refuse = |got: String| Error::Config {
            name: format!("photos of {}", folder.display()),
            got,
            expected: format!("photos of at least {side}x{side} pixels"),
        };
        if !folder.try_exists().map_err(|source| Error::Io { path: folder.into(), source })? {
            return Err(refuse("not there".into()));
        }
        let mut paths = Vec::new();
        for entry in walkdir::WalkDir::new(folder).sort_by_file_name() {
            let entry = entry.map_err(|error| {
                let path = error.path().unwrap_or(folder).to_path_buf();
                Error::Io { path, source: error.into() }
            })?;
            if entry.file_type().is_file() {
                paths.push(entry.into_path());
            }
        }
        let looked: Vec<(PathBuf, Result<u64, String>)> =
            paths.into_par_iter().map(|path| (path.clone(), size(&path, side))).collect();
        let (mut entries, mut skipped) = (Vec::new(), Vec::new());
        for (path, pixels) in looked {
            match pixels {
                Ok(pixels) => entries.push(Entry { path, pixels }),
                Err(reason) => skipped.push((path, reason)),
            }
        }
        if entries.is_empty() {
            let what = match skipped.first() {
                None => "empty".into(),
                Some((path, reason)) => {
                    format!("{} files that cannot be used, the first {}: {reason}", skipped.len(), path.display())
                }
            };
            return Err(refuse(what));
        }
        Ok(Self { entries, skipped })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Pixels of all.
    pub fn pixels(&self) -> u64 {
        self.entries.iter().map(|entry| entry.pixels).sum()
    }

    /// Their names, in order.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.entries.iter().map(|entry| entry.path.as_path())
    }

    /// SHA-256 of their names and sizes: other photos are another run.
    pub fn digest(&self) -> String {
        let line = |entry: &Entry| {
            let name = entry.path.file_name().unwrap_or_default().to_string_lossy();
            format!("{name} {}\n", entry.pixels)
        };
        sha256(self.entries.iter().map(line).collect::<String>().as_bytes())
    }

    /// Takes out `count` photos that the seed decides, spread over all.
    pub fn hold_out(&mut self, count: usize, seed: u64) -> Self {
        let mut order: Vec<usize> = (0..self.entries.len()).collect();
        order.sort_by_key(|&index| number(&[b"held out", &seed.to_le_bytes(), &(index as u64).to_le_bytes()]));
        let mut taken: Vec<usize> = order.into_iter().take(count).collect();
        taken.sort_unstable();
        let held = taken.iter().map(|&index| self.entries[index].clone()).collect();
        let mut index = 0;
        self.entries.retain(|_| {
            index += 1;
            !taken.contains(&(index - 1))
        });
        Self { entries: held, skipped: Vec::new() }
    }

    /// The photos themselves.
    ///
    /// # Errors
    /// `Image` for one that cannot be decoded.
    pub fn decode(&self) -> Result<Vec<Photo>> {
        let options = DecodeOptions::default();
        self.entries.par_iter().map(|entry| Ok(Photo::open(&entry.path, &options)?)).collect()
    }
}

/// Pixels by the header, of a photo that is large enough.
fn size(path: &Path, side: usize) -> Result<u64, String> {
    use std::io::Read;
    let mut head = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(HEAD).read_to_end(&mut head));
    read.map_err(|error| error.to_string())?;
    match Photo::announced_size(&head, path).map_err(|error| reason(&error, path))? {
        None => Err("is no photo, or says no size".into()),
        Some((width, height)) if (width.min(height) as usize) < side => {
            Err(format!("has {width}x{height} pixels, less than {side}x{side}"))
        }
        Some((width, height)) => Ok(u64::from(width) * u64::from(height)),
    }
}

/// What is wrong with a photo, without its name, which is told beside it.
fn reason(error: &ImageError, path: &Path) -> String {
    let text = error.to_string();
    text.strip_prefix(&format!("{}: ", path.display())).map(ToOwned::to_owned).unwrap_or(text)
}

/// Bytes of a file that hold its header, metadata before it included.
const HEAD: u64 = 4 << 20;

/// Photos that are in memory together, and how many examples they give.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Shelf {
    /// Which, in the order of their numbers.
    photos: Vec<usize>,
    /// Number of the first example.
    first: u64,
    /// How many examples come from it; `None` for the only one.
    examples: Option<u64>,
}

/// Which photos example `k` may come from, for every k, as a function of the seed alone.
///
/// Where all photos fit into the memory there is one shelf; else each epoch shuffles them and cuts the row into shelves of
/// half the memory, so that one can be decoded while another is used.
#[derive(Debug)]
struct Shelves {
    sizes: Vec<u64>,
    config: DataConfig,
    seed: u64,
}

impl Shelves {
    /// The one that holds example `k`.
    fn of(&self, k: u64) -> Shelf {
        let bytes = |index: usize| 3 * self.sizes[index];
        let all: u64 = (0..self.sizes.len()).map(bytes).sum();
        if all <= self.config.memory {
            return Shelf { photos: (0..self.sizes.len()).collect(), first: 0, examples: None };
        }
        let area = (self.config.patch * self.config.patch) as f64;
        let mut first = 0;
        for epoch in 0_u64.. {
            let mut order: Vec<usize> = (0..self.sizes.len()).collect();
            let key =
                |index: u64| number(&[b"epoch", &self.seed.to_le_bytes(), &epoch.to_le_bytes(), &index.to_le_bytes()]);
            order.sort_by_key(|&index| key(index as u64));
            let mut rest = order.as_slice();
            while !rest.is_empty() {
                let mut held = 0;
                let fits = |index: &&usize| {
                    held += bytes(**index);
                    held <= self.config.memory / 2
                };
                // One photo at least, whatever it takes.
                let count = rest.iter().take_while(fits).count().max(1);
                let mut photos = rest[..count].to_vec();
                rest = &rest[count..];
                photos.sort_unstable();
                let pixels: u64 = photos.iter().map(|&index| self.sizes[index]).sum();
                let examples = (self.config.reuse * pixels as f64 / area).ceil().max(1.0) as u64;
                if k < first + examples {
                    return Shelf { photos, first, examples: Some(examples) };
                }
                first += examples;
            }
        }
        unreachable!("an epoch has at least one shelf with an example")
    }
}

/// Decoded photos, and the examples they give.
#[derive(Debug)]
struct Decoded {
    shelf: Shelf,
    /// Photos that can be decoded and are large enough, with the pixels before each.
    photos: Vec<(u64, Photo)>,
    pixels: u64,
    failed: Vec<(PathBuf, String)>,
}

/// The largest value of a sample of 8 bits.
const LARGEST: f64 = 255.0;

/// Numbers that decide a patch: which photo, up, left, by what factor, mirrored, turned.
const DRAWS: usize = 6;

/// What examples are made of.
#[derive(Debug)]
struct Source {
    photos: Photos,
    shelves: Shelves,
    channels: usize,
}

/// Example number k of a folder, for any k: a patch that the seed and k decide.
#[derive(Debug)]
pub struct Patches {
    source: Arc<Source>,
    current: Option<Arc<Decoded>>,
    /// The shelf after it, being decoded: its first example.
    next: Option<(u64, JoinHandle<Decoded>)>,
    /// Photos that could not be decoded, with the reason.
    failed: Vec<(PathBuf, String)>,
}

impl Patches {
    /// Patches of these photos with so many channels, 1 or 3.
    pub fn new(photos: Photos, config: &DataConfig, channels: usize, seed: u64) -> Self {
        let sizes = photos.entries.iter().map(|entry| entry.pixels).collect();
        let shelves = Shelves { sizes, config: config.clone(), seed: number(&[b"examples", &seed.to_le_bytes()]) };
        let source = Arc::new(Source { photos, shelves, channels });
        Self { source, current: None, next: None, failed: Vec::new() }
    }

    /// The decoded shelf of example `k`.
    fn shelf(&mut self, k: u64) -> Result<Arc<Decoded>> {
        let holds = |shelf: &Shelf| k >= shelf.first && shelf.examples.is_none_or(|count| k < shelf.first + count);
        if let Some(current) = self.current.as_ref().filter(|current| holds(&current.shelf)) {
            return Ok(Arc::clone(current));
        }
        // Not two shelves of before and one of after at the same time.
        self.current = None;
        let shelf = self.source.shelves.of(k);
        let prepared = self.next.take().filter(|(first, _)| *first == shelf.first);
        let decoded = match prepared.map(|(_, thread)| thread.join()) {
            Some(Ok(decoded)) => decoded,
            Some(Err(panic)) => std::panic::resume_unwind(panic),
            None => self.source.decode(shelf),
        };
        if let Some(count) = decoded.shelf.examples {
            let (source, first) = (Arc::clone(&self.source), decoded.shelf.first + count);
            self.next = Some((first, std::thread::spawn(move || source.decode(source.shelves.of(first)))));
        }
        for failure in &decoded.failed {
            if !self.failed.contains(failure) {
                self.failed.push(failure.clone());
            }
        }
        if decoded.photos.is_empty() {
            let (path, reason) = decoded.failed.first().cloned().unwrap_or_default();
            return Err(Error::Config {
                name: "data.folder".into(),
                got: format!("{}: {reason}", path.display()),
                expected: "photos that can be decoded".into(),
            });
        }
        let decoded = Arc::new(decoded);
        self.current = Some(Arc::clone(&decoded));
        Ok(decoded)
    }
}

impl Examples for Patches {
    /// `[count, C, patch, patch]`; `Config` if no photo of a shelf can be decoded.
    fn batch(&mut self, first: u64, count: usize) -> Result<Tensor> {
        let shelves = (first..first + count as u64).map(|k| self.shelf(k)).collect::<Result<Vec<_>>>()?;
        let mut rng = Rng::new(self.source.shelves.seed, first..first + count as u64);
        let draws = rng.uniform((count, 1, 1, DRAWS), &Device::Cpu)?.flatten_all()?.to_vec1::<f32>()?;
        let (draws, _) = draws.as_chunks::<DRAWS>();
        let patch =
            |(decoded, draws): (&Arc<Decoded>, &[f32; DRAWS])| self.source.patch(decoded, &draws.map(f64::from));
        let patches: Vec<Tensor> = shelves.par_iter().zip(draws).map(patch).collect::<Result<_>>()?;
        let patches = Tensor::cat(&patches, 0)?;
        match self.source.shelves.config.levels {
            None => Ok(patches),
            Some(count) => {
                let values = patches.affine(LARGEST / 2.0, LARGEST / 2.0)?.round()?;
                Levels::new(LARGEST as u16, count)?.dequantised(&values, &mut rng)
            }
        }
    }

    fn take_failed(&mut self) -> Vec<(PathBuf, String)> {
        std::mem::take(&mut self.failed)
    }
}

impl Source {
    fn decode(&self, shelf: Shelf) -> Decoded {
        let patch = self.shelves.config.patch;
        let open = |&index: &usize| {
            let path = &self.photos.entries[index].path;
            let photo =
                Photo::open(path, &DecodeOptions::default()).map_err(|error| (path.clone(), reason(&error, path)))?;
            if photo.width().min(photo.height()) < patch {
                return Err((path.clone(), format!("has {}x{} pixels", photo.width(), photo.height())));
            }
            Ok(if self.channels == 1 { photo.in_grey() } else { photo })
        };
        let opened: Vec<_> = shelf.photos.par_iter().map(open).collect();
        let (mut photos, mut failed, mut pixels) = (Vec::new(), Vec::new(), 0);
        for photo in opened {
            match photo {
                Ok(photo) => {
                    let area = (photo.width() * photo.height()) as u64;
                    photos.push((pixels, photo));
                    pixels += area;
                }
                Err(failure) => failed.push(failure),
            }
        }
        Decoded { shelf, photos, pixels, failed }
    }

    /// A patch that numbers in [0, 1) decide.
    fn patch(&self, decoded: &Decoded, draws: &[f64; DRAWS]) -> Result<Tensor> {
        let config = &self.shelves.config;
        let [which, up, left, factor, flip, turn] = *draws;
        let place = (which * decoded.pixels as f64) as u64;
        let index = decoded.photos.partition_point(|(before, _)| *before <= place).max(1) - 1;
        let photo = &decoded.photos[index].1;
        let least = photo.width().min(photo.height());
        // Half of the factors are 1, the others even in their logarithm.
        let factor = config.rescale.powf((2.0 * factor - 1.0).max(0.0));
        let side = ((config.patch as f64 * factor).round() as usize).clamp(config.patch, least);
        let start = |draw: f64, size: usize| config.start(draw, size, side);
        let (y, x) = (start(up, photo.height()), start(left, photo.width()));
        // Of the three equal channels of a grey photo the first.
        let region = Region { x, y, width: side, height: side };
        let mut patch = photo.tensor(region, &Device::Cpu)?.narrow(1, 0, self.channels)?;
        if side > config.patch {
            let site = Site::new((self.channels, side, side), &Device::Cpu, DType::F32);
            let (from, to) = ((0..side, 0..side), (0..config.patch, 0..config.patch));
            let size = (config.patch, config.patch);
            let resize = Resize::between(from, to, size, ResizeKernel::default(), site)?;
            patch = resize.forward(&patch)?;
        }
        if config.turn {
            for _ in 0..(4.0 * turn) as usize {
                patch = patch.transpose(2, 3)?.flip(&[3])?;
            }
        }
        if config.flip && flip < 0.5 {
            patch = patch.flip(&[3])?;
        }
        Ok(patch.contiguous()?)
    }
}
