//! Models of others: what there is, where it comes from, and the folder in which it is kept.
//!
//! | part | |
//! | --- | --- |
//! | [`index`] | the models that are known by a name |
//! | [`Repository`] | `owner/repo[@revision]`, any repository of the hub |
//! | [`Settings`] | what the environment says: `HF_ENDPOINT`, `HF_HOME`, `HF_TOKEN`, `HF_HUB_OFFLINE`, … |
//! | [`Cache`] | the folder, in the layout that Python's `huggingface_hub` shares |
//! | [`Wanted`] | a name that a user gave, and the path it stands for in the cache |
//! | [`pull`] | fetches, with the feature `hub`: the only code that uses the network |
//!
//! Nothing here knows what a model is: to this module it is a set of files with hashes.

mod cache;
mod hash;
mod index;
mod repository;
mod settings;
mod wanted;

#[cfg(feature = "hub")]
mod choice;
#[cfg(feature = "hub")]
mod client;
#[cfg(feature = "hub")]
mod digest;
#[cfg(feature = "hub")]
mod download;
#[cfg(feature = "hub")]
mod lock;
#[cfg(feature = "hub")]
mod pull;
#[cfg(feature = "hub")]
mod tls;

pub use cache::{Cache, Removed};
pub use index::{Entry, index};
pub use repository::Repository;
pub use settings::{Settings, Token};
pub use wanted::Wanted;

#[cfg(feature = "hub")]
pub use pull::{Event, PullOptions, Pulled, pull};
