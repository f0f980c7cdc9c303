//! `tweedie batch` from the outside: what is asked for, what comes out, what it says, and the exit codes.

use crate::harness::{Folder, Kind, Ran, mask, photo};
use serde_json::Value;
use std::io::Write;
use std::process::Stdio;

/// A prior that costs nothing.
const GAUSSIAN: &str = "--model gaussian:mean=0,std=0.5";

/// Three photos below `in`, one of them in a folder of its own, and `masks` for them.
fn photos() -> Folder {
    let folder = Folder::new();
    for name in ["in/a.png", "in/b.png", "in/deep/c.png"] {
        put(&folder, name);
    }
    folder
}

fn put(folder: &Folder, name: &str) {
    let path = folder.path(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    photo(24, 16, Kind::Rgb8).save(path).unwrap();
    let masked = folder.path(name.replacen("in", "masks", 1));
    std::fs::create_dir_all(masked.parent().unwrap()).unwrap();
    mask(24, 16).save(masked).unwrap();
}

/// Records of a manifest, without what the clock decides.
fn records(folder: &Folder, name: &str) -> Vec<Value> {
    let text = String::from_utf8(folder.bytes(name)).unwrap();
    let record = |line| {
        let mut record: Value = serde_json::from_str(line).unwrap();
        for key in ["seconds", "finished"] {
            record.as_object_mut().unwrap().remove(key);
        }
        record
    };
    text.lines().map(record).collect()
}

#[track_caller]
fn ended(ran: &Ran, code: i32, message: &str) {
    assert_eq!(ran.code, code, "{}", ran.stderr);
    assert!(ran.stderr.contains(message), "expected `{message}` in\n{}", ran.stderr);
}

const MANIFEST: &str = "out/.tweedie/manifest/all.jsonl";

#[test]
fn every_photo_becomes_what_its_command_makes_of_it() {
    let folder = photos();
    folder.succeed(&format!("batch in out --task upscale --scale 3/2 --noise 2 --seed 7 -r {GAUSSIAN}"));
    let records = records(&folder, MANIFEST);
    let names: Vec<&str> = records.iter().map(|record| record["input"].as_str().unwrap()).collect();
    assert_eq!(names, ["a.png", "b.png", "deep/c.png"]);
    for (name, record) in names.iter().zip(&records) {
        let seed = record["seed"].as_u64().unwrap();
        folder.succeed(&format!("upscale in/{name} --scale 3/2 --noise 2 --seed {seed} -f -o one.png {GAUSSIAN}"));
        assert_eq!(folder.bytes(format!("out/{name}")), folder.bytes("one.png"), "{name}");
    }
    let seeds: std::collections::HashSet<_> = records.iter().map(|record| record["seed"].as_u64()).collect();
    assert_eq!(seeds.len(), 3);
}

#[test]
fn what_is_done_and_unchanged_is_left_alone() {
    let folder = photos();
    let line = format!("batch in out --task denoise --noise 5 -r {GAUSSIAN}");
    folder.succeed(&line);
    let before = folder.bytes(MANIFEST);
    let again = folder.succeed(&line);
    assert!(again.stderr.contains("0 done, 3 done before"), "{}", again.stderr);
    assert_eq!(folder.bytes(MANIFEST), before);

    let refused = folder.tweedie(&format!("batch in out --task denoise --noise 9 -r --changed refuse {GAUSSIAN}"));
    ended(&refused, 1, "made with other settings");
    assert_eq!(folder.bytes(MANIFEST), before);
    let anew = folder.succeed(&format!("batch in out --task denoise --noise 9 -r {GAUSSIAN}"));
    assert!(anew.stderr.contains("3 done,"), "{}", anew.stderr);
    std::fs::remove_file(folder.path("out/b.png")).unwrap();
    let one = folder.succeed(&format!("batch in out --task denoise --noise 9 -r {GAUSSIAN} --json"));
    let summary = one.event("summary");
    assert_eq!((summary["done"].as_u64(), summary["skipped"].as_u64()), (Some(1), Some(2)));
    assert_eq!(one.event("file")["record"]["input"], "b.png");
}

#[test]
fn a_plan_tells_everything_and_writes_nothing() {
    let folder = photos();
    let line = format!("batch in out --task inpaint --masks masks -r -n {GAUSSIAN}");
    let text = folder.succeed(&line);
    let first = text.text().lines().next().unwrap();
    assert!(first.starts_with("a.png -> out/a.png: 24x16, "), "{first}");
    assert!(first.contains(" masked, 1 window of "), "{first}");
    assert!(text.text().contains("photos       3, 0.0 megapixels"), "{}", text.text());
    let plan = folder.succeed(&format!("{line} --json"));
    let events = plan.events();
    assert_eq!(events.len(), 4);
    for event in &events[..3] {
        assert_eq!(event["event"], "plan");
        assert_eq!(event["width"], 24);
        assert!(event["masked_pixels"].as_u64().unwrap() > 0);
        assert!(event["mask"].as_str().unwrap().starts_with("masks"), "{event}");
    }
    assert_eq!(events[2]["outputs"][0], "deep/c.png");
    let sum: u64 = events[..3].iter().map(|event| event["evaluations"].as_u64().unwrap()).sum();
    assert_eq!(events[3]["evaluations"], sum);
    assert_eq!(folder.names(), ["in", "masks"]);

    folder.write("in/broken.png", "");
    ended(
        &folder.tweedie(&format!("batch in out --task denoise --noise 5 -n {GAUSSIAN}")),
        1,
        "1 of 3 photos cannot be restored",
    );
}

#[test]
fn presets_stand_below_flags() {
    let folder = photos();
    let masked = |flags: &str| {
        let line = format!("batch in/a.png out --masks masks/a.png -n --json {flags} {GAUSSIAN}");
        folder.succeed(&line).event("plan")["masked_pixels"].as_u64().unwrap()
    };
    let plain = masked("--task inpaint");
    let grown = masked("--preset scratches");
    assert!(grown > plain, "{grown} {plain}");
    assert_eq!(grown, masked("--task inpaint --mask-grow 1.5"));
    assert_eq!(plain, masked("--preset scratches --mask-grow 0"));
    folder.write("mine.toml", "task = 'inpaint'\ninvert_mask = true\n");
    assert_eq!(masked("--preset mine.toml"), 24 * 16 - plain);
}

#[test]
fn a_file_beside_a_photo_changes_its_settings_alone() {
    let folder = photos();
    folder.write("in/b.png.tweedie.toml", "noise = 40\n");
    let line = format!("batch in out --task denoise --noise 5 {GAUSSIAN}");
    folder.succeed(&line);
    let seed = records(&folder, MANIFEST)[1]["seed"].as_u64().unwrap();
    folder.succeed(&format!("denoise in/b.png --noise 40 --seed {seed} -o one.png {GAUSSIAN}"));
    assert_eq!(folder.bytes("out/b.png"), folder.bytes("one.png"));

    // Another value is another setting, of that photo.
    folder.write("in/b.png.tweedie.toml", "noise = 20\n");
    assert!(folder.succeed(&line).stderr.contains("1 done, 1 done before"));
    for (text, message) in [
        ("nose = 3", "unknown key `nose`; denoise takes noise"),
        ("scale = 3", "`scale` is no setting of denoise, but of upscale"),
        ("samples = 3", "`samples` is a setting of the whole run"),
        ("noise = -1", "noise is -1"),
        ("noise = ", "line 1, column"),
    ] {
        folder.write("in/b.png.tweedie.toml", text);
        let ran = folder.tweedie(&format!("{line} -f"));
        ended(&ran, 1, message);
        assert!(ran.stderr.contains("b.png.tweedie.toml") && ran.stderr.contains("1 done, 1 failed"), "{}", ran.stderr);
    }
}

#[test]
fn what_makes_no_sense_is_refused_before_anything_is_done() {
    let folder = photos();
    folder.write("file", "");
    folder.write("x.toml", "task = 'denoise'\n");
    std::fs::create_dir_all(folder.path("twins")).unwrap();
    for name in ["twins/a.png", "twins/a.bmp"] {
        photo(24, 16, Kind::Rgb8).save(folder.path(name)).unwrap();
    }
    let before = folder.names();
    for (line, message) in [
        ("in out", "--task NAME with one of inpaint, colorize, upscale, deblur, denoise and restore, or --preset NAME"),
        ("in out --task denoise --base in", "--files-from"),
        ("in out --task paint", "inpaint"),
        ("out --task denoise", "is the output folder, and no input was given"),
        ("in out --task inpaint", "inpaint needs masks, none were given"),
        ("in out --task denoise --masks masks", "denoise restores whole photos and takes no masks"),
        ("in out --task denoise --scale 2", "`scale` is no setting of denoise, but of upscale"),
        ("in out --task upscale --kernel disk:2", "unknown variant `disk:2`"),
        ("in out --task upscale --scale 99", "scale is 99, expected a number or a ratio above 1"),
        ("in out --task deblur", "deblur needs a kernel, such as gaussian:1.6"),
        ("in out --task deblur --kernel lanczos", "expected gaussian:SIGMA"),
        ("in out --task deblur --kernel file:none.png", "none.png"),
        ("in out --task restore", "operator is not given"),
        ("in out --task denoise --noise much", "or auto"),
        ("in out --task denoise --set sampler.bogus=1", "bogus"),
        ("in out --task inpaint --masks masks --set sampler.particles=3", "particles"),
        ("in out --task upscale --set sampler.annealing.stepps=3", "stepps"),
        ("in out --task deblur --kernel disk:2 --resize fit --set sampler.bogus=1", "bogus"),
        ("in out --task denoise --mean", "number of samples for mean is 1, expected at least 2"),
        ("in out --task denoise --strip exfi", "strip is exfi"),
        ("in out --task denoise --strip all --keep exif", "cannot be used with"),
        ("in out --task denoise --format heic", "unknown output format `heic`"),
        ("in out --task denoise --sampler magic", "unknown sampler `magic`"),
        ("in out --preset magic", "unknown preset `magic`; known: denoise"),
        ("in out --preset x.toml --task upscale", "the task is upscale, but x.toml is for denoise"),
        ("in out --task denoise --shard 4/3", "--shard is 4/3"),
        ("in out --task denoise --shard auto", "--shard is auto, without SLURM_ARRAY_TASK_ID"),
        ("in file --task denoise", "is a file, expected a folder for the outputs"),
        ("in a/b/out --task denoise", "does not exist"),
        ("none out --task denoise", "none: no such file, folder or pattern"),
        ("twins out --task denoise", "would both become"),
        ("in in --task denoise", "lies in the output folder"),
        ("in out --task inpaint --masks twins", "1 photo has no mask: in/b.png"),
        ("in out --task inpaint --masks none.png", "no such file or folder"),
        ("in out --task denoise --files-from none.txt", "list none.txt"),
        ("status in", "has no record of a batch"),
        ("merge in", "has no record of a batch"),
    ] {
        ended(&folder.tweedie(&format!("batch {line}")), 2, message);
        assert_eq!(folder.names(), before, "{line}");
    }
}

#[test]
fn nothing_to_do_has_a_code_of_its_own() {
    let folder = Folder::new();
    std::fs::create_dir_all(folder.path("in/deep")).unwrap();
    folder.write("in/notes.txt", "no photo");
    let ran = folder.tweedie(&format!("batch in out --task denoise {GAUSSIAN}"));
    ended(&ran, 3, "no photo was found");
    assert!(ran.stderr.contains("1 sub-folder was not looked into: -r does"), "{}", ran.stderr);
    assert_eq!(folder.names(), ["in"]);
}

#[test]
fn one_bad_photo_stops_no_other_and_the_status_tells() {
    let folder = photos();
    folder.write("in/bad.png", "");
    let line = format!("batch in out --task denoise --noise 5 {GAUSSIAN}");
    let ran = folder.tweedie(&line);
    ended(&ran, 1, "1 of 3 photos failed");
    assert!(ran.stderr.contains("1 photo: empty file (bad.png)"), "{}", ran.stderr);
    assert!(folder.path("out/a.png").exists() && folder.path("out/b.png").exists());

    let status = folder.tweedie("batch status out");
    ended(&status, 1, "1 of 3 photos not done");
    assert_eq!(status.text(), "2 of 3 photos done, 1 failed, 0 missing\nfailed bad.png: in/bad.png: empty file\n");
    let b = folder.bytes("out/b.png");
    std::fs::remove_file(folder.path("out/b.png")).unwrap();
    let gone = folder.tweedie("batch status out --missing");
    ended(&gone, 1, "2 of 3 photos not done");
    assert!(gone.text().starts_with("1 of 3 photos done, 1 failed, 1 missing\n"), "{}", gone.text());
    assert!(gone.text().ends_with("missing b.png\n"), "{}", gone.text());
    folder.write("out/b.png", b);
    let told = folder.tweedie("batch status out --json").event("status");
    assert_eq!(
        (told["done"].as_u64(), told["failed"].as_u64(), told["complete"].as_bool()),
        (Some(2), Some(1), Some(false))
    );

    // It is not tried again unless that is asked for, or it is another file now.
    ended(&folder.tweedie(&line), 1, "empty file");
    ended(&folder.tweedie(&format!("{line} --retry-failed")), 1, "empty file");
    photo(24, 16, Kind::Rgb8).save(folder.path("in/bad.png")).unwrap();
    folder.succeed(&line);
    assert_eq!(folder.succeed("batch status out").text(), "3 of 3 photos done, 0 failed, 0 missing\n");
    // What the last run left out is not forgotten.
    folder.succeed(&line.replace("in out", "in/a.png out"));
    assert_eq!(
        folder.succeed("batch status out").text(),
        "1 of 1 photo done, 0 failed, 0 missing\n2 photos of earlier runs not in the last one\n"
    );
}

#[test]
fn files_that_no_batch_wrote_are_replaced_by_force_only() {
    let folder = Folder::new();
    put(&folder, "in/a.png");
    let line = format!("batch in out --task denoise --noise 5 {GAUSSIAN}");
    folder.succeed(&line);
    let done = folder.bytes("out/a.png");

    folder.write("out/a.jpg", "mine");
    ended(&folder.tweedie(&format!("{line} --format jpg")), 1, "out/a.jpg exists, and no batch has written it");
    assert_eq!(folder.bytes("out/a.jpg"), b"mine");
    folder.succeed(&format!("{line} --format jpg -f"));
    assert_ne!(folder.bytes("out/a.jpg"), b"mine");
    // The first format is still a batch's.
    folder.succeed(&line);
    assert_eq!(folder.bytes("out/a.png"), done);

    // A slip in the settings of the photo does not make its output anybody's.
    folder.write("in/a.png.tweedie.toml", "nose = 3");
    ended(&folder.tweedie(&line), 1, "unknown key `nose`");
    folder.write("in/a.png.tweedie.toml", "noise = 40");
    folder.succeed(&line);
    assert_ne!(folder.bytes("out/a.png"), done);
    std::fs::remove_file(folder.path("in/a.png.tweedie.toml")).unwrap();
    folder.succeed(&line);
    assert_eq!(folder.bytes("out/a.png"), done);

    folder.write("out/a.png", "hand work");
    for flags in ["--noise 12", "--noise 5", "--noise 5 --retry-failed"] {
        let ran = folder.tweedie(&format!("batch in out --task denoise {flags} {GAUSSIAN}"));
        ended(&ran, 1, "out/a.png has 9 bytes");
    }
    assert_eq!(folder.bytes("out/a.png"), b"hand work");
}

#[test]
fn a_file_in_the_place_of_a_failed_photo_is_not_replaced() {
    let folder = Folder::new();
    std::fs::create_dir(folder.path("in")).unwrap();
    folder.write("in/bad.png", "");
    let line = format!("batch in out --task denoise --noise 5 {GAUSSIAN}");
    ended(&folder.tweedie(&line), 1, "empty file");
    folder.write("out/bad.png", "mine");
    photo(24, 16, Kind::Rgb8).save(folder.path("in/bad.png")).unwrap();
    for flags in ["", "--retry-failed"] {
        ended(&folder.tweedie(&format!("{line} {flags}")), 1, "out/bad.png exists, and no batch has written it");
        assert_eq!(folder.bytes("out/bad.png"), b"mine");
    }
}

#[test]
fn a_second_folder_of_photos_does_not_replace_the_results_of_the_first() {
    let folder = Folder::new();
    put(&folder, "in/a.png");
    let task = format!("out --task denoise --noise 5 {GAUSSIAN}");
    folder.succeed(&format!("batch in {task}"));
    let done = folder.bytes("out/a.png");
    std::fs::create_dir(folder.path("second")).unwrap();
    photo(30, 16, Kind::Rgb8).save(folder.path("second/a.png")).unwrap();
    let ran = folder.tweedie(&format!("batch second {task}"));
    ended(&ran, 1, "out/a.png is the result of in/a.png, not of second/a.png");
    assert_eq!(folder.bytes("out/a.png"), done);
    folder.succeed(&format!("batch second {task} -f"));
    assert_ne!(folder.bytes("out/a.png"), done);
}

#[test]
fn the_first_failure_ends_the_run_if_asked() {
    let folder = Folder::new();
    for name in ["in/b.png", "in/c.png"] {
        put(&folder, name);
    }
    folder.write("in/a.png", "");
    let ran = folder.tweedie(&format!("batch in out --task denoise --noise 5 --fail-fast --jobs 1 {GAUSSIAN}"));
    ended(&ran, 1, "a photo failed, and ");
    assert!(ran.stderr.contains("hint: the same command continues"), "{}", ran.stderr);
    // It does: what failed then is no failure of this run's.
    let again = folder.tweedie(&format!("batch in out --task denoise --noise 5 --fail-fast --jobs 1 {GAUSSIAN}"));
    ended(&again, 1, "1 of 3 photos failed");
    assert!(folder.path("out/b.png").exists() && folder.path("out/c.png").exists());
    let forced = folder.tweedie(&format!("batch in out --task denoise --noise 5 --fail-fast --jobs 1 -f {GAUSSIAN}"));
    ended(&forced, 1, "hint: without --force the same command continues");
}

#[test]
fn warnings_about_photos_are_told_once_for_all_of_them() {
    let folder = photos();
    let ran = folder.succeed(&format!("batch in out --task denoise --noise 5 --format jpg -r {GAUSSIAN}"));
    let told = "warning: 3 photos: JPEG is lossy: every pixel changes a little, outside a mask too (";
    assert_eq!(ran.stderr.matches(told).count(), 1, "{}", ran.stderr);
    assert_eq!(ran.stderr.matches("is lossy").count(), 1, "{}", ran.stderr);
    let clean = folder.succeed(&format!("batch in clean --task denoise --noise 5 -r {GAUSSIAN}"));
    assert!(!clean.stderr.contains("warning:"), "{}", clean.stderr);
}

#[test]
fn every_photo_has_an_event() {
    let folder = photos();
    folder.write("in/bad.png", "");
    let line = format!("batch in out --task denoise --noise 5 --json {GAUSSIAN}");
    let told = |ran: &Ran| -> Vec<(String, String)> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let name = |event: &Value| match event["event"].as_str() {
            Some("file") => text(&event["record"]["input"]),
            _ => text(&event["input"]),
        };
        let mut told: Vec<_> = ran.events().iter().map(|event| (text(&event["event"]), name(event))).collect();
        told.retain(|(_, name)| !name.is_empty());
        told.sort();
        told
    };
    let pairs = |pairs: [(&str, &str); 3]| pairs.map(|(event, name)| (event.to_owned(), name.to_owned())).to_vec();
    let first = folder.tweedie(&line);
    assert_eq!(told(&first), pairs([("file", "a.png"), ("file", "b.png"), ("file", "bad.png")]));
    let second = folder.tweedie(&line);
    assert_eq!(told(&second), pairs([("refused", "bad.png"), ("skipped", "a.png"), ("skipped", "b.png")]));
    let refused = second.event("refused");
    assert!(refused["reason"].as_str().unwrap().contains("empty file"), "{refused}");
}

