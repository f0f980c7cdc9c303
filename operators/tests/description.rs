use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device};
use tweedie_operators::{
    BuildOperator, Description, Entry, Error, ForwardOperator, NOISES, OPERATORS, Rng, Site, find, forward,
};

use crate::{random, site, values};

const TASK: &str = "\
about = 'Means of blocks'
[operator]
name = 'downsample_box'
factor = 2
[noise]
name = 'gaussian'
sigma = 0.05
";

fn refusal(text: &str) -> String {
    Description::parse(text, "").unwrap_err().to_string()
}

/// What building says, for images of 3 × 8 × 8.
fn failure(text: &str) -> String {
    let task = Description::parse(text, "").unwrap();
    task.build(site((3, 8, 8), DType::F32), NOISES).unwrap_err().to_string()
}

/// The tasks that come with the project.
fn tasks() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/operators");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = files.filter(|path| path.extension().is_some_and(|e| e == "toml")).collect();
    files.sort();
    files
}

#[test]
fn a_task_becomes_its_operator_and_its_noise() {
    let task = Description::parse(TASK, "").unwrap();
    assert_eq!(task.about.as_deref(), Some("Means of blocks"));
    let (operator, noise) = task.build(site((3, 8, 8), DType::F64), NOISES).unwrap();
    let x = random(&[1, 3, 8, 8], 1, DType::F64);
    let direct = forward::DownsampleBox::new(2, site((3, 8, 8), DType::F64)).unwrap();
    assert_eq!(values(&operator.forward(&x).unwrap()), values(&direct.forward(&x).unwrap()));
    assert_eq!(noise.gaussian_sigma(), Some(0.05));
    assert_eq!(task.image_shape(&[3, 4, 5], crate::site((0, 0, 0), DType::F32)).unwrap(), (3, 8, 10));
}

#[test]
fn a_task_without_noise_is_measured_without_noise() {
    let task = Description::parse("[operator]\nname = 'identity'", "").unwrap();
    assert_eq!((&task.about, &task.noise), (&None, &None));
    let (_, noise) = task.build(site((3, 8, 8), DType::F32), NOISES).unwrap();
    assert_eq!(noise.gaussian_sigma(), Some(0.0));
}

#[test]
fn what_is_no_task_is_refused_with_its_place() {
    assert_eq!(
        refusal("[operator]\nname = 'identity'\n[nois]\nname = 'gaussian'"),
        "description: line 3, column 2: unknown field `nois`, expected one of `about`, `operator`, `noise`"
    );
    assert_eq!(refusal("about = 'x'"), "description: line 1, column 1: missing field `operator`");
    let message = refusal("about = 'é' x\n");
    assert!(message.starts_with("description: line 1, column 13: "), "{message}");
    let message = refusal("[operator]\r\nname = 'identity'\r\nsize = \r\n");
    assert!(message.starts_with("description: line 3, column 8: ") && !message.contains('\n'), "{message}");
    assert_eq!(
        refusal("operator = 'identity'"),
        "description: line 1, column 12: invalid type: string \"identity\", expected a map"
    );
    assert_eq!(refusal("[operator]\nsize = 2"), "operator: missing field `name` in [operator]");
    assert_eq!(refusal("[operator]\nname = 3"), "operator: name is 3, expected a string such as \"identity\"");
    assert_eq!(refusal("[operator]\nname = 'identity'\n[noise]"), "noise: missing field `name` in [noise]");
    assert_eq!(refusal("operator.name = 'a'\noperator.name = 'b'").lines().count(), 1);
}

