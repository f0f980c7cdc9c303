//! Training: gradients, runs that are resumed, the data they see.

use crate::harness::{Folder, Kind, photo};
use candle_core::{Device, Tensor};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tweedie::models::{Fused, Layered, ModelOptions, PatchUNetConfig, ScoreModel};
use tweedie::train::{
    Decay, Denoising, Draw, End, Examples, FusedLearner, Learner, Method, NoiseLevels, Objective, Patches, Photos,
    TrainConfig, Training, Weight, checkpoints, initial_parameters,
};
use tweedie_kernels::{InstructionSet, Parameters, Precision};
use tweedie_operators::Rng;

/// Two levels, a norm on the second, patches of 2 × 2.
fn small() -> PatchUNetConfig {
    let text = r#"{"levels": [4, 6], "blocks": [1, 1], "groups": [0, 3], "embedding": 8}"#;
    serde_json::from_str(text).unwrap()
}

/// Numbers without zeros, which initial ones are not.
fn random_parameters(config: &PatchUNetConfig) -> Parameters {
    let mut parameters = initial_parameters(&config.network().unwrap(), 1).unwrap();
    for (index, values) in parameters.values_mut().enumerate() {
        for (place, value) in values.iter_mut().enumerate() {
            *value += 0.3 * ((index * 31 + place) as f32 * 0.7).sin();
        }
    }
    parameters
}

fn numbers(x: &Tensor) -> Vec<f32> {
    x.flatten_all().unwrap().to_vec1().unwrap()
}

/// The largest difference, in the unit of the largest number.
fn largest(a: &[f32], b: &[f32]) -> f32 {
    let most = a.iter().fold(0.0_f32, |most, a| most.max(a.abs()));
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) / most
}

#[test]
fn a_network_of_patches_is_the_same_for_both_runners() {
    let config = small();
    let network = config.network().unwrap();
    assert_eq!((network.channels, network.output_channels(), network.stride()), (3, 3, 4));
    let parameters = random_parameters(&config);
    let lookup = |name: &str| parameters.get(name).cloned();
    let fused = Fused::new(&network, InstructionSet::detect(), Precision::F32, lookup).unwrap();
    let layered = Layered::new(&network, &Device::Cpu, lookup).unwrap();
    let mut rng = Rng::new(3, 0..2);
    let x = rng.normal((2, 3, 8, 12), &Device::Cpu).unwrap();
    let v = rng.normal((2, 3, 8, 12), &Device::Cpu).unwrap();
    let (a, pull_a) = fused.forward_with_pullback(&x, -0.4).unwrap();
    let (b, pull_b) = layered.forward_with_pullback(&x, -0.4).unwrap();
    assert_eq!(a.dims(), [2, 3, 8, 12]);
    assert!(numbers(&a).iter().any(|value| value.abs() > 0.1));
    assert!(largest(&numbers(&a), &numbers(&b)) < 1e-5);
    assert!(largest(&numbers(&pull_a.apply(&v).unwrap()), &numbers(&pull_b.apply(&v).unwrap())) < 1e-5);
}

#[test]
fn configurations_of_patches_that_cannot_be_are_refused() {
    let refused = |change: fn(&mut PatchUNetConfig), words: &str| {
        let mut config = small();
        change(&mut config);
        let error = config.network().unwrap_err();
        assert!(error.contains(words), "{error}");
    };
    refused(|c| c.patch = 0, "patch = 0");
    refused(|c| c.blocks = vec![1], "blocks for 1 levels, expected one number for each of 2");
    refused(|c| c.groups = vec![3], "4 channels in 3 groups");
    refused(|c| c.levels = vec![4, 0], "channels of a level = 0");
}

