//! The record survives what happens to its file, and what it says is compared with what is there.

use super::{Dice, INTENT, Place, WANTED, child, failure, files, lock, names, run, run_with, task, timeless, work};
use std::io::{BufRead, BufReader, Cursor};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tweedie::batch::{
    Cause, Changed, Content, Decision, Lines, Manifest, MaskFile, Modified, Name, Policy, Record, Shard, Status,
    Wanted, merge, sha256, status,
};
use tweedie::image::MaskSource;

const MANIFEST: &str = "out/.tweedie/manifest/all.jsonl";
const POLICY: Policy = Policy { force: false, retry_failed: false, changed: Changed::Redo, fast_check: false };

/// Photos `0.jpg` … and an output folder in which they are done.
fn done(count: usize) -> Place {
    let place = Place::new();
    (0..count).for_each(|k| place.photo(format!("{k}.jpg")));
    std::fs::create_dir(place.out()).unwrap();
    assert_eq!(run(&place.all(), &place.out(), Shard::All, usize::MAX).len(), count);
    place
}

fn decide(place: &Place, wanted: Wanted<'_>, policy: Policy) -> Vec<Decision> {
    let manifest = Manifest::open(&lock(&place.out(), Shard::All)).unwrap();
    let plan = place.plan();
    plan.items.iter().map(|item| manifest.decide(item, &plan.outputs(item), wanted, policy).unwrap()).collect()
}

fn records(content: &[u8]) -> Vec<Record> {
    let record = |line: std::io::Result<tweedie::batch::Line>| match line.unwrap().content {
        Content::Record(record) => Some(*record),
        _ => None,
    };
    Lines::new(Cursor::new(content)).filter_map(record).collect()
}

#[test]
fn fault_64_every_prefix_of_a_manifest_is_read_without_loss_of_a_complete_line() {
    let place = done(4);
    let whole = std::fs::read(place.path(MANIFEST)).unwrap();
    let all = records(&whole);
    assert_eq!(all.len(), 4);
    for cut in 0..=whole.len() {
        let complete = whole[..cut].iter().filter(|&&byte| byte == b'\n').count();
        assert_eq!(records(&whole[..cut]), all[..complete], "cut at {cut}");
    }
    // The same on the disk: what is left is a prefix that ends with a line, and what comes next is read.
    let extra = Record { finished: 7, ..all[0].clone() };
    for cut in (0..=whole.len()).step_by(37).chain([whole.len() - 1]) {
        std::fs::write(place.path(MANIFEST), &whole[..cut]).unwrap();
        let complete = whole[..cut].iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        let lock = lock(&place.out(), Shard::All);
        let manifest = Manifest::open(&lock).unwrap();
        assert!(manifest.damaged().is_empty(), "a torn line is no damage: it was never promised");
        assert_eq!(std::fs::read(place.path(MANIFEST)).unwrap(), whole[..complete]);
        manifest.append(std::slice::from_ref(&extra)).unwrap();
        let now = records(&std::fs::read(place.path(MANIFEST)).unwrap());
        assert_eq!(now.last(), Some(&extra));
        assert_eq!(now.len(), records(&whole[..cut]).len() + 1);
        assert_eq!(manifest.get(extra.input.path()).unwrap(), Some(extra.clone()));
    }
}

