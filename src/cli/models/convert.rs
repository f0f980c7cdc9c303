//! `tweedie models convert`: any checkpoint as one native file.

use super::super::failure::{Failure, Outcome};
use crate::Error;
use crate::image::{ImageError, write_atomically_with};
use crate::models::{Checkpoint, Import};
use safetensors::tensor::Dtype;
use std::io::{BufWriter, Write};
use std::path::PathBuf;

/// Write a checkpoint of any kind as one native safetensors file
///
/// Reads safetensors (one file or several with an index), diffusers folders, and PyTorch's pickles (.pt, .pth, .ckpt, .bin,
/// .pkl), the latter as data: nothing in a file is ever executed, and an opcode or a class that no checkpoint needs is
/// refused by its name. Averaged weights (EMA) are taken wherever a file has them.
///
/// The family is recognised from the tensors, its configuration is read from the file itself or from config.json or
/// config.yml beside it. The tensors keep their names and numbers; what the network is and where it came from stands in
/// the metadata of the new file.
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true, after_long_help = EXAMPLES)]
pub(super) struct Convert {
    /// Checkpoint, diffusers folder, or a native file whose metadata is to be changed
    #[arg(value_name = "IN")]
    input: PathBuf,
    /// File to write
    #[arg(value_name = "OUT.safetensors")]
    output: PathBuf,
    /// Kind of network, where it is not recognised
    #[arg(long, value_name = "NAME", help_heading = super::super::MODEL)]
    family: Option<String>,
    /// Configuration in the family's own form, JSON or YAML
    #[arg(long, value_name = "FILE", help_heading = super::super::MODEL)]
    config: Option<PathBuf>,
    /// What to call the model; the name of the file by default
    #[arg(long, help_heading = super::super::MODEL)]
    name: Option<String>,
    /// Round the numbers to f32, f16 or bf16; by default they stay as they are
    #[arg(long, value_name = "TYPE", value_parser = number_type, help_heading = super::super::MODEL)]
    dtype: Option<Dtype>,
    /// Entry of the metadata, such as licence, provenance; repeatable
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value, help_heading = super::super::MODEL)]
    metadata: Vec<(String, String)>,
    /// Replace an existing file
    #[arg(short, long, help_heading = super::super::INPUT_OUTPUT)]
    force: bool,
}

fn number_type(text: &str) -> Result<Dtype, String> {
    match text {
        "f32" => Ok(Dtype::F32),
        "f16" => Ok(Dtype::F16),
        "bf16" => Ok(Dtype::BF16),
        _ => Err("expected f32, f16 or bf16".into()),
    }
}

fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    Ok((key.into(), value.into()))
}

const EXAMPLES: &str = "\
Examples:
  tweedie models convert ffhq_10m.pt ffhq.safetensors
  tweedie models convert checkpoint_26.pth ncsnpp.safetensors --config config.json
  tweedie models convert ./ddpm-church/ church.safetensors --metadata licence=Apache-2.0";

pub(super) fn run(arguments: &Convert) -> Outcome<()> {
    let Convert { family, config, name, output, .. } = arguments;
    // Reading may take minutes; what can be known before is said before.
    if output.extension().is_none_or(|end| end != "safetensors") {
        return Err(Failure::usage(format!("{}: the file to write has to end in .safetensors", output.display())));
    }
    if !arguments.force && output.symlink_metadata().is_ok() {
        return Err(ImageError::Exists { path: output.clone() }.into());
    }
    for path in [Some(&arguments.input), config.as_ref()].into_iter().flatten() {
        if matches!(path.try_exists(), Ok(false)) {
            return Err(Failure::usage(format!("{}: no such file", path.display())));
        }
    }
    let import = Import { family: family.clone(), config: config.clone(), name: name.clone() };
    let checkpoint = Checkpoint::import(&arguments.input, &import)?;
    let metadata: Vec<_> = arguments.metadata.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    Ok(write_atomically_with(output, arguments.force, |file, temporary| {
        let mut to = BufWriter::new(file);
        checkpoint.write(&metadata, arguments.dtype, (&mut to, output))?;
        to.flush().map_err(|source| Error::Io { path: output.clone(), source })?;
        // What is written can be read again, whatever the metadata say.
        Checkpoint::open(temporary).map(drop).map_err(|error| match error {
            Error::Model { reason, .. } => Error::Model { model: output.to_string_lossy().into_owned(), reason },
            other => other,
        })
    })?)
}