/// `(L(θ + h) − L(θ − h)) / 2h` of single numbers of every parameter.
#[test]
fn gradients_are_those_of_the_loss() {
    let config = small();
    let network = config.network().unwrap();
    let mut parameters = random_parameters(&config);
    let objective = Denoising {
        levels: NoiseLevels::LogNormal { mean: -1.0, std: 0.5 },
        weight: Weight::Noise,
        mean: true,
        importance: false,
    };
    let mut rng = Rng::new(5, 0..3);
    let clean = rng.uniform((3, 3, 8, 8), &Device::Cpu).unwrap();
    let draw: Draw = objective.draw(&clean, &mut rng).unwrap();
    let noise: Vec<f32> = draw.sigmas.iter().map(|sigma| (sigma.ln() / 4.0) as f32).collect();
    let learner = |parameters: &Parameters| {
        FusedLearner::new(&network, parameters, InstructionSet::detect(), Precision::F32).unwrap()
    };
    // The network as the denoiser itself.
    let of = |learner: &FusedLearner| {
        learner
            .gradients(&draw.x, &noise, &mut |denoised| {
                let loss = (draw.loss)(denoised)?;
                let gradient = loss.gradient.clone();
                Ok((loss, gradient))
            })
            .unwrap()
    };
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let (_, gradients) = of(&learner(&parameters));
    assert_eq!(gradients.len(), parameters.len());
    for name in parameters.keys().cloned().collect::<Vec<_>>() {
        let place = parameters[&name].len() / 2;
        let mut at = |change: f32| {
            let value = parameters[&name][place];
            parameters.get_mut(&name).unwrap()[place] = value + change;
            let loss = mean(&of(&learner(&parameters)).0.values);
            parameters.get_mut(&name).unwrap()[place] = value;
            loss
        };
        let h = 1e-2;
        let difference = (at(h) - at(-h)) / f64::from(2.0 * h);
        let got = f64::from(gradients[&name][place]);
        assert!((difference - got).abs() < 5e-3 * (1.0 + difference.abs()), "{name}: {got}, {difference}");
    }
}

// The closed forms of training.md's sources, at numbers where they can be done by hand.
#[test]
fn levels_and_weights_are_those_of_their_papers() {
    let near = |a: f64, b: f64| assert!((a / b - 1.0).abs() < 1e-9, "{a}, expected {b}");
    let geometric = NoiseLevels::Geometric { sigma_min: 0.01, sigma_max: 1.0, count: 3 };
    near(geometric.sigma(0.1, 0.0), 0.01);
    near(geometric.sigma(0.5, 0.0), 0.1);
    near(geometric.sigma(0.99, 0.0), 1.0);
    let exploding = NoiseLevels::VarianceExploding { sigma_min: 0.01, sigma_max: 100.0 };
    near(exploding.sigma(0.5, 9.0), 0.01 * 10_f64.powf(4.0 * 0.500_005));
    // Σβ = 0.1 t + 9.95 t² and σ² = e^Σβ − 1; of the sub-VP process σ = (1 − α²)/α.
    let linear = |sub| NoiseLevels::Linear { beta_min: 0.1, beta_max: 20.0, sub };
    let time = 1e-5 + (1.0 - 1e-5) * 0.25;
    let sum: f64 = 0.1 * time + 9.95 * time * time;
    near(linear(false).sigma(0.25, 0.0), sum.exp_m1().sqrt());
    near(linear(true).sigma(0.25, 0.0), -(-sum).exp_m1() * (sum / 2.0).exp());
    near(NoiseLevels::LogNormal { mean: -1.2, std: 1.2 }.sigma(0.9, 1.0), 1.0);
    let one = NoiseLevels::One { sigma: 0.5 };
    near(one.sigma(0.3, 0.3), 0.5);
    near(Weight::Annealed { power: 2.0 }.at(0.5, &one), 2.0);
    near(Weight::Noise.at(0.5, &one), 4.0);
    near(Weight::Edm { sigma_data: 0.5 }.at(0.5, &one), 8.0);
    near(Weight::SoftMinSnr { sigma_data: 0.5 }.at(0.5, &one), 2.0);
    // g² = 2 σ² ln r: a constant times the weight of the noise.
    near(Weight::Likelihood.at(0.5, &exploding), 2.0 * 10_000_f64.ln() * 4.0);
    // β/(1 − e^−Σβ)/σ², and β (1 − e^−2Σβ)/(1 − e^−Σβ)²/σ².
    let (sigma, beta, part) = (sum.exp_m1().sqrt(), 0.1 + 19.9 * time, -(-sum).exp_m1());
    near(Weight::Likelihood.at(sigma, &linear(false)), beta / part / (sigma * sigma));
    let sigma = part * (sum / 2.0).exp();
    near(Weight::Likelihood.at(sigma, &linear(true)), beta * -(-2.0 * sum).exp_m1() / (part * part) / (sigma * sigma));
    // Half of what was seen 5 % of the way back; the ramp of score_sde; k-diffusion's power.
    near(Decay::HalfLife(1e9).rate(7, 1000, 50), 0.5);
    near(Decay::Rate(0.999).rate(0, 0, 1), 0.1);
    near(Decay::Rate(0.999).rate(100_000, 0, 1), 0.999);
    near(Decay::Power(2.0 / 3.0).rate(7, 0, 1), 0.75);
}

