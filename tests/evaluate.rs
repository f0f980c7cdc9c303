//! `tweedie evaluate`, from the outside.

use crate::harness::{Folder, Kind, Ran, photo};
use serde_json::Value;
use std::path::Path;

/// A prior whose denoiser is a formula: whatever surrounds the network is tested without it.
const GAUSSIAN: &str = "--model gaussian:mean=0,std=0.5 --device cpu";

/// A folder with a photo and an evaluation of it.
fn folder(toml: &str) -> Folder {
    let folder = Folder::new();
    photo(40, 36, Kind::Rgb8).save(folder.path("photo.png")).unwrap();
    folder.write("it.toml", toml);
    folder
}

const TOML: &str = r#"
images = ["photo.png"]
crop = 32
samples = 3
calls = 6
samplers = ["auto", "ddnm", "dps"]

[[task]]
name = "random"
operator = { name = "inpaint_random", missing = 0.5 }

[[task]]
name = "motion"
operator = { name = "blur", kernel = { shape = "trajectory", size = 9 }, padding = "reflect" }
noise = { name = "gaussian", sigma = 0.05 }
"#;

#[track_caller]
fn evaluate(folder: &Folder, options: &str) -> Ran {
    folder.succeed(&format!("evaluate it.toml {GAUSSIAN} -o out {options}"))
}

fn report(folder: &Folder) -> Value {
    serde_json::from_slice(&folder.bytes("out.json")).unwrap()
}

/// The report without what the clock and the machine decide.
fn figures(folder: &Folder) -> Value {
    fn strip(value: &mut Value) {
        match value {
            Value::Object(fields) => {
                fields.retain(|name, _| !["seconds", "peak_memory"].contains(&&**name));
                fields.values_mut().for_each(strip);
            }
            Value::Array(values) => values.iter_mut().for_each(strip),
            _ => {}
        }
    }
    let mut report = report(folder);
    strip(&mut report);
    report
}

/// (task, sampler) of the records that a run with `--json` made anew.
fn made_anew(ran: &Ran) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let new = ran.events().into_iter().filter(|event| event["event"] == "record" && event["new"] == true);
    new.map(|event| (text(&event["record"]["task"]), text(&event["record"]["sampler"]))).collect()
}

/// The committed example runs, and its tables say what was done.
#[test]
fn the_quick_evaluation_makes_its_tables() {
    let folder = Folder::new();
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/evaluate/quick.toml");
    let ran = folder.succeed(&format!("evaluate {} {GAUSSIAN} -o out", config.display()));
    assert_eq!(folder.names(), ["out.json", "out.md", "out.records.jsonl"]);
    let markdown = String::from_utf8(folder.bytes("out.md")).unwrap();
    assert_eq!(ran.text(), markdown);
    for heading in ["## random 70 %", "## motion blur", "## All tasks", "| sampler | PSNR | SSIM | GMSD |"] {
        assert!(markdown.contains(heading), "{heading} in:\n{markdown}");
    }
    // Rows have as many cells as their head.
    for table in markdown.split("\n\n").filter(|block| block.starts_with("| ")) {
        let cells: Vec<usize> = table.lines().map(|line| line.matches(" |").count()).collect();
        assert!(cells.windows(2).all(|pair| pair[0] == pair[1]), "{table}");
    }
    let report = report(&folder);
    assert_eq!(report["records"].as_array().unwrap().len(), 6);
    assert!(ran.stderr.contains("6 runs new, 0 kept"), "{}", ran.stderr);
    // Four samples have intervals of 50 and of at most 60 %.
    let coverage = &report["tasks"][0]["rows"][0]["mean"]["coverage"];
    let levels: Vec<f64> = coverage.as_array().unwrap().iter().map(|of| of["level"].as_f64().unwrap()).collect();
    assert!((levels[0] - 0.5).abs() < 1e-12 && (levels[1] - 0.6).abs() < 1e-12, "{levels:?}");
    assert_eq!(report["tasks"][0]["rows"][0]["mean"]["hidden_only"], true);
    assert_eq!(report["tasks"][1]["rows"][0]["mean"]["hidden_only"], false);
}

#[test]
fn the_larger_evaluation_can_be_read() {
    let folder = Folder::new();
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/evaluate/tasks.toml");
    let ran = folder.succeed(&format!("evaluate {} {GAUSSIAN} -o out -n", config.display()));
    assert!(folder.names().is_empty(), "a dry run writes nothing: {:?}", folder.names());
    let lines: Vec<&str> = ran.text().lines().collect();
    for task in ["random 70 %", "super-resolution ×4", "Gaussian blur", "motion blur", "colourisation"] {
        let of_task: Vec<_> = lines.iter().filter(|line| line.starts_with(task)).collect();
        assert!(of_task.len() > 5, "{task}: {of_task:?}");
        let dps = of_task.iter().find(|line| line.contains(" dps ")).unwrap();
        assert!(dps.ends_with("100 calls a sample"), "{dps}");
    }
}

