//! `tweedie models verify`: networks against what their own programs stored.

use crate::harness::{Folder, Ran};
use crate::models::data;
use safetensors::tensor::{Dtype, TensorView};
use std::collections::BTreeMap;
use std::fs;

type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

fn write(folder: &Folder, name: &str, tensors: &Tensors) {
    let bytes: BTreeMap<&String, Vec<u8>> = tensors
        .iter()
        .map(|(name, (_, values))| (name, values.iter().flat_map(|v| v.to_le_bytes()).collect()))
        .collect();
    let views = tensors
        .iter()
        .map(|(name, (shape, _))| (name, TensorView::new(Dtype::F32, shape.clone(), &bytes[name]).unwrap()));
    folder.write(name, safetensors::serialize(views, None).unwrap());
}

fn read(bytes: &[u8]) -> Tensors {
    let file = safetensors::SafeTensors::deserialize(bytes).unwrap();
    let tensor = |(name, view): (&str, TensorView<'_>)| {
        let values = match view.dtype() {
            Dtype::F32 => view.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect(),
            Dtype::I64 => {
                view.data().chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap()) as f32).collect()
            }
            other => panic!("{name}: {other:?}"),
        };
        (name.to_owned(), (view.shape().to_vec(), values))
    };
    file.iter().map(tensor).collect()
}

/// The embedded prior's inputs and outputs at four noise levels, as PyTorch computed them: see `models.rs`.
fn embedded() -> Tensors {
    let stored = read(&fs::read(data("photo-prior-v1.safetensors")).unwrap());
    let levels = ["0.02", "0.1", "0.4", "4"];
    let mut tensors = Tensors::new();
    for name in ["x", "denoised", "v", "grad_x"] {
        let all = levels.map(|sigma| &stored[&format!("wide.sigma{sigma}.{name}")]);
        let mut shape = all[0].0.clone();
        shape[0] = levels.len();
        tensors.insert(name.into(), (shape, all.iter().flat_map(|(_, values)| values.clone()).collect()));
    }
    let levels: Vec<f32> = levels.iter().map(|sigma| sigma.parse().unwrap()).collect();
    tensors.insert("sigma".into(), (vec![levels.len()], levels));
    tensors
}

/// (tensor, entry, error) of `--json`.
fn rows(ran: &Ran) -> Vec<(String, u64, f64)> {
    let report: serde_json::Value = serde_json::from_str(ran.text()).unwrap();
    let row = |row: &serde_json::Value| {
        (row["tensor"].as_str().unwrap().into(), row["entry"].as_u64().unwrap(), row["error"].as_f64().unwrap())
    };
    report["rows"].as_array().unwrap().iter().map(row).collect()
}

#[test]
fn the_embedded_prior_is_what_pytorch_computed_entry_by_entry() {
    let folder = Folder::new();
    let mut stored = embedded();
    write(&folder, "io.safetensors", &stored);
    let ran = folder.succeed("models verify embedded --io io.safetensors --json");
    let found = rows(&ran);
    let names: Vec<(&str, u64)> = found.iter().map(|(tensor, entry, _)| (tensor.as_str(), *entry)).collect();
    let expected = [
        ("denoised", 0),
        ("denoised", 1),
        ("denoised", 2),
        ("denoised", 3),
        ("grad_x", 0),
        ("grad_x", 1),
        ("grad_x", 2),
        ("grad_x", 3),
    ];
    assert_eq!(names, expected);
    assert!(found.iter().all(|(.., error)| *error > 0.0 && *error <= 1e-5), "{found:?}");
    // A table for people.
    let table = folder.succeed("models verify embedded --io io.safetensors");
    let head: Vec<&str> = table.text().split_whitespace().take(6).collect();
    assert_eq!(head, ["tensor", "entry", "error", "limit", "denoised", "0"]);
    assert!(table.text().lines().skip(1).all(|line| line.ends_with("agrees")), "{}", table.text());
    assert_eq!(table.text().matches("1e-5   agrees").count() + table.text().matches("5e-5   agrees").count(), 8);
    // One entry of one tensor by a little: that one is named, the others agree.
    let place = 2 * stored["denoised"].1.len() / 4;
    for value in &mut stored.get_mut("denoised").unwrap().1[place..place + 100] {
        *value *= 1.001;
    }
    write(&folder, "changed.safetensors", &stored);
    let ran = folder.tweedie("models verify embedded --io changed.safetensors");
    assert_eq!(ran.code, 4, "{}", ran.stderr);
    assert!(
        ran.stderr.starts_with("error: model embedded: 1 of 8 comparisons differ; denoised of entry 2 by "),
        "{}",
        ran.stderr
    );
    assert_eq!(ran.text().matches("differs").count(), 1);
    folder.succeed("models verify embedded --io changed.safetensors --tolerance 1e-2");
    let ran = folder.tweedie("models verify embedded --io io.safetensors --tolerance 1e-9");
    assert_eq!(ran.code, 4, "{}", ran.stderr);
    // What is no number agrees with nothing.
    stored.get_mut("grad_x").unwrap().1[0] = f32::NAN;
    write(&folder, "nan.safetensors", &stored);
    let ran = folder.tweedie("models verify embedded --io nan.safetensors --tolerance 1e-2");
    assert_eq!(ran.code, 4, "{}", ran.stderr);
    assert!(ran.stderr.contains("; grad_x of entry 0 by NaN, 5e-2 allowed"), "{}", ran.stderr);
}