#[test]
fn damaged_lines_are_told_and_cost_their_own_photo_only() {
    let place = done(5);
    let whole = std::fs::read(place.path(MANIFEST)).unwrap();
    let lines: Vec<&[u8]> = whole.split_inclusive(|&byte| byte == b'\n').collect();
    let second = String::from_utf8(lines[1].to_vec()).unwrap();
    let damages: Vec<(&str, Vec<u8>)> = vec![
        ("zeros", vec![0; 300]),
        ("no JSON", b"{\"schema\":1,\"input\":\"1.jpg\"".to_vec()),
        ("not UTF-8", b"\xff\xfe\xfd".to_vec()),
        ("a list", b"[1,2,3]".to_vec()),
        ("deep", vec![b'['; 100_000]),
        ("a name that leads out", second.trim_end().replace("\"input\":\"1.jpg\"", "\"input\":\"../1.jpg\"").into()),
        ("an output that leads out", second.trim_end().replace("1.png", "/1.png").into()),
        ("a hash that is none", second.trim_end().replace("\"sha256\":\"", "\"sha256\":\"X").into()),
        ("done without outputs", {
            let mut value: serde_json::Value = serde_json::from_str(&second).unwrap();
            value.as_object_mut().unwrap().remove("outputs");
            value.to_string().into()
        }),
        ("a field of another type", second.trim_end().replace("\"code\":0", "\"code\":\"0\"").into()),
        ("no schema", second.trim_end().replace("\"schema\":1,", "").into()),
        ("an old schema", second.trim_end().replace("\"schema\":1,", "\"schema\":0,").into()),
    ];
    for (what, damage) in damages {
        let mut content = [lines[0], &damage, b"\n"].concat();
        let at = lines[0].len() as u64;
        lines[2..].iter().for_each(|line| content.extend_from_slice(line));
        std::fs::write(place.path(MANIFEST), &content).unwrap();
        let lock = lock(&place.out(), Shard::All);
        let manifest = Manifest::open(&lock).unwrap();
        let damaged = manifest.damaged();
        assert_eq!(damaged.len(), 1, "{what}");
        assert_eq!((damaged[0].offset, damaged[0].path.as_path()), (at, &*place.path(MANIFEST)), "{what}");
        let plan = place.plan();
        let decisions =
            plan.items.iter().map(|item| manifest.decide(item, &plan.outputs(item), WANTED, POLICY).unwrap());
        let expected = [Decision::Done, Decision::Do(Cause::New), Decision::Done, Decision::Done, Decision::Done];
        assert_eq!(decisions.collect::<Vec<_>>(), expected, "{what}");
        assert_eq!(status(&place.out()).unwrap().missing(), 1, "{what}");
        // Once its photo is done again and the run is complete, the damage is gone.
        manifest.append(&[work(&plan, &plan.items[1], &place.out())]).unwrap();
        manifest.sort().unwrap();
        let now = std::fs::read(place.path(MANIFEST)).unwrap();
        assert_eq!(now.split(|&byte| byte == b'\n').count(), 6, "{what}");
        assert_eq!(records(&now).len(), 5, "{what}");
    }
}

#[test]
fn a_line_without_end_takes_no_memory() {
    let long = std::io::Read::chain(std::io::Read::take(std::io::repeat(b'a'), 100 << 20), Cursor::new(b"\n{}\n"));
    let lines: Vec<_> = Lines::new(BufReader::new(long)).map(Result::unwrap).collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0].content, Content::Damaged(format!("{} bytes in one line", (100 << 20) + 1)));
    assert_eq!(lines[1].offset, (100 << 20) + 1);
}

#[test]
fn arbitrary_changes_of_a_manifest_never_invent_a_finished_photo() {
    let place = done(6);
    let whole = std::fs::read(place.path(MANIFEST)).unwrap();
    let all = records(&whole);
    let mut dice = Dice(64);
    for _ in 0..3000 {
        let mut content = whole.clone();
        for _ in 0..=dice.below(3) {
            let at = dice.below(content.len());
            match dice.below(4) {
                0 => content[at] ^= 1 << dice.below(8),
                1 => drop(content.remove(at)),
                2 => content.insert(at, dice.next() as u8),
                _ => content.truncate(at),
            }
            if content.is_empty() {
                break;
            }
        }
        let lines: Vec<_> = Lines::new(Cursor::new(&content)).map(Result::unwrap).collect();
        // Every byte is in one line, but for empty ones.
        assert!(lines.windows(2).all(|two| two[0].offset + two[0].length <= two[1].offset));
        let untouched = all.iter().filter(|record| {
            let line = [serde_json::to_string(record).unwrap().as_bytes(), b"\n"].concat();
            content.windows(line.len()).any(|window| window == line)
        });
        let found = records(&content);
        for record in untouched.filter(|record| !found.contains(record)) {
            // A line is lost only if what is before its beginning has no end any more.
            let line = serde_json::to_string(record).unwrap();
            let at = content.windows(line.len()).position(|window| window == line.as_bytes()).unwrap();
            assert!(at > 0 && content[at - 1] != b'\n', "{line}");
        }
    }
}

