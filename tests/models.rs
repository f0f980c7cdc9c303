//! Networks and their files: parity with the reference, two runners of one description, damaged checkpoints.

use candle_core::{Device, Tensor};
use safetensors::tensor::{Dtype, TensorView};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use tweedie::models::unet2d::UNet2dConfig;
use tweedie::models::{Checkpoint, FAMILIES, Fused, Layered, Model, ModelOptions, ScoreModel};
use tweedie_kernels::network::Network;
use tweedie_kernels::{InstructionSet, Precision};

/// In single precision, whatever the machine would choose: what the reference is compared with.
pub(crate) fn in_f32() -> ModelOptions {
    ModelOptions { precision: Some(Precision::F32), ..ModelOptions::default() }
}

/// The prior inside the binary in single precision, packed once for all tests.
pub(crate) static EMBEDDED: LazyLock<Model> = LazyLock::new(|| Model::embedded(&in_f32()).unwrap());

/// The prior that was inside the binary before, a network of another family.
const FIRST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/models/photo-prior-v0.safetensors");

pub(crate) fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

/// `|a − b| / |b|` in double precision.
pub(crate) fn relative_error(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.dims(), b.dims());
    let values = |x: &Tensor| x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let square = |x: f64| x * x;
    let (a, b) = (values(a), values(b));
    let error: f64 = a.iter().zip(&b).map(|(&a, &b)| square(f64::from(a) - f64::from(b))).sum();
    (error / b.iter().map(|&b| square(b.into())).sum::<f64>()).sqrt()
}

/// Numbers between −1 and 1 from a multiplicative congruence, so that no generator of the project is trusted.
pub(crate) fn scattered(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 40) as f32 / (1 << 23) as f32) - 1.0
    };
    (0..count).map(|_| next()).collect()
}

pub(crate) fn scattered_image(shape: (usize, usize, usize, usize), seed: u64) -> Tensor {
    let (b, c, h, w) = shape;
    Tensor::from_vec(scattered(b * c * h * w, seed), shape, &Device::Cpu).unwrap()
}

/// Three levels, so a stride of four; no number of channels is a multiple of the sixteen lanes of a block.
pub(crate) fn tiny_config() -> UNet2dConfig {
    UNet2dConfig {
        block_out_channels: vec![8, 12, 20],
        layers_per_block: 1,
        down_block_types: vec!["DownBlock2D".into(); 3],
        up_block_types: vec!["UpBlock2D".into(); 3],
        norm_num_groups: Some(4),
        add_attention: false,
        ..UNet2dConfig::default()
    }
}

/// Weights that keep the size of what goes through them: norms near one, the rest scaled by their fan-in.
pub(crate) fn tiny_weights(network: &Network) -> HashMap<String, Vec<f32>> {
    let weights = |(index, parameter): (usize, &&tweedie_kernels::network::Parameter)| {
        let fan_in: usize = parameter.shape[1..].iter().product();
        let values = scattered(parameter.elements(), index as u64 + 1);
        let norm = parameter.name.contains("norm") && parameter.name.ends_with("weight");
        let scale = if fan_in > 1 { (3.0 / fan_in as f32).sqrt() } else { 0.3 };
        let values = values.into_iter().map(|v| if norm { 1.0 + 0.3 * v } else { scale * v }).collect();
        (parameter.name.clone(), values)
    };
    network.parameters().iter().enumerate().map(weights).collect()
}

/// Denoised images and gradients of a prior beside those of PyTorch in `data/NAME.safetensors`: 48 × 80 pixels at six noise
/// levels; `grad_x` is the gradient of `sum(denoised · v)`.
fn agrees_with_pytorch(model: &Model, name: &str) {
    let stored = candle_core::safetensors::load(data(&format!("{name}.safetensors")), &Device::Cpu).unwrap();
    assert_eq!(model.name, name);
    let denoiser = model.denoiser();
    for sigma in ["0.02", "0.1", "0.4", "1", "4", "20"] {
        let get = |what: &str| &stored[&format!("wide.sigma{sigma}.{what}")];
        let level: f64 = sigma.parse().unwrap();
        let exact = stored.get(&format!("wide.sigma{sigma}.exact"));
        let expected = exact.unwrap_or_else(|| get("denoised"));
        let error = relative_error(&denoiser.denoise(get("x"), level).unwrap(), expected);
        assert!(error <= 1e-5, "{name}: denoised at sigma {sigma} differs by {error:e}");
        let (denoised, pullback) = denoiser.denoise_with_pullback(get("x"), level).unwrap();
        let error = relative_error(&denoised, expected);
        assert!(error <= 1e-5, "{name}: denoised with a tape at sigma {sigma} differs by {error:e}");
        assert!(relative_error(&denoised, get("denoised")) <= 2e-5, "the reference as it was stored at {sigma}");
        let error = relative_error(&pullback.apply(get("v")).unwrap(), get("grad_x"));
        assert!(error <= 5e-5, "{name}: the pullback at sigma {sigma} differs by {error:e}");
    }
}