/// Some photos and a file that is none.
fn photos(folder: &Folder) -> PathBuf {
    let photos = folder.path("photos");
    fs::create_dir_all(photos.join("more")).unwrap();
    for (index, (width, height)) in [(40, 30), (24, 50), (33, 33), (16, 16), (64, 20)].into_iter().enumerate() {
        photo(width, height, Kind::Rgb8).save(photos.join(format!("{index}.png"))).unwrap();
    }
    photo(30, 30, Kind::Grey8).save(photos.join("more/grey.png")).unwrap();
    fs::write(photos.join("README.md"), "words").unwrap();
    photos
}

fn config(photos: &Path, more: &str) -> TrainConfig {
    let text = format!(
        r#"
        name = "tiny"
        steps = 9
        log_every = 2
        average = [{{ rate = 0.9 }}, {{ power = 0.66 }}]
        data = {{ folder = "{}", held_out = 1, patch = 16, rescale = 1.5, {more} }}
        model = {{ architecture = "PatchUNet", config = {{ levels = [4, 6], blocks = [1, 1], embedding = 8 }} }}
        optimiser = {{ batch = 3, accumulate = 2, learning_rate = {{ rate = 1e-2, warm_up = 3 }} }}
        validation = {{ every = 4, crop = 16, samples = 0 }}
        checkpoint = {{ every = 3 }}
        "#,
        photos.display()
    );
    toml::from_str(&text).unwrap()
}

fn newest(folder: &Path) -> Vec<u8> {
    fs::read(&checkpoints(folder).unwrap().last().unwrap().1).unwrap()
}

/// The last state of a run is the same, whatever was done to it on the way.
#[test]
fn a_run_that_was_stopped_ends_with_the_bytes_of_one_that_was_not() {
    let folder = Folder::new();
    // Shelves of a few photos, several in a run.
    let config = config(&photos(&folder), "memory = 14000, reuse = 0.4");
    let options = ModelOptions::default();
    let run = |name: &str, resume: bool, steps: u64, threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let mut training = Training::open(config.clone(), &folder.path(name), &options, resume).unwrap();
            let until = training.state().step + steps;
            let taken = std::cell::Cell::new(training.state().step);
            let stop = || {
                taken.set(taken.get() + 1);
                taken.get() > until
            };
            training.run(&stop, &mut |_| ()).unwrap()
        })
    };
    assert_eq!(run("whole", false, 100, 2), End::Done);
    assert_eq!(run("parts", false, 2, 1), End::Interrupted);
    assert_eq!(run("parts", true, 3, 2), End::Interrupted);
    assert_eq!(run("parts", true, 100, 1), End::Done);
    assert_eq!(newest(&folder.path("whole")), newest(&folder.path("parts")));
    let model = |name: &str| fs::read(folder.path(name).join("model.safetensors")).unwrap();
    assert_eq!(model("whole"), model("parts"));
    // The newest two are kept.
    let steps =
        |name: &str| checkpoints(&folder.path(name)).unwrap().into_iter().map(|(step, _)| step).collect::<Vec<_>>();
    assert_eq!(steps("whole"), [6, 9]);
    // Training has moved the numbers, and the averages differ from them and from one another.
    let state = tweedie::train::State::read(&checkpoints(&folder.path("whole")).unwrap()[1].1, &config).unwrap();
    assert_eq!((state.step, state.adam.steps(), state.averages.len()), (9, 9, 2));
    let name = "head.weight";
    let all = [&state.parameters[name], &state.averages[0][name], &state.averages[1][name]];
    assert!(all.iter().all(|values| values.iter().any(|value| *value != 0.0)));
    assert!(all[0] != all[1] && all[1] != all[2]);
}

