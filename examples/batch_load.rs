//! What the pipeline of `tweedie batch` costs beside the network: seconds a photo, memory, and how busy the cores are.
//!
//! ```text
//! cargo run --release --example batch_load -- FOLDER COUNT SIZE MODEL JOBS [PHOTO…]
//! ```
//!
//! Fills FOLDER/in with COUNT photos of SIZE × SIZE pixels, crops of the photos that are named or else noise, and restores a
//! bar across each at `--quality draft`. Linux only: it reads `/proc`.

use image::{Rgb, RgbImage, imageops};
use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tweedie::batch::{
    Event, FolderLock, Intent, Item, Limits, Manifest, Naming, Pipeline, Plan, Policy, Prepared, Recipe, Shard, Wanted,
};
use tweedie::image::{EncodeOptions, Mask, OutputFormat, Photo};
use tweedie::models::{Model, ModelOptions};
use tweedie::samplers::Quality;
use tweedie::{RestoreOptions, Result, Work};

struct Bars;

/// What stands for a hash of the options.
const OPTIONS: &str = "bars";

impl Recipe for Bars {
    fn options_hash(&self, _: &Item) -> Result<String> {
        Ok(OPTIONS.into())
    }

    fn prepare(&self, item: &Item, content: &[u8]) -> Result<Prepared<'_>> {
        let photo = Photo::decode(content, &item.path(), &Default::default())?;
        let size = photo.width();
        let bar = |x: usize, y: usize| (size / 8..size - size / 8).contains(&x) && y * 5 / size == 2;
        Ok(Prepared {
            work: Work::Holes(Mask::from_fn(size, photo.height(), bar)),
            photo,
            command: "inpaint".into(),
            options: RestoreOptions { seed: item.seed, quality: Quality::Draft, ..RestoreOptions::default() },
            time_limit: None,
            format: OutputFormat::Png,
            encoding: EncodeOptions::default(),
        })
    }
}

fn fill(folder: &Path, count: usize, size: u32, photos: &[PathBuf]) -> Result<(), Box<dyn Error>> {
    fs::create_dir_all(folder)?;
    let photos =
        photos.iter().map(|path| Ok(image::open(path)?.into_rgb8())).collect::<Result<Vec<_>, image::ImageError>>()?;
    let mut random = 1_u32;
    for k in 0..count {
        let picture = match photos.get(k % photos.len().max(1)) {
            Some(photo) => {
                let step = |side: u32| (k as u32 / photos.len() as u32 * 97) % (side - size).max(1);
                imageops::crop_imm(photo, step(photo.width()), step(photo.height()), size, size).to_image()
            }
            None => RgbImage::from_fn(size, size, |_, _| {
                Rgb([0; 3].map(|_: u8| {
                    random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (random >> 24) as u8
                }))
            }),
        };
        picture.save(folder.join(name(k)))?;
    }
    Ok(())
}

fn name(k: usize) -> String {
    format!("{:03}/{k:05}.png", k / 100)
}

/// Resident memory in bytes.
fn resident() -> u64 {
    let pages = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    pages.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * 4096
}

/// Threads that run or would if there were a core for them.
fn runnable() -> usize {
    let Ok(tasks) = fs::read_dir("/proc/self/task") else { return 0 };
    let own = fs::read_link("/proc/thread-self").ok().and_then(|path| path.file_name().map(ToOwned::to_owned));
    let others = tasks.flatten().filter(|task| Some(task.file_name()) != own);
    let runs = |stat: String| stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('R'));
    others.filter(|task| fs::read_to_string(task.path().join("stat")).is_ok_and(runs)).count()
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, count, size, model, jobs, photos @ ..] = &arguments[..] else {
        return Err("expected FOLDER COUNT SIZE MODEL JOBS [PHOTO…]".into());
    };
    let (folder, count) = (Path::new(folder), count.parse::<usize>()?);
    let photos: Vec<PathBuf> = photos.iter().map(PathBuf::from).collect();
    for part in 0..count.div_ceil(100) {
        fs::create_dir_all(folder.join(format!("in/{part:03}")))?;
    }
    fill(&folder.join("in"), count, size.parse()?, &photos)?;
    let out = folder.join("out");
    fs::create_dir(&out)?;

    let root: Arc<Path> = folder.join("in").into();
    let items: Vec<Item> = (0..count).map(|k| Item::new(Arc::clone(&root), name(k).into(), 0)).collect();
    let plan = Plan {
        total: items.len(),
        items,
        skipped: Vec::new(),
        naming: Naming::default(),
        shard: Shard::All,
        others: BTreeMap::new(),
        hidden: 0,
        folders: 0,
    };
    let model = Model::open(model, &ModelOptions::default())?;
    let lock = FolderLock::acquire(&out, Shard::All, Duration::ZERO, &mut |_| Ok(()))?;
    let manifest = Manifest::open(&lock)?;
    let wanted = Wanted { options_hash: OPTIONS, model_hash: &model.hash };
    manifest.begin(&plan, &Intent { wanted, seed: 0, own_hashes: &BTreeMap::new() }, false)?;

    let done = AtomicUsize::new(0);
    let memory = Mutex::new(Vec::new());
    let watch = |event: Event<'_>| {
        if let Event::Finished { .. } = event {
            let done = done.fetch_add(1, Ordering::Relaxed) + 1;
            if done.is_multiple_of((count / 10).max(1)) {
                memory.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push((done, resident()));
            }
        }
    };
    let cores = std::thread::available_parallelism()?.get();
    let ended = AtomicBool::new(false);
    let pipeline = Pipeline {
        plan: &plan,
        policy: Policy::default(),
        recipe: &Bars,
        model: &model,
        limits: Limits { jobs: jobs.parse()?, memory: None, deadline: None, fail_fast: false, stop: &|| None },
        observer: &watch,
    };
    let clock = Instant::now();
    let (summary, busy) = std::thread::scope(|scope| {
        let observed = scope.spawn(|| {
            let (mut sum, mut looks) = (0, 0);
            while !ended.load(Ordering::Relaxed) {
                sum += runnable().min(cores);
                looks += cores;
                std::thread::sleep(Duration::from_millis(5));
            }
            sum as f64 / f64::from(looks.max(1) as u32)
        });
        let summary = pipeline.run(&manifest);
        ended.store(true, Ordering::Relaxed);
        (summary, observed.join().unwrap_or(0.0))
    });
    let (summary, seconds) = (summary?, clock.elapsed().as_secs_f64());
    println!("{} done, {} failed in {seconds:.2} s with {jobs} jobs", summary.done, summary.failed);
    println!(
        "a photo: {:.3} ms, of which sampling {:.3} ms of one job",
        1e3 * seconds / count as f64,
        1e3 * summary.sampling_seconds / count as f64
    );
    println!("cores that had work, of {cores}: {:.1} %", 100.0 * busy);
    for (done, bytes) in memory.into_inner().unwrap_or_default() {
        println!("{done} photos: {:.1} MiB", bytes as f64 / f64::from(1 << 20));
    }
    Ok(())
}