// From `benches/peers/denoising.py --store`: the network written once more, in PyTorch 2.15, in double precision.
#[test]
fn the_embedded_prior_agrees_with_the_reference_at_every_stored_noise_level() {
    agrees_with_pytorch(&EMBEDDED, "photo-prior-v1");
}

// From PyTorch 2.15 in single precision running diffusers 0.42.1's `UNet2DModel` with EDM's preconditioning. At sigma 20 the
// result is small and the reference's own rounding is 1.1e-5 of it, so `exact`, the same in double precision, takes its place.
#[test]
fn the_first_prior_agrees_with_the_reference_at_every_stored_noise_level() {
    agrees_with_pytorch(&Model::open(FIRST, &in_f32()).unwrap(), "photo-prior-v0");
}

#[test]
fn the_embedded_prior_passes_its_own_test() {
    let error = EMBEDDED.self_test().unwrap().expect("the file stores values to compare with");
    assert!(error <= 1e-5, "differs by {error:e}");
}

// Whatever the precision in use, the model stays within the limit stated for it.
#[test]
fn the_embedded_prior_passes_its_own_test_in_every_precision() {
    for (precision, limit) in [(Precision::F32, 1e-4), (Precision::Bf16, 3e-2)] {
        let model = Model::embedded(&ModelOptions { precision: Some(precision), ..in_f32() }).unwrap();
        assert_eq!((model.precision(), model.self_test_limit()), (precision, limit));
        let error = model.self_test().unwrap().unwrap();
        assert!(error <= limit, "differs by {error:e} in {precision}");
    }
}

#[test]
fn a_precision_that_nobody_chose_is_that_of_the_table() {
    for instruction_set in InstructionSet::available() {
        let options = ModelOptions { instruction_set, ..ModelOptions::default() };
        assert_eq!(options.network_precision().unwrap(), Precision::auto(instruction_set));
        let chosen = ModelOptions { precision: Some(Precision::Bf16), ..options.clone() };
        assert_eq!(chosen.network_precision().unwrap(), Precision::Bf16);
        let formula = Model::open("gaussian", &options).unwrap();
        assert_eq!((formula.precision(), formula.instruction_set()), (Precision::F32, instruction_set));
        assert_eq!(
            Model::open("gaussian", &chosen).unwrap_err().to_string(),
            "precision is bf16, expected f32 or auto for a prior that is a formula"
        );
    }
}

/// The tiny network with attention everywhere, in heads of four channels.
fn tiny_attention() -> UNet2dConfig {
    UNet2dConfig {
        down_block_types: vec!["AttnDownBlock2D".into(); 3],
        up_block_types: vec!["AttnUpBlock2D".into(); 3],
        add_attention: true,
        attention_head_dim: Some(4),
        attn_norm_num_groups: Some(5),
        ..tiny_config()
    }
}

