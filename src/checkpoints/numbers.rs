//! Numbers in the types that files have them in.

use half::{bf16, f16};
use safetensors::tensor::Dtype;

/// Bytes of one number, if its type has whole bytes.
pub(super) fn size(dtype: Dtype) -> Option<u64> {
    match dtype.bitsize() {
        bits if bits % 8 == 0 => Some(bits as u64 / 8),
        _ => None,
    }
}

/// Whether numbers of this type are weights.
pub(super) fn is_float(dtype: Dtype) -> bool {
    matches!(dtype, Dtype::F64 | Dtype::F32 | Dtype::F16 | Dtype::BF16)
}

/// Appends little-endian numbers of type `dtype` to `values` in single precision; `None` for integers.
pub(super) fn decode(dtype: Dtype, bytes: &[u8], values: &mut Vec<f32>) -> Option<()> {
    match dtype {
        Dtype::F64 => values.extend(chunks(bytes).map(|b| f64::from_le_bytes(b) as f32)),
        Dtype::F32 => values.extend(chunks(bytes).map(f32::from_le_bytes)),
        Dtype::F16 => values.extend(chunks(bytes).map(|b| f16::from_le_bytes(b).to_f32())),
        Dtype::BF16 => values.extend(chunks(bytes).map(|b| bf16::from_le_bytes(b).to_f32())),
        _ => return None,
    }
    Some(())
}

/// Replaces `bytes` by `values` as little-endian numbers of type `dtype`, rounded to the nearest.
///
/// # Errors
/// A number that the type cannot hold.
pub(super) fn encode(dtype: Dtype, values: &[f32], bytes: &mut Vec<u8>) -> Result<(), String> {
    bytes.clear();
    for &value in values {
        let kept = match dtype {
            Dtype::F32 => {
                bytes.extend(value.to_le_bytes());
                value
            }
            Dtype::F16 => {
                bytes.extend(f16::from_f32(value).to_le_bytes());
                f16::from_f32(value).to_f32()
            }
            Dtype::BF16 => {
                bytes.extend(bf16::from_f32(value).to_le_bytes());
                bf16::from_f32(value).to_f32()
            }
            other => return Err(format!("cannot be written as {other:?}")),
        };
        if value.is_finite() && !kept.is_finite() {
            return Err(format!("holds {value}, more than {dtype:?} can"));
        }
    }
    Ok(())
}

fn chunks<const N: usize>(bytes: &[u8]) -> impl Iterator<Item = [u8; N]> {
    bytes.as_chunks().0.iter().copied()
}
