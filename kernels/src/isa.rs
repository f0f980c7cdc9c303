//! Which vector instructions the running machine has.

use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

/// An instruction set that the kernels are written for, from the least to the most capable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum InstructionSet {
    /// What every processor of the target has: 4 single-precision lanes of SSE2 on x86-64, plain Rust vectorised by the
    /// compiler elsewhere.
    Portable,
    /// x86-64 with AVX2 and FMA: 8 single-precision lanes.
    Avx2,
    /// x86-64 with AVX-512F: 16 single-precision lanes.
    Avx512,
    /// x86-64 with AVX-512F and AVX512-BF16: products of pairs of `bfloat16` summed in single precision.
    Avx512Bf16,
    /// x86-64 with AVX512-BF16 and AMX-BF16: products of whole matrices of `bfloat16`, where the system permits them.
    Amx,
}

impl InstructionSet {
    /// Those that this machine can run, the most capable last.
    pub fn available() -> Vec<Self> {
        #[cfg_attr(not(target_arch = "x86_64"), expect(unused_mut, reason = "others are of x86-64 alone"))]
        let mut sets = vec![Self::Portable];
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                sets.push(Self::Avx2);
            }
            if is_x86_feature_detected!("avx512f") && sets.len() == 2 {
                sets.push(Self::Avx512);
            }
            if is_x86_feature_detected!("avx512bf16") && sets.len() == 3 {
                sets.push(Self::Avx512Bf16);
            }
            if sets.len() == 4 && crate::amx::is_available() {
                sets.push(Self::Amx);
            }
        }
        sets
    }

    /// What the environment variable `TWEEDIE_CPU_FEATURES` asks for; `None` where it is not set or empty.
    pub fn requested() -> Option<Result<Self, InstructionSetError>> {
        let name = std::env::var_os("TWEEDIE_CPU_FEATURES").filter(|name| !name.is_empty())?;
        Some(name.to_string_lossy().parse().and_then(Self::on_this_machine))
    }

    /// The one in use: what is [`requested`](Self::requested), and the most capable where nothing is or it cannot be
    /// had.
    ///
    /// Never [`Amx`](Self::Amx) unasked: its products were run on an emulated processor, and nothing yet on a real one.
    pub fn detect() -> Self {
        static DETECTED: OnceLock<InstructionSet> = OnceLock::new();
        *DETECTED.get_or_init(|| {
            let available = Self::available();
            let tried = available.iter().rfind(|&&isa| isa != Self::Amx).copied().unwrap_or(Self::Portable);
            Self::requested().and_then(Result::ok).unwrap_or(tried)
        })
    }

    /// The set itself, if this machine can run it.
    ///
    /// # Errors
    /// `Unavailable` if it cannot.
    pub fn on_this_machine(self) -> Result<Self, InstructionSetError> {
        match Self::available().contains(&self) {
            true => Ok(self),
            false => Err(InstructionSetError::Unavailable(self)),
        }
    }
}

impl fmt::Display for InstructionSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
            Self::Avx512Bf16 => "avx512-bf16",
            Self::Amx => "amx-bf16",
        })
    }
}

/// Why an instruction set cannot be used.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum InstructionSetError {
    /// There is none of this name.
    #[error("unknown instruction set `{0}`; known: portable, avx2, avx512, avx512-bf16, amx-bf16")]
    Unknown(String),
    /// The machine does not have it.
    #[error("this machine has no {0}")]
    Unavailable(InstructionSet),
}

impl FromStr for InstructionSet {
    type Err = InstructionSetError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name {
            "portable" => Ok(Self::Portable),
            "avx2" => Ok(Self::Avx2),
            "avx512" => Ok(Self::Avx512),
            "avx512-bf16" => Ok(Self::Avx512Bf16),
            "amx-bf16" => Ok(Self::Amx),
            _ => Err(InstructionSetError::Unknown(name.into())),
        }
    }
}