#[test]
fn a_file_in_the_place_of_the_merged_record_stays() {
    let folder = photos();
    folder.succeed(&format!("batch in out --task denoise --noise 5 {GAUSSIAN}"));
    folder.write("out/manifest.jsonl", "{\"mine\": 1}\n");
    ended(&folder.tweedie("batch merge out"), 2, "rename it or move it away");
    assert_eq!(folder.bytes("out/manifest.jsonl"), b"{\"mine\": 1}\n");
    std::fs::remove_file(folder.path("out/manifest.jsonl")).unwrap();
    folder.succeed("batch merge out");
    folder.succeed("batch merge out");
    assert_eq!(records(&folder, "out/manifest.jsonl").len(), 2);
}

#[test]
fn a_merge_without_all_shards_says_so() {
    let folder = Folder::new();
    (0..7).for_each(|k| put(&folder, &format!("in/{k}.png")));
    let run =
        |shard: &str| folder.succeed(&format!("batch in out --task denoise --noise 5 --shard {shard} {GAUSSIAN}"));
    run("slice:1/2");
    ended(&folder.tweedie("batch merge out"), 1, "3 of 7 photos have no record yet");
    assert_eq!(records(&folder, "out/manifest.jsonl").len(), 4);
    run("slice:2/2");
    folder.succeed("batch merge out");
    assert_eq!(records(&folder, "out/manifest.jsonl").len(), 7);
}

