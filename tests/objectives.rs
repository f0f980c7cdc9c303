//! Objectives and learners of training, against closed forms and differences.

#[path = "../examples/objectives/study.rs"]
mod study;

use candle_core::{Device, Tensor};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use tweedie::models::{Family, TensorIndex};
use tweedie::priors::{Direct, Parameterization, Quantity};
use tweedie::train::{
    Draw, EnergyLearner, FusedLearner, LayeredLearner, Learner, Loss, Method, OBJECTIVES, Objective, ObjectiveConfig,
    State, TrainConfig, find_objective, gradients, initial_parameters,
};
use tweedie_kernels::network::Network;
use tweedie_kernels::{InstructionSet, Parameters, Precision};
use tweedie_operators::Rng;

/// Spread of the Gaussian data of this file.
const SPREAD: f64 = 0.7;

fn objective(name: &str, settings: &str) -> Box<dyn Objective> {
    find_objective(OBJECTIVES, name, settings.parse().unwrap()).unwrap()
}

fn normal(seed: u64, count: u64, channels: usize) -> Tensor {
    Rng::new(seed, 0..count).normal((count as usize, channels, 1, 1), &Device::Cpu).unwrap()
}

fn numbers(x: &Tensor) -> Vec<f64> {
    x.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f64::from).collect()
}

/// `[N, 1, 1, 1]`
fn column(values: impl IntoIterator<Item = f64>) -> Tensor {
    let values: Vec<f32> = values.into_iter().map(|value| value as f32).collect();
    let count = values.len();
    Tensor::from_vec(values, (count, 1, 1, 1), &Device::Cpu).unwrap()
}

fn draw(name: &str, settings: &str, clean: &Tensor, seed: u64) -> Draw {
    objective(name, settings).draw(clean, &mut Rng::new(seed, 0..clean.dim(0).unwrap() as u64)).unwrap()
}

/// `D` of Gaussian data whose score is `−x/(τ² + added)`.
fn gaussian(draw: &Draw, added: impl Fn(f64) -> f64) -> Tensor {
    let factors = draw.sigmas.iter().map(|s| 1.0 - s * s / (SPREAD * SPREAD + added(*s)));
    draw.x.broadcast_mul(&column(factors)).unwrap()
}

fn mean(values: &[f64]) -> (f64, f64) {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let square = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (count - 1.0);
    (mean, (square / count).sqrt())
}

