//! What is no batch's, or somebody's by now, is replaced by force only, whatever the record says of its photo.

use super::{INTENT, Place, WANTED, failure, lock, run, work};
use std::path::Path;
use tweedie::batch::{
    Cause, Decision, Intent, Item, Manifest, Naming, Plan, Policy, Record, Shard, Status, Wanted, Written, sha256,
};

const OTHER: Wanted<'static> = Wanted { options_hash: "other", ..WANTED };
const RETRY: Policy =
    Policy { force: false, retry_failed: true, changed: tweedie::batch::Changed::Redo, fast_check: false };

/// A photo `a.jpg`, restored by a whole run.
fn done() -> Place {
    let place = Place::with(&["a.jpg"]);
    std::fs::create_dir(place.out()).unwrap();
    assert_eq!(run(&place.all(), &place.out(), Shard::All, usize::MAX), ["a.jpg"]);
    place
}

fn named(place: &Place, naming: Naming) -> Plan {
    Plan { naming, ..place.plan() }
}

fn jpeg() -> Naming {
    Naming { extension: "jpg".into(), ..Naming::default() }
}

#[track_caller]
fn decide(place: &Place, plan: &Plan, wanted: Wanted<'_>, policy: Policy) -> Decision {
    let lock = lock(&place.out(), Shard::All);
    let manifest = Manifest::open(&lock).unwrap();
    manifest.begin(plan, &Intent { wanted, ..INTENT }, policy.force).unwrap();
    manifest.decide(&plan.items[0], &plan.outputs(&plan.items[0]), wanted, policy).unwrap()
}

#[track_caller]
fn refused(decision: &Decision, file: &Path, why: &str) {
    let Decision::Refuse(reason) = decision else { panic!("{decision:?}") };
    assert!(reason.starts_with(&file.display().to_string()) && reason.contains(why), "{reason}");
}

fn append(place: &Place, record: Record) {
    Manifest::open(&lock(&place.out(), Shard::All)).unwrap().append(&[record]).unwrap();
}

#[test]
fn a_file_beside_the_outputs_of_a_photo_is_not_replaced_when_the_names_change() {
    let several = Naming { samples: 2, ..Naming::default() };
    for (naming, file) in [(jpeg(), "out/a.jpg"), (several, "out/a-0000.png")] {
        let place = done();
        let plan = named(&place, naming);
        assert_eq!(decide(&place, &plan, OTHER, Policy::default()), Decision::Do(Cause::Settings));
        place.write(file, "mine");
        let why = "exists, and no batch has written it; --force replaces it";
        refused(&decide(&place, &plan, OTHER, Policy::default()), &place.path(file), why);
        let force = Policy { force: true, ..Policy::default() };
        assert_eq!(decide(&place, &plan, OTHER, force), Decision::Do(Cause::Forced));
    }
}

#[test]
fn an_output_that_someone_worked_on_is_not_replaced_for_any_cause() {
    let place = done();
    let plan = place.plan();
    let file = place.path("out/a.png");
    std::fs::write(&file, "hand work").unwrap();
    let why = "someone has changed it";
    refused(&decide(&place, &plan, OTHER, Policy::default()), &file, why);
    place.write("in/a.jpg", "another photo");
    refused(&decide(&place, &plan, WANTED, Policy::default()), &file, why);
    // Where the names are others, it is in nobody's way.
    assert_eq!(decide(&place, &named(&place, jpeg()), OTHER, Policy::default()), Decision::Do(Cause::Settings));
}