#[test]
fn what_a_list_names_and_cannot_be_done_is_an_error() {
    let folder = photos();
    folder.write("list", "in/a.png\nin/deep\n");
    let line = format!("batch out --task denoise --noise 5 --files-from list {GAUSSIAN}");
    ended(&folder.tweedie(&line), 1, "in/deep: is a folder, expected a photo");
    assert!(folder.path("out/in/a.png").exists());
    folder.write("list", "../a.png\n");
    ended(&folder.tweedie(&line), 2, "paths below a --base folder");

    folder.write("list", format!("a.png\n{}\n", folder.path("in/deep/c.png").display()));
    folder.succeed(&format!("batch based --base in --task denoise --noise 5 --files-from list {GAUSSIAN}"));
    assert!(folder.path("based/a.png").exists() && folder.path("based/deep/c.png").exists());
    folder.write("list", "/else/a.png\n");
    let outside = format!("batch based --base in --task denoise --noise 5 --files-from list {GAUSSIAN}");
    ended(&folder.tweedie(&outside), 2, "lies outside of the --base folder");
}

#[test]
fn masks_pair_by_name_or_are_refused() {
    let folder = photos();
    std::fs::remove_file(folder.path("masks/b.png")).unwrap();
    let line = format!("batch in out --task inpaint --masks masks {GAUSSIAN}");
    ended(&folder.tweedie(&line), 2, "b.png");
    let ran = folder.succeed(&format!("{line} --missing-mask skip"));
    assert!(ran.stderr.contains("b.png: no mask"), "{}", ran.stderr);
    assert!(folder.path("out/a.png").exists() && !folder.path("out/b.png").exists());

    // Another mask is another picture.
    image::GrayImage::from_pixel(24, 16, image::Luma([255])).save(folder.path("masks/a.png")).unwrap();
    assert!(folder.succeed(&format!("{line} --missing-mask skip")).stderr.contains("1 done,"));
    std::fs::rename(folder.path("masks/a.png"), folder.path("in/a.mask.png")).unwrap();
    std::fs::rename(folder.path("masks/deep/c.png"), folder.path("in/b.png.mask.png")).unwrap();
    folder.succeed(&format!("batch in beside --task inpaint --mask-suffix .mask.png {GAUSSIAN}"));
    assert!(folder.path("beside/b.png").exists() && !folder.path("beside/a.mask.png").exists());
}