#[test]
fn every_evaluation_of_the_repository_can_be_planned() {
    let folder = Folder::new();
    let configs = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/evaluate");
    let mut planned = 0;
    for entry in std::fs::read_dir(configs).unwrap() {
        folder.succeed(&format!("evaluate {} {GAUSSIAN} -o out -n", entry.unwrap().path().display()));
        planned += 1;
    }
    assert!(planned >= 3, "{planned} files");
}

/// With the Gaussian prior N(0, s²) and a mask without noise, hidden values have the posterior N(0, s²), which is drawn: the
/// PSNR of samples and the spread are known.
#[test]
fn figures_are_those_of_the_exact_posterior() {
    let folder = folder(
        r#"
        images = ["photo.png"]
        samples = 40
        steps = 300
        [[task]]
        name = "mask"
        operator = { name = "inpaint_random", missing = 0.5 }
        [[sampler]]
        name = "ddnm"
        settings = { annealing = { sigma_start = 40.0, sigma_end = 0.005, rho = 7.0, renoise = "ancestral" } }
        "#,
    );
    evaluate(&folder, "");
    let record = &report(&folder)["records"][0]["outcome"]["figures"];
    let image = folder.open("photo.png").to_rgb8();
    let truth: Vec<f64> = image.as_raw().iter().map(|&v| f64::from(v) / 127.5 - 1.0).collect();
    assert_eq!((record["evaluations"].as_u64(), record["pullbacks"].as_u64()), (Some(300), Some(0)));
    assert!(record["residual"]["rms"].as_f64().unwrap() < 1e-5, "{record}");
    // In 8-bit levels; the mean of clipped values is not needed: the spread is of what was drawn.
    let spread = record["statistics"]["spread"].as_f64().unwrap();
    assert!((spread / (127.5 * 0.5) - 1.0).abs() < 0.05, "{spread}");
    // The mean of forty samples is near 0: half of the pixels have the error of their own size, and its variance / 40.
    let squares = truth.iter().map(|v| v * v).sum::<f64>() / truth.len() as f64 + 0.25 / 40.0;
    let expected = 10.0 * (4.0 / (squares / 2.0)).log10();
    let found = record["statistics"]["psnr_of_mean"].as_f64().unwrap();
    assert!((found - expected).abs() < 0.3, "{found}, expected {expected}");
    // A value is inside the central half of N(0, s²) when it is below 0.6745 s.
    for (k, bound) in [(0, 0.6745 * 0.5), (1, 1.6449 * 0.5)] {
        let expected = truth.iter().filter(|v| v.abs() < bound).count() as f64 / truth.len() as f64;
        let found = record["statistics"]["coverage"][k]["share"].as_f64().unwrap();
        assert!((found - expected).abs() < 0.06, "{found}, expected {expected}");
    }
}

#[test]
fn a_method_whose_needs_are_not_met_is_a_row() {
    let folder = folder(TOML);
    evaluate(&folder, "");
    let report = report(&folder);
    let rows = report["tasks"][1]["rows"].as_array().unwrap();
    let last = rows.last().unwrap();
    assert_eq!((last["sampler"].as_str(), last["of"].as_u64()), (Some("ddnm"), Some(0)));
    assert_eq!(last["note"], "needs an operator with known singular values");
    let markdown = String::from_utf8(folder.bytes("out.md")).unwrap();
    assert!(markdown.contains("| ddnm | needs an operator with known singular values | "), "{markdown}");
    // It counts where it ran, and says where it did not.
    assert!(markdown.contains("| ddnm | 1 of 2 | "), "{markdown}");
    // Every other row is sorted by its PSNR.
    for task in report["tasks"].as_array().unwrap() {
        let psnr: Vec<f64> =
            task["rows"].as_array().unwrap().iter().filter_map(|row| row["mean"]["psnr"].as_f64()).collect();
        assert!(psnr.windows(2).all(|pair| pair[0] >= pair[1]), "{psnr:?}");
    }
    // A budget that is too small for a single noise level is an obstacle, too.
    folder.write("it.toml", TOML.replace("calls = 6", "calls = 1").replace("\"dps\"", "\"tweedie\""));
    let ran = evaluate(&folder, "-n");
    let needs = "needs an operator whose singular values are all the same";
    assert!(ran.text().contains(needs), "{}", ran.text());
}

