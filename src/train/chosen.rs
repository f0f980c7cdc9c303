//! The objective that a configuration names.

use super::objective::{OBJECTIVES, Objective, find_objective};
use crate::Result;
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::sync::Arc;

/// An objective by its name, with its settings: `{ name = "vp", weight = { kind = "likelihood" } }`.
///
/// What is not said is a default of that objective, and what is written holds them all, so that a run is resumed as what it
/// began as whatever the defaults are then. Without a name it is `edm`, as in the first files of training.
#[derive(Clone, Debug)]
pub struct ObjectiveConfig {
    name: String,
    settings: toml::Table,
    objective: Arc<dyn Objective>,
}

/// What it is called where no name is given.
const UNNAMED: &str = "edm";

impl ObjectiveConfig {
    /// The objective of [`OBJECTIVES`] called `name` with these settings.
    ///
    /// # Errors
    /// `Unknown` with the names there are; `Config` naming a setting that is unknown or out of range.
    pub fn new(name: &str, settings: toml::Table) -> Result<Self> {
        let objective: Arc<dyn Objective> = find_objective(OBJECTIVES, name, settings)?.into();
        Ok(Self { name: name.into(), settings: objective.settings(), objective })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// All of its settings.
    pub fn settings(&self) -> &toml::Table {
        &self.settings
    }

    /// The objective.
    pub fn objective(&self) -> Arc<dyn Objective> {
        Arc::clone(&self.objective)
    }
}

impl Default for ObjectiveConfig {
    fn default() -> Self {
        Self::new(UNNAMED, toml::Table::new()).expect("its defaults are settings")
    }
}

impl PartialEq for ObjectiveConfig {
    fn eq(&self, other: &Self) -> bool {
        (&self.name, &self.settings) == (&other.name, &other.settings)
    }
}

impl Serialize for ObjectiveConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(1 + self.settings.len()))?;
        map.serialize_entry("name", &self.name)?;
        for (key, value) in &self.settings {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for ObjectiveConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error;
        let mut settings = toml::Table::deserialize(deserializer)?;
        let name = match settings.remove("name") {
            None => UNNAMED.to_owned(),
            Some(toml::Value::String(name)) => name,
            Some(other) => return Err(D::Error::custom(format!("objective.name is {other}, expected a name"))),
        };
        Self::new(&name, settings).map_err(D::Error::custom)
    }
}