#[test]
fn objectives_have_names_and_build_from_their_examples() {
    let names: BTreeSet<&str> = OBJECTIVES.iter().map(|entry| entry.name).collect();
    assert_eq!(names.len(), OBJECTIVES.len());
    for entry in OBJECTIVES {
        assert!(entry.name.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{}", entry.name);
        assert!(!entry.about.ends_with('.') && !entry.about.contains('\n'), "{}", entry.about);
        let example: toml::Table = entry.example.parse().unwrap();
        let plain = (entry.build)(toml::Table::new()).unwrap().settings();
        for (key, value) in &example {
            assert!(entry.fields.iter().any(|(field, _)| field == key), "{} does not tell {key}", entry.name);
            match (value, &plain[key]) {
                (toml::Value::Table(said), toml::Value::Table(all)) => {
                    assert!(said.iter().all(|(key, value)| &all[key] == value), "{}: {key}", entry.name);
                }
                (said, all) => assert_eq!(said, all, "{}: {key}", entry.name),
            }
        }
        assert_eq!((entry.build)(plain.clone()).unwrap().settings(), plain, "{}", entry.name);
    }
}

#[test]
fn settings_of_objectives_are_checked() {
    let message = |name: &str, settings: &str| {
        find_objective(OBJECTIVES, name, settings.parse().unwrap()).unwrap_err().to_string()
    };
    assert!(message("emd", "").starts_with("unknown objective `emd`; known: explicit, denoising, sliced, "));
    assert!(message("sliced", "sgima = 1.0").contains("unknown field `sgima`"), "{}", message("sliced", "sgima = 1.0"));
    let expected = "objective sliced is count = 0, expected 1 to 1024";
    assert_eq!(message("sliced", "count = 0"), expected);
    assert!(message("explicit", "step = 2.0").contains("step = 2, expected 1e-4 to 1"));
    assert!(message("denoising", "noise = { sigma = -1.0 }").contains("sigma = -1, expected a finite number above 0"));
    assert!(message("vp", "importance = true").contains("importance with another weight than likelihood"));
    let settings = r#"weight = { kind = "likelihood" }"#;
    assert!(message("edm", settings).contains("likelihood with levels that are those of no continuous process"));
    let large = Tensor::zeros((1, 3, 32, 32), candle_core::DType::F32, &Device::Cpu).unwrap();
    let refused = objective("explicit", "").draw(&large, &mut Rng::new(1, 0..1)).unwrap_err().to_string();
    assert!(refused.contains("examples of 3072 numbers") && refused.contains("1024 at most"), "{refused}");
}

// Every loss is quadratic in the denoised images, so that a central difference has no error but rounding's.
#[test]
fn the_gradient_of_every_objective_is_the_derivative_of_its_loss() {
    for entry in OBJECTIVES {
        let drawn = draw(entry.name, "", &normal(1, 5, 3), 2);
        let count = drawn.sigmas.len() as u64;
        // Errors of the size of the noise, so that all levels count.
        let scale = column(drawn.sigmas.iter().map(|s| s * s / (1.0 + s)));
        let [at, along] = [3, 4].map(|seed| normal(seed, count, 3).broadcast_mul(&scale).unwrap());
        let loss = |share: f64| -> (f64, Tensor) {
            let denoised = ((&drawn.x + &at).unwrap() + (&along * share).unwrap()).unwrap();
            let Loss { values, gradient } = (drawn.loss)(&denoised).unwrap();
            assert_eq!(values.len(), 5, "{}", entry.name);
            (mean(&values).0, gradient)
        };
        let (above, below) = (loss(1.0).0, loss(-1.0).0);
        let gradient = loss(0.0).1;
        let derivative: f64 = numbers(&gradient).iter().zip(numbers(&along)).map(|(g, v)| g * v).sum();
        let difference = (above - below) / 2.0;
        let size = above.abs() + below.abs() + derivative.abs();
        assert!((difference - derivative).abs() < 2e-3 * size, "{}: {difference} {derivative} {size}", entry.name);
        assert!(derivative.abs() > 1e-3 * size, "{}: nothing is tested by {derivative} of {size}", entry.name);
    }
}

#[test]
fn the_loss_of_an_example_depends_on_it_and_on_its_stream_alone() {
    for entry in OBJECTIVES {
        let clean = normal(1, 4, 3);
        let objective = (entry.build)(toml::Table::new()).unwrap();
        let value = |of: std::ops::Range<u64>| {
            let clean = clean.narrow(0, of.start as usize, (of.end - of.start) as usize).unwrap();
            let drawn = objective.draw(&clean, &mut Rng::new(5, of)).unwrap();
            (drawn.loss)(&(&drawn.x * 0.5).unwrap()).unwrap().values
        };
        let (all, one) = (value(0..4), value(2..3));
        assert!((all[2] - one[0]).abs() <= 1e-6 * one[0].abs(), "{}: {all:?} {one:?}", entry.name);
    }
}

// The exact score of Gaussian data is −x/τ², and the trace of its derivative −d/τ².
#[test]
fn the_explicit_loss_of_the_exact_score_is_what_it_is() {
    let clean = (normal(1, 4096, 3) * SPREAD).unwrap();
    let drawn = draw("explicit", "mean = false", &clean, 2);
    let values = (drawn.loss)(&gaussian(&drawn, |_| 0.0)).unwrap().values;
    let variance = SPREAD * SPREAD;
    for (value, x) in values.iter().zip(numbers(&clean).chunks(3)) {
        let square: f64 = x.iter().map(|x| x * x).sum();
        let expected = 0.5 * square / (variance * variance) - 3.0 / variance;
        assert!((value - expected).abs() < 2e-2 * (1.0 + expected.abs()), "{value} {expected}");
    }
    // −½ E‖∇log p‖²
    let (mean, error) = mean(&values);
    assert!((mean + 1.5 / variance).abs() < 4.0 * error, "{mean} ± {error}");
}

#[test]
fn sliced_losses_have_the_expectation_of_the_explicit_one() {
    let clean = (normal(1, 1 << 15, 3) * SPREAD).unwrap();
    let mut errors = BTreeMap::new();
    for name in ["sliced", "sliced_vr"] {
        for (directions, count) in [("gaussian", 1), ("rademacher", 1), ("gaussian", 4)] {
            let settings = format!("mean = false\ndirections = \"{directions}\"\ncount = {count}");
            let drawn = draw(name, &settings, &clean, 3);
            assert_eq!(drawn.sigmas.len(), clean.dim(0).unwrap() * (1 + 2 * count));
            let values = (drawn.loss)(&gaussian(&drawn, |_| 0.0)).unwrap().values;
            let (mean, error) = mean(&values);
            let expected = -1.5 / (SPREAD * SPREAD);
            assert!((mean - expected).abs() < 4.0 * error, "{name} {directions}: {mean} ± {error}, not {expected}");
            errors.insert((name, directions, count), error);
        }
    }
    // What the forms are for.
    assert!(errors[&("sliced_vr", "gaussian", 1)] < errors[&("sliced", "gaussian", 1)], "{errors:?}");
    assert!(errors[&("sliced_vr", "rademacher", 1)] < 0.8 * errors[&("sliced_vr", "gaussian", 1)], "{errors:?}");
    assert!(errors[&("sliced", "gaussian", 4)] < 0.8 * errors[&("sliced", "gaussian", 1)], "{errors:?}");
}

// σ² (½ E‖∇log p_σ‖² + E tr) = −½ σ² d/(τ² + σ²) at every level.
#[test]
fn the_annealed_sliced_loss_weighs_levels_by_their_variance() {
    let clean = (normal(1, 1 << 14, 3) * SPREAD).unwrap();
    for sigma in [0.05, 0.5, 5.0] {
        for reduced in [true, false] {
            let settings = format!("mean = false\nreduced = {reduced}\nnoise = {{ kind = \"one\", sigma = {sigma} }}");
            let drawn = draw("annealed_sliced", &settings, &clean, 3);
            let values = (drawn.loss)(&gaussian(&drawn, |s| s * s)).unwrap().values;
            let (mean, error) = mean(&values);
            let expected = -1.5 * sigma * sigma / (SPREAD * SPREAD + sigma * sigma);
            assert!((mean - expected).abs() < 4.0 * error, "σ = {sigma}: {mean} ± {error}, not {expected}");
        }
    }
}

/// `w(σ)`
type Weighting<'a> = &'a dyn Fn(f64) -> f64;

// `D = x₀ + 1` loses the weight alone.
#[test]
fn denoising_objectives_weigh_levels_as_published() {
    let linear = |sigma: f64| {
        // σ² = e^B − 1 with B = t² (β₁ − β₀)/2 + t β₀, by halving; g²/std² = β/(1 − e^(−B)).
        let integral = |t: f64| t * t * 19.9 / 2.0 + 0.1 * t;
        let (mut low, mut high) = (0.0, 1.0);
        for _ in 0..60 {
            let t = 0.5 * (low + high);
            if integral(t).exp_m1() < sigma * sigma { low = t } else { high = t }
        }
        (0.1 + 19.9 * low) / -(-integral(low)).exp_m1() / (sigma * sigma)
    };
    let edm = |s: f64| (s * s + 0.25) / (s * s * 0.25);
    let weights: [(&str, &str, Weighting<'_>); 10] = [
        ("denoising", "", &|s| 0.5 / s.powi(4)),
        ("annealed", "", &|s| 0.5 / (s * s)),
        ("annealed", "weight = { power = 3.0 }", &|s| 0.5 / s),
        ("ve", "", &|s| 1.0 / (s * s)),
        ("ve", "weight = { kind = \"likelihood\" }", &|s| 2.0 * 5000_f64.ln() / (s * s)),
        ("vp", "", &|s| 1.0 / (s * s)),
        ("vp", "weight = { kind = \"likelihood\" }", &linear),
        ("ddpm", "", &|s| 1.0 / (s * s)),
        ("edm", "", &edm),
        ("soft_min_snr", "", &|s| edm(s) * s * s * 0.25 / (s * s + 0.25).powi(2)),
    ];
    for (name, settings, weight) in weights {
        let clean = normal(1, 64, 3);
        let drawn = draw(name, settings, &clean, 2);
        let values = (drawn.loss)(&(&clean + 1.0).unwrap()).unwrap().values;
        for (value, &sigma) in values.iter().zip(&drawn.sigmas) {
            // The time of a level of single precision is as good as its square.
            let expected = weight(sigma);
            assert!((value / expected - 1.0).abs() < 1e-4, "{name} {settings}: {value} {expected} at {sigma}");
        }
        let summed = draw(name, &format!("mean = false\n{settings}"), &clean, 2);
        let sums = (summed.loss)(&(&clean + 1.0).unwrap()).unwrap().values;
        assert!(sums.iter().zip(values).all(|(sum, mean)| (sum / mean - 3.0).abs() < 1e-4), "{name}");
    }
}

// The integral of g²/std² over time is that of d ln σ², whatever the process: `D = x₀ + σ` loses σ² times the weight.
#[test]
fn importance_sampling_keeps_the_expectation_of_the_likelihood_weighting() {
    for name in ["ve", "vp", "sub_vp"] {
        let count = 1 << 14;
        let clean = Tensor::zeros((count, 1, 1, 1), candle_core::DType::F32, &Device::Cpu).unwrap();
        // Times that are evenly spaced in their logarithm, where the integrand is about 1/t.
        let uniform: Vec<f64> = (0..count).map(|k| 1e-9_f64.powf(1.0 - k as f64 / (count - 1) as f64)).collect();
        let drawn = |settings: &str| {
            let zeros = clean.clone();
            let mut rng = Rng::recorded(count, [column(uniform.iter().copied()), zeros.clone(), zeros.clone()]);
            let drawn = objective(name, settings).draw(&clean, &mut rng).unwrap();
            let values = (drawn.loss)(&column(drawn.sigmas.iter().copied())).unwrap().values;
            (drawn.sigmas, values)
        };
        let (_, rates) = drawn(r#"weight = { kind = "likelihood" }"#);
        let steps = uniform.windows(2).zip(rates.windows(2));
        let plain = steps.map(|(u, r)| 0.5 * (u[1] - u[0]) * (r[0] + r[1])).sum::<f64>() + uniform[0] * rates[0];
        let (sigmas, even) = drawn("weight = { kind = \"likelihood\" }\nimportance = true");
        assert!(even.iter().all(|value| (value / even[0] - 1.0).abs() < 1e-5), "{name}");
        assert!((plain / even[0] - 1.0).abs() < 5e-3, "{name}: {plain} {}", even[0]);
        // ln σ is linear in the uniform number.
        let (low, high) = (sigmas[0].ln(), sigmas[count - 1].ln());
        let half = uniform.partition_point(|u| *u < 0.5);
        let expected = low + uniform[half] * (high - low);
        assert!((sigmas[half].ln() - expected).abs() < 1e-3, "{name}: {} {expected}", sigmas[half].ln());
    }
}

/// What a run of the first form of training stored of its configuration, but for the folder.
const STORED: &str = r#"{"name":"photo-prior-v1","seed":1,"steps":200000,"precision":"bf16","data":{"folder":"photos","held_out":3,"patch":64,"flip":true,"turn":false,"rescale":1.5,"reuse":4.0,"memory":2147483648},"model":{"architecture":"PatchUNet","config":{"blocks":[4,4,2],"levels":[64,128,192],"patch":2,"sample_size":64}},"objective":{"noise":{"kind":"log_normal","mean":-1.4,"std":1.4},"weight":{"kind":"edm","sigma_data":0.5},"mean":true},"optimiser":{"batch":16,"accumulate":1,"learning_rate":{"rate":0.0005,"warm_up":500,"decay":20000},"clip":1.0,"weight_decay":0.0,"decays":[0.9,0.999],"epsilon":1e-8},"average":[{"rate":0.9995}],"validation":{"every":1000,"sigmas":[0.0784313725490196,0.19607843137254902,0.39215686274509803,0.7843137254901961],"crop":256,"samples":8},"checkpoint":{"every":500,"keep":2},"log_every":200}"#;

#[test]
fn a_run_whose_objective_has_no_name_is_resumed() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/configs/train/photo-prior-v1.toml");
    let mut now: TrainConfig = toml::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let old: TrainConfig = serde_json::from_str(STORED).unwrap();
    assert_eq!(old.objective, now.objective);
    // Nor had its optimiser a choice.
    now.optimiser.method = Method::Adam;
    assert_eq!(old.optimiser.method, now.optimiser.method);
    assert_eq!(now.objective.name(), "edm");
    // And the objective says all of itself.
    let text = serde_json::to_string(&now.objective).unwrap();
    assert_eq!(serde_json::from_str::<ObjectiveConfig>(&text).unwrap(), now.objective);
    assert!(text.contains(r#""noise":{"kind":"log_normal","mean":-1.4,"std":1.4}"#), "{text}");

    let folder = tempfile::tempdir().unwrap();
    let parameters = Parameters::from([("weight".to_owned(), vec![1.0, 2.0])]);
    let mut state = State::new(parameters, &now, "photos".into());
    state.step = 500;
    let path = state.write(folder.path(), &now, None).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let (_, metadata) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    let mut metadata = metadata.metadata().clone().unwrap();
    metadata.insert("config".into(), STORED.into());
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let old = safetensors::serialize(tensors.iter(), Some(metadata)).unwrap();
    std::fs::write(&path, old).unwrap();
    let resumed = State::read(&path, &now).unwrap();
    assert_eq!((resumed.step, &resumed.parameters), (500, &state.parameters));
    let mut other = now;
    let settings = r#"noise = { kind = "log_normal", mean = -1.2, std = 1.4 }"#;
    other.objective = ObjectiveConfig::new("edm", settings.parse().unwrap()).unwrap();
    let refused = State::read(&path, &other).unwrap_err().to_string();
    assert!(refused.starts_with("objective.noise.mean of a run that is resumed is -1.2"), "{refused}");
}

#[test]
fn differences_are_refused_in_numbers_of_8_bits() {
    let text = r#"
        name = "points"
        steps = 1
        precision = "bf16"
        objective = { name = "sliced_vr" }
        [model]
        architecture = "Perceptron"
        config = {}
    "#;
    let config: TrainConfig = toml::from_str(text).unwrap();
    let expected = "precision is bf16, expected f32 with the objective sliced_vr, which takes small differences";
    assert_eq!(config.check().unwrap_err().to_string(), expected);
}

// What a perfect network says, of x = x₀ + σ n.
#[test]
fn every_quantity_is_read_as_what_it_is() {
    let (x0, n, data) = (0.3, -1.2, 0.6);
    for sigma in [0.01_f64, 0.6, 20.0] {
        let x = x0 + sigma * n;
        let angle = sigma.atan2(data);
        let said = [
            // Of a distribution that is one point, the score is −n/σ.
            (Quantity::Score, -n / sigma),
            (Quantity::Noise, n),
            (Quantity::Image, x0),
            (Quantity::Velocity, angle.cos() * n - angle.sin() * x0 / data),
        ];
        for (quantity, f) in said {
            let s = Parameterization::Direct(Direct { quantity, sigma_data: data }).scalings(sigma);
            let denoised = s.skip * x + s.out * f + s.offset;
            assert!((denoised - x0).abs() < 1e-12 * sigma.max(1.0), "{quantity} at {sigma}: {denoised}");
            assert!((s.input * (sigma * sigma + data * data).sqrt() - 1.0).abs() < 1e-12);
            assert!((s.noise - sigma.ln() / 4.0).abs() < 1e-12);
        }
    }
}

fn network(family: &str, config: serde_json::Value) -> Network {
    let recipe = (Family::named(family).unwrap().recipe)(&config, &TensorIndex::new()).unwrap();
    recipe.network.steps().unwrap().clone()
}

/// Parameters none of which is 0, so that every one has a gradient.
fn parameters(network: &Network) -> Parameters {
    let mut parameters = initial_parameters(network, 3).unwrap();
    for (index, values) in parameters.values_mut().enumerate() {
        let mut rng = Rng::new(4, index as u64..index as u64 + 1);
        let noise = numbers(&rng.normal((1, 1, 1, values.len()), &Device::Cpu).unwrap());
        values.iter_mut().zip(noise).for_each(|(value, noise)| *value += 0.1 * noise as f32);
    }
    parameters
}

fn fused(network: &Network, parameters: &Parameters) -> tweedie::Result<FusedLearner> {
    FusedLearner::new(network, parameters, InstructionSet::detect(), Precision::F32)
}

fn layered(network: &Network, parameters: &Parameters) -> LayeredLearner {
    LayeredLearner::new(network, parameters, &Device::Cpu).unwrap()
}

/// `½ mean ‖F − target‖²` of images of two noise levels, and its gradient.
fn loss_of(learner: &dyn Learner, channels: usize, side: usize) -> (f64, Parameters) {
    let image = |seed| Rng::new(seed, 0..2).normal((2, channels, side, side), &Device::Cpu).unwrap();
    let (x, target) = (image(5), image(6));
    let (loss, gradients) = learner
        .gradients(&x, &[-0.4, 0.3], &mut |f| {
            let error = (f.narrow(1, 0, channels)? - &target)?;
            let square = f64::from(error.sqr()?.sum_all()?.to_scalar::<f32>()?);
            let v = (&error / 2.0)?.pad_with_zeros(1, 0, f.dim(1)? - channels)?;
            Ok((Loss { values: vec![0.25 * square], gradient: v.clone() }, v))
        })
        .unwrap();
    (loss.values[0], gradients)
}

/// Checks the gradient along itself and along a random direction.
fn check_gradient(name: &str, learner: &mut dyn Learner, at: &Parameters, (channels, side): (usize, usize)) {
    let (_, gradient) = loss_of(learner, channels, side);
    assert!(gradient.keys().eq(at.keys()), "{name}");
    let length = gradient.values().flatten().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
    let count = at.values().map(Vec::len).sum::<usize>() as f64;
    for own in [1.0, 0.0] {
        let direction: Parameters = gradient
            .iter()
            .enumerate()
            .map(|(index, (name, values))| {
                let mut rng = Rng::new(7, index as u64..index as u64 + 1);
                let noise = numbers(&rng.normal((1, 1, 1, values.len()), &Device::Cpu).unwrap());
                let along =
                    |(g, n): (&f32, f64)| (own * f64::from(*g) / length + (1.0 - own) * n / count.sqrt()) as f32;
                (name.clone(), values.iter().zip(noise).map(along).collect())
            })
            .collect();
        let mut loss = |h: f32| {
            let moved = at.iter().map(|(name, values)| {
                let moved = values.iter().zip(&direction[name]).map(|(value, d)| value + h * d);
                (name.clone(), moved.collect())
            });
            learner.set_parameters(&moved.collect()).unwrap();
            loss_of(learner, channels, side).0
        };
        let h = 1e-2;
        let difference = (loss(h) - loss(-h)) / f64::from(2.0 * h);
        let product = |name: &String| {
            let pairs = gradient[name].iter().zip(&direction[name]);
            pairs.map(|(g, d)| f64::from(*g) * f64::from(*d)).sum::<f64>()
        };
        let derivative: f64 = gradient.keys().map(product).sum();
        let tolerance = 2e-2 * derivative.abs() + 2e-3 * length;
        assert!((difference - derivative).abs() < tolerance, "{name}: {difference} {derivative} of {length}");
    }
}

fn perceptron(energy: bool) -> Network {
    network("Perceptron", json!({"width": 16, "blocks": 2, "embedding": 8, "energy": energy}))
}

#[test]
fn learners_agree_with_one_another_and_with_differences() {
    let unet = json!({"patch": 2, "levels": [8, 16], "blocks": [1, 1], "groups": [0, 4], "embedding": 8});
    for (name, network, side) in [("points", perceptron(false), 1), ("images", network("PatchUNet", unet), 8)] {
        let at = parameters(&network);
        let (mut fused, mut layered) = (fused(&network, &at).unwrap(), layered(&network, &at));
        let [a, b] = [&fused as &dyn Learner, &layered].map(|learner| loss_of(learner, network.channels, side));
        assert!((a.0 - b.0).abs() < 1e-5 * a.0, "{name}: {} {}", a.0, b.0);
        for (parameter, values) in &a.1 {
            let size = values.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
            let error = values.iter().zip(&b.1[parameter]).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>().sqrt();
            assert!(error < 1e-4 * size + 1e-6, "{name}, {parameter}: {error} of {size}");
        }
        let x = Rng::new(5, 0..2).normal((2, network.channels, side, side), &Device::Cpu).unwrap();
        let [a, b] = [&fused as &dyn Learner, &layered].map(|learner| learner.slope(&x, &[-0.4, 0.3]).unwrap());
        let worst = (a - b).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
        assert!(worst < 1e-4, "{name}: {worst}");
        check_gradient(name, &mut fused, &at, (network.channels, side));
        check_gradient(name, &mut layered, &at, (network.channels, side));
    }
}

// Modulated norms, filters, attention, sums times a number: what the CPU's kernels have no gradient of.
#[test]
fn candles_differentiation_knows_what_the_kernels_do_not() {
    let edm = |arguments: serde_json::Value| {
        let mut all = json!({"img_resolution": 8, "img_channels": 2, "model_channels": 8, "channel_mult": [1, 2],
            "num_blocks": 1, "attn_resolutions": [4]});
        all.as_object_mut().unwrap().extend(arguments.as_object().unwrap().clone());
        network("edm", json!({"class_name": "EDMPrecond", "init_kwargs": all}))
    };
    let dhariwal = edm(json!({"model_type": "DhariwalUNet"}));
    let song = edm(json!({"model_type": "SongUNet", "embedding_type": "fourier", "encoder_type": "residual",
        "channel_mult_noise": 2, "resample_filter": [1, 3, 3, 1]}));
    for (name, network) in [("DhariwalUNet", dhariwal), ("SongUNet", song)] {
        let at = parameters(&network);
        let refused = fused(&network, &at).unwrap_err().to_string();
        assert!(refused.contains("the gradient of the parameters around the"), "{name}: {refused}");
        check_gradient(name, &mut layered(&network, &at), &at, (2, 8));
    }
}

#[test]
fn the_gradient_of_an_energy_is_a_difference() {
    let network = perceptron(true);
    let at = parameters(&network);
    let inner = layered(&network, &at);
    let mut energy = EnergyLearner::new(Box::new(layered(&network, &at)));
    // F is minus the slope of E.
    let x = Rng::new(5, 0..2).normal((2, 2, 1, 1), &Device::Cpu).unwrap();
    let mut output = None;
    let mut keep = |f: &Tensor| {
        output = Some(f.clone());
        Ok((Loss { values: vec![0.0], gradient: f.zeros_like()? }, f.zeros_like()?))
    };
    let (_, none) = energy.gradients(&x, &[-0.4, 0.3], &mut keep).unwrap();
    assert!(none.values().flatten().all(|g| *g == 0.0), "a loss without a gradient has one: {none:?}");
    let slope = inner.slope(&x, &[-0.4, 0.3]).unwrap();
    let worst = (output.unwrap() + slope).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
    assert_eq!(worst, 0.0);
    check_gradient("an energy", &mut energy, &at, (2, 1));
    let fused = fused(&network, &at).unwrap();
    check_gradient("an energy on the kernels", &mut EnergyLearner::new(Box::new(fused)), &at, (2, 1));
}

// Losses of denoised images reach the parameters through any of the readings.
#[test]
fn losses_reach_the_parameters_through_every_reading() {
    let network = perceptron(false);
    let at = parameters(&network);
    let quantities = [Quantity::Score, Quantity::Noise, Quantity::Image, Quantity::Velocity];
    let mut readings: Vec<Parameterization> =
        quantities.map(|quantity| Parameterization::Direct(Direct { quantity, sigma_data: 0.6 })).to_vec();
    readings.push(Parameterization::Edm { sigma_data: 0.6 });
    for (name, settings) in [("edm", ""), ("sliced_vr", "sigma = 0.3"), ("explicit", "sigma = 0.3")] {
        let drawn = draw(name, settings, &normal(1, 16, 2), 2);
        for reading in &readings {
            let mut learner = layered(&network, &at);
            let points = (&drawn.x, &drawn.sigmas[..]);
            let (_, gradient) = gradients(&learner, reading, points, &drawn.loss).unwrap();
            let length = gradient.values().flatten().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
            let mut loss = |h: f64| {
                let moved = at.iter().map(|(name, values)| {
                    let along = |(value, g): (&f32, &f32)| (f64::from(*value) + h * f64::from(*g) / length) as f32;
                    (name.clone(), values.iter().zip(&gradient[name]).map(along).collect())
                });
                learner.set_parameters(&moved.collect()).unwrap();
                mean(&gradients(&learner, reading, points, &drawn.loss).unwrap().0.values).0
            };
            let difference = (loss(1e-2) - loss(-1e-2)) / 2e-2;
            assert!((difference / length - 1.0).abs() < 2e-2, "{name}, {reading}: {difference} {length}");
        }
    }
}

// Every rung within what a test may take; `examples/objectives` trains longer, and all of them.
#[test]
fn scores_of_a_mixture_are_learned() {
    let fast = ["sliced_vr, Rademacher", "edm", "edm, as an energy"];
    for study in study::STUDIES.iter().filter(|study| fast.contains(&study.name)) {
        let folder = tempfile::tempdir().unwrap();
        let learned = study.train(study.steps.min(400), 128, folder.path()).unwrap();
        for (sigma, error) in study.errors(&learned).unwrap() {
            assert!(error < 0.3, "{}: {error} at {sigma} after {:.1} s", study.name, learned.seconds);
        }
        // A native file that every command loads.
        let file = folder.path().join("model.safetensors");
        let model = tweedie::models::Model::open(&file.to_string_lossy(), &study::options()).unwrap();
        let x = normal(8, 4, 2);
        let [a, b] = [&model, &learned.model].map(|model| numbers(&model.denoiser().denoise(&x, 0.3).unwrap()));
        assert_eq!(a, b);
        // Its pullback is the transposed derivative.
        let [u, v] = [9, 10].map(|seed| normal(seed, 4, 2));
        let (_, pullback) = model.denoiser().denoise_with_pullback(&x, 0.3).unwrap();
        let h = 1e-2;
        let at = |h: f64| model.denoiser().denoise(&(&x + (&u * h).unwrap()).unwrap(), 0.3).unwrap();
        let change = ((at(h) - at(-h)).unwrap() / (2.0 * h)).unwrap();
        let dot = |a: &Tensor, b: &Tensor| numbers(a).iter().zip(numbers(b)).map(|(a, b)| a * b).sum::<f64>();
        let (forward, back) = (dot(&change, &v), dot(&pullback.apply(&v).unwrap(), &u));
        assert!((forward - back).abs() < 2e-2 * (dot(&change, &change) * dot(&v, &v)).sqrt(), "{forward} {back}");
    }
}
