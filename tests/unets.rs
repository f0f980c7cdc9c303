//! The U-Nets of guided-diffusion, DDIM and diffusers against the programs of their authors.
//!
//! `data/goldens` and `data/diffusers`: small networks with random weights that the reference programs (guided-diffusion
//! 22e0df8, ddrm 32b6b3c, diffusers 0.42.1) made and ran with PyTorch 2.15 in single precision. Every entry of a batch has a
//! time of its own and is evaluated by itself. `diffusers-tiny/classes` is a `UNet2DModel` with the arguments of its
//! `config.json`, its parameters moved by 0.05 times standard normals, evaluated with the classes of its `io.safetensors`.

use crate::goldens::{Golden, Tensors, index};
use crate::models::{data, relative_error, scattered};
use candle_core::{DType, Device, Tensor};
use serde_json::{Value, json};
use std::collections::HashMap;
use tweedie::models::{Checkpoint, Family, Layered, Model, ModelOptions, Pick, Recipe, TensorIndex};
use tweedie::priors::{Denoiser, Parameterization, Preconditioned, Prediction, Time, VariancePreserving};
use tweedie::schedules::Discrete;
use tweedie_kernels::Precision;
use tweedie_kernels::network::Network;

fn load(path: &str) -> Tensors {
    candle_core::safetensors::load(data(path), &Device::Cpu).unwrap()
}

fn read_json(path: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(data(path)).unwrap()).unwrap()
}

fn recipe(family: &str, config: &Value, tensors: &TensorIndex) -> Result<Recipe, String> {
    let recipe = (Family::named(family)?.recipe)(config, tensors)?;
    recipe.check()?;
    Ok(recipe)
}

fn steps(recipe: &Recipe) -> &Network {
    recipe.network.steps().expect("a network of steps")
}

/// A network without what is stored of it.
fn golden(family: &str, config: &Value, weights: &Tensors) -> Golden {
    Golden::new(family, config, weights, Tensors::new())
}

impl Golden {
    fn process(&self) -> &VariancePreserving {
        match &self.recipe.parameterization {
            Parameterization::VariancePreserving(process) => process,
            other => panic!("{other} is not variance preserving"),
        }
    }

    /// Compares the raw network, what it denoises to, the score, and the gradients of the first two.
    fn agrees_at_times(&mut self, io: &Tensors, clean: &str, class: &dyn Fn(usize) -> Option<usize>) {
        let times: Vec<f64> = io["t"].to_dtype(DType::F64).unwrap().to_vec1().unwrap();
        for (b, &time) in times.iter().enumerate() {
            let get = |name: &str| io[name].narrow(0, b, 1).unwrap();
            self.class = class(b);
            let process = self.process();
            let sigma = process.levels.sigma(time);
            assert!((process.scalings(sigma).noise - time).abs() < 1e-9, "time {time} comes back");
            let (factor, shift) = if process.centred { (2.0, -1.0) } else { (1.0, 0.0) };
            let small = (1.0 + sigma * sigma).sqrt();
            for (name, model) in self.models() {
                let what = format!("entry {b} by {name}");
                let close = |got: &Tensor, expected: &str, limit: f64| {
                    let error = relative_error(got, &get(expected));
                    assert!(error <= limit, "{what}: {expected} differs by {error:e}");
                    println!("{what}: {expected} {error:.1e}");
                };
                let x = get("x").affine(factor, shift).unwrap();
                close(&model.forward(&x, time).unwrap(), "out", 1e-5);
                let (out, pullback) = model.forward_with_pullback(&x, time).unwrap();
                close(&out, "out", 1e-5);
                close(&(pullback.apply(&get("v")).unwrap() * factor).unwrap(), "grad_x", 5e-5);
                drop(pullback);
                if !io.contains_key(clean) {
                    continue;
                }
                let prior = Preconditioned::new(model, self.recipe.parameterization.clone(), 0.01..=200.0);
                let noisy = (get("x") * small).unwrap();
                let denoised = prior.denoise(&noisy, sigma).unwrap();
                close(&denoised, clean, 1e-5);
                // The reference's score is that of the smaller image.
                let score = ((&denoised - &noisy).unwrap() * (small / (sigma * sigma))).unwrap();
                // Rounded to single precision, `x` and `D` leave so much of their small difference.
                close(&score, "score", 1e-5_f64.max(1e-6 / sigma));
                if !io.contains_key("grad_x0") {
                    continue;
                }
                let (denoised, pullback) = prior.denoise_with_pullback(&noisy, sigma).unwrap();
                close(&denoised, clean, 1e-5);
                close(&(pullback.apply(&get("v_x0")).unwrap() * small).unwrap(), "grad_x0", 5e-5);
            }
        }
    }
}

