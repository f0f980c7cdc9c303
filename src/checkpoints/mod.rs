//! Files of tensors, whoever wrote them: read as data, nothing in them is ever executed.
//!
//! | container | recognised by | Notes |
//! | --- | --- | --- |
//! | safetensors | header | what the program itself writes |
//! | sharded safetensors | `*.safetensors.index.json` | the files it names, in the same folder |
//! | PyTorch archive | `PK`, `data.pkl` | `.pt`, `.pth`, `.ckpt`, `.bin` since PyTorch 1.6 |
//! | PyTorch stream | magic number in a pickle | the same before 1.6 |
//! | pickle of modules | pickle | `.pkl` of EDM |
//!
//! Files come from strangers. Whatever one claims (lengths, counts, shapes, places) is compared with the bytes that there
//! are before memory is taken for it, and numbers stay in the file until a tensor is asked for, so that a checkpoint of any
//! size is opened in the memory of its names. The reader of pickles is the program's own: it knows a list of opcodes and a
//! list of names, and refuses everything else by name. candle's reads archives only, takes the memory a file asks for and
//! passes over tensors it does not understand.

mod archive;
mod bytes;
mod class;
mod header;
mod layout;
mod legacy;
mod numbers;
mod opcode;
mod pickle;
mod tensor_file;
mod yaml;

pub use tensor_file::{Container, TensorFile};
pub use yaml::from_yaml;

use safetensors::tensor::Dtype;
use std::collections::BTreeMap;
use std::io::{self, Write};

/// Writes a safetensors file of tensors in memory, (name, shape, numbers), in this order; they are rounded to `dtype`. The
/// same tensors and metadata are the same bytes.
///
/// # Errors
/// `InvalidData` with the name of a tensor that has a number `dtype` cannot hold; those of `to`.
pub fn write_tensors(
    to: &mut dyn Write,
    metadata: &BTreeMap<String, String>,
    tensors: &[(&str, &[usize], &[f32])],
    dtype: Dtype,
) -> io::Result<()> {
    let places: Vec<_> = tensors.iter().map(|&(name, shape, _)| (name, dtype, shape)).collect();
    header::write(to, metadata, &places)?;
    let mut bytes = Vec::new();
    for (name, _, values) in tensors {
        let invalid = |reason| io::Error::new(io::ErrorKind::InvalidData, format!("tensor {name} {reason}"));
        numbers::encode(dtype, values, &mut bytes).map_err(invalid)?;
        to.write_all(&bytes)?;
    }
    Ok(())
}
