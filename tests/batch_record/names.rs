//! Names of every kind, and names that meet.

use super::{Masks, Place, Unpaired, names, run, skipped};
use std::path::Path;
use tweedie::batch::{Decision, Manifest, Naming, Plan, Policy, Record, Request, Selection, Shard, merge};

fn refusal(place: &Place, naming: &Naming) -> Option<String> {
    let request = Request {
        selection: &place.all(),
        masks: &Masks::None,
        unpaired: Unpaired::Refuse,
        out: &place.out(),
        naming: naming.clone(),
        seed: 0,
        shard: Shard::All,
    };
    let text = Plan::new(&request).err()?.to_string();
    Some(text.replace(&place.0.path().display().to_string(), "@"))
}

#[test]
fn fault_30_two_photos_never_share_an_output() {
    let one = Naming::default();
    let place = Place::with(&["x/a.jpg", "x/a.png"]);
    assert_eq!(
        refusal(&place, &one).unwrap(),
        "@/in/x/a.jpg and @/in/x/a.png would both become x/a.png; rename one of them, or restore them into two folders"
    );
    for (first, second) in [("A.jpg", "a.jpg"), ("D/a.jpg", "d/a.jpg"), ("caf\u{e9}.jpg", "cafe\u{301}.jpg")] {
        let place = Place::with(&[first, second]);
        let text = refusal(&place, &one).unwrap();
        assert!(text.contains(first) && text.contains(second), "{text}");
        assert!(text.contains("upper and lower case, or composed and decomposed letters, are the same"), "{text}");
    }
    // Folders whose names differ in case only hold other photos.
    assert_eq!(refusal(&Place::with(&["D/a.jpg", "d/b.jpg", "e/a.jpg"]), &one), None);
}

#[test]
fn fault_30_samples_and_sheets_collide_with_nothing() {
    let place = Place::with(&["a.jpg", "a-0000.jpg", "a-mean.jpg"]);
    let several = Naming { samples: 3, mean: true, ..Naming::default() };
    assert_eq!(refusal(&place, &several), None);
    let plan = place.plan();
    let mut all: Vec<_> = plan.items.iter().flat_map(|item| several.outputs(&item.relative).samples).collect();
    all.extend(plan.items.iter().filter_map(|item| several.outputs(&item.relative).mean));
    let count = all.len();
    all.sort();
    all.dedup();
    assert_eq!((all.len(), count), (12, 12));
    let place = Place::with(&["a.jpg", "a-sheet.jpg"]);
    let sheet = Naming { sheet: true, ..Naming::default() };
    let text = refusal(&place, &sheet).unwrap();
    assert!(text.contains("would both become a-sheet.png"), "{text}");
}

#[test]
fn fault_30_an_output_is_no_folder_of_another() {
    let place = Place::with(&["a.jpg", "a.png/b.jpg"]);
    assert_eq!(
        refusal(&place, &Naming::default()).unwrap(),
        "a.png, the output of @/in/a.jpg, would have to be a folder for the output of @/in/a.png/b.jpg; rename one of them"
    );
}

/// A run over these photos: all are done, the record holds their names, a second run finds them.
fn survives(place: &Place) {
    let plan = place.plan();
    let out = place.out();
    std::fs::create_dir(&out).unwrap();
    assert_eq!(run(&place.all(), &out, Shard::All, usize::MAX).len(), plan.items.len());
    let merged = merge(&out).unwrap();
    let text = std::fs::read_to_string(&merged.path).unwrap();
    let records: Vec<Record> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let recorded: Vec<&Path> = records.iter().map(|record| record.input.path()).collect();
    assert_eq!(recorded, plan.items.iter().map(|item| item.relative.as_path()).collect::<Vec<_>>());
    for record in &records {
        assert_eq!(record.source.path(), place.path("in").join(record.input.path()));
        assert!(out.join(record.outputs[0].name.path()).is_file());
    }
    let manifest = Manifest::open(&super::lock(&out, Shard::All)).unwrap();
    for item in &plan.items {
        assert_eq!(
            manifest.decide(item, &plan.outputs(item), super::WANTED, Policy::default()).unwrap(),
            Decision::Done,
            "{item:?}"
        );
    }
}

#[test]
fn fault_69_odd_names_are_done_and_recorded() {
    let long = format!("{}.jpg", "l".repeat(251));
    let odd = [
        "with space.jpg",
        "line\nfeed.jpg",
        "-f.jpg",
        "\u{1f600}.jpg",
        "cafe\u{301}.jpg",
        "caf\u{e8}.jpg",
        "..a.jpg",
        "a..jpg",
        "CON.jpg",
        "quote\".jpg",
        "back\\slash.jpg",
        "tab\t.jpg",
        "\u{202e}gpj.jpg",
        "*?[{.jpg",
        "$(rm).jpg",
        &long,
        " .jpg",
        "sub folder/\u{1f600}/x.jpg",
    ];
    let place = Place::with(&odd);
    let hidden = place.plan();
    assert_eq!(hidden.hidden, 1, "..a.jpg begins with a dot");
    assert_eq!(hidden.items.len(), odd.len() - 1);
    survives(&place);
}

#[cfg(target_os = "linux")]
#[test]
fn fault_69_names_that_are_no_text_are_done_and_come_back_from_json() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let place = Place::new();
    for name in [&b"\xff.jpg"[..], b"caf\xe9.jpg", b"d\xfe/\x80\x81.png", b"\xed\xa0\x80.jpg"] {
        place.photo(OsStr::from_bytes(name));
    }
    survives(&place);
    let text = std::fs::read_to_string(place.path("out/manifest.jsonl")).unwrap();
    let lossy = text.lines().filter(|line| line.contains("\"input\":{\"lossy\":")).count();
    assert_eq!(lossy, 4, "such a name is no string: nobody opens another file by mistake");
}

#[test]
fn fault_69_a_name_that_grows_too_long_is_an_error_of_its_photo() {
    let longest = format!("{}.jpg", "a".repeat(251));
    let longer = format!("{}.tiff", "b".repeat(250));
    let place = Place::with(&[&longest, &longer, "c.jpg"]);
    assert_eq!(names(&place.plan()).len(), 3);
    let naming = Naming { samples: 2, ..Naming::default() };
    let request = Request {
        selection: &place.all(),
        masks: &Masks::None,
        unpaired: Unpaired::Refuse,
        out: &place.out(),
        naming,
        seed: 0,
        shard: Shard::All,
    };
    let plan = Plan::new(&request).unwrap();
    assert_eq!(names(&plan), ["c.jpg"]);
    assert!(plan.has_errors());
    assert_eq!(
        skipped(&plan)[&longest],
        "its output's name would have 260 bytes, file systems take 255; rename the photo"
    );
}

#[test]
fn a_copy_with_decomposed_names_has_the_same_seeds_and_order() {
    let composed = Place::with(&["caf\u{e9}/z.jpg", "caff.jpg", "\u{fc}.jpg"]);
    let decomposed = Place::with(&["cafe\u{301}/z.jpg", "caff.jpg", "u\u{308}.jpg"]);
    let seeds = |place: &Place| place.plan().items.iter().map(|item| item.seed).collect::<Vec<_>>();
    assert_eq!(seeds(&composed), seeds(&decomposed));
    let selection = Selection { inputs: vec![composed.path("in/caff.jpg")], ..Selection::default() };
    let alone = composed.plan_of(&selection, Shard::All).unwrap();
    assert_eq!(alone.items[0].seed, composed.plan().items[0].seed, "a photo's seed depends on no other photo");
}