#[test]
fn a_later_version_of_the_record_is_left_alone() {
    let place = done(2);
    let text = std::fs::read_to_string(place.path(MANIFEST)).unwrap();
    let later = text.replacen("{\"schema\":1,", "{\"schema\":2,\"new\":[],", 1);
    std::fs::write(place.path(MANIFEST), &later).unwrap();
    for error in [
        Manifest::open(&lock(&place.out(), Shard::All)).unwrap_err(),
        status(&place.out()).unwrap_err(),
        merge(&place.out()).unwrap_err(),
    ] {
        assert!(
            error.to_string().contains("written by a later version of tweedie (schema 2, this one knows 1)"),
            "{error}"
        );
    }
    assert_eq!(std::fs::read_to_string(place.path(MANIFEST)).unwrap(), later);
}

#[test]
fn what_is_done_and_unchanged_is_skipped() {
    let place = done(3);
    assert_eq!(decide(&place, WANTED, POLICY), vec![Decision::Done; 3]);
    assert_eq!(run(&place.all(), &place.out(), Shard::All, usize::MAX), [""; 0]);
    let forced = Policy { force: true, ..POLICY };
    assert_eq!(decide(&place, WANTED, forced), vec![Decision::Do(Cause::Forced); 3]);
    assert_eq!(run_with(&place.all(), &place.out(), Shard::All, usize::MAX, forced).len(), 3);
}

#[test]
fn records_are_found_after_sorting_and_behind_it() {
    let place = Place::with(&["a.jpg", "b.jpg", "c.jpg", "d.jpg"]);
    std::fs::create_dir(place.out()).unwrap();
    let plan = place.plan();
    let lock = lock(&place.out(), Shard::All);
    let manifest = Manifest::open(&lock).unwrap();
    let record = |at: usize, steps: usize| Record { steps: Some(steps), ..work(&plan, &plan.items[at], &place.out()) };
    let made = [record(2, 22), record(0, 1), record(1, 333), record(0, 4444)];
    manifest.append(&made).unwrap();
    manifest.sort().unwrap();
    let (b, c, a) = (&made[2], &made[0], &made[3]);
    assert_eq!(records(&std::fs::read(manifest.path()).unwrap()), [a.clone(), b.clone(), c.clone()]);
    let d = record(3, 5);
    manifest.append(std::slice::from_ref(&d)).unwrap();
    for record in [a, b, c, &d] {
        assert_eq!(manifest.get(record.input.path()).unwrap().as_ref(), Some(record));
    }
    assert_eq!(records(&std::fs::read(manifest.path()).unwrap()).len(), 4);
}

#[test]
fn of_two_manifests_what_was_finished_later_counts() {
    let place = Place::with(&["a.jpg"]);
    std::fs::create_dir(place.out()).unwrap();
    let plan = place.plan();
    let done = work(&plan, &plan.items[0], &place.out());
    let slice = Shard::Slice { index: 1, count: 1 };
    // The first number is when everything's run finished the photo, the second when the shard's did.
    for (everything, shard, counts) in [(5, 6, 6), (6, 5, 6), (5, 5, 5)] {
        let _ = std::fs::remove_dir_all(place.path("out/.tweedie"));
        for (of, finished, status) in [(Shard::All, everything, Status::Done), (slice, shard, Status::Failed)] {
            let manifest = Manifest::open(&lock(&place.out(), of)).unwrap();
            manifest.append(&[Record { finished, status, ..done.clone() }]).unwrap();
        }
        let expected = if shard > everything { Status::Failed } else { Status::Done };
        for of in [Shard::All, slice] {
            let manifest = Manifest::open(&lock(&place.out(), of)).unwrap();
            let record = manifest.get(Path::new("a.jpg")).unwrap().unwrap();
            assert_eq!((record.finished, record.status), (counts, expected), "{everything} {shard} {of}");
        }
        assert_eq!(merge(&place.out()).unwrap().done, usize::from(expected == Status::Done));
    }
}