#[test]
fn what_cannot_be_built_says_whose_fault_it_is() {
    let message = failure("[operator]\nname = 'blurr'");
    assert!(message.starts_with("unknown name `blurr`; known: identity, "), "{message}");
    let message = failure("[operator]\nname = 'identity'\n[noise]\nname = 'gauss'");
    assert!(message.starts_with("unknown name `gauss`; known: gaussian"), "{message}");
    assert_eq!(
        failure("[operator]\nname = 'downsample_box'\nfactor = 9"),
        "downsample_box: factor is 9, expected 1 to 8 for an image of 8x8"
    );
    assert_eq!(
        failure("[operator]\nname = 'identity'\n[noise]\nname = 'gaussian'\nsigma = 0.1\nsgima = 1"),
        "gaussian: unknown field `sgima`, expected `sigma`"
    );
    // Tables made by a program are checked as well.
    let task = Description { operator: toml::Table::new(), ..Description::parse(TASK, "").unwrap() };
    let error = task.build(site((3, 8, 8), DType::F32), NOISES).unwrap_err();
    assert_eq!(error.to_string(), "operator: missing field `name` in [operator]");
    let error = task.image_shape(&[3, 4, 4], crate::site((0, 0, 0), DType::F32)).unwrap_err();
    assert_eq!(error.to_string(), "operator: missing field `name` in [operator]");
}

#[test]
fn a_file_is_named_in_its_errors_and_its_folder_is_where_names_start() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("task.toml");
    let missing = Description::open(&path).unwrap_err().to_string();
    assert!(missing.starts_with(&format!("{}: ", path.display())), "{missing}");
    std::fs::write(&path, TASK).unwrap();
    let task = Description::open(&path).unwrap();
    assert_eq!(task.folder, folder.path());
    assert_eq!(task, Description::parse(TASK, folder.path()).unwrap());
    std::fs::write(&path, "[operator\n").unwrap();
    let broken = Description::open(&path).unwrap_err().to_string();
    assert!(broken.starts_with(&format!("{}: line 1, column 10: ", path.display())), "{broken}");
    std::fs::write(&path, "[operator]\n").unwrap();
    let nameless = Description::open(&path).unwrap_err().to_string();
    assert_eq!(nameless, format!("{}: operator: missing field `name` in [operator]", path.display()));
    std::fs::write(&path, [0xff, 0xfe, 0]).unwrap();
    assert!(matches!(Description::open(&path).unwrap_err(), Error::Config { .. }));
}

#[test]
fn builders_are_told_the_folder_of_the_file() {
    let entry = Entry {
        name: "folder",
        build: BuildOperator::same_shape(|_, site| {
            Err(Error::config("folder", site.folder.to_string_lossy().into_owned()))
        }),
        ..*find(OPERATORS, "identity").unwrap()
    };
    let task = Description::parse("[operator]\nname = 'folder'", "photos/masks").unwrap();
    let site = Site { operators: &[entry], ..Site::new((3, 8, 8), &Device::Cpu, DType::F32) };
    assert_eq!(task.build(site, NOISES).unwrap_err().to_string(), "folder: photos/masks");
}

#[test]
fn the_tasks_of_the_project_measure_a_photo_of_256_pixels() {
    let files = tasks();
    assert!(files.len() >= 14, "{files:?}");
    let mut failures = Vec::new();
    for path in files {
        let measured = Description::open(&path).and_then(|task| {
            let (operator, noise) = task.build(site((3, 256, 256), DType::F32), NOISES)?;
            let z = operator.forward(&random(&[1, 3, 256, 256], 1, DType::F32).clamp(-1.0, 1.0)?)?;
            noise.corrupt(&z, &mut Rng::new(0, 0..1))
        });
        match measured {
            Ok(y) => assert!(values(&y).iter().all(|value| value.is_finite()), "{}", path.display()),
            Err(error) => failures.push(format!("{}: {error}", path.file_name().unwrap().to_string_lossy())),
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn the_tasks_of_the_project_say_what_they_are_and_cite() {
    let mut abouts = BTreeSet::new();
    for path in tasks() {
        let text = std::fs::read_to_string(&path).unwrap();
        let about = Description::open(&path).unwrap().about.unwrap();
        assert!(!about.contains('\n') && !about.ends_with('.') && about.len() < 110, "{about}");
        assert!(text.starts_with("# "), "{}: no comment about its source", path.display());
        assert!(abouts.insert(about), "{} repeats another's description", path.display());
    }
}
