//! `tweedie train`, from the outside: a network of a few thousand numbers on photos of a few hundred pixels.

use crate::harness::{Folder, Kind, Ran, photo};
use serde_json::Value;

/// `train` of a tiny network in f32, on what is in `photos`.
const CONFIG: &str = r#"
name = "tiny"
seed = 3
steps = 6
log_every = 2

[data]
folder = "photos"
held_out = 1
patch = 16

[model]
architecture = "PatchUNet"

[model.config]
patch = 2
levels = [8, 8]
blocks = [1, 1]
embedding = 16
sample_size = 16

[optimiser]
batch = 2
learning_rate = { rate = 1e-3, warm_up = 2 }

[validation]
every = 2
crop = 24
samples = 2

[checkpoint]
every = 2
"#;

/// A folder with the configuration and four photos.
fn prepared() -> Folder {
    let folder = Folder::new();
    std::fs::create_dir(folder.path("photos")).unwrap();
    for (name, width, height) in [("a", 32, 24), ("b", 24, 40), ("c", 50, 30), ("d", 28, 28)] {
        photo(width, height, Kind::Rgb8).save(folder.path(format!("photos/{name}.png"))).unwrap();
    }
    folder.write("tiny.toml", CONFIG);
    folder
}

/// The lines of a run's log that are of this kind.
fn log(folder: &Folder, run: &str, kind: &str) -> Vec<Value> {
    let text = String::from_utf8(folder.bytes(format!("{run}/log.jsonl"))).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter(|line| line["event"] == kind).collect()
}

