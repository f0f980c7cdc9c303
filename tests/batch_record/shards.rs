//! Any division is disjoint, covers everything, and leaves the same.

use super::{Dice, INTENT, Place, WANTED, failure, files, lock, names, run, timeless, work};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use tweedie::batch::{Intent, Item, Manifest, Progress, Record, Shard, Wanted, merge, seed, status, status_with};

/// All shards of a division.
fn division(by_slice: bool, count: u32) -> Vec<Shard> {
    let shard = |index| if by_slice { Shard::Slice { index, count } } else { Shard::Hash { index, count } };
    (1..=count).map(shard).collect()
}

#[test]
fn shards_are_disjoint_and_cover_everything_whatever_their_number() {
    let mut dice = Dice(57);
    for round in 0..30 {
        let place = Place::new();
        for _ in 0..dice.below(120) {
            let (a, b, c) = (dice.below(4), dice.below(40), dice.below(3));
            place.photo(format!("{}{b}.{}", ["", "x/", "x/y/", "\u{e9} /"][a], ["jpg", "png", "tif"][c]));
        }
        // Names that meet are another test's.
        let Ok(whole) = place.plan_of(&place.all(), Shard::All) else { continue };
        let count = 1 + dice.below(9) as u32;
        for by_slice in [false, true] {
            let mut found = BTreeSet::new();
            let mut sizes = Vec::new();
            for shard in division(by_slice, count) {
                let part = place.plan_of(&place.all(), shard).unwrap();
                assert_eq!(part.total, whole.items.len());
                assert!(
                    part.items.is_sorted_by_key(|item| whole.items.iter().position(|other| other == item).unwrap())
                );
                sizes.push(part.items.len());
                for item in part.items {
                    assert!(found.insert(item.relative), "round {round}: in two shards");
                }
            }
            assert_eq!(found.len(), whole.items.len(), "round {round}: {shard:?}", shard = division(by_slice, count));
            if by_slice {
                assert!(sizes.iter().max().unwrap() - sizes.iter().min().unwrap() <= 1, "{sizes:?}");
            }
        }
    }
}

#[test]
fn hashes_spread_evenly_and_do_not_move_when_photos_come() {
    let place = Place::new();
    (0..1200).for_each(|k| place.photo(format!("{k}.jpg")));
    let parts = || -> Vec<BTreeSet<String>> {
        let part = |shard| names(&place.plan_of(&place.all(), shard).unwrap()).into_iter().collect();
        division(false, 4).into_iter().map(part).collect()
    };
    let before = parts();
    // 300 each, with a binomial deviation of 15.
    assert!(before.iter().all(|part| (225..=375).contains(&part.len())), "{:?}", before.iter().map(BTreeSet::len));
    (1200..1300).for_each(|k| place.photo(format!("{k}.jpg")));
    assert!(before.iter().zip(parts()).all(|(before, after)| after.is_superset(before)));
}

// python3 -c "import hashlib; p = lambda b: len(b).to_bytes(8, 'little') + b; \
//   h = hashlib.sha256(p(b'tweedie batch shard') + p('a/b.jpg'.encode())).digest(); \
//   print([int.from_bytes(h[:8], 'little') % count + 1 for count in (3, 7, 1000)])"
#[test]
fn the_hash_of_a_path_is_the_same_everywhere() {
    for (path, indices) in [("a/b.jpg", [3, 7, 796]), ("a.jpg", [2, 5, 19]), ("cafe\u{301}.jpg", [1, 7, 443])] {
        let item = tweedie::batch::Item::new(std::path::Path::new("").into(), path.into(), 0);
        for (count, index) in [3, 7, 1000].into_iter().zip(indices) {
            for shard in division(false, count) {
                let expected = shard == Shard::Hash { index, count };
                assert_eq!(shard.takes(&item, 0), expected, "{path} {shard}");
            }
        }
    }
}