/// A folder stands for its photos, by name; rows are means over them, and a method that gave up on one says so.
#[test]
fn rows_are_means_over_the_photos_of_a_folder() {
    let folder = Folder::new();
    std::fs::create_dir(folder.path("photos")).unwrap();
    photo(24, 20, Kind::Rgb8).save(folder.path("photos/b.png")).unwrap();
    photo(20, 32, Kind::Grey16).save(folder.path("photos/a.png")).unwrap();
    folder.write("photos/notes.txt", "no photo");
    folder.write(
        "it.toml",
        r#"
        images = "photos"
        calls = 5
        samplers = ["ddnm"]
        [[task]]
        name = "grey"
        operator = { name = "grayscale" }
        "#,
    );
    evaluate(&folder, "");
    let report = report(&folder);
    assert_eq!(report["images"], serde_json::json!([["a.png", 20, 32], ["b.png", 24, 20]]));
    let row = &report["tasks"][0]["rows"][0];
    assert_eq!(row["of"], 2);
    let records = report["records"].as_array().unwrap();
    for name in ["psnr", "ssim", "gmsd"] {
        let each = |k: usize| records[k]["outcome"]["figures"][name].as_f64().unwrap();
        assert!(each(0) != each(1));
        assert!((row["mean"][name].as_f64().unwrap() - (each(0) + each(1)) / 2.0).abs() < 1e-9, "{name}");
    }
    // Samples of one are no distribution.
    assert_eq!(row["mean"]["spread"], Value::Null);
    let markdown = String::from_utf8(folder.bytes("out.md")).unwrap();
    assert!(!markdown.contains("spread") && !markdown.contains("Spread"), "{markdown}");
}

/// The largest numbers of f32 overflow inside the method: that is its result, and the others go on.
#[test]
fn a_method_that_gives_up_is_a_row() {
    let folder = folder(&TOML.replace("\"auto\", ", ""));
    let line = "evaluate it.toml --model gaussian:mean=1e37,std=0.5 --device cpu -o out";
    let ran = folder.succeed(line);
    let note = "model produced an invalid image: not finite at step 0";
    assert!(ran.stderr.contains(&format!("warning: dps on random of photo.png: {note}")), "{}", ran.stderr);
    let rows = &report(&folder)["tasks"][0]["rows"];
    let failed = rows.as_array().unwrap().iter().find(|row| row["sampler"] == "dps").unwrap();
    assert!(failed["note"].as_str().unwrap().starts_with(note), "{failed}");
    assert_eq!(failed["mean"], Value::Null);
}

#[test]
fn a_run_that_was_stopped_goes_on_and_has_the_same_tables() {
    let folder = folder(TOML);
    evaluate(&folder, "");
    let whole = figures(&folder);
    let records = String::from_utf8(folder.bytes("out.records.jsonl")).unwrap();
    assert_eq!(records.lines().count(), 6);
    // Stopped while the third line was being written.
    let third: usize = records.lines().take(2).map(|line| line.len() + 1).sum::<usize>() + 40;
    folder.write("out.records.jsonl", &records[..third]);
    let ran = evaluate(&folder, "--json");
    assert_eq!(made_anew(&ran).len(), 4, "{}", ran.text());
    assert_eq!(ran.event("plan")["recorded"], 2);
    assert_eq!(figures(&folder), whole);
    // Nothing is left to do.
    let again = evaluate(&folder, "--json");
    assert_eq!(made_anew(&again), []);
    assert_eq!(figures(&folder), whole);
    // A line that is no record is done again, and said.
    let broken = records.replacen("\"key\"", "\"kei\"", 1);
    folder.write("out.records.jsonl", broken);
    let ran = evaluate(&folder, "--json");
    assert_eq!(made_anew(&ran).len(), 1);
    assert!(ran.stderr.contains("out.records.jsonl: 1 line ignored: no records"), "{}", ran.stderr);
    // Asked to, it forgets.
    assert_eq!(made_anew(&evaluate(&folder, "--json --restart")).len(), 6);
    assert_eq!(figures(&folder), whole);
}

