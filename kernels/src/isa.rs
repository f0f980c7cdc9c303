//! Which vector instructions the running machine has.

use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

/// An instruction set that the kernels are written for, from the least to the most capable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum InstructionSet {
    /// Plain Rust, vectorised by the compiler with what its target has.
    Portable,
    /// x86-64 with AVX2 and FMA: 8 single-precision lanes.
    Avx2,
    /// x86-64 with AVX-512F: 16 single-precision lanes.
    Avx512,
}

impl InstructionSet {
    /// Those that this machine can run, the most capable last.
    pub fn available() -> Vec<Self> {
        let mut sets = vec![Self::Portable];
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                sets.push(Self::Avx2);
            }
            if is_x86_feature_detected!("avx512f") && sets.len() == 2 {
                sets.push(Self::Avx512);
            }
        }
        sets
    }

    /// The one in use: the most capable, or what the environment variable `TWEEDIE_CPU_FEATURES` names, if the machine
    /// has it.
    pub fn detect() -> Self {
        static DETECTED: OnceLock<InstructionSet> = OnceLock::new();
        *DETECTED.get_or_init(|| {
            let available = Self::available();
            let asked = std::env::var("TWEEDIE_CPU_FEATURES").ok().and_then(|name| name.parse().ok());
            asked.filter(|set| available.contains(set)).unwrap_or(available[available.len() - 1])
        })
    }
}

impl fmt::Display for InstructionSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
        })
    }
}

/// The name is none of `portable`, `avx2`, `avx512`.
#[derive(Debug, thiserror::Error)]
#[error("unknown instruction set `{0}`; known: portable, avx2, avx512")]
pub struct UnknownInstructionSet(String);

impl FromStr for InstructionSet {
    type Err = UnknownInstructionSet;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name {
            "portable" => Ok(Self::Portable),
            "avx2" => Ok(Self::Avx2),
            "avx512" => Ok(Self::Avx512),
            _ => Err(UnknownInstructionSet(name.into())),
        }
    }
}