#[test]
fn names_of_shards_are_read_as_they_are_written() {
    for shard in [Shard::All].into_iter().chain(division(false, 12)).chain(division(true, 3)) {
        assert_eq!(Shard::from_name(&shard.name()), Some(shard));
        let read = Shard::parse(&shard.to_string(), &|_| None).unwrap();
        assert!(read == shard || shard == Shard::All && read.count() == 1);
    }
    for name in
        ["", "hash", "hash-0-of-3", "hash-4-of-3", "hash-1-of-03", "hash-+1-of-3", "All", "slice-1-of-", "x-1-of-2"]
    {
        assert_eq!(Shard::from_name(name), None, "{name}");
    }
    let parse = |text: &str| Shard::parse(text, &|_| None);
    assert_eq!(parse("2/3").unwrap(), Shard::Hash { index: 2, count: 3 });
    assert_eq!(parse("slice:3/3").unwrap(), Shard::Slice { index: 3, count: 3 });
    for text in
        ["", "3", "0/3", "4/3", "1/0", "-1/3", "1/3/5", "hash:", "part:1/3", "a/b", "1/99999999999", "auto/0", "auto/x"]
    {
        let error = parse(text).unwrap_err().to_string();
        assert!(error.starts_with("--shard is "), "{text}: {error}");
    }
}

/// The variables as Slurm documents them for `--array`, and Kubernetes for indexed jobs.
#[test]
fn automatic_shards_read_the_scheduler() {
    let ask = |text: &str, variables: &[(&str, &str)]| {
        let variables: BTreeMap<String, String> =
            variables.iter().map(|&(name, value)| (name.into(), value.into())).collect();
        Shard::parse(text, &|name| variables.get(name).cloned()).map_err(|error| error.to_string())
    };
    let slurm = |id, min, max, step, count| {
        let id: &'static str = id;
        [
            ("SLURM_ARRAY_TASK_ID", id),
            ("SLURM_ARRAY_TASK_MIN", min),
            ("SLURM_ARRAY_TASK_MAX", max),
            ("SLURM_ARRAY_TASK_STEP", step),
            ("SLURM_ARRAY_TASK_COUNT", count),
        ]
    };
    // --array=0-7, --array=1-8, --array=1-15:2
    assert_eq!(ask("auto", &slurm("0", "0", "7", "1", "8")), Ok(Shard::Hash { index: 1, count: 8 }));
    assert_eq!(ask("auto", &slurm("8", "1", "8", "1", "8")), Ok(Shard::Hash { index: 8, count: 8 }));
    assert_eq!(ask("auto", &slurm("5", "1", "15", "2", "8")), Ok(Shard::Hash { index: 3, count: 8 }));
    assert_eq!(ask("auto/8", &slurm("8", "1", "8", "1", "8")), Ok(Shard::Hash { index: 8, count: 8 }));
    // --array=3,7: two tasks, whose numbers are no shards of two.
    let text = ask("auto", &slurm("7", "3", "7", "1", "2")).unwrap_err();
    assert!(text.contains("expected an array without gaps"), "{text}");
    // --array=3 of what was an array of eight.
    let text = ask("auto/8", &slurm("3", "3", "3", "1", "1")).unwrap_err();
    assert!(text.contains("auto/8 in an array of 1 tasks"), "{text}");
    let text = ask("auto", &[("SLURM_ARRAY_TASK_ID", "3")]).unwrap_err();
    assert!(text.contains("SLURM_ARRAY_TASK_MIN"), "{text}");
    assert!(ask("auto", &slurm("x", "1", "8", "1", "8")).is_err());
    let kubernetes = [("JOB_COMPLETION_INDEX", "2")];
    assert_eq!(ask("auto/3", &kubernetes), Ok(Shard::Hash { index: 3, count: 3 }));
    assert!(ask("auto/2", &kubernetes).unwrap_err().contains("JOB_COMPLETION_INDEX=2"));
    assert!(ask("auto", &kubernetes).unwrap_err().contains("Kubernetes does not tell"));
    assert!(ask("auto", &[]).unwrap_err().contains("SLURM_ARRAY_TASK_ID"));
    // Without `auto` nobody looks.
    assert_eq!(ask("1/2", &slurm("0", "0", "7", "1", "8")), Ok(Shard::Hash { index: 1, count: 2 }));
}

fn forty() -> Place {
    let place = Place::new();
    (0..40).for_each(|k| place.photo(format!("{}/{k}.jpg", k % 3)));
    std::fs::create_dir(place.out()).unwrap();
    place
}

