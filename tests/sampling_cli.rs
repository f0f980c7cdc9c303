//! The commands that draw from the prior and list methods.

use crate::harness::{Folder, Ran};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;
use tweedie::samplers::SAMPLERS;
use tweedie::solvers::SOLVERS;

/// A prior without a network.
const GAUSSIAN: &str = "--model gaussian:mean=0.2,std=0.3";

#[track_caller]
fn refused(ran: &Ran, message: &str) {
    assert_eq!(ran.code, 2, "{}", ran.stderr);
    assert_eq!(ran.stderr.lines().next(), Some(format!("error: {message}").as_str()));
    assert!(ran.stdout.is_empty(), "{:?}", ran.text());
}

#[test]
fn samples_are_numbered_and_have_the_moments_of_the_prior() {
    let folder = Folder::new();
    let ran = folder.succeed(&format!("sample --samples 3 --size 96x128 {GAUSSIAN} --steps 40 --sheet -o drawn.png"));
    assert!(ran.stdout.is_empty());
    let written: Vec<&str> = ran.stderr.lines().collect();
    assert_eq!(written.len(), 4, "{}", ran.stderr);
    assert!(written[0].starts_with("wrote drawn-0000.png (heun, seed 0, "), "{}", ran.stderr);
    assert_eq!(folder.names(), ["drawn-0000.png", "drawn-0001.png", "drawn-0002.png", "drawn-sheet.png"]);
    for k in 0..3 {
        let image = folder.open(format!("drawn-000{k}.png"));
        assert_eq!((image.width(), image.height(), image.color()), (128, 96, image::ColorType::Rgb8));
        let values: Vec<f64> = image.to_rgb8().into_raw().into_iter().map(|v| f64::from(v) / 127.5 - 1.0).collect();
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count;
        let std = (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / count).sqrt();
        // 36,864 values: a standard error of 0.0016, and the clamp at white takes 0.4 % of the pixels.
        assert!((mean - 0.2).abs() < 0.01 && (std - 0.3).abs() < 0.01, "{k}: {mean} ± {std}");
    }
    let sheet = folder.open("drawn-sheet.png");
    assert!(sheet.width() > 2 * 128 && sheet.height() > 2 * 96, "two by two");
}

#[test]
fn a_sample_does_not_depend_on_how_many_are_drawn() {
    let folder = Folder::new();
    for sampler in ["heun", "dpmpp_2m_sde", "rk45"] {
        let line = format!("sample --size 8x8 --steps 5 --sampler {sampler} --seed 4 {GAUSSIAN} --force");
        folder.succeed(&format!("{line} --samples 2 -o two.png"));
        folder.succeed(&format!("{line} -o one.png"));
        let pixels = |name: &str| folder.open(name).to_rgb8().into_raw();
        assert_eq!(pixels("two-0000.png"), pixels("one.png"), "{sampler}");
        assert_ne!(pixels("two-0001.png"), pixels("one.png"), "{sampler}");
        folder.succeed(&format!("{line} --seed 5 -o other.png").replace("--seed 4 ", ""));
        assert_ne!(pixels("other.png"), pixels("one.png"), "{sampler}");
    }
}

#[test]
fn a_folder_takes_samples_and_the_sheet_another_name() {
    let folder = Folder::new();
    std::fs::create_dir(folder.path("out")).unwrap();
    folder.succeed(&format!("sample --samples 2 --size 8x8 --steps 2 {GAUSSIAN} -o out/ --sheet all.png"));
    assert_eq!(folder.names(), ["all.png", "out"]);
    assert!(folder.path("out/sample-0000.png").is_file() && folder.path("out/sample-0001.png").is_file());
    folder.succeed(&format!("sample --size 8x8 --steps 2 {GAUSSIAN}"));
    assert!(folder.path("sample.png").is_file());
    let ran = folder.succeed(&format!("sample --size 8x8 --steps 2 {GAUSSIAN} -o -"));
    assert_eq!(image::load_from_memory(&ran.stdout).unwrap().to_rgb8(), folder.open("sample.png").to_rgb8());
}

#[test]
fn the_embedded_prior_draws_images_that_are_smooth() {
    let folder = Folder::new();
    folder.succeed("sample --steps 6 --size 32x32");
    let image = folder.open("sample.png").to_rgb8();
    let level = |x: u32, y: u32| f64::from(image.get_pixel(x, y)[1]);
    let pixels: Vec<(u32, u32)> = (0..31).flat_map(|y| (0..31).map(move |x| (x, y))).collect();
    let mean = pixels.iter().map(|&(x, y)| level(x, y)).sum::<f64>() / 961.0;
    let variance = pixels.iter().map(|&(x, y)| (level(x, y) - mean).powi(2)).sum::<f64>() / 961.0;
    let step = pixels.iter().map(|&(x, y)| (level(x + 1, y) - level(x, y)).powi(2)).sum::<f64>() / 961.0;
    // Neighbours in noise differ by twice the variance.
    assert!(step < variance, "{step} and {variance}");
}

