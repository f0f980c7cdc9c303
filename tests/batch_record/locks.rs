//! Who may work on a folder, and that nothing is done twice.

use super::{INTENT, Place, child, run, task, timeless};
use std::time::Duration;
use tweedie::Error;
use tweedie::batch::{FolderLock, Shard, merge, status};

/// A lock that is free. Other tests start processes meanwhile, and a process that is about to start shares the locks of this
/// one for a moment.
fn acquire(place: &Place, shard: Shard) -> FolderLock {
    FolderLock::acquire(&place.out(), shard, Duration::from_secs(60), &mut |_| Ok(())).unwrap()
}

/// A lock, if it is free.
fn attempt(place: &Place, shard: Shard) -> Option<FolderLock> {
    match FolderLock::acquire(&place.out(), shard, Duration::ZERO, &mut |_| Ok(())) {
        Ok(lock) => Some(lock),
        Err(Error::Locked { path, .. }) => {
            assert_eq!(path, place.path("out/.tweedie/lock"));
            None
        }
        Err(error) => panic!("{error}"),
    }
}

fn hash(index: u32, count: u32) -> Shard {
    Shard::Hash { index, count }
}

#[test]
fn fault_66_one_run_of_everything_or_shards_of_one_division() {
    let place = Place::new();
    let slice = |index| Shard::Slice { index, count: 3 };
    for (held, wanted) in [
        (&[][..], Shard::All),
        (&[hash(1, 3)], hash(2, 3)),
        (&[hash(1, 3), hash(3, 3)], hash(2, 3)),
        (&[slice(2)], slice(1)),
    ] {
        let held: Vec<_> = held.iter().map(|&shard| acquire(&place, shard)).collect();
        assert!(held.iter().all(FolderLock::is_held) && acquire(&place, wanted).is_held());
    }
    for (held, wanted) in [
        (Shard::All, Shard::All),
        (Shard::All, hash(1, 3)),
        // The same shard twice.
        (hash(1, 3), hash(1, 3)),
        // Photos would be in both.
        (hash(1, 3), hash(2, 4)),
        (hash(1, 3), slice(2)),
        (hash(1, 3), Shard::All),
    ] {
        let _held = acquire(&place, held);
        assert!(attempt(&place, wanted).is_none(), "{wanted} beside {held}");
    }
    // The last one to go frees the folder for others.
    let first = acquire(&place, hash(1, 2));
    let second = acquire(&place, hash(2, 2));
    drop(first);
    assert!(attempt(&place, Shard::All).is_none() && attempt(&place, hash(1, 3)).is_none());
    drop(acquire(&place, hash(1, 2)));
    drop(second);
    drop(acquire(&place, Shard::All));
    drop(acquire(&place, hash(1, 3)));
}

#[test]
fn fault_66_who_waits_is_told_for_whom_and_may_leave() {
    let place = Place::new();
    let held = acquire(&place, Shard::All);
    let mut told = Vec::new();
    let waited = FolderLock::acquire(&place.out(), Shard::All, Duration::from_secs(600), &mut |waiting| {
        told.push((waiting.to_string(), waiting.is_first));
        if told.len() == 3 { Err(Error::Interrupted) } else { Ok(()) }
    });
    assert!(matches!(waited, Err(Error::Interrupted)));
    let text = format!("process {} works on {}; waiting until it is done", std::process::id(), place.out().display());
    assert_eq!(told, [(text.clone(), true), (text.clone(), false), (text, false)]);
    let begun = std::time::Instant::now();
    let limit = Duration::from_millis(300);
    let error = FolderLock::acquire(&place.out(), hash(1, 2), limit, &mut |_| Ok(())).unwrap_err();
    assert!(matches!(error, Error::Locked { .. }) && begun.elapsed() >= limit);
    // Released while someone waits.
    let waiting = std::thread::spawn({
        let out = place.out();
        move || FolderLock::acquire(&out, Shard::All, Duration::from_secs(60), &mut |_| Ok(())).is_ok()
    });
    std::thread::sleep(Duration::from_millis(50));
    drop(held);
    assert!(waiting.join().unwrap());
}