#[test]
fn a_failed_photo_is_tried_again_on_request_only() {
    let place = Place::with(&["a.jpg", "b.jpg"]);
    std::fs::create_dir(place.out()).unwrap();
    let plan = place.plan();
    {
        let lock = lock(&place.out(), Shard::All);
        let manifest = Manifest::open(&lock).unwrap();
        manifest.append(&[failure(&plan.items[0]), work(&plan, &plan.items[1], &place.out())]).unwrap();
    }
    let failed = Decision::Failed { error: "damaged".into(), code: 1 };
    assert_eq!(decide(&place, WANTED, POLICY), [failed.clone(), Decision::Done]);
    let retry = Policy { retry_failed: true, ..POLICY };
    assert_eq!(decide(&place, WANTED, retry), [Decision::Do(Cause::Retry), Decision::Done]);
    // A photo that was repaired meanwhile is another photo.
    place.write("in/a.jpg", "repaired");
    assert_eq!(decide(&place, WANTED, POLICY)[0], Decision::Do(Cause::Input));
    let lock = lock(&place.out(), Shard::All);
    let manifest = Manifest::open(&lock).unwrap();
    manifest.append(&[work(&plan, &plan.items[0], &place.out())]).unwrap();
    assert_eq!(
        manifest.decide(&plan.items[0], &plan.outputs(&plan.items[0]), WANTED, POLICY).unwrap(),
        Decision::Done,
        "the later line counts"
    );
}

#[test]
fn a_photo_that_could_not_be_read_is_tried_again_once_it_changes() {
    let place = Place::with(&["a.jpg"]);
    std::fs::create_dir(place.out()).unwrap();
    let plan = place.plan();
    let metadata = place.path("in/a.jpg").metadata().unwrap();
    let known = Record { sha256: None, ..failure(&plan.items[0]) };
    let unknown = Record { size: None, modified: None, ..known.clone() };
    for (record, again) in [(known, false), (unknown, true)] {
        let lock = lock(&place.out(), Shard::All);
        let manifest = Manifest::open(&lock).unwrap();
        manifest.append(&[record]).unwrap();
        let decision = manifest.decide(&plan.items[0], &plan.outputs(&plan.items[0]), WANTED, POLICY).unwrap();
        assert_eq!(matches!(decision, Decision::Do(Cause::Input)), again, "{decision:?}");
    }
    assert!(Modified::of(&metadata).is_some());
}

#[test]
fn other_settings_are_done_anew_or_refused() {
    let place = done(1);
    let others = [
        (Wanted { options_hash: "other", ..WANTED }, "options options, now other"),
        (Wanted { model_hash: "other", ..WANTED }, "model model, now other"),
    ];
    let refuse = Policy { changed: Changed::Refuse, ..POLICY };
    for (wanted, text) in others {
        assert_eq!(decide(&place, wanted, POLICY), [Decision::Do(Cause::Settings)]);
        let expected = format!("made with other settings ({text}); --changed redo makes it anew");
        assert_eq!(decide(&place, wanted, refuse), [Decision::Refuse(expected)]);
    }
    let manifest = Manifest::open(&lock(&place.out(), Shard::All)).unwrap();
    let plan = place.plan();
    let mut item = plan.items[0].clone();
    let outputs = plan.outputs(&item);
    item.seed += 1;
    assert_eq!(manifest.decide(&item, &outputs, WANTED, POLICY).unwrap(), Decision::Do(Cause::Settings));
    // A failure has nothing that could be lost.
    manifest.append(&[failure(&plan.items[0])]).unwrap();
    std::fs::remove_file(place.path("out/0.png")).unwrap();
    let wanted = Wanted { options_hash: "other", ..WANTED };
    assert_eq!(manifest.decide(&plan.items[0], &outputs, wanted, refuse).unwrap(), Decision::Do(Cause::Settings));
}