/// Muon moves the filters between the first and the last convolution, and is resumed with its means of gradients.
#[test]
fn a_run_with_muon_ends_with_the_same_bytes_too() {
    let folder = Folder::new();
    let mut config = config(&photos(&folder), "");
    config.optimiser.method = Method::Muon;
    config.optimiser.learning_rate.warm_up = 0;
    config.model.config = Some(serde_json::json!({ "levels": [16, 24], "blocks": [1, 1], "embedding": 8 }));
    let options = ModelOptions::default();
    let run = |name: &str, steps: u64, threads: usize, method: Method| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let mut config = config.clone();
        config.optimiser.method = method;
        pool.install(|| {
            let mut training = Training::open(config, &folder.path(name), &options, true).unwrap();
            let until = training.state().step + steps;
            let taken = std::cell::Cell::new(training.state().step);
            let stop = || taken.replace(taken.get() + 1) >= until;
            training.run(&stop, &mut |_| ()).unwrap();
            training.state().clone()
        })
    };
    let state = run("whole", 100, 2, Method::Muon);
    run("parts", 4, 1, Method::Muon);
    run("parts", 100, 1, Method::Muon);
    assert_eq!(newest(&folder.path("whole")), newest(&folder.path("parts")));
    // Filters between the first and the last convolution have no second moments, all others no momentum.
    let muon: BTreeSet<&str> = state.muon.momenta.keys().map(String::as_str).collect();
    let adam: BTreeSet<&str> = state.adam.moments().keys().map(String::as_str).collect();
    assert!(muon.is_disjoint(&adam) && muon.len() + adam.len() == state.parameters.len());
    assert!(muon.iter().all(|name| name.contains("conv") || name.contains("resample")), "{muon:?}");
    assert!(["stem.weight", "head.weight", "embedding.0.weight"].iter().all(|name| adam.contains(name)));
    let one = |method: Method, name: &str| run(name, 5, 2, method).parameters;
    let (one, two) = (one(Method::Muon, "muon"), one(Method::Adam, "adam"));
    assert!(muon.iter().all(|name| one[*name] != two[*name]));
    let error = Training::open(config.clone(), &folder.path("adam"), &options, true).unwrap_err().to_string();
    assert!(error.contains("optimiser.method of a run that is resumed is \"muon\", expected \"adam\""), "{error}");
}

/// A run that diverged goes back to the checkpoint that was best, however long ago that was.
#[test]
fn the_best_checkpoint_is_kept_beside_the_newest() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), "");
    assert_eq!(config.checkpoint.keep, 2);
    let parameters = Parameters::from([("weight".to_owned(), vec![1.0, 2.0])]);
    let mut state = tweedie::train::State::new(parameters, &config, "photos".into());
    let mut write = |step: u64, best: Option<u64>| -> Vec<u64> {
        state.step = step;
        state.write(folder.path(), &config, best).unwrap();
        checkpoints(folder.path()).unwrap().into_iter().map(|(step, _)| step).collect()
    };
    assert_eq!(write(2, None), [2]);
    // A validation between two checkpoints: the one before it.
    assert_eq!(write(4, Some(3)), [2, 4]);
    assert_eq!(write(6, Some(3)), [2, 4, 6]);
    assert_eq!(write(8, Some(3)), [2, 6, 8]);
    // A better one takes its place; nothing is kept of a run without validations.
    assert_eq!(write(10, Some(10)), [8, 10]);
    assert_eq!(write(12, Some(10)), [10, 12]);
    assert_eq!(write(14, None), [12, 14]);
}