#[test]
fn three_shards_and_a_merge_are_one_run() {
    let place = forty();
    let merged_files = |place: &Place| {
        merge(&place.out()).unwrap();
        let record = timeless(&place.path("out/manifest.jsonl"));
        let mut files = files(&place.out());
        files.remove(std::path::Path::new("manifest.jsonl"));
        (record, files)
    };
    run(&place.all(), &place.out(), Shard::All, usize::MAX);
    let alone = merged_files(&place);
    assert_eq!(alone.0, timeless(&place.path("out/.tweedie/manifest/all.jsonl")), "a run alone is sorted already");
    assert_eq!(alone.0.len(), 40);
    for shards in [division(false, 3), division(true, 3), division(false, 7)] {
        std::fs::remove_dir_all(place.out()).unwrap();
        std::fs::create_dir(place.out()).unwrap();
        for &shard in shards.iter().rev() {
            run(&place.all(), &place.out(), shard, usize::MAX);
        }
        assert_eq!(merged_files(&place), alone);
    }
}

#[test]
fn another_division_goes_on_where_the_first_one_was() {
    let place = forty();
    let out = place.out();
    assert_eq!(run(&place.all(), &out, Shard::All, 13).len(), 13);
    let mut rest = Vec::new();
    for shard in division(false, 3) {
        rest.extend(run(&place.all(), &out, shard, usize::MAX));
    }
    assert_eq!(rest.len(), 27);
    assert_eq!(run(&place.all(), &out, Shard::All, usize::MAX), [""; 0]);
    for shard in division(true, 5) {
        assert_eq!(run(&place.all(), &out, shard, usize::MAX), [""; 0]);
    }
    assert_eq!(merge(&out).unwrap().done, 40);
}

#[test]
fn status_counts_what_is_done_failed_and_missing() {
    let place = forty();
    let out = place.out();
    let error = status(&out).unwrap_err().to_string();
    assert_eq!(
        error,
        format!("{}: has no record of a batch; expected the output folder of `tweedie batch`", out.display())
    );
    assert_eq!(merge(&out).unwrap_err().to_string(), error);
    let shards = division(true, 2);
    run(&place.all(), &out, shards[0], 5);
    let progress = status(&out).unwrap();
    assert_eq!((progress.planned, progress.done, progress.failed, progress.missing()), (40, 5, 0, 35));
    assert_eq!(progress.shards.len(), 1, "the other has not begun");
    assert_eq!((progress.shards[0].planned, progress.shards[0].done), (20, 5));
    run(&place.all(), &out, shards[1], usize::MAX);
    run(&place.all(), &out, shards[0], 14);
    {
        let plan = place.plan_of(&place.all(), shards[0]).unwrap();
        let lock = super::lock(&out, shards[0]);
        let manifest = super::Manifest::open(&lock).unwrap();
        let undone = plan.items.iter().find(|item| manifest.get(&item.relative).unwrap().is_none()).unwrap();
        let (mut failed, mut missing) = (Vec::new(), Vec::new());
        let told = |name: &tweedie::batch::Name| missing.push(name.path().to_owned());
        let progress = status_with(&out, |record| failed.push(record.error), told).unwrap();
        assert_eq!((progress.done, progress.missing(), progress.is_complete()), (39, 1, false));
        assert_eq!((failed.len(), &missing), (0, &vec![undone.relative.clone()]));
        manifest.append(&[super::failure(undone)]).unwrap();
    }
    let mut failed = Vec::new();
    let progress = status_with(&out, |record| failed.push(record.error), |name| panic!("{name:?} is missing")).unwrap();
    assert_eq!((progress.planned, progress.done, progress.failed, progress.missing()), (40, 39, 1, 0));
    assert!(!progress.is_complete());
    assert_eq!(failed, [Some("damaged".to_owned())]);
    let merged = merge(&out).unwrap();
    assert_eq!((merged.done, merged.failed), (39, 1));
    // An output that is gone is not done.
    let gone = out.join("0/0.png");
    std::fs::rename(&gone, out.join("kept")).unwrap();
    let mut missing = Vec::new();
    let progress = status_with(&out, |_| (), |name| missing.push(name.path().to_owned())).unwrap();
    assert_eq!((progress.planned, progress.done, progress.failed, progress.missing()), (40, 38, 1, 1));
    assert_eq!(missing, [std::path::Path::new("0/0.jpg")]);
    std::fs::rename(out.join("kept"), gone).unwrap();
    // A run of a part makes the part the plan.
    let one = tweedie::batch::Selection { inputs: vec![place.path("in/0/0.jpg")], ..Default::default() };
    run(&one, &out, Shard::All, usize::MAX);
    let progress = status(&out).unwrap();
    assert_eq!((progress.planned, progress.done, progress.unplanned), (1, 1, 40));
}