fn of_no_class(_: usize) -> Option<usize> {
    None
}

const ADM: &str = "goldens/guided-diffusion-tiny/ffhq-like";
const ADM_NEW_ORDER: &str = "goldens/guided-diffusion-tiny/new-attention-order";
const ADM_CONVOLUTIONS: &str = "goldens/guided-diffusion-conv-tiny/conv-resample";
const DDIM: &str = "goldens/ddim-tiny/ddim";

/// (weights, configuration and stored values, family, name of the clean image)
const CASES: [(&str, &str, &str, &str); 4] = [
    (ADM, ADM, "adm", "pred_xstart"),
    (ADM, ADM_NEW_ORDER, "adm", "pred_xstart"),
    (ADM_CONVOLUTIONS, ADM_CONVOLUTIONS, "adm", "pred_xstart"),
    (DDIM, DDIM, "ddpm", "pred_x0"),
];

#[test]
fn guided_diffusions_and_ddims_networks_agree_with_them() {
    for (weights, rest, family, clean) in CASES {
        println!("{rest}");
        let config = read_json(&format!("{rest}/config.json"));
        let mut golden = golden(family, &config, &load(&format!("{weights}/weights.safetensors")));
        assert_eq!(golden.recipe.native_size, Some(16));
        golden.agrees_at_times(&load(&format!("{rest}/io.safetensors")), clean, &of_no_class);
    }
}

#[test]
fn names_and_shapes_say_what_the_network_is_but_for_its_heads() {
    let heads = [json!({"num_head_channels": 16}), json!({"num_heads": 2, "use_new_attention_order": true})];
    let heads = heads.into_iter().chain([json!({"num_heads": 4}), Value::Null]);
    for ((weights, rest, family, _), heads) in CASES.into_iter().zip(heads) {
        let tensors = index(&load(&format!("{weights}/weights.safetensors")));
        let said = recipe(family, &read_json(&format!("{rest}/config.json")), &tensors).unwrap();
        let seen = recipe(family, &heads, &tensors).unwrap();
        assert_eq!(format!("{:?}", said.network), format!("{:?}", seen.network), "{rest}");
        assert_eq!(said.tensors, seen.tensors, "{rest}");
    }
    let tensors = index(&load(&format!("{ADM}/weights.safetensors")));
    let advice = "say it in a configuration: {\"num_head_channels\": 64} or {\"num_heads\": 4}";
    assert_eq!(
        recipe("adm", &Value::Null, &tensors).unwrap_err(),
        format!("adm: no tensor says how many heads the attentions have, and it is no published network; {advice}")
    );
}

#[test]
fn names_behind_a_wrappers_prefix_are_the_same_network() {
    for (weights, rest, family, _) in [CASES[0], CASES[3]] {
        let config = read_json(&format!("{rest}/config.json"));
        let plain = load(&format!("{weights}/weights.safetensors"));
        let wrapped = plain.iter().map(|(name, tensor)| (format!("module.{name}"), tensor.clone())).collect();
        let (plain, wrapped) = (golden(family, &config, &plain), golden(family, &config, &wrapped));
        for parameter in steps(&plain.recipe).parameters() {
            let values = plain.lookup(&parameter.name);
            assert!(values.is_some(), "{}", parameter.name);
            assert_eq!(wrapped.lookup(&parameter.name), values, "{}", parameter.name);
        }
    }
}

fn with_scheduler(mut config: Value, scheduler: Value) -> Value {
    config["scheduler"] = scheduler;
    config
}