#[test]
fn layers_of_tensor_operations_and_the_fused_network_are_the_same_function() {
    let plain = tiny_config();
    for (case, (config, downsample_padding, flip_sin_to_cos, freq_shift, (height, width))) in [
        (&plain, 0, false, 1.0, (12, 20)),
        (&plain, 1, true, 0.0, (4, 28)),
        (&plain, 0, true, 0.0, (20, 4)),
        (&plain, 1, false, 1.0, (4, 4)),
        (&tiny_attention(), 0, true, 0.0, (12, 20)),
        // More pixels than the layers take queries at a time.
        (&tiny_attention(), 1, false, 1.0, (36, 32)),
    ]
    .into_iter()
    .enumerate()
    {
        let network =
            UNet2dConfig { downsample_padding, flip_sin_to_cos, freq_shift, ..config.clone() }.network().unwrap();
        assert_eq!(network.stride(), 4);
        let weights = tiny_weights(&network);
        let lookup = |name: &str| weights.get(name).cloned();
        let layered = Layered::new(&network, &Device::Cpu, lookup).unwrap();
        let fused = Fused::new(&network, InstructionSet::detect(), Precision::F32, lookup).unwrap();
        let x = scattered_image((2, 3, height, width), 100 + case as u64);
        let v = scattered_image((2, 3, height, width), 200 + case as u64);
        let (expected, transpose) = layered.forward_with_pullback(&x, -0.37).unwrap();
        let error = relative_error(&fused.forward(&x, -0.37).unwrap(), &expected);
        assert!(error <= 1e-5, "case {case}: forward differs by {error:e}");
        let (output, pullback) = fused.forward_with_pullback(&x, -0.37).unwrap();
        let error = relative_error(&output, &expected);
        assert!(error <= 1e-5, "case {case}: forward with a tape differs by {error:e}");
        let error = relative_error(&pullback.apply(&v).unwrap(), &transpose.apply(&v).unwrap());
        assert!(error <= 5e-5, "case {case}: the pullback differs by {error:e}");
        let other = fused.forward(&x, 0.4).unwrap();
        assert!(relative_error(&other, &expected) > 1e-3, "case {case}: the noise coordinate changes nothing");
    }
}

// `data/diffusers`: tiny networks that diffusers 0.42.1 made and ran with PyTorch 2.15 in single precision. `ddpm-google`
// has one head of all channels, `ddpm-community` the library's heads of 8 channels; `t` is the noise coordinate itself, and
// `grad_x` the gradient of `sum(out · v)`. Every entry of the batch has a `t` of its own.
#[test]
fn networks_with_attention_agree_with_diffusers() {
    for folder in ["ddpm-google", "ddpm-community"] {
        let folder = data("diffusers").join(folder);
        let load = |name: &str| candle_core::safetensors::load(folder.join(name), &Device::Cpu).unwrap();
        let (weights, stored) = (load("diffusion_pytorch_model.safetensors"), load("io.safetensors"));
        let config = std::fs::read_to_string(folder.join("config.json")).unwrap();
        let network = serde_json::from_str::<UNet2dConfig>(&config).unwrap().network().unwrap();
        let names = |p: &&tweedie_kernels::network::Parameter| (p.name.clone(), p.shape.clone());
        let expected: BTreeMap<String, Vec<usize>> = network.parameters().iter().map(names).collect();
        let in_file = weights.iter().map(|(name, tensor)| (name.clone(), tensor.dims().to_vec()));
        assert_eq!(expected, in_file.collect(), "{}", folder.display());
        assert_eq!(expected.len(), network.parameters().len(), "a parameter twice");
        let lookup = |name: &str| weights.get(name)?.flatten_all().ok()?.to_vec1().ok();
        let fused = Fused::new(&network, InstructionSet::detect(), Precision::F32, lookup).unwrap();
        let layered = Layered::new(&network, &Device::Cpu, lookup).unwrap();
        let models: [(&str, &dyn ScoreModel); 2] = [("the fused network", &fused), ("layers", &layered)];
        let times: Vec<i64> = stored["t"].to_vec1().unwrap();
        for (b, time) in times.into_iter().enumerate() {
            let get = |name: &str| stored[name].narrow(0, b, 1).unwrap();
            for (name, model) in models {
                let what = format!("entry {b} of {} by {name}", folder.display());
                let error = relative_error(&model.forward(&get("x"), time as f64).unwrap(), &get("out"));
                assert!(error <= 1e-5, "{what}: value off by {error:e}");
                let (value, pullback) = model.forward_with_pullback(&get("x"), time as f64).unwrap();
                let error = relative_error(&value, &get("out"));
                assert!(error <= 1e-5, "{what}: value with a tape off by {error:e}");
                let error = relative_error(&pullback.apply(&get("v")).unwrap(), &get("grad_x"));
                assert!(error <= 5e-5, "{what}: gradient off by {error:e}");
            }
        }
    }
}