#[test]
fn shards_and_a_merge_are_one_run() {
    let folder = Folder::new();
    for k in 0..7 {
        put(&folder, &format!("in/{k}.png"));
    }
    let run =
        |out: &str, shard: &str| folder.succeed(&format!("batch in {out} --task denoise --noise 5 {shard} {GAUSSIAN}"));
    run("out", "");
    for k in 1..=3 {
        run("parts", &format!("--shard {k}/3"));
    }
    folder.succeed("batch merge out");
    folder.succeed("batch merge parts");
    folder.succeed("batch status parts");
    assert_eq!(records(&folder, "out/manifest.jsonl"), records(&folder, "parts/manifest.jsonl"));
    assert_eq!(records(&folder, "out/manifest.jsonl").len(), 7);
    for k in 0..7 {
        assert_eq!(folder.bytes(format!("out/{k}.png")), folder.bytes(format!("parts/{k}.png")));
    }
}

#[test]
fn names_come_from_a_list_on_standard_input() {
    let folder = photos();
    let line = format!("batch out --task denoise --noise 5 --files-from - {GAUSSIAN}");
    let mut command = folder.command(&line.split_whitespace().collect::<Vec<_>>());
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"in/b.png\nin/deep/c.png\n").unwrap();
    let ran: Ran = child.wait_with_output().unwrap().into();
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(folder.path("out/in/b.png").exists() && folder.path("out/in/deep/c.png").exists());
}