#[test]
fn events_tell_the_whole_run() {
    let folder = Folder::new();
    let ran = folder.succeed(&format!("sample --samples 2 --size 8x12 --steps 3 {GAUSSIAN} --sheet --json --seed 9"));
    let events = ran.events();
    let kinds: Vec<&str> = events.iter().map(|event| event["event"].as_str().unwrap()).collect();
    let expected = ["start", "step", "step", "step", "file", "step", "step", "step", "file", "file", "summary"];
    assert_eq!(kinds, expected);
    let start = &events[0];
    assert_eq!((&start["schema"], &start["command"]), (&1.into(), &"sample".into()));
    assert_eq!((&start["width"], &start["height"]), (&12.into(), &8.into()));
    assert_eq!((&start["steps"], &start["evaluations"]), (&3.into(), &10.into()));
    assert_eq!(start["outputs"], serde_json::json!(["sample-0000.png", "sample-0001.png", "sample-sheet.png"]));
    let done: Vec<u64> = events.iter().filter_map(|event| event["done"].as_u64()).collect();
    assert_eq!(done, [1, 2, 3, 4, 5, 6]);
    assert_eq!((&events[8]["sample"], &events[8]["evaluations"]), (&1.into(), &5.into()));
    assert_eq!((&events[9]["kind"], &events[9]["sample"]), (&"sheet".into(), &Value::Null));
    assert_eq!((&events[10]["files"], &events[10]["exit_code"]), (&3.into(), &0.into()));
    let provenance = String::from_utf8_lossy(&folder.bytes("sample-0001.png")).into_owned();
    assert!(provenance.contains("sampler heun, steps 3,") && provenance.contains("seed 9, sample 1 of 2"));
}

#[test]
fn a_plan_draws_nothing() {
    let folder = Folder::new();
    let ran = folder.succeed(&format!("sample --samples 2 {GAUSSIAN} -n --sampler ddim --size 5x7"));
    assert!(ran.text().starts_with("-> sample-0000.png\n-> sample-0001.png\nsize         7x5\n"), "{}", ran.text());
    assert!(ran.text().contains("ddim, 100 steps, 2 samples, seed 0\nevaluations  200\n"), "{}", ran.text());
    assert!(folder.names().is_empty());
}

#[test]
fn what_cannot_be_drawn_is_refused_before_any_work() {
    let folder = Folder::new();
    let known = SOLVERS.iter().map(|entry| entry.name).collect::<Vec<_>>().join(", ");
    // The model is never looked at.
    let nowhere = "--model nowhere.safetensors";
    refused(
        &folder.tweedie(&format!("sample --sampler euler {nowhere}")),
        &format!("unknown solver `euler`; known: {known}"),
    );
    let ran = folder.tweedie(&format!("sample --sampler dps {nowhere}"));
    refused(&ran, "dps restores measurements, and there is none");
    assert!(ran.stderr.contains(&known), "{}", ran.stderr);
    refused(&folder.tweedie(&format!("sample -o none/ {nowhere}")), "none: the output folder does not exist");
    refused(&folder.tweedie(&format!("sample --sheet sheet.jpg {nowhere}")), "sheet.jpg: a sheet is a PNG file");
    refused(
        &folder.tweedie(&format!("sample -o a.png --sheet a.png {nowhere}")),
        "a.png: is the name of a sample and of the sheet",
    );
    let ran = folder.tweedie(&format!("sample -o - --json {nowhere}"));
    assert_eq!((ran.code, &ran.event("error")["exit_code"]), (2, &2.into()));
    let message = "error: standard output takes the image or the events of --json, not both";
    assert_eq!(ran.stderr.lines().next(), Some(message));
    for arguments in ["--size 64", "--size 0x4", "--size 2000x64", "--samples 0", "--steps 0"] {
        let ran = folder.tweedie(&format!("sample {arguments}"));
        assert!(ran.code == 2 && ran.stdout.is_empty(), "{arguments}: {}", ran.stderr);
    }
    assert!(folder.names().is_empty());
    folder.write("sample.png", "mine");
    refused(&folder.tweedie(&format!("sample {nowhere}")), "sample.png: exists already");
    assert_eq!(folder.bytes("sample.png"), b"mine");
    folder.succeed(&format!("sample --size 8x8 --steps 2 {GAUSSIAN} --force"));
    folder.open("sample.png");
}

