//! What a checkpoint computes.

use super::drunet::DrunetShape;
use super::refinenet::RefineNetShape;
use tweedie_kernels::network::{Network, Parameter};

/// A network apart from its numbers. A closed set: what is not made of steps has a runner of its own.
#[derive(Clone, Debug)]
pub enum Architecture {
    /// A list of steps, which every runner runs.
    Steps(Network),
    /// Minus the gradient of the sum of what a list of steps makes, as [`Energy`](super::Energy) has it.
    Energy(Network),
    /// NCSN and NCSNv2, which [`RefineNet`](super::RefineNet) runs.
    RefineNet(RefineNetShape),
    /// DRUNet, which [`Drunet`](super::Drunet) runs.
    Drunet(DrunetShape),
}

impl From<Network> for Architecture {
    fn from(network: Network) -> Self {
        Self::Steps(network)
    }
}

impl Architecture {
    /// A network of tweedie's own, or the energy that it makes.
    pub(super) fn of_own(network: Network, energy: bool) -> Self {
        if energy { Self::Energy(network) } else { Self::Steps(network) }
    }

    /// The steps, of an energy those that make it; `None` for what is not made of any.
    pub fn steps(&self) -> Option<&Network> {
        match self {
            Self::Steps(network) | Self::Energy(network) => Some(network),
            Self::RefineNet(_) | Self::Drunet(_) => None,
        }
    }

    /// Every parameter once, in the order of first use.
    pub fn parameters(&self) -> Vec<&Parameter> {
        match self {
            Self::Steps(network) | Self::Energy(network) => network.parameters(),
            Self::RefineNet(shape) => shape.parameters().iter().collect(),
            Self::Drunet(shape) => shape.parameters().iter().collect(),
        }
    }

    /// Channels of the images.
    pub fn channels(&self) -> usize {
        match self {
            Self::Steps(network) | Self::Energy(network) => network.channels,
            Self::RefineNet(shape) => shape.channels(),
            Self::Drunet(shape) => shape.channels(),
        }
    }

    /// What height and width have to be multiples of.
    pub fn stride(&self) -> usize {
        match self {
            Self::Steps(network) | Self::Energy(network) => network.stride(),
            Self::RefineNet(shape) => shape.stride(),
            Self::Drunet(shape) => shape.stride(),
        }
    }

    /// Multiplications and additions of one evaluation of an image of `height × width`, the convolutions and attentions
    /// alone.
    pub fn operations(&self, height: usize, width: usize) -> f64 {
        match self {
            Self::Steps(network) => network.operations(height, width),
            // Forward and back.
            Self::Energy(network) => 2.0 * network.operations(height, width),
            Self::RefineNet(shape) => shape.operations(height, width),
            Self::Drunet(shape) => shape.operations(height, width),
        }
    }

    /// Whether the parts fit together.
    ///
    /// # Errors
    /// A sentence with the first that does not.
    pub fn check(&self) -> Result<(), String> {
        match self {
            Self::Steps(network) | Self::Energy(network) => network.check().map_err(|error| error.to_string()),
            // They are made of a few checked numbers.
            Self::RefineNet(_) | Self::Drunet(_) => Ok(()),
        }
    }
}