#[test]
fn formats_and_metadata_are_those_asked_for() {
    let folder = photos();
    folder.succeed(&format!(
        "batch in out --task denoise --noise 5 --format jpg --jpeg-quality 60 --samples 2 --mean --sheet {GAUSSIAN}"
    ));
    let mut names: Vec<String> = std::fs::read_dir(folder.path("out"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with('a'))
        .collect();
    names.sort();
    assert_eq!(names, ["a-0000.jpg", "a-0001.jpg", "a-mean.jpg", "a-sheet.png"]);
    assert_eq!(&folder.bytes("out/a-0000.jpg")[..2], b"\xff\xd8");
}

#[test]
fn single_commands_write_the_format_they_are_told() {
    let folder = Folder::with_photo(24, 16);
    let run = |flags: &str| folder.succeed(&format!("denoise photo.png --noise 5 {flags} {GAUSSIAN}"));
    run("--format jpg");
    assert_eq!(&folder.bytes("photo.denoise.jpg")[..2], b"\xff\xd8");
    run("--format bmp -o plain");
    assert_eq!(&folder.bytes("plain")[..2], b"BM");
    assert_eq!(&run("--format bmp -o -").stdout[..2], b"BM");
    run("-o small.jpg --jpeg-quality 5 --keep exif");
    run("-o large.jpg --jpeg-quality 100 --strip exif,xmp");
    assert!(folder.bytes("small.jpg").len() < folder.bytes("large.jpg").len());
    for (flags, message) in [
        ("--format jpg -o out.png", "out.png: the extension says PNG, --format JPEG"),
        ("--format heic", "unknown output format `heic`"),
        ("-o plain2", "plain2: an output needs an extension"),
        ("--strip gps --keep exif", "cannot be used with"),
        ("--keep gps", "keep is gps, expected some of exif, icc, iptc, text, xmp"),
    ] {
        ended(&folder.tweedie(&format!("denoise photo.png --noise 5 {flags} {GAUSSIAN}")), 2, message);
    }
}

#[test]
fn settings_of_a_sampler_that_auto_may_choose_are_taken() {
    let folder = photos();
    folder.write("operator.toml", "[operator]\nname = 'inpaint_random'\nmissing = 0.5\nseed = 1\n");
    for flags in [
        "upscale --set sampler.temperature=0.9",
        "upscale --set sampler.annealing.steps=3",
        "denoise --noise 5 --set sampler.annealing.sigma_end=0.1 --steps 3",
        "inpaint --masks masks/a.png --set sampler.ridge=0.2",
        "restore --operator operator.toml --set sampler.ridge=0.2",
    ] {
        folder.succeed(&format!("batch in/a.png out --task {flags} -n {GAUSSIAN}"));
    }
}

#[cfg(unix)]
#[test]
fn one_signal_ends_who_waits_for_a_list() {
    let folder = photos();
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let line = format!("batch out --task denoise --noise 5 --files-from - {GAUSSIAN}");
        let mut command = folder.command(&line.split_whitespace().collect::<Vec<_>>());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut list = child.stdin.take().unwrap();
        // More than a pipe holds: when all is taken, it is being read.
        list.write_all(&b"in/a.png\n".repeat(200_000)).unwrap();
        let sent = std::process::Command::new("kill").args(["-s", signal, &child.id().to_string()]).status();
        assert!(sent.unwrap().success());
        let ran: Ran = child.wait_with_output().unwrap().into();
        drop(list);
        assert_eq!(ran.code, code, "{}", ran.stderr);
        assert!(!folder.path("out").exists());
    }
}