/// Runs of the folder in processes of their own, all at once; the relative paths that each of them worked on.
fn together(test: &str, place: &Place, tasks: &[&str]) -> Vec<Vec<String>> {
    let start = |task: &&str| child(test, task, place.0.path()).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let processes: Vec<_> = tasks.iter().map(start).collect();
    let finish = |process: std::process::Child| {
        let output = process.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{text}");
        text.lines().filter_map(|line| Some(line.rsplit_once("worked ")?.1.to_owned())).collect()
    };
    processes.into_iter().map(finish).collect()
}

/// The other part of the tests below: waits for its turn and works.
fn take_part() -> bool {
    let Some((shard, folder)) = task() else { return false };
    let shard = Shard::parse(&shard, &|_| None).unwrap();
    let shard = if shard.count() == 1 { Shard::All } else { shard };
    let (selection, out) =
        (super::Selection { inputs: vec![folder.join("in")], ..Default::default() }, folder.join("out"));
    let lock = FolderLock::acquire(&out, shard, Duration::from_secs(60), &mut |_| Ok(())).unwrap();
    let plan = super::plan(&selection, &super::Masks::None, super::Unpaired::Refuse, &out, shard).unwrap();
    let manifest = super::Manifest::open(&lock).unwrap();
    manifest.begin(&plan, &INTENT, false).unwrap();
    for item in &plan.items {
        if let super::Decision::Do(_) =
            manifest.decide(item, &plan.outputs(item), super::WANTED, super::Policy::default()).unwrap()
        {
            manifest.append(&[super::work(&plan, item, &out)]).unwrap();
            println!("worked {}", item.relative.display());
        }
    }
    manifest.sort().unwrap();
    true
}

fn photos(count: usize) -> Place {
    let place = Place::new();
    (0..count).for_each(|k| place.photo(format!("{k:03}.jpg")));
    std::fs::create_dir(place.out()).unwrap();
    place
}

#[test]
fn fault_66_two_processes_on_one_folder_do_every_photo_once() {
    if take_part() {
        return;
    }
    let place = photos(60);
    let test = "batch_record::locks::fault_66_two_processes_on_one_folder_do_every_photo_once";
    let worked = together(test, &place, &["1/1", "1/1", "1/1"]);
    let mut all: Vec<_> = worked.concat();
    all.sort();
    assert_eq!(all, (0..60).map(|k| format!("{k:03}.jpg")).collect::<Vec<_>>());
    assert!(status(&place.out()).unwrap().is_complete());
}

#[test]
fn fault_66_shards_at_the_same_time_leave_what_one_run_leaves() {
    if take_part() {
        return;
    }
    let test = "batch_record::locks::fault_66_shards_at_the_same_time_leave_what_one_run_leaves";
    for kind in ["hash", "slice"] {
        let place = photos(60);
        let tasks: Vec<_> = (1..=3).map(|k| format!("{kind}:{k}/3")).collect();
        // Each shard is started twice.
        let tasks: Vec<&str> = tasks.iter().chain(&tasks).map(String::as_str).collect();
        let worked = together(test, &place, &tasks);
        assert_eq!(worked.concat().len(), 60);
        let merged = merge(&place.out()).unwrap();
        assert_eq!((merged.done, merged.failed, merged.damaged.len()), (60, 0, 0));
        let shared = timeless(&merged.path);
        // The same photos, alone.
        std::fs::remove_dir_all(place.out()).unwrap();
        std::fs::create_dir(place.out()).unwrap();
        run(&place.all(), &place.out(), Shard::All, usize::MAX);
        assert_eq!(timeless(&merge(&place.out()).unwrap().path), shared);
    }
}