#[cfg(unix)]
#[test]
fn a_signal_stops_between_two_steps_and_whole_samples_stay() {
    let folder = Folder::new();
    let line = format!("sample {GAUSSIAN} --size 128x128 --steps 50 --samples 2000 --json");
    let mut command = folder.command(&line.split(' ').collect::<Vec<_>>());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut events = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(events.any(|line| line.unwrap().contains(r#""event":"file""#)), "no file was reported");
    let sent = std::process::Command::new("kill").args(["-s", "INT", &child.id().to_string()]).status();
    assert!(sent.unwrap().success());
    let last = events.map(Result::unwrap).last().unwrap();
    let status = child.wait().unwrap();
    let mut stderr = String::new();
    child.stderr.unwrap().read_to_string(&mut stderr).unwrap();
    assert_eq!(status.code(), Some(130), "{stderr}");
    assert_eq!(stderr.lines().last(), Some("error: interrupted"));
    let event: Value = serde_json::from_str(&last).unwrap();
    assert_eq!((&event["event"], &event["exit_code"]), (&"error".into(), &130.into()));
    let names = folder.names();
    assert!(!names.is_empty() && names.len() < 2000);
    for name in names {
        assert_eq!(folder.open(&name).width(), 128, "{name}");
    }
}

#[test]
fn all_methods_are_listed_with_what_they_need_and_cost() {
    let folder = Folder::new();
    let list = folder.succeed("samplers --json").events().remove(0);
    assert_eq!(list["schema"], 1);
    let names = |list: &Value| list.as_array().unwrap().iter().map(|e| e["name"].clone()).collect::<Vec<_>>();
    assert_eq!(names(&list["samplers"]), SAMPLERS.iter().map(|entry| entry.name).collect::<Vec<_>>());
    assert_eq!(names(&list["solvers"]), SOLVERS.iter().map(|entry| entry.name).collect::<Vec<_>>());
    let of = |kind: &str, name: &str| {
        list[kind].as_array().unwrap().iter().find(|method| method["name"] == name).unwrap().clone()
    };
    let dps = of("samplers", "dps");
    assert_eq!((&dps["structure"], &dps["noise"]), (&"derivative".into(), &"any".into()));
    assert_eq!((&dps["steps"], &dps["evaluations"], &dps["pullbacks"]), (&100.into(), &100.into(), &1.into()));
    let heun = of("solvers", "heun");
    assert_eq!((&heun["steps"], &heun["evaluations"], &heun["pullbacks"]), (&18.into(), &35.into(), &0.into()));
    assert!(heun.get("structure").is_none());
    assert_eq!(of("solvers", "rk45")["evaluations"], Value::Null);

    let text = folder.succeed("samplers").text().to_string();
    let (samplers, solvers) = text.split_once("\n\n").unwrap();
    assert_eq!(samplers.lines().count(), SAMPLERS.len() + 1, "a line each, for who filters them");
    assert_eq!(solvers.lines().count(), SOLVERS.len() + 1);
    let line = samplers.lines().find(|line| line.starts_with("dps ")).unwrap();
    assert_eq!(line.split_whitespace().take(6).collect::<Vec<_>>(), ["dps", "any", "any", "100", "100", "1"]);
}

#[test]
fn every_method_is_explained_with_its_settings() {
    let folder = Folder::new();
    let methods = SAMPLERS.iter().map(|entry| (entry.name, "sampler", entry.fields, entry.example));
    let methods = methods.chain(SOLVERS.iter().map(|entry| (entry.name, "solver", entry.fields, entry.example)));
    for (name, kind, fields, example) in methods {
        let explained = folder.succeed(&format!("samplers {name} --json")).events().remove(0);
        assert_eq!((&explained["name"], &explained["kind"]), (&name.into(), &kind.into()));
        assert_eq!(explained["example"], example);
        let settings = explained["settings"].as_array().unwrap();
        assert_eq!(settings.len(), fields.len());
        let text = folder.succeed(&format!("samplers {name}")).text().to_string();
        for (setting, (field, about)) in settings.iter().zip(fields) {
            assert_eq!((&setting["name"], &setting["about"]), (&(*field).into(), &(*about).into()));
            let is_told = |line: &str| line.starts_with(&format!("  {field} ")) && line.ends_with(about);
            assert!(text.lines().any(is_told), "{text}");
        }
        assert!(example.lines().all(|line| text.contains(&format!("\n  {line}\n"))), "{text}");
    }
    let all: Vec<_> = SAMPLERS.iter().map(|e| e.name).chain(SOLVERS.iter().map(|e| e.name)).collect();
    refused(&folder.tweedie("samplers gibbs"), &format!("unknown sampler `gibbs`; known: {}", all.join(", ")));
}