#[test]
fn what_lacks_memory_says_what_the_flag_must_allow() {
    let folder = Folder::with_photo(1000, 800);
    let line = format!("batch photo.png out --task denoise --noise 5 --sampler tmpd --steps 1 {GAUSSIAN}");
    let run = |memory: u64, more: &str| folder.tweedie(&format!("{line} --memory {memory}M {more}"));
    let after = |text: &str, before: &str| -> u64 {
        let rest = text.split_once(before).unwrap_or_else(|| panic!("expected `{before}` in\n{text}")).1;
        rest.split_once(" MiB").unwrap().0.parse().unwrap()
    };
    let mut memory = 64;
    // Reading the photo may take less than restoring it.
    for _ in 0..2 {
        let (planned, ran) = (run(memory, "-n"), run(memory, ""));
        assert_eq!((planned.code, ran.code), (5, 5), "{}{}", planned.stderr, ran.stderr);
        assert_eq!(after(&ran.stderr, "of memory, "), memory, "{}", ran.stderr);
        let needed = after(&ran.stderr, "needs ");
        assert_eq!(after(planned.text(), "needs "), needed);
        assert!(needed > memory, "{needed} {memory}");
        assert_eq!(run(needed - 1, "").code, 5);
        memory = needed;
        if run(memory, "-n").code == 0 {
            break;
        }
    }
    // What is named is enough in the end, and nothing below it was.
    assert_eq!(run(memory, "-n").code, 0);
    assert_eq!(run(memory, "").code, 0);
}

