//! In which numbers the products of a network are taken.

use crate::isa::InstructionSet;
use std::fmt;
use std::str::FromStr;

/// The number format of a network's weights and of the values they are multiplied with; sums are always taken in single
/// precision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// IEEE 754 single precision: 24 bits.
    F32,
    /// `bfloat16`: the range of single precision with 8 bits.
    Bf16,
}

impl Precision {
    /// The one to use on an instruction set where the user does not choose.
    ///
    /// A fixed table and never a timing, so that the same machine always gives the same bytes: `bf16` where the
    /// processor multiplies it at twice the rate, `f32` elsewhere.
    pub fn auto(isa: InstructionSet) -> Self {
        match isa {
            InstructionSet::Portable | InstructionSet::Avx2 | InstructionSet::Avx512 => Self::F32,
            InstructionSet::Avx512Bf16 | InstructionSet::Amx => Self::Bf16,
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        })
    }
}

/// There is no precision of this name.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("unknown precision `{0}`; known: f32, bf16")]
pub struct UnknownPrecision(pub String);

impl FromStr for Precision {
    type Err = UnknownPrecision;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name {
            "f32" => Ok(Self::F32),
            "bf16" => Ok(Self::Bf16),
            _ => Err(UnknownPrecision(name.into())),
        }
    }
}
