//! Many photos.

use super::{Decision, INTENT, Manifest, Place, Policy, WANTED, lock, work};
use std::time::Instant;
use tweedie::batch::{Shard, merge, status};

/// Bytes of memory that the process holds now.
#[cfg(target_os = "linux")]
fn memory() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}

/// `TWEEDIE_TEST_PHOTOS=100000 cargo test --release --test tests fault_70_many -- --nocapture` prints the times and sizes of
/// a hundred thousand photos in a thousand folders.
#[cfg(target_os = "linux")]
#[test]
fn fault_70_many_photos_take_little_time_and_memory() {
    let count: usize = std::env::var("TWEEDIE_TEST_PHOTOS").map_or(3000, |count| count.parse().unwrap());
    let place = Place::new();
    for k in 0..count {
        place.photo(format!("folder {}/a photo of some length {k}.jpg", k / 100));
    }
    std::fs::create_dir(place.out()).unwrap();
    let step = |what: &str, begun: Instant, before: usize| {
        let grown = memory().saturating_sub(before);
        println!("{what}: {:.3} s, {:.1} MiB more", begun.elapsed().as_secs_f64(), grown as f64 / 1048576.0);
        grown
    };
    let (begun, before) = (Instant::now(), memory());
    let plan = place.plan();
    let grown = step("plan", begun, before);
    assert_eq!(plan.items.len(), count);
    // What is kept of a photo, with room for what the allocator keeps back.
    assert!(grown < 2000 * count + (4 << 20), "{grown} bytes for {count} photos");
    let begun = Instant::now();
    assert_eq!(place.plan_of(&place.all(), Shard::Hash { index: 3, count: 7 }).unwrap().total, count);
    step("plan of a shard", begun, memory());
    let lock = lock(&place.out(), Shard::All);
    let (begun, before) = (Instant::now(), memory());
    let manifest = Manifest::open(&lock).unwrap();
    manifest.begin(&plan, &INTENT, false).unwrap();
    step("begin", begun, before);
    // One output stands for all: the record is what grows.
    let model = work(&plan, &plan.items[0], &place.out());
    let (begun, before) = (Instant::now(), memory());
    for items in plan.items.chunks(100) {
        let records: Vec<_> = items
            .iter()
            .map(|item| tweedie::batch::Record {
                outputs: model.outputs.clone(),
                sha256: model.sha256.clone(),
                size: model.size,
                ..tweedie::batch::Record::new(item, WANTED.options_hash, WANTED.model_hash, super::Status::Done)
            })
            .collect();
        manifest.append(&records).unwrap();
    }
    let grown = step("append in groups of 100, each synced", begun, before);
    assert!(grown < 400 * count + (4 << 20), "{grown} bytes for {count} records");
    let (begun, before) = (Instant::now(), memory());
    manifest.sort().unwrap();
    step("sort", begun, before);
    drop(manifest);
    let (begun, before) = (Instant::now(), memory());
    let manifest = Manifest::open(&lock).unwrap();
    let grown = step("open again", begun, before);
    assert!(grown < 400 * count + (4 << 20), "{grown} bytes for {count} records");
    let begun = Instant::now();
    let undecided = plan.items.iter().filter(|item| {
        let decision = manifest
            .decide(item, &plan.outputs(item), WANTED, Policy { fast_check: true, ..Policy::default() })
            .unwrap();
        !matches!(decision, Decision::Do(_))
    });
    assert_eq!(undecided.count(), 1, "the records are of another content");
    step("decide", begun, memory());
    let begun = Instant::now();
    assert_eq!(status(&place.out()).unwrap().done, count);
    step("status", begun, memory());
    let begun = Instant::now();
    assert_eq!(merge(&place.out()).unwrap().done, count);
    step("merge", begun, memory());
}