/// A run that is stopped as soon as it has noted its plan and done the first `count` photos as `made` says.
fn begin(place: &Place, shard: Shard, intent: &Intent<'_>, count: usize, made: impl Fn(&mut Record)) {
    let plan = place.plan_of(&place.all(), shard).unwrap();
    let manifest = Manifest::open(&lock(&place.out(), shard)).unwrap();
    manifest.begin(&plan, intent, false).unwrap();
    for item in &plan.items[..count] {
        let mut record = work(&plan, item, &place.out());
        made(&mut record);
        manifest.append(&[record]).unwrap();
    }
}

#[track_caller]
fn counted(place: &Place, done: usize, failed: usize, missing: usize) -> Progress {
    let mut told = (0, 0);
    let progress = status_with(&place.out(), |_| told.0 += 1, |_| told.1 += 1).unwrap();
    assert_eq!((progress.done, progress.failed, progress.missing()), (done, failed, missing));
    assert_eq!((told.0, progress.planned, progress.unplanned), (failed, 40, 0));
    assert_eq!(told.1, missing);
    progress
}

#[test]
fn what_was_made_otherwise_than_the_last_run_means_to_is_missing() {
    let place = forty();
    run(&place.all(), &place.out(), Shard::All, usize::MAX);
    counted(&place, 40, 0, 0);
    let other = Wanted { options_hash: "other", ..WANTED };
    begin(&place, Shard::All, &Intent { wanted: other, ..INTENT }, 2, |record| record.options_hash = "other".into());
    let progress = counted(&place, 2, 0, 38);
    assert!(!progress.is_complete());
    assert_eq!((progress.shards[0].done, progress.shards[0].failed), (2, 0));
    // Whoever goes back finds the others again.
    begin(&place, Shard::All, &INTENT, 0, |_| ());
    counted(&place, 38, 0, 2);
    let model = Wanted { model_hash: "other model", ..WANTED };
    begin(&place, Shard::All, &Intent { wanted: model, ..INTENT }, 1, |record| {
        record.model_hash = "other model".into()
    });
    counted(&place, 1, 0, 39);
    let seeded = Intent { seed: 5, ..INTENT };
    begin(&place, Shard::All, &seeded, 3, |record| record.seed = seed(5, record.input.path()));
    counted(&place, 3, 0, 37);
    // What failed under other settings is tried under these.
    let plan = place.plan();
    let failed = |item: &Item| Record { seed: seed(5, &item.relative), ..failure(item) };
    let manifest = Manifest::open(&lock(&place.out(), Shard::All)).unwrap();
    manifest.append(&[failed(&plan.items[7]), failure(&plan.items[8])]).unwrap();
    drop(manifest);
    counted(&place, 3, 1, 36);
}

#[test]
fn photos_with_settings_of_their_own_are_counted_by_those() {
    let place = forty();
    let own = BTreeMap::from([(PathBuf::from("0/3.jpg"), "own".to_owned())]);
    let made = |record: &mut Record| {
        if record.input.path() == std::path::Path::new("0/3.jpg") {
            record.options_hash = "own".into();
        }
    };
    begin(&place, Shard::All, &Intent { own_hashes: &own, ..INTENT }, 40, made);
    counted(&place, 40, 0, 0);
    // A division that begins with the same settings goes on with what there is, and knows the photos of all its shards.
    let shards = division(false, 3);
    begin(&place, shards[0], &Intent { own_hashes: &own, ..INTENT }, 0, made);
    counted(&place, 40, 0, 0);
    let changed = BTreeMap::from([(PathBuf::from("0/3.jpg"), "changed".to_owned())]);
    begin(&place, Shard::All, &Intent { own_hashes: &changed, ..INTENT }, 0, made);
    counted(&place, 39, 0, 1);
}

#[test]
fn shards_that_have_not_begun_will_be_done_as_the_last_one_that_did() {
    let place = forty();
    run(&place.all(), &place.out(), Shard::All, usize::MAX);
    let shard = division(false, 3)[1];
    let photos = place.plan_of(&place.all(), shard).unwrap().items.len();
    let other = Intent { wanted: Wanted { options_hash: "other", ..WANTED }, ..INTENT };
    begin(&place, shard, &other, photos, |record| record.options_hash = "other".into());
    counted(&place, photos, 0, 40 - photos);
}