#[cfg(unix)]
#[test]
fn an_interruption_keeps_what_is_done() {
    use std::io::{BufRead, BufReader};
    let folder = folder(&TOML.replace("calls = 6", "calls = 20000"));
    let line = format!("evaluate it.toml {GAUSSIAN} -o out --json");
    let arguments: Vec<&str> = line.split_whitespace().collect();
    let mut command = folder.command(&arguments);
    let mut child = command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    // `auto` has a record when the long run of the next method has begun.
    lines.find(|line| line.as_ref().unwrap().contains(r#""event":"record""#)).unwrap().unwrap();
    let sent = std::process::Command::new("kill").args(["-s", "INT", &child.id().to_string()]).status();
    assert!(sent.unwrap().success());
    let mut error = None;
    for line in lines {
        let line = line.unwrap();
        if line.contains(r#""event":"error""#) {
            error = Some(line);
        }
    }
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(error.unwrap().contains("1 of 6 runs are kept: the same command goes on from there"));
    assert_eq!(folder.names(), ["it.toml", "out.records.jsonl", "photo.png"]);
    folder.write("it.toml", TOML);
    let ran = evaluate(&folder, "--json");
    // `auto` does not depend on the number of calls: its record is kept.
    let text = |task: &str, sampler: &str| (task.to_owned(), sampler.to_owned());
    assert_eq!(
        made_anew(&ran),
        [
            text("random", "ddnm"),
            text("random", "dps"),
            text("motion", "auto"),
            text("motion", "ddnm"),
            text("motion", "dps")
        ]
    );
}

#[test]
fn a_change_concerns_its_own_records_only() {
    let folder = folder(TOML);
    evaluate(&folder, "");
    let all = |sampler: &str| ["random", "motion"].map(|task| (task.to_owned(), sampler.to_owned()));
    let change = |toml: &str| {
        folder.write("it.toml", toml);
        made_anew(&evaluate(&folder, "--json"))
    };
    // A sampler with other settings; the others stay.
    let with = TOML.replace(", \"dps\"]", "]") + "\n[[sampler]]\nname = \"dps\"\nsettings = { scale = 0.3 }\n";
    assert_eq!(change(&with), all("dps"));
    // A new label is no new method.
    assert_eq!(change(&with.replace("name = \"dps\"", "name = \"dps\"\nlabel = \"gradient\"")), []);
    // Another noise: that task alone, but for the method that cannot do it: its measurement is another.
    let noisy = with.replace("sigma = 0.05", "sigma = 0.06");
    assert!(change(&noisy).iter().all(|(task, _)| task == "motion"));
    // Another seed of the mask: that task alone.
    let seeded = noisy.replace("missing = 0.5", "missing = 0.5, seed = 1");
    let anew = change(&seeded);
    assert_eq!((anew.len(), anew.iter().all(|(task, _)| task == "random")), (3, true));
    // Another photo: all.
    photo(40, 37, Kind::Rgb8).save(folder.path("photo.png")).unwrap();
    assert_eq!(change(&seeded).len(), 6);
}

#[test]
fn what_is_wrong_with_the_file_is_said_and_nothing_is_started() {
    let cases = [
        (TOML.replace("\"dps\"", "\"dqs\""), "unknown sampler `dqs`; known: auto, ddnm, "),
        (TOML.replace("inpaint_random", "inpaint_randm"), "inpaint_randm"),
        (TOML.replace("\"gaussian\"", "\"gausian\""), "poisson"),
        (TOML.replace("crop = 32", "crap = 32"), "unknown field `crap`"),
        (TOML.replace("crop = 32", "crop = 37"), "size of photo.png is 40x36, expected at least the crop, 37x37"),
        (TOML.replace("calls = 6", "calls = 6\nsteps = 3"), "calls is calls and steps, expected one of the two"),
        (TOML.replace("samples = 3", "samples = 0"), "samples is 0, expected a number from 1 to 10000"),
        (TOML.replace("photo.png", "photos.png"), "photos.png"),
        (TOML.replace("\"dps\"", "\"ddnm\""), "sampler is `ddnm` twice, expected a name or label of its own for each"),
        (TOML.replace("\"motion\"", "\"random\""), "task is `random` twice"),
        (TOML.replace("samplers = [\"auto\", \"ddnm\", \"dps\"]", ""), "samplers is none"),
        (TOML.to_owned() + "\n[[sampler]]\nname = \"dps\"\nlabel = \"l\"\nsettings = { scael = 1 }\n", "scael"),
        (TOML.to_owned() + "\n[[task]]\nname = \"t\"\n", "task `t` is no operator, expected a table `operator`"),
    ];
    for (toml, message) in cases {
        let folder = folder(&toml);
        let ran = folder.tweedie(&format!("evaluate it.toml {GAUSSIAN} -o out"));
        assert_eq!(ran.code, if message == "photos.png" { ran.code } else { 2 }, "{message}\n{}", ran.stderr);
        assert!(ran.code != 0 && ran.stderr.contains(message), "expected `{message}` in:\n{}", ran.stderr);
        assert_eq!(folder.names(), ["it.toml", "photo.png"], "{message}");
    }
    let folder = folder(TOML);
    folder.write("out.md", "somebody's own");
    let ran = folder.tweedie(&format!("evaluate it.toml {GAUSSIAN} -o out"));
    assert_eq!(ran.code, 2);
    assert!(ran.stderr.contains("out.md: exists already"), "{}", ran.stderr);
    assert_eq!(folder.bytes("out.md"), b"somebody's own");
    evaluate(&folder, "--force");
}
