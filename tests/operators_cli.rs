//! The commands that list, explain and check operators.

use crate::harness::{Folder, Ran};
use serde_json::Value;
use std::path::Path;
use tweedie_operators::{Description, NOISES, OPERATORS};

#[track_caller]
fn refused(ran: &Ran, message: &str) {
    assert_eq!(ran.code, 2, "{}", ran.stderr);
    assert_eq!(ran.stderr, format!("error: {message}\n"));
    assert!(ran.stdout.is_empty(), "{:?}", ran.text());
}

/// What a command prints for a reader with so many columns.
fn at_width(folder: &Folder, line: &str, columns: usize) -> String {
    let arguments: Vec<_> = line.split_whitespace().collect();
    let ran: Ran = folder.command(&arguments).env("COLUMNS", columns.to_string()).output().unwrap().into();
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    ran.text().into()
}

#[test]
fn all_operators_and_noise_models_are_listed() {
    let folder = Folder::new();
    let list = folder.succeed("operators --json").events().remove(0);
    assert_eq!(list["schema"], 1);
    let names = |list: &Value| list.as_array().unwrap().iter().map(|e| e["name"].clone()).collect::<Vec<_>>();
    assert_eq!(names(&list["operators"]), OPERATORS.iter().map(|entry| entry.name).collect::<Vec<_>>());
    assert_eq!(names(&list["noises"]), NOISES.iter().map(|entry| entry.name).collect::<Vec<_>>());
    let operator = |name: &str| {
        let found = list["operators"].as_array().unwrap().iter().find(|operator| operator["name"] == name);
        found.unwrap().clone()
    };
    for name in ["identity", "inpaint_box", "grayscale", "downsample_box"] {
        let operator = operator(name);
        assert_eq!((&operator["linear"], &operator["singular_values"]), (&true.into(), &true.into()), "{name}");
    }

    let text = folder.succeed("operators").text().to_string();
    let (operators, noises) = text.split_once("\n\n").unwrap();
    assert_eq!(operators.lines().count(), OPERATORS.len() + 1, "a line each, for who filters them");
    assert_eq!(noises.lines().count(), NOISES.len() + 1);
    let line = operators.lines().find(|line| line.starts_with("downsample_box ")).unwrap();
    assert_eq!(line.split_whitespace().take(3).collect::<Vec<_>>(), ["downsample_box", "yes", "SVD"]);
}

#[test]
fn the_list_fits_the_terminal() {
    let folder = Folder::new();
    let mut lines = Vec::new();
    for columns in [72, 80, 120] {
        for line in ["operators", "operators inpaint_random", "operators gaussian"] {
            let text = at_width(&folder, line, columns);
            for printed in text.lines().filter(|printed| !printed.starts_with("  ")) {
                assert!(printed.chars().count() <= columns, "{line} at {columns} columns: {printed}");
            }
            lines.push(text.lines().count());
        }
    }
    assert!(lines[0] >= lines[3] && lines[3] >= lines[6], "{lines:?}");
}

#[test]
fn every_operator_and_noise_is_explained_with_an_example_that_is_a_file() {
    let folder = Folder::new();
    let explain = |name: &str, kind: &str, fields: &[(&str, &str)]| {
        let explained = folder.succeed(&format!("operators {name} --json")).events().remove(0);
        assert_eq!((&explained["name"], &explained["kind"]), (&name.into(), &kind.into()));
        let settings = explained["settings"].as_array().unwrap();
        assert_eq!(settings.len(), fields.len());
        for (setting, (name, about)) in settings.iter().zip(fields) {
            assert_eq!((&setting["name"], &setting["about"]), (&(*name).into(), &(*about).into()));
        }
        let text = folder.succeed(&format!("operators {name}")).text().to_string();
        for (name, about) in fields {
            assert!(
                text.lines().any(|line| line.starts_with(&format!("  {name} ")) && line.ends_with(about)),
                "{text}"
            );
        }
        let example = explained["example"].as_str().unwrap();
        Description::parse(example, "").unwrap_or_else(|error| panic!("{name}: {error}\n{example}"))
    };
    for entry in OPERATORS {
        let mut expected: toml::Table = entry.example.parse().unwrap();
        expected.insert("name".into(), entry.name.into());
        assert_eq!(explain(entry.name, "operator", entry.fields).operator, expected);
    }
    for entry in NOISES {
        let mut expected: toml::Table = entry.example.parse().unwrap();
        expected.insert("name".into(), entry.name.into());
        assert_eq!(explain(entry.name, "noise", entry.fields).noise.unwrap(), expected);
    }
}