// `data/diffusers/*/io.safetensors` are of diffusers 0.42.1.
#[test]
fn networks_of_diffusers_are_what_diffusers_computed() {
    for name in ["ddpm-google", "ddpm-community"] {
        let folder = Folder::new();
        fs::create_dir(folder.path("model")).unwrap();
        for file in ["config.json", "diffusion_pytorch_model.safetensors"] {
            fs::copy(data("diffusers").join(name).join(file), folder.path("model").join(file)).unwrap();
        }
        let scheduler =
            r#"{"_class_name": "DDPMScheduler", "beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "linear"}"#;
        folder.write("model/scheduler_config.json", scheduler);
        fs::copy(data("diffusers").join(name).join("io.safetensors"), folder.path("io.safetensors")).unwrap();
        let ran = folder.succeed("models verify model --tolerance 3e-5 --io io.safetensors --json");
        let found = rows(&ran);
        for tensor in ["out", "score", "pred_x0", "grad_x"] {
            assert_eq!(found.iter().filter(|(name, ..)| name == tensor).count(), 2, "{name}: {tensor}");
        }
        // At t = 3 the reference's table in single precision is 2.35e-5 away from its own formula.
        let coarse = |tensor: &str, entry: u64| (name, tensor, entry) == ("ddpm-community", "score", 0);
        let limit = |tensor: &str, entry: u64| if coarse(tensor, entry) { 2.4e-5 } else { 1e-5 };
        assert!(found.iter().all(|(tensor, entry, error)| *error <= limit(tensor, *entry)), "{name}: {found:?}");
        let report: serde_json::Value = serde_json::from_str(ran.text()).unwrap();
        let unused: Vec<&str> = report["unused"].as_array().unwrap().iter().map(|n| n.as_str().unwrap()).collect();
        assert!(!unused.is_empty() && unused.iter().all(|name| name.starts_with("act.")), "{unused:?}");
        // A convention that changes no shape: the sine before the cosine.
        let config = fs::read_to_string(folder.path("model/config.json")).unwrap();
        let flipped = if config.contains("\"flip_sin_to_cos\": false") { ("false", "true") } else { ("true", "false") };
        let [from, to] = [flipped.0, flipped.1].map(|value| format!("\"flip_sin_to_cos\": {value}"));
        folder.write("model/config.json", config.replace(&from, &to));
        let ran = folder.tweedie("models verify model --tolerance 3e-5 --io io.safetensors");
        assert_eq!(ran.code, 4, "{name}: {}", ran.stderr);
        // Another schedule changes the image, not the network's output.
        folder.write("model/config.json", config);
        folder.write("model/scheduler_config.json", scheduler.replace("0.02", "0.01"));
        let ran = folder.tweedie("models verify model --tolerance 3e-5 --io io.safetensors");
        assert_eq!(ran.code, 4, "{name}: {}", ran.stderr);
        let row =
            |tensor: &str, end: &str| ran.text().lines().filter(|l| l.starts_with(tensor) && l.ends_with(end)).count();
        assert_eq!((row("out", "agrees"), row("pred_x0", "differs")), (2, 2), "{name}: {}", ran.text());
    }
}

#[test]
fn several_cases_have_names_before_a_point() {
    let folder = Folder::new();
    let stored = embedded();
    let prefixed = |prefix: &str| {
        stored.iter().map(|(name, tensor)| (format!("{prefix}.{name}"), tensor.clone())).collect::<Tensors>()
    };
    let mut both = prefixed("one");
    both.extend(prefixed("two"));
    write(&folder, "io.safetensors", &both);
    let found = rows(&folder.succeed("models verify embedded --io io.safetensors --json"));
    assert_eq!(found.len(), 16);
    assert_eq!((found[0].0.as_str(), found[15].0.as_str()), ("one.denoised", "two.grad_x"));
}

