//! `--device`: where the network runs.

use super::terminal::Console;
use crate::{Error, Result};
use candle_core::Device;
use std::str::FromStr;

/// A device as asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    /// The first accelerator that is there, else the CPU.
    Auto,
    Cpu,
    Cuda(usize),
    Metal,
}

impl FromStr for Choice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            "metal" => Ok(Self::Metal),
            _ => match text.strip_prefix("cuda:").and_then(|index| index.parse().ok()) {
                Some(index) => Ok(Self::Cuda(index)),
                None => Err("expected auto, cpu, cuda, cuda:INDEX or metal".into()),
            },
        }
    }
}

impl Choice {
    /// The device, or what is missing for it.
    pub(crate) fn open(self, console: Console) -> Result<Device> {
        match self {
            Self::Cpu => Ok(Device::Cpu),
            Self::Cuda(index) => cuda(index),
            Self::Metal => metal(),
            Self::Auto => Ok(cuda(0).or_else(|no_cuda| {
                metal().or_else(|no_metal| {
                    console.detail(&format!("device auto: cpu ({}; {})", reason(&no_cuda), reason(&no_metal)));
                    Ok::<_, Error>(Device::Cpu)
                })
            })?),
        }
    }
}

/// The name of a device as `--device` takes it.
pub(crate) fn name(device: &Device) -> String {
    match device.location() {
        candle_core::DeviceLocation::Cpu => "cpu".into(),
        candle_core::DeviceLocation::Cuda { gpu_id } => format!("cuda:{gpu_id}"),
        candle_core::DeviceLocation::Metal { .. } => "metal".into(),
    }
}

/// Whether the accelerators can be used: (name, `None` or what is missing).
pub(crate) fn accelerators() -> [(&'static str, Option<String>); 2] {
    [("cuda", cuda(0).err().map(|error| reason(&error))), ("metal", metal().err().map(|error| reason(&error)))]
}

fn cuda(index: usize) -> Result<Device> {
    let device = format!("cuda:{index}");
    if !candle_core::utils::cuda_is_available() {
        return Err(not_compiled(device, "cuda"));
    }
    Device::new_cuda(index).map_err(|error| Error::Device { device, reason: first_line(&error) })
}

fn metal() -> Result<Device> {
    if !candle_core::utils::metal_is_available() {
        return Err(not_compiled("metal".into(), "metal"));
    }
    Device::new_metal(0).map_err(|error| Error::Device { device: "metal".into(), reason: first_line(&error) })
}

fn not_compiled(device: String, feature: &str) -> Error {
    let reason = format!("built without the `{feature}` feature; cargo install tweedie --features {feature}");
    Error::Device { device, reason }
}

/// candle's errors may carry a backtrace.
fn first_line(error: &candle_core::Error) -> String {
    error.to_string().lines().next().unwrap_or_default().to_string()
}

fn reason(error: &Error) -> String {
    match error {
        Error::Device { reason, .. } => reason.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_read_as_documented() {
        assert_eq!("auto".parse(), Ok(Choice::Auto));
        assert_eq!("cuda".parse(), Ok(Choice::Cuda(0)));
        assert_eq!("cuda:3".parse(), Ok(Choice::Cuda(3)));
        for text in ["", "gpu", "cuda:", "cuda:-1", "CPU"] {
            assert!(text.parse::<Choice>().is_err(), "{text}");
        }
    }

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn a_device_that_was_not_compiled_in_says_how_to_get_it() {
        let console = Console::new(Default::default(), super::super::terminal::Verbosity::Quiet);
        let error = Choice::Cuda(1).open(console).unwrap_err();
        assert_eq!(
            error.to_string(),
            "device cuda:1 is not available: built without the `cuda` feature; cargo install tweedie --features cuda"
        );
    }
}
