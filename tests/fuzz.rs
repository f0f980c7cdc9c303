//! The seeds of the fuzz targets, and what fuzzing has found, through the very functions that are fuzzed
//! (`fuzz/README.md`).

use std::path::Path;

#[path = "../fuzz/checks/checkpoint.rs"]
mod checkpoint;
#[path = "../fuzz/checks/manifest.rs"]
mod manifest;
#[path = "../fuzz/checks/mask.rs"]
mod mask;
#[path = "../fuzz/checks/operator.rs"]
mod operator;
#[path = "../fuzz/checks/photo.rs"]
mod photo;

/// Runs `check` on every file below `folder`; there are at least `least`.
fn replay(folder: &str, least: usize, check: impl Fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut count = 0;
    for entry in std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
        let path = entry.unwrap().path();
        if path.is_file() {
            // The name of the file that fails stands above the message of the panic.
            eprintln!("{}", path.display());
            check(&std::fs::read(&path).unwrap());
            count += 1;
        }
    }
    assert!(count >= least, "{count} files in {}", folder.display());
}

/// Fault 4, and whatever else a file can be.
#[test]
fn seeds_of_photos_are_decoded_or_refused() {
    replay("fuzz/seeds/photo", 28, photo::check);
    replay("tests/data/image/formats", 80, photo::check);
}

#[test]
fn seeds_of_masks_fit_their_photo_or_are_refused() {
    replay("fuzz/seeds/mask", 7, mask::check);
}

#[test]
fn seeds_of_operators_are_applied_or_refused() {
    replay("fuzz/seeds/operator", 40, operator::check);
}

/// Faults 41 to 46, and 48.
#[test]
fn seeds_of_checkpoints_are_read_as_data_or_refused() {
    replay("fuzz/seeds/checkpoint", 9, checkpoint::check);
}

#[test]
fn seeds_of_manifests_are_read_line_by_line() {
    replay("fuzz/seeds/manifest", 4, manifest::check);
}

/// A seed that the targets turn away at the door would fuzz nothing.
#[test]
fn most_seeds_are_accepted() {
    use tweedie::image::{DecodeOptions, Photo};
    let accepted = |folder: &str, least: usize, is_read: &dyn Fn(&[u8]) -> bool| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(folder);
        let files: Vec<_> = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
        let read = files.iter().filter(|path| is_read(&std::fs::read(path).unwrap())).count();
        assert!(read >= least, "{read} of {} in {folder}", files.len());
    };
    accepted("photo", 28, &|data| Photo::decode(data, Path::new("photo"), &DecodeOptions::default()).is_ok());
    accepted("operator", 40, &|data| {
        let text = std::str::from_utf8(data).unwrap();
        tweedie_operators::Description::parse(text, "").is_ok()
    });
    // The others are a configuration, an index of several files, and pickles without tensors.
    accepted("checkpoint", 4, &|data| tweedie::checkpoints::TensorFile::from_bytes(data.to_vec(), "").is_ok());
}