#[test]
fn an_unknown_operator_names_the_known_ones() {
    let ran = Folder::new().tweedie("operators downsample_bx");
    let names = OPERATORS.iter().map(|entry| entry.name).chain(NOISES.iter().map(|entry| entry.name));
    let known = names.collect::<Vec<_>>().join(", ");
    refused(&ran, &format!("unknown operator or noise model `downsample_bx`; known: {known}"));
}

#[test]
fn a_sound_operator_passes_its_check() {
    let folder = Folder::new();
    folder
        .write("task.toml", "[operator]\nname = 'downsample_box'\nfactor = 4\n[noise]\nname = 'gaussian'\nsigma = 0.1");
    let report = folder.succeed("operators check task.toml --size 12x20 --json").events().remove(0);
    assert_eq!((&report["schema"], &report["passed"]), (&1.into(), &true.into()));
    assert_eq!(report["image"], serde_json::json!([3, 12, 20]));
    assert_eq!(report["measurement"], serde_json::json!([3, 3, 5]));
    assert_eq!((&report["linear"], &report["singular_values"]), (&true.into(), &true.into()));
    assert!((report["adjoint_ratio"].as_f64().unwrap() - 1.0).abs() < 1e-9, "{report}");
    let laws = report["laws"].as_array().unwrap();
    assert!(laws.len() >= 10, "{report}");
    for law in laws {
        assert_eq!(law["passed"], true, "{law}");
        assert!(law["measured"].as_f64().unwrap() <= law["limit"].as_f64().unwrap(), "{law}");
    }
    let text = folder.succeed("operators check task.toml").text().to_string();
    assert_eq!(text.matches("PASS").count(), laws.len(), "{text}");
    assert!(text.contains("3x64x64") && text.contains("3x16x16") && !text.contains("FAIL"), "{text}");
    assert_eq!(text, folder.succeed("operators check task.toml --seed 0").text());
    assert_ne!(text, folder.succeed("operators check task.toml --seed 1").text());
}

#[test]
fn what_cannot_be_checked_is_refused() {
    let folder = Folder::new();
    refused(&folder.tweedie("operators check nowhere.toml"), "nowhere.toml: No such file or directory (os error 2)");
    let check = |text: &str, options: &str| {
        folder.write("task.toml", text);
        folder.tweedie(&format!("operators check task.toml {options}"))
    };
    refused(
        &check("[operator]\nname = ", ""),
        "task.toml: line 2, column 8: string values must be quoted, expected literal string",
    );
    refused(
        &check("[operator]\nname = 'identity'\n[noises]", ""),
        "task.toml: line 3, column 2: unknown field `noises`, expected one of `about`, `operator`, `noise`",
    );
    refused(
        &check("[operator]\nname = 'downsample_box'\nfactor = 9", "--size 8x12"),
        "task.toml: downsample_box: factor is 9, expected 1 to 8 for an image of 12x8",
    );
    refused(
        &check("[operator]\nname = 'identity'\n[noise]\nname = 'gaussian'", ""),
        "task.toml: gaussian: missing field `sigma`",
    );
    let unknown = check("[operator]\nname = 'blurr'", "").stderr;
    assert!(unknown.starts_with("error: task.toml: unknown name `blurr`; known: identity, "), "{unknown}");
    for size in ["8", "8x", "x8", "0x8", "8x8x8", "-1x8", "9000x8", "8 x 8"] {
        let ran = folder.run(&["operators", "check", "task.toml", &format!("--size={size}")]);
        assert_eq!(ran.code, 2, "{size}");
        assert!(ran.stderr.contains("expected HEIGHTxWIDTH"), "{}", ran.stderr);
    }
}

#[test]
fn the_tasks_of_the_project_keep_their_laws() {
    let folder = Folder::new();
    let tasks = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/operators");
    for name in ["inpaint_random_70", "ddrm_sr_x4"] {
        let file = tasks.join(format!("{name}.toml"));
        let ran = folder.run(&["operators".as_ref(), "check".as_ref(), file.as_os_str()]);
        assert_eq!(ran.code, 0, "{}\n{}", ran.text(), ran.stderr);
    }
}
