//! The memory that reading takes, measured in a process of its own.

use super::writer::{Packed, Pickle, safetensors, stream, zip};
use safetensors::tensor::Dtype;
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::Path;
use std::process::Command;
use tweedie::checkpoints::TensorFile;

const FOLDER: &str = "TWEEDIE_TEST_FOLDER";
const REPORT: &str = "report.txt";

/// Largest resident memory of this process so far, bytes; 0 where the system does not count it.
pub(super) fn largest() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kibibytes = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kibibytes.map_or(0, |kibibytes| kibibytes * 1024)
}

/// Runs the ignored test `name` of a module of this program on `folder` in a process of its own: what it reports.
pub(super) fn alone(module: &str, name: &str, folder: &Path) -> String {
    let (_, module) = module.split_once("::").unwrap();
    let report = tempfile::tempdir().unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", &format!("{module}::{name}"), "--ignored", "--test-threads", "1"]);
    command.env(FOLDER, folder).env("TWEEDIE_TEST_REPORT", report.path());
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    std::fs::read_to_string(report.path().join(REPORT)).unwrap()
}

/// Writes what `measure` says of the folder that [`alone`] named; nothing if it was not asked.
pub(super) fn report(measure: impl FnOnce(&Path) -> String) {
    let (Some(folder), Some(report)) = (std::env::var_os(FOLDER), std::env::var_os("TWEEDIE_TEST_REPORT")) else {
        return;
    };
    std::fs::write(Path::new(&report).join(REPORT), measure(Path::new(&folder))).unwrap();
}

const TENSORS: usize = 10;
const ELEMENTS: usize = 5_000_000;
const BYTES: u64 = (TENSORS * ELEMENTS * 4) as u64;

