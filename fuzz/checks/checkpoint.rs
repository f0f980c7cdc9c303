//! A file of tensors from a stranger, in any container: read as data, or refused.

use tweedie::checkpoints::{TensorFile, from_yaml};
use tweedie::models::Checkpoint;

/// Opens `data` as a file of tensors, as a native checkpoint and as a configuration, and reads every number.
/// # Panics
/// If a reader does, or if a tensor has more or fewer numbers than its shape.
pub(crate) fn check(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = from_yaml(text);
    }
    let _ = Checkpoint::from_native(data.to_vec(), "checkpoint");
    let Ok(file) = TensorFile::from_bytes(data.to_vec(), "checkpoint") else { return };
    let mut total = 0;
    for (name, (dtype, shape)) in file.index() {
        let count: usize = shape.iter().product();
        if let Ok(raw) = file.raw(&name) {
            assert_eq!(raw.len() * 8, count * dtype.bitsize(), "{name}");
            total += raw.len();
        }
        if let Ok(numbers) = file.numbers(&name) {
            assert_eq!(numbers.len(), count, "{name}");
        }
        let _ = file.check_finite(&name);
    }
    // Tensors may share numbers, but a small file does not become a large one.
    assert!(total <= data.len().saturating_mul(4), "{total} bytes of tensors from {}", data.len());
    let _ = file.check_sums();
    let _ = file.hash();
}