#[test]
fn fault_67_an_input_that_changed_is_done_anew() {
    let place = done(3);
    // Same size and, for one of them, same time: only the content tells.
    let path = place.path("in/1.jpg");
    let before = path.metadata().unwrap().modified().unwrap();
    std::fs::write(&path, "in/X.jpg").unwrap();
    std::fs::File::options().write(true).open(&path).unwrap().set_modified(before).unwrap();
    std::fs::write(place.path("in/2.jpg"), "longer than it was").unwrap();
    let changed = Decision::Do(Cause::Input);
    assert_eq!(decide(&place, WANTED, POLICY), [Decision::Done, changed.clone(), changed.clone()]);
    let fast = Policy { fast_check: true, ..POLICY };
    assert_eq!(decide(&place, WANTED, fast), [Decision::Done, Decision::Done, changed], "size and time are enough");
    // Touched, not changed.
    let later = SystemTime::now() + Duration::from_secs(60);
    std::fs::File::options().write(true).open(place.path("in/0.jpg")).unwrap().set_modified(later).unwrap();
    assert_eq!(decide(&place, WANTED, fast)[0], Decision::Done);
    // Deleted after the plan was made.
    let plan = place.plan();
    std::fs::remove_file(place.path("in/0.jpg")).unwrap();
    let manifest = Manifest::open(&lock(&place.out(), Shard::All)).unwrap();
    assert_eq!(
        manifest.decide(&plan.items[0], &plan.outputs(&plan.items[0]), WANTED, POLICY).unwrap(),
        Decision::Do(Cause::Input)
    );
}

#[test]
fn a_mask_that_changed_is_an_input_that_changed() {
    let place = Place::with(&["a.jpg"]);
    place.write("m.png", "mask");
    std::fs::create_dir(place.out()).unwrap();
    let plan = place.plan();
    let mut item = plan.items[0].clone();
    item.mask = Some(Arc::new(MaskSource::File(place.path("m.png"))));
    let metadata = place.path("m.png").metadata().unwrap();
    let file = MaskFile {
        source: Name::new(&place.path("m.png")),
        size: metadata.len(),
        modified: Modified::of(&metadata),
        sha256: sha256(b"mask"),
    };
    let lock = lock(&place.out(), Shard::All);
    let manifest = Manifest::open(&lock).unwrap();
    manifest.append(&[Record { mask: Some(file), ..work(&plan, &item, &place.out()) }]).unwrap();
    let decide = |item: &tweedie::batch::Item| manifest.decide(item, &plan.outputs(item), WANTED, POLICY).unwrap();
    assert_eq!(decide(&item), Decision::Done);
    assert_eq!(decide(&plan.items[0]), Decision::Do(Cause::Input), "it has no mask any more");
    std::fs::rename(place.path("m.png"), place.path("n.png")).unwrap();
    item.mask = Some(Arc::new(MaskSource::File(place.path("n.png"))));
    assert_eq!(decide(&item), Decision::Done, "the same mask under another name");
    place.write("n.png", "ksam");
    let earlier = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
    std::fs::File::options().write(true).open(place.path("n.png")).unwrap().set_modified(earlier).unwrap();
    assert_eq!(decide(&item), Decision::Do(Cause::Input));
    std::fs::remove_file(place.path("n.png")).unwrap();
    assert_eq!(decide(&item), Decision::Do(Cause::Input));
}

#[test]
fn an_output_that_is_gone_is_made_anew_and_one_that_was_changed_is_not_destroyed() {
    let place = done(3);
    std::fs::remove_file(place.path("out/0.png")).unwrap();
    place.write("out/1.png", "retouched by hand");
    let decisions = decide(&place, WANTED, POLICY);
    assert_eq!(decisions[0], Decision::Do(Cause::OutputMissing));
    assert_eq!(decisions[2], Decision::Done);
    let Decision::Refuse(text) = &decisions[1] else { panic!("{decisions:?}") };
    let out = place.path("out/1.png");
    let written = "in/1.jpg".len() + 8;
    assert_eq!(
        *text,
        format!(
            "{} has 17 bytes, {written} were written: someone has changed it; delete it to have it made anew, or use --force",
            out.display()
        )
    );
}

#[test]
fn files_that_no_batch_wrote_are_not_replaced() {
    let place = Place::with(&["a.jpg", "b.jpg", "c.jpg"]);
    place.write("out/b.png", "someone's");
    let lock = lock(&place.out(), Shard::All);
    let manifest = Manifest::open(&lock).unwrap();
    let text = manifest.begin(&place.plan(), &INTENT, false).unwrap_err().to_string();
    assert_eq!(
        text,
        format!(
            "1 file exists already in the output folder: {}; --force replaces it",
            place.path("out/b.png").display()
        )
    );
    manifest.begin(&place.plan(), &INTENT, true).unwrap();
    // Now it was meant to be written: the next run takes it for what a stopped run left.
    manifest.begin(&place.plan(), &INTENT, false).unwrap();
}