/// Fault 50: resume with another configuration.
#[test]
fn a_run_is_not_resumed_as_another() {
    let folder = Folder::new();
    let photos = photos(&folder);
    let config = config(&photos, "");
    let options = ModelOptions::default();
    let out = folder.path("run");
    let open = |config: &TrainConfig, resume| Training::open(config.clone(), &out, &options, resume);
    assert_eq!(open(&config, false).unwrap().run(&|| false, &mut |_| ()).unwrap(), End::Done);
    let refused = |config: &TrainConfig, resume, words: &[&str]| {
        let error = open(config, resume).unwrap_err().to_string();
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
    };
    refused(&config, false, &["a run of 9 steps", "--resume"]);
    // Nor by two processes at a time.
    let held = open(&config, true).unwrap();
    refused(&config, true, &["another process trains in"]);
    drop(held);
    // What a killed process left half written is cleared away.
    fs::write(out.join(".tweedie-abc.part"), "half").unwrap();
    drop(open(&config, true).unwrap());
    assert!(!out.join(".tweedie-abc.part").exists());
    let mut other = config.clone();
    other.optimiser.batch = 4;
    refused(&other, true, &["optimiser.batch of a run that is resumed", "is 4", "expected 3"]);
    let mut other = config.clone();
    other.seed = 7;
    refused(&other, true, &["seed", "7", "0"]);
    // What says when it ends may change, and the learning rate.
    let mut longer = config.clone();
    longer.steps = 11;
    longer.optimiser.learning_rate.rate /= 2.0;
    assert_eq!(open(&longer, true).unwrap().run(&|| false, &mut |_| ()).unwrap(), End::Done);
    photo(40, 40, Kind::Rgb8).save(photos.join("5.png")).unwrap();
    refused(&longer, true, &["other data than those that the run began with"]);
}

/// Fault 51: killed while saving a checkpoint, or at any other moment.
#[test]
fn a_run_that_was_killed_ends_with_the_bytes_of_one_that_was_not() {
    let folder = Folder::new();
    let mut config = config(&photos(&folder), "");
    config.steps = 60;
    config.checkpoint.every = 1;
    config.validation.every = 0;
    folder.write("tiny.toml", toml::to_string(&config).unwrap());
    folder.succeed("train --config tiny.toml -o whole");
    for wait in [30, 55, 80, 120, 200, 350] {
        let begun =
            fs::read_dir(folder.path("killed")).is_ok() && !checkpoints(&folder.path("killed")).unwrap().is_empty();
        let line = format!("train --config tiny.toml -o killed{}", if begun { " --resume" } else { "" });
        let words: Vec<&str> = line.split_whitespace().collect();
        let mut process = folder.command(&words).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(wait));
        process.kill().unwrap();
        process.wait().unwrap();
        // Every checkpoint that is there is whole.
        if folder.path("killed").exists() {
            for (step, path) in checkpoints(&folder.path("killed")).unwrap() {
                assert_eq!(tweedie::train::State::read(&path, &config).unwrap().step, step);
            }
        }
    }
    let begun = !checkpoints(&folder.path("killed")).unwrap().is_empty();
    folder.succeed(&format!("train --config tiny.toml -o killed{}", if begun { " --resume" } else { "" }));
    assert_eq!(newest(&folder.path("whole")), newest(&folder.path("killed")));
    assert_eq!(folder.bytes("whole/model.safetensors"), folder.bytes("killed/model.safetensors"));
}