fn names(folder: &Folder, run: &str) -> Vec<String> {
    let entries = std::fs::read_dir(folder.path(run)).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn page(folder: &Folder, run: &str) -> String {
    String::from_utf8(folder.bytes(format!("{run}/report.html"))).unwrap()
}

#[track_caller]
fn refused(ran: &Ran, code: i32, texts: &[&str]) {
    assert_eq!(ran.code, code, "{}", ran.stderr);
    for text in texts {
        assert!(ran.stderr.contains(text), "no `{text}` in: {}", ran.stderr);
    }
}

#[test]
fn a_run_leaves_a_log_a_page_pictures_events_and_a_model() {
    let folder = prepared();
    let ran = folder.succeed("train --config tiny.toml -o run");
    for text in ["report.html", "step 6/6: loss ", "validation at step 6: loss ", "done after 6 steps"] {
        assert!(ran.stderr.contains(text), "no `{text}` in: {}", ran.stderr);
    }
    let names = names(&folder, "run");
    // The lock stays.
    assert_eq!(names[0], ".lock");
    let kinds: Vec<&str> = names[1..].iter().map(|name| name.split(['-', '.']).next().unwrap()).collect();
    let expected = [
        "checkpoint",
        "checkpoint",
        "events",
        "log",
        "model",
        "report",
        "samples",
        "samples",
        "samples",
        "validation",
        "validation",
        "validation",
    ];
    assert_eq!(kinds, expected, "{names:?}");

    let page = page(&folder, "run");
    // Self-contained: nothing is fetched, nothing runs.
    for text in ["http", "<script", "<link", "@import", "url("] {
        assert!(!page.contains(text), "{text}");
    }
    assert_eq!(page.matches("src=\"").count(), page.matches("src=\"data:image/png;base64,").count());
    // A picture of held-out photos and three of samples; six charts.
    assert_eq!(page.matches("<img ").count(), 4);
    assert_eq!(page.matches("<svg ").count(), 6);
    let progress = log(&folder, "run", "step").pop().unwrap();
    let validation = log(&folder, "run", "validation").pop().unwrap();
    for text in [
        "<title>tiny</title>".to_owned(),
        "step 6 of 6 · 100.0 %".to_owned(),
        "3 photos, 0.0 megapixels; 1 more held out".to_owned(),
        format!("PatchUNet, {}\u{202f}", log(&folder, "run", "start")[0]["parameters"].as_u64().unwrap() / 1000),
        format!("<td>{:.2}</td>", validation["psnr"][0][1].as_f64().unwrap()),
        "12 seen so far".to_owned(),
    ] {
        assert!(page.contains(&text), "no `{text}`");
    }
    assert_eq!(progress["images"], 12);
    let crops = folder.open("run/validation-000000006.png");
    // Clean and four noise levels in two rows.
    assert_eq!(crops.width(), 5 * 48 + 4 * 4);
    assert_eq!(folder.open("run/samples-000000006.png").width(), 2 * 48 + 4);
    // The model is one.
    folder.succeed("sample --model run/model.safetensors --size 16x16 --steps 2 -o drawn.png");
}

#[test]
fn a_resumed_run_goes_on_with_the_same_curves() {
    let folder = prepared();
    folder.succeed("train --config tiny.toml -o whole");
    folder.succeed("train --config tiny.toml -o parts --set steps=3 --quiet");
    // Steps after the checkpoint of step 3 are none; one that was killed has some, which are taken again.
    std::fs::remove_file(folder.path("parts/checkpoint-000000003.safetensors")).unwrap();
    let ran = folder.succeed("train --config tiny.toml -o parts --resume");
    assert!(ran.stderr.contains("goes on after 2 steps"), "{}", ran.stderr);
    let figures = |run: &str| {
        let steps = log(&folder, run, "step").into_iter().map(|line| (line["step"].clone(), line["loss"].clone()));
        let validations =
            log(&folder, run, "validation").into_iter().map(|line| (line["step"].clone(), line["psnr"].clone()));
        steps.chain(validations).collect::<Vec<_>>()
    };
    assert_eq!(figures("parts"), figures("whole"));
    assert_eq!(folder.bytes("parts/model.safetensors"), folder.bytes("whole/model.safetensors"));
    let events = names(&folder, "parts").into_iter().filter(|name| name.starts_with("events")).count();
    // Two processes, a file each; both within one second have different numbers.
    assert_eq!(events, 2);
    let page = page(&folder, "parts");
    assert!(page.contains("in 2 sittings"));
    let curve = |page: &str| page.split("aria-label=\"PSNR").nth(1).unwrap().split("</svg>").next().unwrap().to_owned();
    assert_eq!(curve(&page), curve(&self::page(&folder, "whole")));
}

#[test]
fn json_has_the_lines_of_the_log() {
    let folder = prepared();
    let ran = folder.succeed("train --config tiny.toml -o run --set steps=2 --json");
    let kinds: Vec<String> = ran.events().iter().map(|event| event["event"].as_str().unwrap().to_owned()).collect();
    assert_eq!(kinds, ["step", "validation", "checkpoint", "end"]);
    assert!(ran.events().iter().all(|event| event["schema"] == 1));
}

#[test]
fn a_dry_run_says_what_would_be_needed_and_writes_nothing() {
    let folder = prepared();
    folder.write("photos/notes.txt", "not a photo");
    let before = folder.names();
    let ran = folder.succeed("train --config tiny.toml -o run --dry-run");
    for text in
        ["PatchUNet", "3 photos", "1 file passed over", "6 of 2 patches of 16x16", "patches a second", "3 checkpoints"]
    {
        assert!(ran.text().contains(text), "no `{text}` in: {}", ran.text());
    }
    let plan = folder.succeed("train --config tiny.toml -o run -n --json").event("plan");
    assert_eq!(
        (plan["steps"].as_u64(), plan["photos"].as_u64(), plan["skipped"].as_u64()),
        (Some(6), Some(3), Some(1))
    );
    assert!(plan["patches_per_second"].as_f64().unwrap() > 0.0);
    // Parameters, an average and two moments of four bytes.
    assert_eq!(plan["checkpoint"].as_u64().unwrap(), 16 * plan["parameters"].as_u64().unwrap());
    assert_eq!(folder.names(), before);
}

#[test]
fn files_that_are_no_photos_are_passed_over_and_a_few_of_them_named() {
    let folder = prepared();
    for index in 0..4 {
        folder.write(format!("photos/{index}.txt"), "not a photo");
    }
    photo(15, 40, Kind::Rgb8).save(folder.path("photos/e.png")).unwrap();
    let ran = folder.succeed("train --config tiny.toml -o run --set steps=1");
    assert_eq!(ran.stderr.matches("warning: ").count(), 4, "{}", ran.stderr);
    assert!(
        ran.stderr.contains("warning: photos/0.txt: not an image (looks like text): not trained on"),
        "{}",
        ran.stderr
    );
    assert!(ran.stderr.contains("warning: 2 more files not trained on"), "{}", ran.stderr);
    let page = page(&folder, "run");
    assert!(page.contains("files that are not trained on: 5"));
    assert!(page.contains("e.png: has 15x40 pixels, less than 16x16"));
}

#[test]
fn a_photo_that_is_damaged_is_told_of_and_not_trained_on() {
    let folder = prepared();
    std::fs::create_dir(folder.path("held")).unwrap();
    std::fs::rename(folder.path("photos/d.png"), folder.path("held/d.png")).unwrap();
    let whole = folder.bytes("photos/c.png");
    folder.write("photos/c.png", &whole[..whole.len() / 2]);
    let ran = folder.succeed("train --config tiny.toml -o run --set data.validation=held --set steps=1");
    assert!(ran.stderr.contains("c.png: "), "{}", ran.stderr);
    assert!(page(&folder, "run").contains("files that are not trained on: 1"));
}

#[test]
fn folders_that_cannot_be_trained_on_are_refused() {
    let folder = prepared();
    let train = |settings: &str| folder.tweedie(&format!("train --config tiny.toml -o run {settings}"));
    std::fs::create_dir(folder.path("empty")).unwrap();
    refused(&train("--set data.folder=empty"), 2, &["empty", "expected photos of at least 16x16 pixels"]);
    refused(&train("--set optimiser.method=muon"), 2, &["optimiser.method is muon, expected adam: the network has no"]);
    refused(&train("--set data.validation=away"), 2, &["away is not there, expected photos of at least 16x16"]);
    refused(&train("--set data.folder=nowhere"), 2, &["nowhere is not there, expected photos of at least 16x16"]);
    refused(
        &train("--set data.patch=64 --set model.config.sample_size=64"),
        2,
        &["4 files that cannot be used", "has 32x24 pixels, less than 64x64"],
    );
    refused(&train("--set data.held_out=4"), 2, &["data.held_out is 4, expected 1 to 3 of the 4 photos"]);
    refused(&train("--set data.patch=17"), 2, &["data.patch is 17, expected a multiple of 4"]);
    assert!(!folder.path("run/log.jsonl").exists());
}

#[test]
fn configurations_that_make_no_sense_are_refused() {
    let folder = prepared();
    let train = |settings: &str| folder.tweedie(&format!("train --config tiny.toml -o run {settings}"));
    refused(&train("--set optimizer.batch=3"), 2, &["unknown field `optimizer`", "`optimiser`"]);
    refused(&train("--set steps=0"), 2, &["steps is 0, expected 1 to"]);
    refused(&train("--set validation.sample_size=5000"), 2, &["validation.sample_size is 5000, expected 1 to 1024"]);
    refused(&train("--set model.architecture=UNet9"), 2, &["UNet9", "PatchUNet"]);
    refused(&train("--set steps"), 2, &["expected KEY=VALUE, such as optimiser.batch=32"]);
    refused(&train("--dry-run --resume"), 2, &["--dry-run", "--resume"]);
    refused(&train("--init-from nowhere.safetensors"), 4, &["nowhere.safetensors"]);
}

#[test]
fn a_folder_with_a_run_is_not_written_over_and_not_gone_on_with_as_another() {
    let folder = prepared();
    folder.succeed("train --config tiny.toml -o run --set steps=2");
    let before = folder.bytes("run/model.safetensors");
    refused(
        &folder.tweedie("train --config tiny.toml -o run"),
        2,
        &["a run of 2 steps", "another folder, or --resume to go on with that run"],
    );
    refused(
        &folder.tweedie("train --config tiny.toml -o run --resume --set optimiser.batch=3"),
        2,
        &["optimiser.batch of a run that is resumed is 3, expected 2, as it began"],
    );
    photo(40, 40, Kind::Rgb8).save(folder.path("photos/more.png")).unwrap();
    refused(
        &folder.tweedie("train --config tiny.toml -o run --resume"),
        2,
        &["other data than those that the run began with"],
    );
    assert_eq!(folder.bytes("run/model.safetensors"), before);
}

#[test]
fn a_run_that_diverges_stops_and_says_what_helps() {
    let folder = prepared();
    let wild = "--set optimiser.learning_rate.rate=10 --set optimiser.learning_rate.warm_up=1 --set optimiser.clip=0";
    let ran = folder.tweedie(&format!("train --config tiny.toml -o run --set steps=400 {wild}"));
    refused(
        &ran,
        1,
        &["error: training diverged: the ", "not finite at step ", "a smaller optimiser.learning_rate.rate"],
    );
    // What was measured until then can be seen.
    assert!(log(&folder, "run", "end").is_empty());
}

#[test]
#[cfg(unix)]
fn an_interrupt_saves_and_the_run_goes_on() {
    let folder = prepared();
    let settings = "--set steps=1000000 --set validation.every=0 --set checkpoint.every=1000000 --set log_every=1";
    let line = format!("train --config tiny.toml -o run {settings}");
    let mut command = folder.command(&line.split_whitespace().collect::<Vec<_>>());
    let child = command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::piped()).spawn().unwrap();
    let text = || std::fs::read_to_string(folder.path("run/log.jsonl")).unwrap_or_default();
    let start = std::time::Instant::now();
    while !text().contains("\"step\":3,") {
        assert!(start.elapsed().as_secs() < 120, "{}", text());
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let killed = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    let ran = Ran::from(child.wait_with_output().unwrap());
    refused(&ran, 130, &["interrupted", "everything is saved: --resume goes on"]);
    let step = log(&folder, "run", "end")[0]["step"].as_u64().unwrap();
    assert!(folder.path(format!("run/checkpoint-{step:09}.safetensors")).is_file());
    assert!(page(&folder, "run").contains("interrupted"));
    let more = format!("--set steps={} --resume", step + 2);
    let ran = folder.succeed(&format!("train --config tiny.toml -o run {more}"));
    assert!(ran.stderr.contains(&format!("done after {} steps", step + 2)), "{}", ran.stderr);
}