#[test]
fn a_failed_photo_owns_no_file_but_those_of_its_earlier_runs() {
    let place = Place::with(&["a.jpg"]);
    std::fs::create_dir(place.out()).unwrap();
    let plan = place.plan();
    append(&place, failure(&plan.items[0]));
    assert_eq!(decide(&place, &plan, WANTED, RETRY), Decision::Do(Cause::Retry));
    place.write("out/a.png", "mine");
    let (file, why) = (place.path("out/a.png"), "no batch has written it");
    refused(&decide(&place, &plan, WANTED, RETRY), &file, why);
    // What is left alone is in nobody's way.
    let left = Decision::Failed { error: "damaged".into(), code: 1 };
    assert_eq!(decide(&place, &plan, WANTED, Policy::default()), left);
    let before = Written { name: tweedie::batch::Name::new(Path::new("a.png")), size: 4, sha256: sha256(b"mine") };
    append(&place, Record { earlier: vec![before], ..failure(&plan.items[0]) });
    assert_eq!(decide(&place, &plan, WANTED, RETRY), Decision::Do(Cause::Retry));
    // The photo was replaced by a good one.
    place.write("in/a.jpg", "repaired");
    assert_eq!(decide(&place, &plan, WANTED, Policy::default()), Decision::Do(Cause::Input));
    std::fs::write(&file, "mine again").unwrap();
    refused(&decide(&place, &plan, WANTED, Policy::default()), &file, "has 10 bytes, 4 were written");
}

#[test]
fn a_plan_frees_the_names_that_it_meant_to_write_alone() {
    let place = Place::with(&["a.jpg"]);
    std::fs::create_dir(place.out()).unwrap();
    let begin = |naming: Naming| {
        let lock = lock(&place.out(), Shard::All);
        Manifest::open(&lock).unwrap().begin(&named(&place, naming), &INTENT, false).map_err(|error| error.to_string())
    };
    begin(Naming::default()).unwrap();
    place.write("out/a.jpg", "mine");
    let error = begin(jpeg()).unwrap_err();
    assert!(error.contains(&place.path("out/a.jpg").display().to_string()) && error.contains("--force"), "{error}");
    // A stopped run may have left the other.
    place.write("out/a.png", "of the run");
    begin(Naming::default()).unwrap();
}

#[test]
fn what_memory_or_the_disk_were_too_little_for_is_tried_again() {
    let place = Place::with(&["a.jpg"]);
    std::fs::create_dir(place.out()).unwrap();
    let plan = place.plan();
    append(&place, Record { code: 5, ..failure(&plan.items[0]) });
    assert_eq!(decide(&place, &plan, WANTED, Policy::default()), Decision::Do(Cause::Retry));
}

#[test]
fn the_result_of_another_photo_that_is_still_there_is_not_replaced() {
    let place = done();
    place.write("other/a.jpg", "another photo of this name");
    let mut plan = place.plan();
    let item = |root: &str| Item::new(place.path(root).into(), "a.jpg".into(), 0);
    plan.items = vec![item("other")];
    let why = format!(
        "is the result of {}, not of {}",
        place.path("in/a.jpg").display(),
        place.path("other/a.jpg").display()
    );
    for wanted in [WANTED, OTHER] {
        refused(&decide(&place, &plan, wanted, Policy::default()), &place.path("out/a.png"), &why);
    }
    let force = Policy { force: true, ..Policy::default() };
    assert_eq!(decide(&place, &plan, WANTED, force), Decision::Do(Cause::Forced));
    // The same photo by another path is no other photo, and neither is one whose folder moved.
    plan.items = vec![item("other/../in")];
    assert_eq!(decide(&place, &plan, OTHER, Policy::default()), Decision::Do(Cause::Settings));
    std::fs::rename(place.path("in"), place.path("moved")).unwrap();
    plan.items = vec![item("moved")];
    assert_eq!(decide(&place, &plan, WANTED, Policy::default()), Decision::Done);
    plan.items = vec![item("other")];
    assert_eq!(decide(&place, &plan, WANTED, Policy::default()), Decision::Do(Cause::Input));
}

#[test]
fn a_record_that_leads_out_by_an_earlier_file_is_refused() {
    let place = done();
    let plan = place.plan();
    let record = work(&plan, &plan.items[0], &place.out());
    let out = Written { name: tweedie::batch::Name::new(Path::new("../a.png")), ..record.outputs[0].clone() };
    let manifest = Manifest::open(&lock(&place.out(), Shard::All)).unwrap();
    assert!(manifest.append(&[Record { earlier: vec![out], status: Status::Done, ..record }]).is_err());
}