#[test]
fn examples_are_a_function_of_seed_and_number() {
    let folder = Folder::new();
    let photos = photos(&folder);
    let opened = Photos::open(&photos, 16).unwrap();
    assert_eq!(opened.len(), 6);
    assert_eq!(opened.skipped.len(), 1, "{:?}", opened.skipped);
    let config = config(&photos, "memory = 14000, reuse = 0.4");
    let all = |seed: u64, first: u64, count: usize| {
        let mut examples = Patches::new(opened.clone(), &config.data, 3, seed);
        let batch = examples.batch(first, count).unwrap();
        assert!(examples.take_failed().is_empty());
        batch
    };
    let whole = all(1, 0, 60);
    assert_eq!(whole.dims(), [60, 3, 16, 16]);
    assert_eq!(numbers(&whole.narrow(0, 41, 5).unwrap()), numbers(&all(1, 41, 5)), "from the middle");
    assert_ne!(numbers(&whole), numbers(&all(2, 0, 60)));
    assert!(numbers(&whole).iter().all(|value| value.abs() < 1.5));
    let distinct: BTreeSet<String> =
        (0..60).map(|k| format!("{:?}", numbers(&whole.narrow(0, k, 1).unwrap()))).collect();
    assert!(distinct.len() > 50, "{}", distinct.len());
    // Those that are held out are never seen.
    let mut rest = opened.clone();
    let held = rest.hold_out(2, 1);
    let names: BTreeSet<&Path> = held.paths().chain(rest.paths()).collect();
    assert_eq!((held.len(), rest.len(), names.len()), (2, 4, 6));
}

#[test]
fn a_folder_without_photos_is_refused_with_the_reason() {
    let folder = Folder::new();
    let photos = photos(&folder);
    let error = Photos::open(&photos, 64).unwrap_err().to_string();
    assert!(error.contains("photos of at least 64x64 pixels") && error.contains("7 files"), "{error}");
    fs::create_dir(folder.path("empty")).unwrap();
    let error = Photos::open(&folder.path("empty"), 16).unwrap_err().to_string();
    assert!(error.contains("empty"), "{error}");
}

/// A loss that is no number stops the run before the step, and says where.
#[test]
fn a_run_that_diverges_stops_with_step_and_sigma() {
    let folder = Folder::new();
    let mut config = config(&photos(&folder), "");
    config.optimiser.learning_rate.rate = 10.0;
    config.optimiser.learning_rate.warm_up = 1;
    config.optimiser.weight_decay = 10.0;
    config.steps = 400;
    config.validation.every = 0;
    let mut training = Training::open(config, &folder.path("run"), &ModelOptions::default(), false).unwrap();
    let error = training.run(&|| false, &mut |_| ()).unwrap_err();
    assert!(matches!(error, tweedie::Error::NonFinite { step, .. } if step > 0), "{error}");
}

/// A pipeline as diffusers writes it, on photos of one's own: the file that comes out is a model like any other.
#[test]
fn a_diffusers_checkpoint_is_tuned_on_photos() {
    let folder = Folder::with_photo(32, 24);
    let photos = photos(&folder);
    let text = format!(
        r#"
        name = "tuned"
        steps = 12
        average = [{{ rate = 0.5 }}]
        data = {{ folder = "{}", held_out = 2, patch = 16 }}
        model = {{ init_from = "{}" }}
        objective = {{ name = "ddpm" }}
        optimiser = {{ batch = 8, learning_rate = {{ rate = 2e-3, warm_up = 2 }} }}
        validation = {{ every = 4, crop = 16, samples = 0 }}
        "#,
        photos.display(),
        crate::models::data("diffusers/ddpm-google").display()
    );
    folder.write("tune.toml", text);
    let ran = folder.succeed("train --config tune.toml -o tuned --json");
    let losses: Vec<f64> = ran
        .events()
        .iter()
        .filter(|event| event["event"] == "validation")
        .map(|event| event["loss"].as_f64().unwrap())
        .collect();
    assert!(losses.len() == 3 && losses[2] < 0.9 * losses[0], "{losses:?}");
    folder.succeed("models inspect tuned/model.safetensors");
    folder.succeed("inpaint photo.png -m mask.png --model tuned/model.safetensors --steps 2 -o filled.png");
    folder.succeed("sample --model tuned/model.safetensors --steps 2 -o drawn.png");
}