/// A safetensors file of these tensors, zeros.
fn write_shard(path: &Path, tensors: Range<usize>) {
    let first = tensors.start;
    let entry = |index: usize| {
        let (from, to) = ((index - first) * ELEMENTS * 4, (index - first + 1) * ELEMENTS * 4);
        format!(r#""{index}":{{"dtype":"F32","shape":[{ELEMENTS}],"data_offsets":[{from},{to}]}}"#)
    };
    let numbers = (tensors.len() * ELEMENTS * 4) as u64;
    let entries: Vec<String> = tensors.map(entry).collect();
    let header = safetensors(&format!("{{{}}}", entries.join(",")), 0);
    let mut file = File::create(path).unwrap();
    file.write_all(&header).unwrap();
    file.set_len(header.len() as u64 + numbers).unwrap();
}

/// A safetensors file of ten tensors, 200 MB of zeros.
fn write_safetensors(path: &Path) {
    write_shard(path, 0..TENSORS);
}

/// The same in two files with an index.
fn write_shards(path: &Path) {
    let names = ["a-00001-of-00002.safetensors", "a-00002-of-00002.safetensors"];
    let middle = TENSORS / 2;
    for (name, tensors) in names.iter().zip([0..middle, middle..TENSORS]) {
        write_shard(&path.with_file_name(name), tensors);
    }
    let map = (0..TENSORS).map(|index| format!(r#""{index}":"{}""#, names[usize::from(index >= middle)]));
    let map: Vec<String> = map.collect();
    let text = format!(r#"{{"metadata":{{"total_size":{BYTES}}},"weight_map":{{{}}}}}"#, map.join(","));
    std::fs::write(path, text).unwrap();
}

/// A dictionary of views of one storage, `0`.
fn views() -> Vec<u8> {
    let mut value = Pickle::new().op(b"}");
    let all = (TENSORS * ELEMENTS) as i64;
    for index in 0..TENSORS {
        let offset = (index * ELEMENTS) as i64;
        value = value.text(&index.to_string()).tensor(("0", all), offset, &[ELEMENTS as i64], &[1]).op(b"s");
    }
    value.stop()
}

/// The same as PyTorch wrote it before 1.6, with one storage.
fn write_stream(path: &Path) {
    let front = stream(&views(), &[("0", (TENSORS * ELEMENTS) as u64, b"")]);
    let mut file = File::create(path).unwrap();
    file.write_all(&front).unwrap();
    file.set_len(front.len() as u64 + BYTES).unwrap();
}

/// The same as PyTorch would write it, with one storage.
fn write_archive(path: &Path) {
    let mut sum = crc32fast::Hasher::new();
    for _ in 0..TENSORS {
        sum.update(&vec![0; ELEMENTS * 4]);
    }
    let storage = Packed { size: BYTES as u32, sum: sum.finalize(), ..Packed::new("m/data/0", b"") };
    // The headers say 200 MB, which are put between the last entry and the directory.
    let whole = zip(&[Packed::new("m/data.pkl", &views()), storage]);
    let directory = whole.windows(4).position(|bytes| bytes == b"PK\x01\x02").unwrap();
    let (front, mut back) = (&whole[..directory], whole[directory..].to_vec());
    let at = back.len() - 6;
    back[at..at + 4].copy_from_slice(&((directory as u64 + BYTES) as u32).to_le_bytes());
    let mut file = File::create(path).unwrap();
    file.write_all(front).unwrap();
    file.seek(SeekFrom::Current(BYTES as i64)).unwrap();
    file.write_all(&back).unwrap();
}

/// What writes a file.
type Writer = fn(&Path);

/// Names, and what writes such a file.
const CONTAINERS: [(&str, Writer); 4] = [
    ("a.safetensors", write_safetensors),
    ("a.safetensors.index.json", write_shards),
    ("a.pt", write_archive),
    ("a.pth", write_stream),
];

// Reading a checkpoint takes its numbers and a fifth more.
#[test]
fn numbers_are_in_memory_once() {
    if largest() == 0 {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for (name, write) in CONTAINERS {
        write(&folder.path().join(name));
        let memory: u64 =
            alone(module_path!(), "all_numbers_of_a_file_alone", &folder.path().join(name)).parse().unwrap();
        println!("{name}: {memory} bytes for {BYTES}");
        assert!(memory as f64 <= 1.2 * BYTES as f64, "{name}: {memory} bytes for {BYTES}");
        assert!(memory >= BYTES, "{name}: {memory} bytes cannot be all numbers");
    }
}

// To write a checkpoint anew takes next to nothing.
#[test]
fn conversions_hold_no_tensor_as_a_whole() {
    if largest() == 0 {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for (name, write) in CONTAINERS {
        let path = folder.path().join(name);
        write(&path);
        let memory: u64 = alone(module_path!(), "a_file_written_anew_alone", &path).parse().unwrap();
        println!("{name}: {memory} bytes to write {BYTES} anew");
        assert!(memory < BYTES / 4, "{name}: {memory} bytes for {BYTES}");
    }
}

/// What the first test above runs: all numbers at once, as a network takes them.
#[test]
#[ignore = "run by another test in a process of its own"]
fn all_numbers_of_a_file_alone() {
    report(|path| {
        let file = TensorFile::open(path).unwrap();
        file.check_sums().unwrap();
        let numbers: Vec<Vec<f32>> = file.index().keys().map(|name| file.numbers(name).unwrap()).collect();
        assert_eq!(numbers.iter().map(Vec::len).sum::<usize>(), TENSORS * ELEMENTS);
        largest().to_string()
    });
}

/// What the second test above runs.
#[test]
#[ignore = "run by another test in a process of its own"]
fn a_file_written_anew_alone() {
    report(|path| {
        let file = TensorFile::open(path).unwrap();
        let index = file.index();
        let names: Vec<&str> = index.keys().map(String::as_str).collect();
        let copy = path.with_extension("copy");
        let mut to = File::create(&copy).unwrap();
        file.write(&names, &Default::default(), Some(Dtype::F16), (&mut to, &copy)).unwrap();
        drop(to);
        let written = TensorFile::open(&copy).unwrap();
        assert_eq!(written.index().len(), TENSORS);
        largest().to_string()
    });
}