#[test]
fn what_takes_too_long_names_the_limit_of_a_photo() {
    let folder = Folder::with_photo(1000, 800);
    let line =
        format!("batch photo.png out --task denoise --noise 5 --sampler tmpd --steps 1000 --samples 10000 {GAUSSIAN}");
    let ran = folder.tweedie(&format!("{line} --photo-time-limit 1s"));
    ended(&ran, 5, "allow more with --photo-time-limit, draw fewer samples");
}

#[test]
fn a_status_counts_what_the_last_run_meant_to_make() {
    let folder = photos();
    folder.write("in/b.png.tweedie.toml", "noise = 7\n");
    let line = |noise: u32| format!("batch in out --task denoise --noise {noise} -r {GAUSSIAN}");
    folder.succeed(&line(5));
    let all = "3 of 3 photos done, 0 failed, 0 missing\n";
    assert_eq!(folder.succeed("batch status out").text(), all);
    ended(&folder.tweedie(&format!("{} --changed refuse", line(9))), 1, "made with other settings");
    // The one with noise of its own is as it was.
    let status = folder.tweedie("batch status out --missing");
    ended(&status, 1, "2 of 3 photos not done");
    assert_eq!(status.text(), "1 of 3 photos done, 0 failed, 2 missing\nmissing a.png\nmissing deep/c.png\n");
    folder.succeed(&line(9));
    assert_eq!(folder.succeed("batch status out").text(), all);
    // Settings that make no sense are those of a photo all the same.
    folder.write("in/b.png.tweedie.toml", "noice = 7\n");
    ended(&folder.tweedie(&line(9)), 1, "noice");
    let status = folder.tweedie("batch status out");
    assert!(status.text().starts_with("2 of 3 photos done, 1 failed, 0 missing\n"), "{}", status.text());
    // Masks of any origin are settings of the run.
    for masks in ["--masks masks", "--masks masks/a.png", "--masks color:#ff00ff"] {
        folder.succeed(&format!(
            "batch in/a.png in/deep/c.png filled --task inpaint {masks} --missing-mask skip {GAUSSIAN}"
        ));
        folder.succeed("batch status filled");
    }
}

#[test]
fn a_retry_is_not_advised_where_it_changes_nothing() {
    let folder = photos();
    let line = format!("batch in out --task denoise --noise 5 {GAUSSIAN}");
    folder.succeed(&line);
    folder.write("out/a.png", "mine");
    let ran = folder.tweedie(&line);
    ended(&ran, 1, "hint: a retry leaves them again: the reasons above say what to decide");
    assert!(!ran.stderr.contains("--retry-failed"), "{}", ran.stderr);
    folder.write("in/bad.png", "");
    ended(
        &folder.tweedie(&line),
        1,
        "hint: --retry-failed tries 1 of them again, the others are left until you decide",
    );
    std::fs::remove_file(folder.path("out/a.png")).unwrap();
    ended(&folder.tweedie(&line), 1, "hint: --retry-failed tries them again, `tweedie batch status OUT` lists them");
}
