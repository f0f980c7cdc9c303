//! Imports point one way, so that a part can be read, tested and replaced without those above it.
//!
//! | module | may use of the crate |
//! | --- | --- |
//! | `error` | `image` and `batch`, whose errors it wraps |
//! | `digest`, `image`, `schedules` | nothing |
//! | `checkpoints` | `digest`: files of tensors, whatever network they are of |
//! | `hub` | `digest`: to it a model is a set of files |
//! | `models`, `priors` | one another: a prior is made of a model, a loaded model is a prior; `schedules` |
//! | `models` | `hub`, which finds it by name |
//! | `solvers` | `priors`, `models`, `schedules` |
//! | `samplers` | the same and `solvers` |
//! | `likelihood` | `priors`, and of `solvers` the Runge–Kutta pair |
//! | `catalog` | `samplers` and `solvers`, whose lists it holds |
//! | `restore` | all above |
//! | `batch` | `digest`, `image`, `models`, `priors`, `samplers`, `catalog`, `restore` |
//! | `train` | `digest`, `image`, `checkpoints`, `schedules`, `models`, `priors`, `solvers` |
//! | `metrics` | nothing: it sees pictures and measurements only |
//! | `evaluate` | all above, `restore` and `metrics` through their public names |
//! | `cli` | everything; nothing but the program uses it |
//!
//! All but the first two rows may use `error`. `tweedie-operators` and `tweedie-kernels` know nothing of what is above
//! them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const MODULES: [&str; 18] = [
    "digest",
    "error",
    "image",
    "checkpoints",
    "schedules",
    "hub",
    "models",
    "priors",
    "solvers",
    "samplers",
    "likelihood",
    "catalog",
    "restore",
    "batch",
    "metrics",
    "train",
    "evaluate",
    "cli",
];

fn allowed(module: &str) -> &'static [&'static str] {
    match module {
        "error" => &["image", "batch"],
        "digest" | "image" | "schedules" => &[],
        "checkpoints" | "hub" => &["digest", "error"],
        "models" => &["error", "checkpoints", "schedules", "hub", "priors"],
        "priors" => &["error", "schedules", "models"],
        "solvers" => &["error", "priors", "models", "schedules"],
        "samplers" => &["error", "priors", "models", "schedules", "solvers"],
        "likelihood" => &["error", "priors", "solvers"],
        "catalog" => &["samplers", "solvers"],
        "restore" => &["error", "image", "schedules", "models", "priors", "solvers", "samplers", "catalog"],
        "batch" => &["digest", "error", "image", "models", "priors", "samplers", "catalog", "restore"],
        "metrics" => &["error"],
        "train" => &["digest", "error", "image", "checkpoints", "schedules", "models", "priors", "solvers"],
        "evaluate" => &["digest", "error", "image", "models", "priors", "samplers", "catalog", "restore", "metrics"],
        "cli" => &MODULES,
        other => panic!("module `{other}` has no rule: say here what it may use"),
    }
}

/// The module that a name at the root of the crate stands for.
fn module(name: &str) -> &str {
    match name {
        "Error" | "Result" => "error",
        "Catalog" => "catalog",
        "inpaint" | "inpaint_observed" | "plan_inpaint" | "restore" | "degrade" | "estimate_levels"
        | "program_memory" => "restore",
        "Case" | "Degraded" | "Interpolation" | "Measured" | "Plan" | "Progress" | "Resize" => "restore",
        "Picture" | "Provenance" | "Task" | "Work" | "tasks" => "restore",
        name if name.starts_with("Restor") => "restore",
        name => name,
    }
}

/// The names that follow `crate::` in code, those of a group in braces included; comments do not count.
fn names(source: &str) -> BTreeSet<String> {
    let code: Vec<&str> = source.lines().map(|line| line.split("//").next().unwrap_or_default()).collect();
    let code = code.join("\n");
    let mut names = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let before = code[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '$') {
            continue;
        }
        let rest = &code[at + "crate::".len()..];
        let Some(group) = rest.strip_prefix('{') else {
            names.insert(word(rest));
            continue;
        };
        let mut depth = 0;
        let mut start = true;
        for (at, c) in group.char_indices() {
            match c {
                '}' if depth == 0 => break,
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 0 => start = true,
                c if start && !c.is_whitespace() => {
                    names.insert(word(&group[at..]));
                    start = false;
                }
                _ => (),
            }
        }
    }
    names
}

fn word(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

#[test]
fn names_are_found_in_every_form_of_an_import() {
    let source = "use crate::models::{Model, unet2d};\npub(crate) use crate::{\n    Error, Result,\n    priors::{Tiled, self},\n};\n\
        fn f(x: crate::image::Photo) {} // crate::cli\n//! [`crate::samplers`]\nuse mycrate::schedules; use $crate::inpaint;";
    let found: Vec<String> = names(source).into_iter().collect();
    assert_eq!(found, ["Error", "Result", "image", "models", "priors"]);
}

#[test]
fn imports_of_the_library_point_downwards() {
    let source = root().join("src");
    let files = sources(&source);
    let mut imports = 0;
    for path in &files {
        let inside = path.strip_prefix(&source).unwrap();
        let first = inside.components().next().unwrap().as_os_str().to_string_lossy().into_owned();
        let own = first.trim_end_matches(".rs").to_owned();
        // The crate's root names its parts, and the program is one call of `cli`.
        if own == "lib" || own == "main" {
            continue;
        }
        for name in names(&fs::read_to_string(path).unwrap()) {
            let target = module(&name);
            assert!(MODULES.contains(&target), "{}: `crate::{name}` is of no module that has a rule", inside.display());
            assert!(
                target == own || allowed(&own).contains(&target),
                "{}: `{own}` must not use `{target}` (crate::{name})",
                inside.display()
            );
            imports += 1;
        }
    }
    assert!(files.len() > 40 && imports > 40, "{imports} imports in {} files: are they still found?", files.len());
}

#[test]
fn operators_and_kernels_know_nothing_of_what_is_above_them() {
    for (folder, above) in [("operators", &["tweedie"][..]), ("kernels", &["tweedie", "tweedie-operators"])] {
        let manifest = fs::read_to_string(root().join(folder).join("Cargo.toml")).unwrap();
        let manifest: toml::Table = toml::from_str(&manifest).unwrap();
        for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let Some(dependencies) = manifest.get(section).and_then(toml::Value::as_table) else { continue };
            for name in above {
                assert!(!dependencies.contains_key(*name), "{folder}: {section} has {name}");
            }
        }
    }
}