#[test]
fn configurations_that_cannot_be_built_are_refused_by_the_name_of_the_field() {
    let refusal = |change: fn(&mut UNet2dConfig)| {
        let mut config = tiny_config();
        change(&mut config);
        config.network().unwrap_err()
    };
    for (message, part) in [
        (refusal(|c| c.up_block_types[0] = "CrossAttnUpBlock2D".into()), "up_block_types = [\"CrossAttnUpBlock2D\""),
        (
            refusal(|c| (c.add_attention, c.attention_head_dim) = (true, Some(8))),
            "20 channels are not a multiple of attention_head_dim = 8",
        ),
        (
            refusal(|c| (c.down_block_types[1], c.attention_head_dim) = ("AttnDownBlock2D".into(), Some(5))),
            "12 channels are not a multiple of attention_head_dim = 5",
        ),
        (
            refusal(|c| (c.up_block_types[2], c.attention_head_dim) = ("AttnUpBlock2D".into(), Some(0))),
            "8 channels are not a multiple of attention_head_dim = 0",
        ),
        (
            refusal(|c| (c.add_attention, c.attention_head_dim, c.attn_norm_num_groups) = (true, None, Some(3))),
            "20 channels are not a multiple of attn_norm_num_groups = 3",
        ),
        (refusal(|c| c.time_embedding_type = "spatial".into()), "time_embedding_type = \"spatial\""),
        (refusal(|c| c.time_embedding_type = "learned".into()), "num_train_timesteps = None"),
        (refusal(|c| c.resnet_time_scale_shift = "spatial".into()), "resnet_time_scale_shift = \"spatial\""),
        (
            refusal(|c| (c.resnet_time_scale_shift, c.add_attention) = ("scale_shift".into(), true)),
            "resnet_time_scale_shift, attn_norm_num_groups = (\"scale_shift\", None)",
        ),
        (refusal(|c| c.downsample_type = "fir".into()), "downsample_type, upsample_type = (\"fir\", \"conv\")"),
        (refusal(|c| c.downsample_padding = 2), "downsample_padding = 2"),
        (refusal(|c| c.act_fn = "gelu".into()), "act_fn = \"gelu\""),
        (refusal(|c| c.mid_block_scale_factor = 0.0), "mid_block_scale_factor = 0.0"),
        (
            refusal(|c| c.mid_block_type = Some("UNetMidBlock2DSimpleCrossAttn".into())),
            "mid_block_type = Some(\"UNetMid",
        ),
        (refusal(|c| c.num_class_embeds = Some(0)), "num_class_embeds = Some(0)"),
        (refusal(|c| c.class_embed_type = Some("timestep".into())), "class_embed_type = Some(\"timestep\")"),
        (refusal(|c| c.time_embedding_dim = Some(1 << 40)), "time_embedding_dim = 1099511627776"),
        (refusal(|c| c.norm_num_groups = Some(3)), "8 channels are not a multiple of norm_num_groups = 3"),
        (refusal(|c| c.norm_num_groups = Some(0)), "not a multiple of norm_num_groups = 0"),
        (refusal(|c| c.block_out_channels = Vec::new()), "lengths = (0, 3, 3)"),
        (refusal(|c| c.out_channels = 5), "out_channels = 5"),
        (refusal(|c| (c.in_channels, c.out_channels) = (0, 0)), "in_channels = 0"),
        // Without these a file of a few bytes would keep the program busy for ever, or make it overflow.
        (refusal(|c| c.layers_per_block = usize::MAX), "layers_per_block = 18446744073709551615"),
        (refusal(|c| c.block_out_channels[1] = 1 << 62), "block_out_channels = [8, 4611686018427387904, 20]"),
        (
            refusal(|c| (c.block_out_channels, c.norm_num_groups) = (vec![9; 3], Some(3))),
            "block_out_channels = [9, 9, 9]",
        ),
    ] {
        assert!(message.contains(part), "`{message}` lacks `{part}`");
    }
}

type Tensors = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