fn ddpm_scheduler() -> Value {
    read_json("goldens/diffusers-tiny/ddpm-google/scheduler_config.json")
}

#[test]
fn diffusers_networks_agree_with_it_under_their_present_and_their_former_names() {
    let old = "goldens/diffusers-tiny/ddpm-google/old-key-names";
    for (folder, rest) in [
        ("diffusers/ddpm-google", "diffusers/ddpm-google"),
        (old, "diffusers/ddpm-google"),
        ("diffusers/ddpm-community", "diffusers/ddpm-community"),
        ("goldens/diffusers-tiny/resnet-updown", "goldens/diffusers-tiny/resnet-updown"),
    ] {
        println!("{folder}");
        let config = with_scheduler(read_json(&format!("{folder}/config.json")), ddpm_scheduler());
        let weights = load(&format!("{folder}/diffusion_pytorch_model.safetensors"));
        let mut golden = golden("UNet2DModel", &config, &weights);
        assert_eq!(golden.recipe.tensors.is_empty(), folder != old);
        golden.agrees_at_times(&load(&format!("{rest}/io.safetensors")), "pred_x0", &of_no_class);
    }
}

#[test]
fn a_network_of_classes_that_centres_its_input_agrees_with_diffusers() {
    let folder = "goldens/diffusers-tiny/classes";
    let config = with_scheduler(read_json(&format!("{folder}/config.json")), ddpm_scheduler());
    let mut golden = golden("UNet2DModel", &config, &load(&format!("{folder}/diffusion_pytorch_model.safetensors")));
    let io = load(&format!("{folder}/io.safetensors"));
    let classes: Vec<i64> = io["class"].to_vec1().unwrap();
    golden.agrees_at_times(&io, "no clean image", &|b| Some(classes[b] as usize));
    let (network, lookup) = (steps(&golden.recipe), |name: &str| golden.lookup(name));
    let layered = Layered::new(network, &Device::Cpu, lookup).unwrap();
    let error = layered.with_class(Some(5)).unwrap_err();
    assert_eq!(error.to_string(), "class 5 of a network of 5 classes, numbered from 0");
}

// `diffusers-tiny/learned`: diffusers 0.42.1, a table of 20 times and one of 4 classes, parameters moved by 0.05 times standard
// normals.
#[test]
fn a_network_with_a_table_of_times_agrees_with_diffusers() {
    let folder = "goldens/diffusers-tiny/learned";
    let scheduler = |levels: usize| json!({"_class_name": "DDPMScheduler", "num_train_timesteps": levels});
    let config = with_scheduler(read_json(&format!("{folder}/config.json")), scheduler(20));
    let weights = load(&format!("{folder}/diffusion_pytorch_model.safetensors"));
    let mut golden = golden("UNet2DModel", &config, &weights);
    let io = load(&format!("{folder}/io.safetensors"));
    let classes: Vec<i64> = io["class"].to_vec1().unwrap();
    golden.agrees_at_times(&io, "no clean image", &|b| Some(classes[b] as usize));
    assert_eq!(golden.process().time, Time::Nearest);
    let other = with_scheduler(config.clone(), scheduler(30));
    let message = recipe("UNet2DModel", &other, &index(&weights)).unwrap_err();
    assert!(message.contains("num_train_timesteps = 20 cannot be one that is variance preserving, 30"), "{message}");
    let mut between = config;
    between["time"] = "interpolated".into();
    let message = recipe("UNet2DModel", &between, &index(&weights)).unwrap_err();
    assert!(message.contains("it needs as many levels, the nearest told"), "{message}");
}