#[test]
fn fault_64_an_output_whose_line_was_lost_is_made_again() {
    let place = Place::with(&["a.jpg", "b.jpg", "c.jpg"]);
    std::fs::create_dir(place.out()).unwrap();
    run(&place.all(), &place.out(), Shard::All, 1);
    // Stopped between the rename of the output and the line of the manifest.
    let plan = place.plan();
    work(&plan, &plan.items[1], &place.out());
    // A run over a part in between does not make it forgotten.
    let part = tweedie::batch::Selection { inputs: vec![place.path("in/c.jpg")], ..Default::default() };
    assert_eq!(run(&part, &place.out(), Shard::All, usize::MAX), ["c.jpg"]);
    assert_eq!(run(&place.all(), &place.out(), Shard::All, usize::MAX), ["b.jpg"]);
    assert!(status(&place.out()).unwrap().is_complete());
}

#[test]
fn interruptions_change_neither_outputs_nor_record() {
    let undisturbed = done(12);
    let mut dice = Dice(3);
    for _ in 0..20 {
        let place = Place::new();
        (0..12).for_each(|k| place.photo(format!("{k}.jpg")));
        std::fs::create_dir(place.out()).unwrap();
        let mut worked = Vec::new();
        while worked.len() < 12 {
            let limit = 1 + dice.below(5);
            worked.extend(run(&place.all(), &place.out(), Shard::All, limit));
            if dice.below(2) == 0 {
                // The line of the last photo is torn: that photo is done again.
                let path = place.path(MANIFEST);
                let length = path.metadata().unwrap().len();
                let torn = 1 + dice.below(100) as u64;
                std::fs::File::options().write(true).open(&path).unwrap().set_len(length - torn).unwrap();
                worked.pop();
            }
        }
        run(&place.all(), &place.out(), Shard::All, usize::MAX);
        assert_eq!(strip(&place), strip(&undisturbed));
        assert_eq!(files(&place.out()), files(&undisturbed.out()));
    }
}

/// The manifest without times and without the temporary folder's name.
fn strip(place: &Place) -> Vec<String> {
    let folder = place.0.path().display().to_string();
    let mut lines = timeless(&place.path(MANIFEST));
    for line in &mut lines {
        let mut value: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(value["modified"].take().is_i64());
        *line = value.to_string().replace(&folder, "@");
    }
    lines
}

#[test]
fn a_record_that_says_nothing_is_not_written() {
    let place = Place::with(&["a.jpg"]);
    std::fs::create_dir(place.out()).unwrap();
    let lock = lock(&place.out(), Shard::All);
    let manifest = Manifest::open(&lock).unwrap();
    let record = work(&place.plan(), &place.plan().items[0], &place.out());
    for bad in [
        Record { outputs: Vec::new(), ..record.clone() },
        Record { input: Name::new(Path::new("../a.jpg")), ..record.clone() },
        Record { sha256: Some("none".into()), ..record.clone() },
        Record { size: None, ..record.clone() },
    ] {
        assert!(manifest.append(&[record.clone(), bad]).is_err());
    }
    assert_eq!(std::fs::read(manifest.path()).unwrap(), b"");
    manifest.append(&[]).unwrap();
    manifest.append(&[record.clone(), Record { status: Status::Failed, ..record }]).unwrap();
    assert_eq!(records(&std::fs::read(manifest.path()).unwrap()).len(), 2);
}