#[test]
fn files_that_store_no_case_are_refused() {
    let folder = Folder::new();
    let stored = embedded();
    let refused = |tensors: &Tensors, message: &str| {
        write(&folder, "io.safetensors", tensors);
        let ran = folder.tweedie("models verify embedded --io io.safetensors");
        assert_eq!(ran.code, 4, "{}", ran.stderr);
        assert_eq!(ran.stderr, format!("error: model io.safetensors: {message}\n"));
    };
    let without = |names: &[&str]| {
        stored
            .iter()
            .filter(|(name, _)| !names.contains(&name.as_str()))
            .map(|(n, t)| (n.clone(), t.clone()))
            .collect::<Tensors>()
    };
    refused(&without(&["x"]), "stores no input `x`; it has denoised, grad_x, sigma, v");
    refused(&without(&["sigma"]), "x has none of sigma, labels, t beside it");
    refused(&without(&["denoised", "grad_x"]), "stores no output to compare with: out, denoised, score, …");
    let with = |name: &str, tensor: (Vec<usize>, Vec<f32>)| {
        let mut tensors = stored.clone();
        tensors.insert(name.into(), tensor);
        tensors
    };
    refused(&with("sigma", (vec![2], vec![1.0, 2.0])), "sigma has the shape [2], no entry 2");
    refused(&with("sigma", (vec![4], vec![0.1, -1.0, 1.0, 1.0])), "sigma is -1, no noise level");
    refused(&with("class", (vec![2], vec![0.0, 1.0])), "class has the shape [2], expected [4]");
    refused(&with("class", (vec![4], vec![0.0, -1.0, 0.5, 1.0])), "class is 0.5, no class");
    let [_, _, height, width] = stored["x"].0[..] else { panic!() };
    let grey = (vec![4, 1, height, width], vec![0.0; 4 * height * width]);
    refused(&with("x", grey.clone()), "x has 1 channels, the model 3");
    let message =
        format!("denoised has entries of shape [1, 1, {height}, {width}], the model gives [1, 3, {height}, {width}]");
    refused(&with("denoised", grey), &message);
    let mut timed = without(&["sigma"]);
    timed.insert("t".into(), (vec![4], vec![1.0; 4]));
    refused(&timed, "is conditioned by `t`, expected `sigma`");
    folder.write("io.safetensors", "nonsense");
    let ran = folder.tweedie("models verify embedded --io io.safetensors");
    assert_eq!(ran.code, 4, "{}", ran.stderr);
    assert!(ran.stderr.starts_with("error: model io.safetensors: is not a whole safetensors file ("), "{}", ran.stderr);
    let ran = folder.tweedie("models verify embedded --io nowhere.safetensors");
    assert_eq!((ran.code, ran.stderr.as_str()), (2, "error: --io nowhere.safetensors: no such file\n"));
    assert_eq!(folder.tweedie("models verify embedded --tolerance 1e-3").code, 2);
    assert_eq!(folder.tweedie("models verify embedded --io io.safetensors --tolerance 2").code, 2);
}

#[test]
fn what_is_no_number_is_named_or_refused() {
    let folder = Folder::new();
    let stored = embedded();
    let bytes: BTreeMap<&String, Vec<u8>> =
        stored.iter().map(|(name, (_, v))| (name, v.iter().flat_map(|v| v.to_le_bytes()).collect())).collect();
    let mask = vec![1_u8; 4];
    let write = |name: &str| {
        let mut views: Vec<(String, TensorView<'_>)> = stored
            .iter()
            .map(|(n, (shape, _))| (n.clone(), TensorView::new(Dtype::F32, shape.clone(), &bytes[n]).unwrap()))
            .collect();
        views.push((name.into(), TensorView::new(Dtype::BOOL, vec![4], &mask).unwrap()));
        folder.write("io.safetensors", safetensors::serialize(views, None).unwrap());
    };
    write("mask");
    let ran = folder.succeed("models verify embedded --tolerance 1e-4 --io io.safetensors --json");
    let report: serde_json::Value = serde_json::from_str(ran.text()).unwrap();
    assert_eq!(report["unused"], serde_json::json!(["mask"]));
    write("score");
    let ran = folder.tweedie("models verify embedded --io io.safetensors");
    assert_eq!(ran.code, 4, "{}", ran.stderr);
    assert!(ran.stderr.starts_with("error: model io.safetensors: score is of type BOOL, expected "), "{}", ran.stderr);
}

#[test]
fn without_stored_cases_the_hash_the_tensors_and_the_own_test_are_looked_at() {
    let folder = Folder::new();
    let ran = folder.succeed("models verify embedded");
    // `sha256sum models/photo-prior-v1.safetensors`
    let hash = "2fd2bda8b2f83a23b1d19c6673f53ee71b7f12e1ef394a911c7ad559c3e15e88";
    let text = ran.text();
    assert!(text.contains(&format!("sha-256    {hash}, as the index states\n")), "{text}");
    assert!(text.contains(", all finite and of their shape\nself-test  relative error "), "{text}");
    // The same name with other contents is another model.
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("models/photo-prior-v1.safetensors");
    let mut bytes = fs::read(path).unwrap();
    let end = bytes.len();
    bytes[end - 1] ^= 1;
    folder.write("changed.safetensors", &bytes);
    let ran = folder.tweedie("models verify changed.safetensors");
    assert_eq!(ran.code, 4, "{}", ran.stderr);
    assert_eq!(ran.stderr, "error: model photo-prior-v1: SHA-256 mismatch\n");
    assert!(ran.text().contains(&format!(", the index states {hash}\n")), "{}", ran.text());
}