/// A native file of a family's tensors.
fn native(family: &str, config: &Value, tensors: &Tensors) -> Vec<u8> {
    let metadata: HashMap<String, String> = [
        ("format", "tweedie".to_owned()),
        ("version", "1".to_owned()),
        ("name", "tiny".to_owned()),
        ("architecture", family.to_owned()),
        ("config", config.to_string()),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into();
    safetensors::serialize(tensors.iter(), Some(metadata)).unwrap()
}

#[test]
fn native_files_of_every_family_are_opened_and_classes_are_asked_for() {
    let f32 = || ModelOptions { precision: Some(Precision::F32), ..ModelOptions::default() };
    for (weights, rest, family, clean) in CASES {
        let config = read_json(&format!("{rest}/config.json"));
        let bytes = native(family, &config, &load(&format!("{weights}/weights.safetensors")));
        let checkpoint = Checkpoint::from_native(bytes, "tiny").unwrap();
        let model = Model::new(&checkpoint, &f32()).unwrap();
        let io = load(&format!("{rest}/io.safetensors"));
        let time = io["t"].to_dtype(DType::F64).unwrap().to_vec1::<f64>().unwrap()[0];
        let Parameterization::VariancePreserving(process) = &checkpoint.parameterization else { panic!("{family}") };
        let sigma = process.levels.sigma(time);
        let noisy = (io["x"].narrow(0, 0, 1).unwrap() * (1.0 + sigma * sigma).sqrt()).unwrap();
        let denoised = model.denoiser().denoise(&noisy, sigma).unwrap();
        let error = relative_error(&denoised, &io[clean].narrow(0, 0, 1).unwrap());
        assert!(error <= 1e-5, "{rest}: {error:e}");
        let message = Model::new(&checkpoint, &ModelOptions { class: Some(0), ..f32() }).unwrap_err().to_string();
        assert_eq!(message, "class is 0, expected none for a network that knows no classes");
    }
    let folder = "goldens/diffusers-tiny/classes";
    let config = with_scheduler(read_json(&format!("{folder}/config.json")), ddpm_scheduler());
    let bytes = native("UNet2DModel", &config, &load(&format!("{folder}/diffusion_pytorch_model.safetensors")));
    let checkpoint = Checkpoint::from_native(bytes, "tiny").unwrap();
    let message = |class| Model::new(&checkpoint, &ModelOptions { class, ..f32() }).unwrap_err().to_string();
    assert_eq!(message(None), "class is none, expected 0 to 4 for a network that was trained with classes");
    assert_eq!(message(Some(5)), "class is 5, expected 0 to 4");
    let of = |class: usize| Model::new(&checkpoint, &ModelOptions { class: Some(class), ..f32() }).unwrap();
    let x = Tensor::from_vec(scattered(768, 5), (1, 3, 16, 16), &Device::Cpu).unwrap();
    let [first, last] = [0, 4].map(|class| of(class).denoiser().denoise(&x, 1.0).unwrap());
    assert!(relative_error(&first, &last) > 1e-3, "the class changes nothing");
}

fn count(recipe: &Recipe) -> usize {
    steps(recipe).parameters().iter().map(|parameter| parameter.elements()).sum()
}

/// A published network of guided-diffusion by its flags, as `README.md` there and `ffhq_10m`'s users give them.
fn adm(size: usize, channels: usize, blocks: usize, more: Value) -> Value {
    let mut config = json!({
        "image_size": size, "num_channels": channels, "num_res_blocks": blocks, "learn_sigma": true, "channel_mult": "",
        "resblock_updown": true, "use_scale_shift_norm": true, "attention_resolutions": "32,16,8",
        "num_head_channels": 64, "class_cond": false, "diffusion_steps": 1000, "noise_schedule": "linear",
    });
    for (key, value) in more.as_object().unwrap() {
        config[key] = value.clone();
    }
    config
}

fn published() -> [(&'static str, Value); 6] {
    let conditional = json!({"class_cond": true});
    [
        ("FFHQ", adm(256, 128, 1, json!({"attention_resolutions": 16}))),
        ("ImageNet 256", adm(256, 256, 2, json!({}))),
        ("ImageNet 256, conditional", adm(256, 256, 2, conditional.clone())),
        ("ImageNet 512, conditional", adm(512, 256, 2, conditional)),
        ("ImageNet 128", adm(128, 256, 2, json!({"class_cond": true, "num_heads": 4, "num_head_channels": -1}))),
        (
            "ImageNet 64",
            adm(64, 192, 3, json!({"class_cond": true, "use_new_attention_order": true, "noise_schedule": "cosine"})),
        ),
    ]
}

// The sizes of the published files over four bytes. Nothing of that size is allocated.
#[test]
fn published_configurations_have_the_published_numbers_of_parameters() {
    let none = TensorIndex::new();
    let of_adm: Vec<usize> =
        published().iter().map(|(_, config)| count(&recipe("adm", config, &none).unwrap())).collect();
    assert_eq!(of_adm[..3], [93_563_910, 552_814_086, 553_838_086]);
    assert_eq!((of_adm[3] + 50_000) / 100_000, 5_590, "559.0 million, not {}", of_adm[3]);
    // Of the last two the paper gives the millions.
    let millions = |count: usize| (count + 500_000) / 1_000_000;
    assert_eq!((millions(of_adm[4]), millions(of_adm[5])), (422, 296), "{of_adm:?}");

    let down = |attention: usize, levels: usize| -> Vec<&str> {
        (0..levels).map(|level| if level == attention { "AttnDownBlock2D" } else { "DownBlock2D" }).collect()
    };
    let up = |attention: usize, levels: usize| -> Vec<&str> {
        (0..levels).rev().map(|level| if level == attention { "AttnUpBlock2D" } else { "UpBlock2D" }).collect()
    };
    let google = |size: usize, channels: &[usize], attention: usize| {
        let levels = channels.len();
        let config = json!({
            "_class_name": "UNet2DModel", "_diffusers_version": "0.0.4", "act_fn": "silu", "attention_head_dim": null,
            "block_out_channels": channels, "center_input_sample": false, "down_block_types": down(attention, levels),
            "downsample_padding": 0, "flip_sin_to_cos": false, "freq_shift": 1, "in_channels": 3, "layers_per_block": 2,
            "mid_block_scale_factor": 1, "norm_eps": 1e-06, "norm_num_groups": 32, "out_channels": 3,
            "sample_size": size, "time_embedding_type": "positional", "up_block_types": up(attention, levels),
        });
        count(&recipe("UNet2DModel", &with_scheduler(config, ddpm_scheduler()), &none).unwrap())
    };
    assert_eq!(google(32, &[128, 256, 256, 256], 1), 35_746_307, "google/ddpm-cifar10-32");
    assert_eq!(google(256, &[128, 128, 256, 256, 512, 512], 4), 113_673_219, "google/ddpm-celebahq-256");

    let ddim = |size: usize, multipliers: &[usize]| {
        let config = json!({
            "data": {"image_size": size, "channels": 3},
            "model": {
                "in_channels": 3, "out_ch": 3, "ch": 128, "ch_mult": multipliers, "num_res_blocks": 2,
                "attn_resolutions": [16], "resamp_with_conv": true,
            },
        });
        count(&recipe("ddpm", &config, &none).unwrap())
    };
    assert_eq!(ddim(256, &[1, 1, 2, 2, 4, 4]), 113_673_219, "CelebA-HQ of SDEdit, DDRM and DDNM");
    assert_eq!(ddim(32, &[1, 2, 2, 2]), 35_746_307, "CIFAR-10");
}

// What a user has is the file alone.
#[test]
fn published_networks_of_guided_diffusion_are_known_without_a_configuration() {
    for (name, config) in published() {
        let said = recipe("adm", &config, &TensorIndex::new()).unwrap();
        let in_file = said.expected().unwrap().into_iter();
        let tensors: TensorIndex = in_file.map(|(name, shape)| (name, (safetensors::Dtype::F32, shape))).collect();
        let seen = recipe("adm", &Value::Null, &tensors).unwrap();
        assert_eq!(format!("{:?}", said.network), format!("{:?}", seen.network), "{name}");
        assert_eq!((said.tensors, said.native_size), (seen.tensors, seen.native_size), "{name}");
        assert_eq!(said.parameterization, seen.parameterization, "{name}");
    }
}

/// `D` of the numbers that a perfect network would say of a pixel is the clean pixel, whatever it is trained to say.
#[test]
fn a_perfect_prediction_of_any_kind_is_denoised_to_the_clean_pixel() {
    for (clean, noise) in [(0.3, -1.2), (-0.9, 0.4)] {
        for centred in [false, true] {
            for time in [0.0, 250.0, 999.0] {
                let levels = Discrete::linear(1000);
                let alpha_bar = levels.alpha_bars()[time as usize];
                let (signal, deviation) = (alpha_bar.sqrt(), (1.0 - alpha_bar).sqrt());
                let sigma = deviation / signal;
                for (prediction, said) in [
                    (Prediction::Noise, noise),
                    (Prediction::Velocity, signal * noise - deviation * clean),
                    (Prediction::Image, clean),
                ] {
                    let process = VariancePreserving {
                        centred,
                        ..VariancePreserving::new(levels.clone(), prediction, Time::Interpolated)
                    };
                    let s = process.scalings(sigma);
                    let x = clean + sigma * noise;
                    let seen = signal * clean + deviation * noise;
                    let expected = if centred { 2.0 * seen - 1.0 } else { seen };
                    assert!((s.input * x + s.shift - expected).abs() < 1e-9, "input at {time}");
                    let denoised = s.skip * x + s.out * said + s.offset;
                    assert!((denoised - clean).abs() < 1e-9, "{prediction} at {time}: {denoised} for {clean}");
                    assert!((s.noise - time).abs() < 1e-9);
                }
            }
        }
    }
}

#[test]
fn times_are_interpolated_or_the_nearest_and_stay_among_the_levels() {
    let of = |time| VariancePreserving::new(Discrete::linear(1000), Prediction::Noise, time);
    let (between, nearest) = (of(Time::Interpolated), of(Time::Nearest));
    let sigma = between.levels.sigma(10.4);
    assert!((between.time(sigma) - 10.4).abs() < 1e-9);
    assert_eq!(nearest.time(sigma), 10.0);
    for process in [between, nearest] {
        assert_eq!((process.time(1e-4), process.time(1e4)), (0.0, 999.0));
        let (low, high) = process.sigma_range();
        // √(β₀/(1 − β₀)) with β₀ = 1e-4, and √(1/ᾱ₉₉₉ − 1) with ᾱ₉₉₉ = 4.0358e-5.
        assert!((low - 0.010_000_5).abs() < 1e-9 && (high - 157.407).abs() < 1e-2, "{low} to {high}");
    }
    let mut config = with_scheduler(read_json("diffusers/ddpm-google/config.json"), ddpm_scheduler());
    for (text, expected) in [("nearest", Time::Nearest), ("interpolated", Time::Interpolated)] {
        config["time"] = text.into();
        let recipe = recipe("UNet2DModel", &config, &TensorIndex::new()).unwrap();
        let Parameterization::VariancePreserving(process) = recipe.parameterization else { panic!("{text}") };
        assert_eq!(process.time, expected);
    }
    config["time"] = "round".into();
    let message = recipe("UNet2DModel", &config, &TensorIndex::new()).unwrap_err();
    assert_eq!(message, "has time = \"round\"; known: \"nearest\" and \"interpolated\"");
}

// `alphas_cumprod[[0, 100, 500, 999]]` of diffusers 0.42.1's DDPMScheduler, in single precision; all four of the last.
#[test]
fn schedulers_have_the_levels_of_diffusers() {
    let config = read_json("diffusers/ddpm-google/config.json");
    let of = |scheduler: Value| recipe("UNet2DModel", &with_scheduler(config.clone(), scheduler), &TensorIndex::new());
    for (mut scheduler, places, expected) in [
        (json!({}), [0, 100, 500, 999], [0.999_899_98, 0.895_141_36, 0.077_796_653, 4.035_830_35e-5]),
        (
            json!({"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}),
            [0, 100, 500, 999],
            [0.999_149_98, 0.894_223_15, 0.276_332_47, 0.004_660_095_1],
        ),
        (
            json!({"beta_schedule": "squaredcos_cap_v2"}),
            [0, 100, 500, 999],
            [0.999_958_69, 0.971_575_62, 0.492_285_04, 2.428_735e-9],
        ),
        (
            json!({"beta_schedule": "sigmoid"}),
            [0, 100, 500, 999],
            [0.999_850_81, 0.980_491_94, 0.298_887_58, 3.968_182e-5],
        ),
        (json!({"trained_betas": [0.1, 0.2, 0.05, 0.3]}), [0, 1, 2, 3], [0.9, 0.72, 0.684, 0.4788]),
    ] {
        for (class, kind, prediction) in [
            ("DDPMScheduler", None, Prediction::Noise),
            ("DDIMScheduler", Some("epsilon"), Prediction::Noise),
            ("PNDMScheduler", Some("v_prediction"), Prediction::Velocity),
            ("EulerDiscreteScheduler", Some("sample"), Prediction::Image),
        ] {
            scheduler["_class_name"] = class.into();
            scheduler["prediction_type"] = kind.into();
            let Parameterization::VariancePreserving(process) = of(scheduler.clone()).unwrap().parameterization else {
                panic!("{class}");
            };
            assert_eq!(process.prediction, prediction);
            let alpha_bars = process.levels.alpha_bars();
            for (place, expected) in places.into_iter().zip(expected) {
                let error = (alpha_bars[place] / expected - 1.0).abs();
                assert!(error < 3e-5, "{scheduler}: {} at {place}, expected {expected}", alpha_bars[place]);
            }
        }
    }
    // By the recurrence of `β = linspace(0.00085, 0.012, 1000)` in double precision.
    for class in ["HeunDiscreteScheduler", "KDPM2DiscreteScheduler", "KDPM2AncestralDiscreteScheduler"] {
        let recipe = of(json!({"_class_name": class})).unwrap();
        let Parameterization::VariancePreserving(process) = recipe.parameterization else { panic!("{class}") };
        for (place, expected) in [(0, 0.99915), (100, 0.8673441452), (500, 0.1607715999), (999, 0.001578962931)] {
            let got: f64 = process.levels.alpha_bars()[place];
            assert!((got / expected - 1.0).abs() < 1e-8, "{class}: {got} at {place}, expected {expected}");
        }
    }
    let refusal = |scheduler: Value| of(scheduler).unwrap_err();
    let ddpm = |key: &str, value: Value| json!({"_class_name": "DDPMScheduler", key: value});
    for (message, part) in [
        (refusal(json!({"_class_name": "FlowMatchEulerDiscreteScheduler"})), "has the scheduler FlowMatchEuler"),
        (refusal(ddpm("prediction_type", json!("flow"))), "prediction_type = \"flow\""),
        (refusal(ddpm("beta_schedule", json!("exp"))), "beta_schedule = \"exp\""),
        (refusal(ddpm("beta_end", json!(1.5))), "β from 0.0001 to 1.5, expected numbers above 0 and below 1"),
        (refusal(ddpm("num_train_timesteps", json!(1))), "1 levels, expected 2 to 100000"),
        // What would take memory without bounds.
        (refusal(ddpm("num_train_timesteps", json!(1_u64 << 40))), "1099511627776 levels, expected 2 to 100000"),
        (refusal(ddpm("trained_betas", json!([0.1, 0.0]))), "trained_betas of length = 2"),
        (refusal(ddpm("rescale_betas_zero_snr", json!(true))), "rescale_betas_zero_snr = true"),
    ] {
        assert!(message.contains(part), "`{message}` lacks `{part}`");
    }
}

// As many attentions and channels as the bounds allow, in a few lines of text.
#[test]
fn the_largest_network_of_guided_diffusion_takes_little_memory_to_describe() {
    let sides: Vec<usize> = (0..16).map(|level| 65536 >> level).collect();
    let more = json!({"channel_mult": vec![1; 16], "num_head_channels": 1, "attention_resolutions": sides});
    let config = adm(65536, 8192, 8, more);
    let recipe = recipe("adm", &config, &TensorIndex::new()).unwrap();
    let mut rows: Vec<(*const usize, usize)> = Vec::new();
    for origin in &recipe.tensors {
        if let Pick::Rows(of) = &origin.pick {
            rows.push((of.as_ptr(), of.len()));
        }
    }
    let named = rows.len();
    rows.sort_unstable();
    rows.dedup();
    assert_eq!(2 * rows.len(), named, "weight and bias share their rows");
    assert!(rows.iter().map(|(_, count)| count * size_of::<usize>()).sum::<usize>() < 64 << 20);
}

#[test]
fn settings_that_cannot_be_are_refused_by_name() {
    let adm = |key: &str, value: Value| {
        let mut config = adm(256, 128, 1, json!({}));
        config[key] = value;
        recipe("adm", &config, &TensorIndex::new()).unwrap_err()
    };
    let ddpm = |key: &str, value: Value| {
        let mut config = read_json(&format!("{DDIM}/config.json"));
        config["model"][key] = value;
        recipe("ddpm", &config, &TensorIndex::new()).unwrap_err()
    };
    for (message, part) in [
        (adm("channel_mult", json!("1,two")), "channel_mult = \"1,two\", expected numbers such as"),
        (adm("attention_resolutions", json!({})), "attention_resolutions = {}, expected sides"),
        (adm("image_size", Value::Null), "no channel_mult, and the tensors do not say it"),
        (adm("num_head_channels", json!(48)), "256 channels at input_blocks.7.1 cannot be divided into heads"),
        (adm("num_head_channels", json!(0)), "num_head_channels = 0, expected a number above 0"),
        (adm("num_channels", json!(100)), "100 channels of a level are not a multiple of 32 groups"),
        (adm("num_channels", json!(1_u64 << 60)), "num_channels = 1152921504606846976, expected 1 to 8192"),
        (adm("num_res_blocks", json!(1_u64 << 60)), "num_res_blocks = 1152921504606846976, expected 1 to 128"),
        (adm("num_res_blocks", json!(64)), "blocks of all levels = 384, expected 1 to 128"),
        (adm("image_size", json!(1_u64 << 40)), "no channel_mult, and the tensors do not say it"),
        (adm("noise_schedule", json!("sqrt")), "noise_schedule = \"sqrt\"; known: \"linear\" and \"cosine\""),
        (adm("diffusion_steps", json!(10)), "diffusion_steps = 10, expected more than 20"),
        (adm("num_res_blocks", json!(-1)), "config: invalid value: integer `-1`"),
        (ddpm("ch", json!(40)), "40 channels of a level are not a multiple of 32 groups"),
        (ddpm("ch", json!(1_u64 << 60)), "channels of the first level = 1152921504606846976"),
        (ddpm("ch_mult", json!([])), "number of levels = 0"),
        (ddpm("out_ch", json!(6)), "out_ch = 6, expected in_channels, 3"),
        (ddpm("num_res_blocks", Value::Null), "no model.num_res_blocks, and the tensors do not say it"),
    ] {
        assert!(message.contains(part), "`{message}` lacks `{part}`");
    }
    let diffusers = |key: &str, value: Value| {
        let mut config = with_scheduler(read_json("diffusers/ddpm-google/config.json"), ddpm_scheduler());
        config[key] = value;
        recipe("UNet2DModel", &config, &TensorIndex::new()).unwrap_err()
    };
    for (message, part) in [
        (diffusers("freq_shift", json!(1e9)), "freq_shift = 1000000000.0 cannot be built, only numbers below half"),
        (diffusers("norm_num_groups", Value::Null), "norm_num_groups = None cannot be built, only a number"),
    ] {
        assert!(message.contains(part), "`{message}` lacks `{part}`");
    }
    for size in [0_u64, 1, 1 << 40] {
        let expected = format!("was trained on images of {size}x{size} pixels, expected a side of 8 to 65536");
        assert_eq!(diffusers("sample_size", json!(size)), expected);
        let config = self::adm(256, 128, 1, json!({"image_size": size, "channel_mult": "1,2"}));
        assert_eq!(recipe("adm", &config, &TensorIndex::new()).unwrap_err(), expected);
    }
    let message = recipe("adm", &Value::Null, &TensorIndex::new()).unwrap_err();
    assert_eq!(message, "adm: the configuration has no num_channels, and the tensors do not say it");
}
