//! Streams that `torch.save` wrote before PyTorch 1.6, and writes inside of other pickles today.
//!
//! Five parts follow one another: a magic number, the version of the protocol, facts about the machine, the value, the keys
//! of its storages in the order of their data, each a pickle of its own; then for each key the number of elements, eight
//! bytes, and the elements. The format is that of `_legacy_save` in `torch/serialization.py`,
//! <https://github.com/pytorch/pytorch/blob/main/torch/serialization.py>.

use super::bytes::{Bytes, Cursor};
use super::pickle::{Limits, Node, Pickle};
use std::collections::HashMap;
use std::ops::Range;

const MAGIC: i128 = 0x1950_a86a_20f9_469c_fc6c;
const PROTOCOL: i128 = 1001;

/// Whether the first pickle of a file is the magic number of a stream.
pub(super) fn begins(pickle: &Pickle) -> bool {
    matches!(pickle.node(pickle.root), Node::Integer(MAGIC))
}

/// Reads a stream that fills `range`; every storage has its place.
///
/// # Errors
/// What is wrong with which part.
pub(super) fn read(bytes: &Bytes, range: Range<u64>, limits: Limits) -> Result<Pickle, String> {
    let mut cursor = Cursor::new(bytes, range)?;
    let mut small = || Pickle::read(bytes, &mut cursor, Limits::WITHIN);
    if !begins(&small()?) {
        return Err("does not begin with the magic number of a PyTorch stream".into());
    }
    let protocol = small()?;
    match protocol.node(protocol.root) {
        Node::Integer(PROTOCOL) => (),
        got => return Err(format!("has PyTorch's stream protocol {got:?}, expected {PROTOCOL}")),
    }
    let system = small()?;
    if let Some(Node::Bool(false)) = system.get(system.root, "little_endian").map(|id| system.node(id)) {
        return Err("was written on a big-endian machine; save it again on a little-endian one".into());
    }
    let mut pickle = Pickle::read(bytes, &mut cursor, limits)?;
    let keys = Pickle::read(bytes, &mut cursor, limits)?;
    let Node::List(order) = keys.node(keys.root) else {
        return Err("has no list of storages behind its value".into());
    };
    let mut waiting: HashMap<Box<str>, usize> = pickle
        .storages
        .iter()
        .enumerate()
        .filter(|(_, s)| s.start.is_none())
        .map(|(i, s)| (s.key.clone(), i))
        .collect();
    for &key in order {
        let Node::Text(key) = keys.node(key) else { return Err("has a storage whose key is no text".into()) };
        let index = waiting.remove(key).ok_or_else(|| format!("has storage {key} twice, or for no tensor"))?;
        let storage = &mut pickle.storages[index];
        let elements = u64::from_le_bytes(cursor.array()?);
        if elements != storage.elements {
            return Err(format!("has storage {key} of {elements} numbers, its tensors say {}", storage.elements));
        }
        let length = elements.checked_mul(storage.dtype.bitsize() as u64 / 8);
        let length = length.ok_or_else(|| format!("has storage {key} of {elements} numbers"))?;
        storage.start = Some(cursor.skip(length)?.start);
    }
    match waiting.into_keys().min() {
        Some(key) => Err(format!("has no numbers for storage {key}")),
        None => Ok(pickle),
    }
}