#[cfg(unix)]
#[test]
fn fault_61_a_full_disk_leaves_complete_lines() {
    if let Some((_, folder)) = task() {
        // In a process whose files may not grow.
        let place_out = folder.join("out");
        let selection = tweedie::batch::Selection { inputs: vec![folder.join("in")], ..Default::default() };
        let plan =
            super::plan(&selection, &super::Masks::None, super::Unpaired::Refuse, &place_out, Shard::All).unwrap();
        let lock = lock(&place_out, Shard::All);
        let manifest = Manifest::open(&lock).unwrap();
        let mut record = work(&plan, &plan.items[0], &place_out);
        for k in 0.. {
            record.steps = Some(k);
            match manifest.append(&[record.clone(), record.clone()]) {
                Ok(()) => println!("written {k}"),
                Err(error) => {
                    println!("refused {error}");
                    // The file is as it was, and reads go on.
                    assert_eq!(manifest.get(record.input.path()).unwrap().unwrap().steps, k.checked_sub(1));
                    return;
                }
            }
        }
    }
    let place = Place::with(&["a.jpg"]);
    std::fs::create_dir(place.out()).unwrap();
    let inner = child("batch_record::manifest::fault_61_a_full_disk_leaves_complete_lines", "fill", place.0.path());
    let mut limited = std::process::Command::new("sh");
    limited
        .args(["-c", "trap '' XFSZ; ulimit -f 40; exec \"$0\" \"$@\""])
        .arg(inner.get_program())
        .args(inner.get_args());
    limited.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let output = limited.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let written = text.lines().filter(|line| line.contains("written ")).count();
    assert!(text.contains("File too large"), "{text}");
    assert!(written > 3);
    let content = std::fs::read(place.path(MANIFEST)).unwrap();
    assert!(content.ends_with(b"\n"));
    assert_eq!(records(&content).len(), 2 * written);
}

#[cfg(unix)]
#[test]
fn fault_64_a_killed_process_loses_no_line_that_it_promised() {
    if let Some((_, folder)) = task() {
        let selection = tweedie::batch::Selection { inputs: vec![folder.join("in")], ..Default::default() };
        let plan =
            super::plan(&selection, &super::Masks::None, super::Unpaired::Refuse, &folder.join("out"), Shard::All)
                .unwrap();
        let lock = lock(&folder.join("out"), Shard::All);
        let manifest = Manifest::open(&lock).unwrap();
        manifest.begin(&plan, &INTENT, false).unwrap();
        for item in plan.items.iter().cycle() {
            let decision = manifest.decide(item, &plan.outputs(item), WANTED, POLICY).unwrap();
            if decision == Decision::Done {
                manifest.sort().unwrap();
                continue;
            }
            manifest.append(&[work(&plan, item, &folder.join("out"))]).unwrap();
            println!("promised {}", item.relative.display());
        }
        return;
    }
    let test = "batch_record::manifest::fault_64_a_killed_process_loses_no_line_that_it_promised";
    let mut dice = Dice(9);
    let mut promises = 0;
    for _ in 0..50 {
        let place = Place::in_memory();
        (0..40).for_each(|k| place.photo(format!("{k}.jpg")));
        std::fs::create_dir(place.out()).unwrap();
        let mut process = child(test, "work", place.0.path()).stdout(Stdio::piped()).spawn().unwrap();
        let reader = BufReader::new(process.stdout.take().unwrap());
        // After so many promises and so long a moment; the later ones are within the rewriting of the sorted file.
        let after = 1 + dice.below(44);
        let mut promised = Vec::new();
        let promise = |line: &str| line.rsplit_once("promised ").map(|(_, name)| name.to_owned());
        let mut lines = reader.lines().map_while(Result::ok);
        while promised.len() < after.min(40) {
            promised.extend(promise(&lines.next().expect("it works until it is killed")));
        }
        std::thread::sleep(Duration::from_micros(dice.below(3000) as u64));
        process.kill().unwrap();
        process.wait().unwrap();
        promised.extend(lines.filter_map(|line| promise(&line)));
        let manifest = Manifest::open(&lock(&place.out(), Shard::All)).unwrap();
        assert!(manifest.damaged().is_empty());
        for photo in &promised {
            let record = manifest.get(Path::new(photo)).unwrap().unwrap_or_else(|| panic!("{photo} was promised"));
            let output = std::fs::read(place.out().join(record.outputs[0].name.path())).unwrap();
            assert_eq!(sha256(&output), record.outputs[0].sha256);
        }
        promises += promised.len();
        drop(manifest);
        let again = run(&place.all(), &place.out(), Shard::All, usize::MAX);
        assert!(again.len() <= 40 - promised.len(), "{} again after {} promises", again.len(), promised.len());
        assert_eq!(names(&place.plan()).len(), status(&place.out()).unwrap().done);
        let whole: Vec<_> =
            files(&place.out()).into_keys().filter(|path| path.extension().unwrap() != "part").collect();
        assert_eq!(whole.len(), 40);
    }
    assert!(promises > 200, "{promises}");
}
