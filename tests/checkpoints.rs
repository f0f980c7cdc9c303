//! Files of tensors: genuine ones of every program, hostile ones of every kind, and what reading them costs.

// Hostile files.
mod attacks;
// How much memory is taken.
mod memory;
// Bytes of files.
mod writer;

use crate::harness::Folder;
use crate::models::{data, in_f32, relative_error, scattered_image};
use candle_core::Device;
use safetensors::tensor::{Dtype, SafeTensors};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::PathBuf;
use tweedie::checkpoints::{Container, TensorFile, from_yaml};
use tweedie::models::{Checkpoint, Import, Model};
use writer::{Packed, Pickle, archive, stream, zip, zip_in_64_bits};

fn golden(name: &str) -> PathBuf {
    data("goldens").join(name)
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A tensor of another reader: type, shape, bytes.
type Reference = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

/// The tensors of a safetensors file by the format's own crate.
fn reference(name: &str) -> Reference {
    let bytes = std::fs::read(golden(name)).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let entry = |(name, view): (&str, _)| {
        let view: safetensors::tensor::TensorView<'_> = view;
        (name.to_owned(), (view.dtype(), view.shape().to_vec(), view.data().to_vec()))
    };
    tensors.iter().map(entry).collect()
}

#[track_caller]
fn assert_same(file: &TensorFile, expected: &Reference) {
    let index: BTreeMap<_, _> =
        expected.iter().map(|(n, (dtype, shape, _))| (n.clone(), (*dtype, shape.clone()))).collect();
    assert_eq!(file.index(), index);
    for (name, (_, _, bytes)) in expected {
        assert!(file.raw(name).unwrap() == *bytes, "{name} has other bits");
    }
}

// The files are those of the reference programs, the expected numbers those of a safetensors file that PyTorch wrote beside
// each: the averaged weights where there are any.
#[test]
fn every_tensor_of_genuine_checkpoints_is_read_bit_for_bit() {
    for (folder, file, container, found) in [
        ("score-sde-tiny/ve-ncsnpp-residual", "checkpoint_7.pth", Container::Archive, "`ema.shadow_params`, averaged"),
        ("ncsnv2-tiny/ncsnv2-cifar10", "checkpoint_12345.pth", Container::Stream, "`[4]`, averaged"),
        ("ncsn-tiny/ncsn-cifar10", "checkpoint.pth", Container::Stream, "`[0]`"),
        ("edm-tiny/edm-ddpmpp", "network-snapshot-layout.pkl", Container::Pickle, "`ema`, a module EDMPrecond"),
        ("drunet-tiny/color", "drunet.pth", Container::Archive, "its dictionary of tensors"),
    ] {
        let read = TensorFile::open(&golden(folder).join(file)).unwrap();
        assert_eq!((read.container, read.found.as_str()), (container, found), "{folder}");
        assert_same(&read, &reference(&format!("{folder}/weights.safetensors")));
        read.check_sums().unwrap();
    }
}

#[test]
fn the_inner_network_of_edm_has_the_same_tensors_without_their_prefix() {
    let read = TensorFile::open(&golden("edm-tiny/edm-ncsnpp/inner-state-dict.pt")).unwrap();
    let outer = reference("edm-tiny/edm-ncsnpp/weights.safetensors");
    let inner = outer.into_iter().map(|(name, tensor)| (name.strip_prefix("model.").unwrap().to_owned(), tensor));
    assert_same(&read, &inner.collect());
}

#[test]
fn files_of_diffusers_with_the_old_names_have_the_same_tensors() {
    let path = "diffusers-tiny/ddpm-google/old-key-names/diffusion_pytorch_model.bin";
    let read = TensorFile::open(&golden(path)).unwrap();
    let old = |name: String| {
        let name = name.replace(".to_out.0.", ".proj_attn.");
        name.replace(".to_q.", ".query.").replace(".to_k.", ".key.").replace(".to_v.", ".value.")
    };
    let new = reference("../diffusers/ddpm-google/diffusion_pytorch_model.safetensors");
    assert_same(&read, &new.into_iter().map(|(name, tensor)| (old(name), tensor)).collect());
}

// `model.sha256.json`: type, shape and SHA-256 of the bytes of every tensor, by PyTorch 2.15's `torch.load`.
#[test]
fn a_state_dictionary_of_guided_diffusion_has_the_digests_that_pytorch_computes() {
    let folder = golden("guided-diffusion-conv-tiny/conv-resample");
    let read = TensorFile::open(&folder.join("model.pt")).unwrap();
    let text = std::fs::read_to_string(folder.join("model.sha256.json")).unwrap();
    let expected: BTreeMap<String, (String, Vec<usize>, String)> = serde_json::from_str(&text).unwrap();
    let index = read.index();
    assert_eq!(index.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (name, (dtype, shape, sum)) in expected {
        assert_eq!((dtype.as_str(), &shape), ("float32", &index[&name].1), "{name}");
        assert_eq!(digest(&read.raw(&name).unwrap()), sum, "{name}");
    }
}

// The digests are those of the weights that are not averaged, by PyTorch's `torch.load`: what must not be read.
#[test]
fn averaged_weights_are_taken_where_a_file_has_both() {
    for (path, name, raw, averaged) in [
        (
            "score-sde-tiny/ve-ncsnpp-residual/checkpoint_7.pth",
            "all_modules.1.weight",
            "d71060557772a48e0d0fa06485e56c82d1837ec00b370e811f89d9d5576f18b7",
            "8e56cde127fd4214b7f004e4e05f216adcb9f390a5ba28ad6cb278f91c040586",
        ),
        (
            "ncsnv2-tiny/ncsnv2-cifar10/checkpoint_12345.pth",
            "begin_conv.weight",
            "86b503cca4edc7cae4cac456c5c5d420261172415c1e02095638edc79aded0b9",
            "67815ef47b01c5a8b5cbad25d90da6f2e9f4ab07641ed2dbd5ee84eff08496a4",
        ),
    ] {
        let sum = digest(&TensorFile::open(&golden(path)).unwrap().raw(name).unwrap());
        assert_ne!(sum, raw, "{name} of {path} is not averaged");
        assert_eq!(sum, averaged, "{name} of {path}");
    }
}

#[test]
fn the_configuration_of_a_pickled_module_is_that_of_its_constructor() {
    let folder = golden("edm-tiny/edm-ddpmpp");
    let read = TensorFile::open(&folder.join("network-snapshot-layout.pkl")).unwrap();
    let expected: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(folder.join("config.json")).unwrap()).unwrap();
    let configuration = read.configuration.unwrap();
    assert_eq!(configuration["class_name"], "EDMPrecond");
    assert_eq!(configuration["init_kwargs"], expected["init_kwargs"]);
}

// `config.json` is the same configuration as plain data, written by the reference programs' authors' loader.
#[test]
fn configurations_in_yaml_are_those_in_json() {
    for folder in ["ncsnv2-tiny/ncsnv2-cifar10", "ncsn-tiny/ncsn-cifar10"] {
        let text = |name: &str| std::fs::read_to_string(golden(folder).join(name)).unwrap();
        let mut expected: serde_json::Value = serde_json::from_str(&text("config.json")).unwrap();
        expected.as_object_mut().unwrap().remove("_class");
        assert_eq!(from_yaml(&text("config.yml")).unwrap(), expected, "{folder}");
    }
}

fn bytes_of(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

#[test]
fn archives_and_streams_written_by_hand_are_read() {
    let data = bytes_of(&[1.0, 2.0, 3.0, 4.0]);
    let large = zip_in_64_bits(&[Packed::new("m/data.pkl", &writer::small()), Packed::new("m/data/0", &data)]);
    for file in [archive(&writer::small(), &[("0", &data)]), stream(&writer::small(), &[("0", 4, &data)]), large] {
        let read = TensorFile::from_bytes(file, "small.pt").unwrap();
        assert_eq!(read.index(), BTreeMap::from([("w".to_owned(), (Dtype::F32, vec![2, 2]))]));
        assert_eq!(read.numbers("w").unwrap(), [1.0, 2.0, 3.0, 4.0]);
    }
}

#[test]
fn views_are_gathered_in_the_order_of_their_shape() {
    let values: Vec<f32> = (0..12_u8).map(f32::from).collect();
    let read = |offset: i64, shape: &[i64], strides: &[i64]| {
        let value = Pickle::new().op(b"}").text("w").tensor(("0", 12), offset, shape, strides).op(b"s").stop();
        let file = TensorFile::from_bytes(archive(&value, &[("0", &bytes_of(&values))]), "view.pt").unwrap();
        file.numbers("w").unwrap()
    };
    assert_eq!(read(0, &[4, 3], &[3, 1]), values);
    assert_eq!(read(0, &[3, 4], &[1, 3]), [0.0, 3.0, 6.0, 9.0, 1.0, 4.0, 7.0, 10.0, 2.0, 5.0, 8.0, 11.0]);
    assert_eq!(read(1, &[2, 2, 2], &[6, 1, 3]), [1.0, 4.0, 2.0, 5.0, 7.0, 10.0, 8.0, 11.0]);
    assert_eq!(read(3, &[2], &[4]), [3.0, 7.0]);
    assert_eq!(read(11, &[1, 1], &[99, 7]), [11.0]);
    assert_eq!(read(5, &[], &[]), [5.0]);
    assert_eq!(read(12, &[0, 7], &[7, 1]), [0.0; 0]);
}

#[test]
fn weights_are_found_under_the_names_that_programs_use() {
    let data = bytes_of(&[1.0, 2.0, 3.0, 4.0]);
    let tensor =
        |pickle: Pickle, name: &str, offset| pickle.op(b"}").text(name).tensor(("0", 4), offset, &[2], &[1]).op(b"s");
    let read = |value: Pickle| {
        let file = TensorFile::from_bytes(archive(&value.stop(), &[("0", &data)]), "m.pt").unwrap();
        let name = file.index().into_keys().next().unwrap();
        (file.found.clone(), name.clone(), file.numbers(&name).unwrap())
    };
    let wrapped = |key: &str| tensor(Pickle::new().op(b"}").text(key), "module.w", 0).op(b"s");
    for key in ["state_dict", "model", "params", "net"] {
        assert_eq!(read(wrapped(key)), (format!("`{key}`"), "w".into(), vec![1.0, 2.0]));
    }
    // The average wins, whatever comes first.
    let both = |first: &str, second: &str| {
        let value = tensor(Pickle::new().op(b"}").text(first), "w", 0).op(b"s").text(second);
        tensor(value, "w", 2).op(b"s")
    };
    assert_eq!(read(both("params", "params_ema")), ("`params_ema`".into(), "w".into(), vec![3.0, 4.0]));
    assert_eq!(read(both("ema", "model")), ("`ema`".into(), "w".into(), vec![1.0, 2.0]));
    let nested = tensor(Pickle::new().op(b"}").text("state_dict").op(b"}").text("model"), "w", 2).op(b"ss");
    assert_eq!(read(nested), ("`state_dict.model`".into(), "w".into(), vec![3.0, 4.0]));
}

#[test]
fn averages_that_do_not_fit_the_model_are_refused_by_the_name_of_the_tensor() {
    let data = bytes_of(&[0.0; 4]);
    let refusal = |value: Pickle| {
        let error = TensorFile::from_bytes(archive(&value.stop(), &[("0", &data)]), "m.pt").unwrap_err().to_string();
        error.strip_prefix("model m.pt: ").unwrap().to_owned()
    };
    let model = |pickle: Pickle| {
        let pickle = pickle.op(b"}").text("module.sigmas").tensor(("0", 4), 0, &[4], &[1]).op(b"s");
        let pickle = pickle.text("module.all_modules.0.W").tensor(("0", 4), 0, &[4], &[1]).op(b"s");
        pickle.text("module.all_modules.1.weight").tensor(("0", 4), 0, &[2, 2], &[2, 1]).op(b"s")
    };
    let shadow = |shapes: &[&[i64]]| {
        let mut pickle =
            model(Pickle::new().op(b"}").text("model")).op(b"s").text("ema").op(b"}").text("shadow_params").op(b"](");
        for shape in shapes {
            pickle = pickle.tensor(("0", 4), 0, shape, &vec![1; shape.len()]);
        }
        pickle.op(b"ess")
    };
    assert_eq!(refusal(shadow(&[&[4]])), "tensor all_modules.1.weight: expected an average of shape [2, 2], got [4]");
    assert_eq!(
        refusal(shadow(&[])),
        "tensor all_modules.1.weight: no average of it in `ema.shadow_params`, which has 0"
    );
    assert_eq!(refusal(shadow(&[&[2, 2], &[4]])), "has 1 averages in `ema.shadow_params` that belong to no parameter");
    let listed = |name: &str, shape: &[i64]| {
        let pickle = model(Pickle::new().op(b"](")).op(b"}K\x00K\x00}");
        pickle.text(name).tensor(("0", 4), 0, shape, &vec![1; shape.len()]).op(b"se")
    };
    assert_eq!(
        refusal(listed("all_modules.1.weight", &[3])),
        "tensor all_modules.1.weight: shape [3] among the averaged weights, [2, 2] among the others"
    );
    assert_eq!(
        refusal(listed("all_modules.2.weight", &[4])),
        "tensor all_modules.2.weight is among the averaged weights but not among the others"
    );
}

/// Two files of one tensor each and the index that names them.
fn shards(index: &str) -> Folder {
    let folder = Folder::new();
    let header = |name: &str| format!(r#"{{"{name}":{{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}}}"#);
    folder.write("a.safetensors", writer::safetensors(&header("x"), 4));
    folder.write("b.safetensors", writer::safetensors(&header("y"), 4));
    folder.write("m.safetensors.index.json", index);
    folder
}

#[test]
fn several_files_are_one_checkpoint_if_their_index_is_right() {
    let open = |map: &str| {
        let folder = shards(&format!(r#"{{"metadata": {{"total_size": 8}}, "weight_map": {{{map}}}}}"#));
        TensorFile::open(&folder.path("m.safetensors.index.json")).map_err(|error| {
            let text = error.to_string();
            text.split_once("index.json: ").unwrap_or_else(|| panic!("{text}")).1.to_owned()
        })
    };
    let file = open(r#""x": "a.safetensors", "y": "b.safetensors""#).unwrap();
    assert_eq!(file.container, Container::Sharded);
    assert_eq!(file.index().into_keys().collect::<Vec<_>>(), ["x", "y"]);
    assert_eq!(file.numbers("y").unwrap(), [0.0]);
    for (map, message) in [
        ("", "is an index that names no file"),
        (r#""x": "../a.safetensors""#, r#"names the file "../a.safetensors", expected one in its own folder"#),
        (r#""x": "/etc/passwd""#, r#"names the file "/etc/passwd", expected one in its own folder"#),
        (r#""x": "..""#, r#"names the file "..", expected one in its own folder"#),
        (r#""x": "c.safetensors""#, "c.safetensors: no such file"),
        (r#""y": "a.safetensors""#, "tensor x of a.safetensors is not in the index"),
        (r#""x": "a.safetensors", "y": "a.safetensors""#, "tensor y is not in a.safetensors"),
        (r#""x": "b.safetensors", "y": "b.safetensors""#, "tensor x is not in b.safetensors"),
        (r#""x": "a.safetensors", "y": "b.safetensors", "z": "b.safetensors""#, "tensor z is not in b.safetensors"),
    ] {
        assert_eq!(open(map).unwrap_err(), message, "{map}");
    }
    let twice = open(r#""x": "a.safetensors", "x": "a.safetensors""#).unwrap_err();
    assert!(twice.starts_with("is no index of safetensors files: x twice"), "{twice}");
}

// A header of 640 bytes begins with 0x80 0x02, as a pickle does.
#[test]
fn a_header_whose_length_looks_like_a_pickle_is_a_header() {
    let header = r#"{"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    let file = writer::safetensors(&format!("{header:640}"), 4);
    assert_eq!(file[..2], [0x80, 0x02]);
    assert_eq!(TensorFile::from_bytes(file, "m").unwrap().container, Container::Safetensors);
}

/// `{name: tensor, …}` of a diffusers checkpoint as `torch.save` would write it.
fn saved_by_torch(weights: &Reference) -> Vec<u8> {
    let mut value = Pickle::new().class("collections", "OrderedDict").op(b")R(");
    let mut entries = vec![];
    for (key, (name, (dtype, shape, bytes))) in weights.iter().enumerate() {
        assert_eq!(*dtype, Dtype::F32);
        let shape: Vec<i64> = shape.iter().map(|&size| size as i64).collect();
        let mut strides = vec![1; shape.len()];
        for axis in (1..shape.len()).rev() {
            strides[axis - 1] = strides[axis] * shape[axis];
        }
        value = value.text(name).tensor((&key.to_string(), bytes.len() as i64 / 4), 0, &shape, &strides);
        entries.push(Packed::new(&format!("m/data/{key}"), bytes));
    }
    entries.insert(0, Packed::new("m/data.pkl", &value.op(b"u").stop()));
    zip(&entries)
}

/// A folder with `unet.pt`, and beside it what diffusers says of the network.
fn folder_with_a_pickle() -> Folder {
    let folder = Folder::new();
    let weights = reference("../diffusers/ddpm-google/diffusion_pytorch_model.safetensors");
    folder.write("unet.pt", saved_by_torch(&weights));
    folder.write("config.json", std::fs::read(data("diffusers/ddpm-google/config.json")).unwrap());
    let scheduler = golden("diffusers-tiny/ddpm-google/scheduler_config.json");
    folder.write("scheduler_config.json", std::fs::read(scheduler).unwrap());
    folder
}

/// A genuine checkpoint in a folder of its own with these files, as its users have it.
fn as_downloaded(folder: &str, files: &[&str]) -> Folder {
    let copy = Folder::new();
    for file in files {
        let from = golden(folder).join(file);
        copy.write(from.file_name().unwrap(), std::fs::read(&from).unwrap());
    }
    copy
}

#[test]
fn genuine_checkpoints_are_converted_with_what_lies_beside_them() {
    for (family, folder, files) in [
        ("score_sde", "score-sde-tiny/ve-ncsnpp-residual", &["checkpoint_7.pth", "config.json"][..]),
        ("ncsnv2", "ncsnv2-tiny/ncsnv2-cifar10", &["checkpoint_12345.pth", "config.yml"]),
        ("ncsn", "ncsn-tiny/ncsn-cifar10", &["checkpoint.pth", "config.yml"]),
        ("edm", "edm-tiny/edm-ddpmpp", &["network-snapshot-layout.pkl"]),
        ("edm", "edm-tiny/edm-ncsnpp", &["inner-state-dict.pt", "config.json"]),
        ("adm", "guided-diffusion-conv-tiny/conv-resample", &["model.pt", "config.json"]),
        ("drunet", "drunet-tiny/color", &["drunet.pth"]),
        (
            "UNet2DModel",
            "diffusers-tiny/ddpm-google",
            &["old-key-names/diffusion_pytorch_model.bin", "old-key-names/config.json", "scheduler_config.json"],
        ),
    ] {
        let downloaded = as_downloaded(folder, files);
        let file = PathBuf::from(files[0]).file_name().unwrap().to_string_lossy().into_owned();
        downloaded.succeed(&format!("models convert {file} out.safetensors"));
        let imported = Checkpoint::import(&downloaded.path(&file), &Import::default()).unwrap();
        let native = Checkpoint::open(&downloaded.path("out.safetensors")).unwrap();
        assert_eq!(native.metadata["architecture"], family, "{folder}");
        assert_eq!(native.metadata["source"], file);
        let read = TensorFile::open(&downloaded.path(&file)).unwrap();
        assert_eq!(native.metadata["source_tensors"], read.found);
        let written = TensorFile::open(&downloaded.path("out.safetensors")).unwrap();
        assert_eq!(written.index().keys().collect::<Vec<_>>(), read.index().keys().collect::<Vec<_>>(), "{folder}");
        // What was converted is the same function.
        let models = [imported, native].map(|checkpoint| Model::new(&checkpoint, &in_f32()).unwrap());
        let x = scattered_image((1, 3, 16, 16), 7);
        let (low, high) = models[0].denoiser().sigma_range().into_inner();
        let level = (low * high).sqrt();
        let [a, b] = models.map(|model| {
            let denoised = model.denoiser().denoise(&x, level).unwrap();
            denoised.flatten_all().unwrap().to_vec1::<f32>().unwrap()
        });
        assert!(a.iter().all(|value| value.is_finite()) && a == b, "{folder}");
    }
}

// `io.safetensors`: what EDM's own program (edm 008a4e5, PyTorch 2.15) makes of these weights.
#[test]
fn the_network_in_a_pickle_of_edm_denoises_as_its_authors_program_does() {
    let folder = golden("edm-tiny/edm-ddpmpp");
    let checkpoint = Checkpoint::import(&folder.join("network-snapshot-layout.pkl"), &Import::default()).unwrap();
    let model = Model::new(&checkpoint, &in_f32()).unwrap();
    let stored = candle_core::safetensors::load(folder.join("io.safetensors"), &Device::Cpu).unwrap();
    for (b, level) in stored["sigma"].to_vec1::<f32>().unwrap().into_iter().enumerate() {
        let entry = |name: &str| stored[name].narrow(0, b, 1).unwrap();
        let denoised = model.denoiser().denoise(&entry("x"), level.into()).unwrap();
        let error = relative_error(&denoised, &entry("denoised"));
        assert!(error <= 1e-5, "entry {b} differs by {error:e}");
    }
}

// Item 48 of the list of faults.
#[test]
fn a_pickle_is_refused_for_restoration_with_the_command_that_converts_it() {
    let folder = folder_with_a_pickle();
    let command = "`tweedie models convert unet.pt unet.safetensors` reads it without executing anything and writes a \
                   safetensors file";
    let ran = folder.tweedie("models inspect unet.pt");
    assert_eq!(ran.code, 2);
    let expected = format!("model unet.pt: is a pickle, which can run code, and is not loaded; {command}");
    assert!(ran.stderr.contains(&expected), "{}", ran.stderr);
    // By its content, too, where its name says nothing.
    std::fs::rename(folder.path("unet.pt"), folder.path("a b")).unwrap();
    let ran = folder.run(&["models", "inspect", "a b"]);
    assert_eq!(ran.code, 2);
    assert!(ran.stderr.contains("`tweedie models convert 'a b' 'a b.safetensors'`"), "{}", ran.stderr);
}

#[test]
fn a_converted_pickle_is_the_same_model_as_the_folder() {
    let folder = folder_with_a_pickle();
    folder.succeed("models convert unet.pt unet.safetensors --metadata licence=MIT");
    let native = Checkpoint::open(&folder.path("unet.safetensors")).unwrap();
    assert_eq!((native.name.as_str(), native.dtype), ("unet", Dtype::F32));
    assert_eq!(native.metadata["licence"], "MIT");
    assert_eq!(native.metadata["source"], "unet.pt");
    assert_eq!(native.metadata["source_sha256"], digest(&folder.bytes("unet.pt")));
    let expected = reference("../diffusers/ddpm-google/diffusion_pytorch_model.safetensors");
    assert_same(&TensorFile::open(&folder.path("unet.safetensors")).unwrap(), &expected);
    for parameter in native.network.parameters() {
        let values = native.parameter(&parameter.name).unwrap();
        assert!(bytes_of(&values) == expected[&parameter.name].2, "{}", parameter.name);
    }
    // The same model is the same bytes; a native file is converted to itself, but for what is asked for.
    folder.succeed("models convert unet.pt again.safetensors --metadata licence=MIT");
    assert!(folder.bytes("again.safetensors") == folder.bytes("unet.safetensors"));
    folder.succeed("models convert unet.safetensors copy.safetensors");
    assert!(folder.bytes("copy.safetensors") == folder.bytes("unet.safetensors"));
    folder.succeed("models convert unet.safetensors other.safetensors --name other");
    assert_eq!(Checkpoint::open(&folder.path("other.safetensors")).unwrap().name, "other");
    // Before anything is read: this is no checkpoint.
    folder.write("junk.pt", "junk");
    let ran = folder.tweedie("models convert junk.pt unet.safetensors");
    assert_eq!(ran.code, 2, "{}", ran.stderr);
    assert!(ran.stderr.contains("unet.safetensors exists; --force replaces it"), "{}", ran.stderr);
    let ran = folder.tweedie("models convert junk.pt unet.bin");
    assert_eq!(ran.code, 2, "{}", ran.stderr);
    assert!(ran.stderr.contains("unet.bin: the file to write has to end in .safetensors"), "{}", ran.stderr);
}

#[test]
fn numbers_are_rounded_on_request_and_refused_where_they_do_not_fit() {
    let folder = folder_with_a_pickle();
    for (flag, dtype, error) in [("bf16", Dtype::BF16, 1.0 / 256.0), ("f16", Dtype::F16, 1.0 / 2048.0)] {
        folder.succeed(&format!("models convert unet.pt {flag}.safetensors --dtype {flag}"));
        let rounded = TensorFile::open(&folder.path(format!("{flag}.safetensors"))).unwrap();
        let expected = reference("../diffusers/ddpm-google/diffusion_pytorch_model.safetensors");
        let mut changed = 0;
        for (name, (_, shape, bytes)) in expected {
            assert_eq!(rounded.index()[&name], (dtype, shape));
            let exact: Vec<f32> = bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
            for (a, b) in rounded.numbers(&name).unwrap().into_iter().zip(exact) {
                // Half precision has no exponents below 2⁻¹⁴.
                assert!((a - b).abs() <= b.abs() * error + 3e-8, "{name}: {b} became {a}");
                changed += usize::from(a != b);
            }
        }
        assert!(changed > 1000, "{changed} numbers were rounded to {flag}");
    }
    let ran = folder.tweedie("models convert unet.pt x.safetensors --dtype f8");
    assert_eq!(ran.code, 2, "{}", ran.stderr);
    assert!(ran.stderr.contains("expected f32, f16 or bf16"), "{}", ran.stderr);
    // One number that half precision cannot hold.
    let mut weights = reference("../diffusers/ddpm-google/diffusion_pytorch_model.safetensors");
    weights.get_mut("conv_out.bias").unwrap().2[..4].copy_from_slice(&1e6_f32.to_le_bytes());
    folder.write("unet.pt", saved_by_torch(&weights));
    let ran = folder.tweedie("models convert unet.pt x.safetensors --dtype f16");
    assert_eq!(ran.code, 4, "{}", ran.stderr);
    assert!(
        ran.stderr.contains("model unet.pt: tensor conv_out.bias holds 1000000, more than F16 can"),
        "{}",
        ran.stderr
    );
    assert!(!folder.names().iter().any(|name| name.contains("x.safetensors") || name.contains(".part")));
}

// Items 40 and 44 to 47, for a pickle.
#[test]
fn a_pickle_that_does_not_fit_its_configuration_is_not_converted() {
    let whole = reference("../diffusers/ddpm-google/diffusion_pytorch_model.safetensors");
    let folder = folder_with_a_pickle();
    let refusal = |weights: &Reference| {
        folder.write("unet.pt", saved_by_torch(weights));
        let ran = folder.tweedie("models convert unet.pt x.safetensors");
        assert_eq!(ran.code, 4, "{}", ran.stderr);
        assert!(!folder.path("x.safetensors").exists());
        ran.stderr
    };
    let changed = |change: fn(&mut Reference)| {
        let mut weights = whole.clone();
        change(&mut weights);
        refusal(&weights)
    };
    for (message, part) in [
        (changed(|w| drop(w.remove("conv_in.bias"))), "lacks 1 tensors: conv_in.bias"),
        (
            changed(|w| drop(w.insert("more".into(), w["conv_in.bias"].clone()))),
            "has 1 tensors its network does not use: more",
        ),
        (
            changed(|w| w.get_mut("conv_in.weight").unwrap().1 = vec![3, 8, 3, 3]),
            "tensor conv_in.weight: expected shape [8, 3, 3, 3], got [3, 8, 3, 3]",
        ),
        (
            changed(|w| w.get_mut("conv_out.bias").unwrap().2[4..8].copy_from_slice(&f32::NAN.to_le_bytes())),
            "tensor conv_out.bias holds NaN, expected finite numbers",
        ),
    ] {
        assert!(message.contains(part), "`{message}` lacks `{part}`");
    }
    // One bit of one number, which only the archive's sum can tell.
    let mut file = saved_by_torch(&whole);
    let at = file.windows(4).position(|bytes| bytes == &whole["conv_in.bias"].2[..4]).unwrap();
    file[at] ^= 1;
    folder.write("unet.pt", &file);
    let ran = folder.tweedie("models convert unet.pt x.safetensors");
    assert_eq!(ran.code, 4, "{}", ran.stderr);
    assert!(ran.stderr.contains("model unet.pt: is damaged: m/data/"), "{}", ran.stderr);
}

#[test]
fn what_is_missing_for_a_conversion_is_named() {
    let folder = Folder::new();
    let data = bytes_of(&[1.0, 2.0, 3.0, 4.0]);
    folder.write("w.pt", archive(&writer::small(), &[("0", &data)]));
    let unknown = folder.tweedie("models convert w.pt x.safetensors");
    assert_eq!(unknown.code, 4);
    let part = "holds 1 tensors (w, …), found as its dictionary of tensors, whose family is not recognised; name one with \
                --family, known: ";
    assert!(unknown.stderr.contains(part), "{}", unknown.stderr);
    let ran = folder.tweedie("models convert w.pt x.safetensors --family Transformer");
    assert_eq!(ran.code, 2);
    assert!(ran.stderr.contains("unknown family `Transformer`; known: "), "{}", ran.stderr);
    let alone = as_downloaded("score-sde-tiny/ve-ncsnpp-residual", &["checkpoint_7.pth"]);
    let ran = alone.tweedie("models convert checkpoint_7.pth x.safetensors");
    assert_eq!(ran.code, 4);
    assert!(ran.stderr.contains("model checkpoint_7.pth: score_sde: "), "{}", ran.stderr);
    assert!(ran.stderr.contains("; no configuration is beside it, name one with --config"), "{}", ran.stderr);
    let config = golden("score-sde-tiny/ve-ncsnpp-residual/config.json");
    alone.write("elsewhere.json", std::fs::read(config).unwrap());
    alone.succeed("models convert checkpoint_7.pth x.safetensors --config elsewhere.json");
    folder.write("bad.yml", "a: &b 1");
    let ran = folder.tweedie("models convert w.pt x.safetensors --family UNet2DModel --config bad.yml");
    let part = "model bad.yml: is no configuration that is understood: line 1: not understood: a: &b 1";
    assert!(ran.stderr.contains(part), "{}", ran.stderr);
    let import = Import { config: Some(folder.path("none.json")), ..Import::default() };
    let missing = Checkpoint::import(&folder.path("w.pt"), &import).unwrap_err().to_string();
    assert!(missing.ends_with("none.json: no such file"), "{missing}");
    for (line, name) in [("nowhere.pt x.safetensors", "nowhere.pt"), ("w.pt x.safetensors --config none", "none")] {
        let ran = folder.tweedie(&format!("models convert {line}"));
        assert_eq!((ran.code, ran.stderr), (2, format!("error: {name}: no such file\n")));
    }
    folder.write("long.json", " ".repeat((1 << 20) + 1));
    let ran = folder.tweedie("models convert w.pt x.safetensors --family UNet2DModel --config long.json");
    let part = "model long.json: is no configuration: 1048577 bytes, at most 1048576 are read";
    assert!(ran.code == 4 && ran.stderr.contains(part), "{}", ran.stderr);
    let ran = folder.tweedie("models convert w.pt x.safetensors --family UNet2DModel --config .");
    assert!(ran.code == 4 && ran.stderr.contains("model .: is not a regular file"), "{}", ran.stderr);
}