fn little_endian(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// A native file of the tiny network after `change`.
fn native(change: impl FnOnce(&mut HashMap<String, String>, &mut Tensors)) -> Vec<u8> {
    let network = tiny_config().network().unwrap();
    let weights = tiny_weights(&network);
    let tensor = |p: &&tweedie_kernels::network::Parameter| {
        (p.name.clone(), (Dtype::F32, p.shape.clone(), little_endian(&weights[&p.name])))
    };
    let mut tensors: Tensors = network.parameters().iter().map(tensor).collect();
    let config = serde_json::json!({
        "block_out_channels": [8, 12, 20], "layers_per_block": 1, "norm_num_groups": 4, "add_attention": false,
        "down_block_types": ["DownBlock2D", "DownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "UpBlock2D", "UpBlock2D"],
    });
    let mut metadata: HashMap<String, String> = [
        ("format", "tweedie"),
        ("version", "1"),
        ("name", "tiny"),
        ("architecture", "UNet2DModel"),
        ("config", &config.to_string()),
        ("parameterization", r#"{"edm":{"sigma_data":0.5}}"#),
        ("sigma_min", "0.002"),
        ("sigma_max", "80"),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into();
    change(&mut metadata, &mut tensors);
    let views = tensors
        .iter()
        .map(|(name, (dtype, shape, bytes))| (name.as_str(), TensorView::new(*dtype, shape.clone(), bytes).unwrap()));
    safetensors::serialize(views, Some(metadata)).unwrap()
}

#[track_caller]
fn refusal(bytes: Vec<u8>) -> String {
    let message = Checkpoint::from_native(bytes, "tiny").unwrap_err().to_string();
    message.strip_prefix("model tiny: ").unwrap_or_else(|| panic!("`{message}` does not name the model")).to_owned()
}

/// A file that holds this header and `data` zeros.
fn with_header(header: &[u8], data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header);
    bytes.resize(bytes.len() + data, 0);
    bytes
}

#[test]
fn a_whole_file_of_the_tiny_network_is_read() {
    let checkpoint = Checkpoint::from_native(native(|_, _| ()), "tiny").unwrap();
    assert_eq!((checkpoint.name.as_str(), checkpoint.sigma_range), ("tiny", (0.002, 80.0)));
    let network = tiny_config().network().unwrap();
    let expected = tiny_weights(&network);
    assert_eq!(checkpoint.parameter("conv_in.weight"), Some(expected["conv_in.weight"].clone()));
    assert_eq!(checkpoint.parameter("conv_in"), None);
}

// Items 40 to 43 of the list of faults.
#[test]
fn files_cut_short_or_with_an_impossible_header_are_refused_without_reading_on() {
    let whole = native(|_, _| ());
    for length in [0, 7, 8, 100, whole.len() - 1] {
        let message = refusal(whole[..length].to_vec());
        assert!(message.starts_with("is not a whole safetensors file ("), "{length} bytes: {message}");
        assert!(message.ends_with("); fetch or convert it again"), "{length} bytes: {message}");
    }
    let with_length = |length: u64| [&length.to_le_bytes()[..], &whole[8..]].concat();
    for (length, part) in [
        (1 << 63, "a header of 9223372036854775808 bytes, at most 33554432 are read"),
        (u64::MAX, "a header of 18446744073709551615 bytes, at most 33554432 are read"),
        (100_000_001, "a header of 100000001 bytes, at most 33554432 are read"),
        (whole.len() as u64, "bytes in a file of"),
    ] {
        let message = refusal(with_length(length));
        assert!(message.contains(part), "a header of {length} bytes: {message}");
    }
    let tensor = |name: &str, shape: &str, from: u64, to: u64| {
        format!(r#""{name}":{{"dtype":"F32","shape":{shape},"data_offsets":[{from},{to}]}}"#)
    };
    for (what, header) in [
        ("not JSON", "{]".to_owned()),
        ("overlapping tensors", format!("{{{},{}}}", tensor("a", "[2]", 0, 8), tensor("b", "[1]", 4, 8))),
        ("a hole", format!("{{{},{}}}", tensor("a", "[1]", 0, 4), tensor("b", "[1]", 8, 12))),
        ("a shape that overflows", format!("{{{}}}", tensor("a", "[4294967296,4294967296,2]", 0, 8))),
        ("offsets that fall", format!("{{{}}}", tensor("a", "[1]", 8, 4))),
        ("offsets beyond the file", format!("{{{}}}", tensor("a", "[4000000000]", 0, 16_000_000_000))),
    ] {
        let message = refusal(with_header(header.as_bytes(), 8));
        assert!(message.starts_with("is not a whole safetensors file ("), "{what}: {message}");
    }
    let message = refusal(with_header(b"{\"a\xff\":1}", 0));
    assert!(message.starts_with("is not a whole safetensors file (a header that is not UTF-8)"), "{message}");
}

// Items 44 to 47.
#[test]
fn tensors_that_do_not_fit_the_network_are_refused_by_name() {
    let lacking = refusal(native(|_, tensors| {
        tensors.remove("mid_block.resnets.1.norm2.bias");
        tensors.remove("conv_out.bias");
    }));
    assert_eq!(lacking, "lacks 2 tensors: conv_out.bias, mid_block.resnets.1.norm2.bias");
    let empty = refusal(native(|_, tensors| tensors.clear()));
    let all = tiny_config().network().unwrap().parameters().len();
    assert!(empty.starts_with(&format!("lacks {all} tensors: conv_in.bias, ")), "{empty}");
    assert!(empty.ends_with(&format!(" and {} more", all - 10)), "{empty}");
    let extra = refusal(native(|_, tensors| {
        tensors.insert("mid_block.attentions.0.to_q.bias".into(), (Dtype::F32, vec![1], vec![0; 4]));
    }));
    assert_eq!(extra, "has 1 tensors its network does not use: mid_block.attentions.0.to_q.bias");
    let shape = refusal(native(|_, tensors| tensors.get_mut("conv_in.weight").unwrap().1 = vec![3, 8, 3, 3]));
    assert_eq!(shape, "tensor conv_in.weight: expected shape [8, 3, 3, 3], got [3, 8, 3, 3]");
    let integers = refusal(native(|_, tensors| tensors.get_mut("conv_out.bias").unwrap().0 = Dtype::I32));
    assert_eq!(integers, "tensor conv_out.bias: expected type F32, F16 or BF16, got I32");
    for (value, text) in [(f32::NAN, "NaN"), (f32::INFINITY, "inf")] {
        let message = refusal(native(|_, tensors| {
            tensors.get_mut("conv_out.bias").unwrap().2[4..8].copy_from_slice(&value.to_le_bytes());
        }));
        assert_eq!(message, format!("tensor conv_out.bias holds {text}, expected finite numbers"));
    }
}

// Item 48.
#[test]
fn pickles_are_refused_by_their_content_and_by_their_name() {
    let expected = |from: &str, to: &str| {
        format!(
            "is a pickle, which can run code, and is not loaded; `tweedie models convert {from} {to}` reads it without \
             executing anything and writes a safetensors file"
        )
    };
    let named = expected("tiny", "tiny.safetensors");
    assert_eq!(refusal(b"PK\x03\x04\x00\x00archive/data.pkl".to_vec()), named);
    assert_eq!(refusal(b"\x80\x02}q\x00.".to_vec()), named);
    let folder = tempfile::tempdir().unwrap();
    for name in ["model.pt", "model.pth", "model.ckpt", "model.bin", "model.pkl"] {
        let path = folder.path().join(name);
        std::fs::write(&path, b"anything").unwrap();
        let message = Checkpoint::open(&path).unwrap_err().to_string();
        let expected = expected(&path.to_string_lossy(), "model.safetensors");
        assert_eq!(message, format!("model {}: {expected}", path.display()));
    }
}

#[test]
fn a_folder_whose_weights_are_a_pickle_is_refused_and_one_without_a_scheduler_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let config = r#"{"_class_name": "UNet2DModel", "block_out_channels": [8], "norm_num_groups": 4, "add_attention": false,
        "layers_per_block": 1, "down_block_types": ["DownBlock2D"], "up_block_types": ["UpBlock2D"]}"#;
    std::fs::write(path.join("config.json"), config).unwrap();
    let message = || Checkpoint::open(path).unwrap_err().to_string();
    let named = |reason: &str| format!("model {}: {reason}", path.display());
    let empty = tempfile::tempdir().unwrap();
    let config_path = empty.path().join("config.json");
    let missing = Checkpoint::open(empty.path()).unwrap_err();
    assert!(matches!(missing, tweedie::Error::Model { .. }), "{missing:?}");
    assert_eq!(missing.to_string(), format!("model {}: no such file", config_path.display()));
    assert_eq!(message(), named("has no scheduler_config.json, which says how the network was trained"));
    std::fs::write(path.join("scheduler_config.json"), r#"{"_class_name": "EDMEulerScheduler"}"#).unwrap();
    std::fs::write(path.join("diffusion_pytorch_model.bin"), b"PK").unwrap();
    let refused = message();
    let command = format!("`tweedie models convert {} ", path.display());
    assert!(refused.starts_with(&named("is a pickle, which can run code")) && refused.contains(&command), "{refused}");
}

// Item 49.
#[test]
fn metadata_of_another_format_version_or_architecture_is_refused() {
    let changed =
        |key: &str, value: &str| refusal(native(|metadata, _| drop(metadata.insert(key.into(), value.into()))));
    assert_eq!(changed("version", "2"), "has format `tweedie` version `2`, expected format `tweedie` version `1`");
    assert_eq!(changed("format", "pt"), "has format `pt` version `1`, expected format `tweedie` version `1`");
    let known: Vec<&str> = FAMILIES.iter().map(|family| family.name).collect();
    let message = format!("has the architecture `NCSNpp`; known: {}", known.join(", "));
    assert_eq!(changed("architecture", "NCSNpp"), message);
    assert_eq!(changed("sigma_max", "large"), "has `sigma_max` = `large`, expected a number");
    for (key, value, got) in
        [("sigma_min", "0", "0 to 80"), ("sigma_max", "-1", "0.002 to -1"), ("sigma_max", "nan", "0.002 to NaN")]
    {
        let message = changed(key, value);
        assert_eq!(message, format!("has noise levels from {got}, expected 0 < sigma_min < sigma_max"));
    }
    let message = changed("parameterization", r#"{"edm":{"sigma_data":0.0}}"#);
    assert_eq!(message, "has sigma_data = 0, expected a finite number above 0");
    let message = changed("parameterization", r#"{"vp":{}}"#);
    assert!(
        message.starts_with(r#"has parameterization `{"vp":{}}`: unknown variant `vp`, expected one of `edm`"#),
        "{message}"
    );
    let message = changed("config", r#"{"layers_per_block": -1}"#);
    assert!(message.starts_with("config: invalid value: integer `-1`"), "{message}");
    let message = refusal(native(|metadata, _| drop(metadata.remove("version"))));
    let advice = "is it a native tweedie file? a diffusers checkpoint is loaded by its folder, others once `tweedie models \
                  convert` has made a native file of them";
    assert_eq!(message, format!("has no `version` in its metadata; {advice}"));
}

#[test]
fn a_model_that_is_not_there_is_named_with_what_there_is() {
    let message = Model::open("nowhere.safetensors", &in_f32()).unwrap_err().to_string();
    let known = "embedded, gaussian:mean=M,std=S, mixture:FILE, a .safetensors file, a diffusers folder, a name of \
                 `tweedie models list`, owner/repo of the hub";
    assert_eq!(message, format!("model nowhere.safetensors: there is no such model; known: {known}"));
}

#[test]
fn the_native_file_survives_being_written_again() {
    let path = Path::new(FIRST);
    let read = Checkpoint::open(path).unwrap();
    assert_eq!(read.network.parameters().iter().map(|p| p.elements()).sum::<usize>(), 4_948_067);
    let written = |additions: &[(&str, &str)]| {
        let mut bytes = Vec::new();
        read.write(additions, None, (&mut bytes, path)).unwrap();
        bytes
    };
    let bytes = written(&[]);
    assert!(bytes == written(&[]), "the same model twice is not the same bytes");
    let again = Checkpoint::from_native(bytes, "again").unwrap();
    assert_eq!(again.metadata, read.metadata);
    assert_eq!(again.dtype, Dtype::BF16);
    for parameter in read.network.parameters() {
        assert!(read.parameter(&parameter.name).is_some(), "{}", parameter.name);
        assert_eq!(again.parameter(&parameter.name), read.parameter(&parameter.name), "{}", parameter.name);
    }
    let named = Checkpoint::from_native(written(&[("name", "other")]), "again").unwrap();
    assert_eq!(named.name, "other");
}
