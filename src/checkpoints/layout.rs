//! Which of the values in a pickle are the weights.
//!
//! Training programs keep more than one set of weights and much else in a file. The averaged ones (EMA) are those that the
//! authors sample with, so they are taken wherever a file has them; the others are then only asked for what an average
//! does not hold, buffers and frozen parameters.
//!
//! | layout | of | Notes |
//! | --- | --- | --- |
//! | dictionary of tensors | `torch.save(model.state_dict())` | `module.` in front of every key is taken off |
//! | dictionary with such a one | many | under [`EMA_KEYS`] or, if it has none of them, [`RAW_KEYS`] |
//! | `{ema: {shadow_params: list}, model, …}` | score_sde | the list is in the order of the parameters that were trained |
//! | `[model, optimizer, epoch, step, ema]` | NCSN, NCSNv2, DDIM | the last only if the average was kept |
//! | a module, maybe under `ema` | EDM | read by its attributes; the text of its program is passed over |

use super::pickle::{Id, Node, Pickle, Tensor};
use serde_json::{Map, Value};
use std::collections::{HashMap, HashSet};

/// The weights of a pickle.
#[derive(Debug)]
pub(super) struct Weights {
    pub(super) tensors: Vec<(String, Tensor)>,
    /// Where they were found, for messages and records.
    pub(super) found: String,
    /// What the file says of the network's configuration, if it does.
    pub(super) configuration: Option<Value>,
}

/// Under which averaged weights are found, the first that is there.
pub(super) const EMA_KEYS: [&str; 6] =
    ["params_ema", "ema", "model_ema", "ema_state_dict", "state_dict_ema", "ema_model"];
/// Under which weights are found if no average is.
pub(super) const RAW_KEYS: [&str; 8] =
    ["state_dict", "model_state_dict", "model", "params", "net", "network", "weights", "module"];

const MOST_DEPTH: usize = 32;
const MOST_NAME: usize = 512;
const MOST_TENSORS: usize = 1 << 16;
/// How many modules, entries and values of configurations are looked at.
const MOST_VISITS: usize = 1 << 20;

impl Weights {
    /// Finds the weights.
    ///
    /// # Errors
    /// What the file holds instead; what does not fit between averaged and other weights.
    pub(super) fn of(pickle: &Pickle) -> Result<Self, String> {
        let mut search = Search { pickle, visits: MOST_VISITS };
        let weights = search.value(pickle.root, "", 0)?;
        let mut names = HashSet::new();
        for (name, _) in &weights.tensors {
            if name.is_empty() || name.len() > MOST_NAME || name == "__metadata__" || name.contains(char::is_control) {
                return Err(format!("has a tensor called {name:?}"));
            }
            if !names.insert(name.as_str()) {
                return Err(format!("has tensor {name} twice"));
            }
        }
        match weights.tensors.is_empty() {
            true => Err("holds no tensors".into()),
            false => Ok(weights),
        }
    }
}

struct Search<'a> {
    pickle: &'a Pickle,
    visits: usize,
}

impl<'a> Search<'a> {
    fn visit(&mut self, count: usize) -> Result<(), String> {
        self.visits = self.visits.checked_sub(count).ok_or("nests its values over and over")?;
        Ok(())
    }

    fn value(&mut self, id: Id, place: &str, depth: usize) -> Result<Weights, String> {
        if depth > 3 {
            return Err(format!("nests dictionaries down to {place} without a tensor"));
        }
        match self.pickle.node(id) {
            Node::Dictionary(_) => self.dictionary(id, place, depth),
            Node::List(items) | Node::Tuple(items) => self.list(items, place),
            Node::Module(_) => self.module_weights(id, place),
            other => Err(format!("holds {}, no dictionary, list or module with tensors", kind(other))),
        }
    }

    fn dictionary(&mut self, id: Id, place: &str, depth: usize) -> Result<Weights, String> {
        if let Some(tensors) = self.state(id)? {
            let found = if place.is_empty() { "its dictionary of tensors".into() } else { format!("`{place}`") };
            return Ok(Weights { tensors: without_prefix(tensors), found, configuration: None });
        }
        let below = |key: &str| if place.is_empty() { key.to_owned() } else { format!("{place}.{key}") };
        let raw = RAW_KEYS.iter().find_map(|&key| Some((key, self.pickle.get(id, key)?)));
        if let Some((key, ema)) = EMA_KEYS.iter().find_map(|&key| Some((key, self.pickle.get(id, key)?))) {
            let place = below(key);
            if let Some(shadow) = self.pickle.get(ema, "shadow_params") {
                let (_, raw) =
                    raw.ok_or_else(|| format!("has `{place}.shadow_params` without `model` to name them"))?;
                return self.shadow(shadow, raw, &place);
            }
            let averaged = self.value(ema, &place, depth + 1)?;
            return match raw {
                Some((_, raw)) if averaged.configuration.is_none() => self.completed(averaged, raw),
                _ => Ok(averaged),
            };
        }
        if let Some((key, value)) = raw {
            return self.value(value, &below(key), depth + 1);
        }
        let keys: Vec<&str> = self.pickle.entries(id).into_iter().flatten().map(|(key, _)| key).take(8).collect();
        Err(format!(
            "holds a dictionary with the keys {}; weights are looked for under {} and {}",
            shown(&keys),
            EMA_KEYS.join(", "),
            RAW_KEYS.join(", ")
        ))
    }

    /// `[model, optimizer, epoch, step, ema]`, or the first two of them.
    fn list(&mut self, items: &[Id], place: &str) -> Result<Weights, String> {
        let Some(&first) = items.first() else { return Err("holds an empty list".into()) };
        let Some(raw) = self.state(first)? else {
            return Err("holds a list whose first value is no dictionary of tensors".into());
        };
        let raw = Weights { tensors: without_prefix(raw), found: format!("`{place}[0]`"), configuration: None };
        let Some(&last) = items.get(4) else { return Ok(raw) };
        let Some(averaged) = self.state(last)? else {
            return Err(format!("holds a list whose fifth value is {}, expected averaged weights", self.kind(last)));
        };
        let (tensors, found) = (without_prefix(averaged), format!("`{place}[4]`, averaged"));
        self.completed(Weights { tensors, found, configuration: None }, first)
    }

    /// The tensors of a dictionary that has nothing else but numbers and `None`.
    fn state(&mut self, id: Id) -> Result<Option<Vec<(String, Tensor)>>, String> {
        let Node::Dictionary(entries) = self.pickle.node(id) else { return Ok(None) };
        self.visit(entries.len())?;
        let mut tensors = Vec::new();
        for &(key, value) in entries {
            match (self.pickle.node(key), self.pickle.node(value)) {
                (Node::Text(key), Node::Tensor(tensor)) => self.keep(&mut tensors, ("", key), tensor)?,
                (Node::Text(_), Node::None | Node::Bool(_) | Node::Integer(_) | Node::Float(_)) => (),
                _ => return Ok(None),
            }
        }
        Ok((!tensors.is_empty()).then_some(tensors))
    }

    /// Adds a copy of a tensor, called by a prefix and a name.
    ///
    /// A few bytes of a pickle recall a key or a tensor that was remembered, so that each copy counts.
    fn keep(
        &mut self,
        tensors: &mut Vec<(String, Tensor)>,
        (prefix, name): (&str, &str),
        tensor: &Tensor,
    ) -> Result<(), String> {
        if tensors.len() == MOST_TENSORS {
            return Err(format!("has more than {MOST_TENSORS} tensors"));
        }
        let name = self.name(prefix, name)?;
        self.visit(tensor.shape.len())?;
        tensors.push((name, tensor.clone()));
        Ok(())
    }

    /// A name with the prefix in front of it, no longer than one may be.
    fn name(&mut self, prefix: &str, name: &str) -> Result<String, String> {
        let length = prefix.len() + name.len();
        if length > MOST_NAME {
            return Err(format!(
                "has a tensor or a module whose name has {length} bytes, at most {MOST_NAME} are read"
            ));
        }
        self.visit(length / 16)?;
        Ok(format!("{prefix}{name}"))
    }

    /// The averaged weights and what the others have besides.
    fn completed(&mut self, averaged: Weights, raw: Id) -> Result<Weights, String> {
        let Some(raw) = self.state(raw)? else { return Ok(averaged) };
        let Weights { mut tensors, found, configuration } = averaged;
        let raw = without_prefix(raw);
        let shapes: HashMap<&str, &[usize]> = raw.iter().map(|(name, t)| (name.as_str(), t.shape.as_slice())).collect();
        for (name, tensor) in &tensors {
            match shapes.get(name.as_str()) {
                Some(&shape) if shape == tensor.shape => (),
                Some(shape) => {
                    return Err(format!(
                        "tensor {name}: shape {:?} among the averaged weights, {shape:?} among the others",
                        tensor.shape
                    ));
                }
                None => return Err(format!("tensor {name} is among the averaged weights but not among the others")),
            }
        }
        let known: HashSet<String> = tensors.iter().map(|(name, _)| name.clone()).collect();
        tensors.extend(raw.into_iter().filter(|(name, _)| !known.contains(name)));
        Ok(Weights { tensors, found, configuration })
    }

    /// score_sde's average: a list in the order of the model's parameters, without the frozen ones and without buffers.
    ///
    /// Those are the noise levels, `sigmas`, and the frequencies of a Fourier embedding, `all_modules.0.W`; they come from
    /// the model.
    fn shadow(&mut self, shadow: Id, raw: Id, place: &str) -> Result<Weights, String> {
        let Node::List(shadow) = self.pickle.node(shadow) else {
            return Err(format!("has `{place}.shadow_params` that is no list"));
        };
        let raw = self.state(raw)?.ok_or("has a `model` that is no dictionary of tensors")?;
        let mut averages = shadow.iter();
        let mut tensors = Vec::new();
        for (name, tensor) in without_prefix(raw) {
            if frozen(&name) {
                tensors.push((name, tensor));
                continue;
            }
            let average = averages.next().map(|&id| self.pickle.node(id));
            let Some(Node::Tensor(average)) = average else {
                let count = shadow.len();
                return Err(format!("tensor {name}: no average of it in `{place}.shadow_params`, which has {count}"));
            };
            if average.shape != tensor.shape {
                let (expected, got) = (&tensor.shape, &average.shape);
                return Err(format!("tensor {name}: expected an average of shape {expected:?}, got {got:?}"));
            }
            tensors.push((name, (**average).clone()));
        }
        match averages.len() {
            0 => Ok(Weights { tensors, found: format!("`{place}.shadow_params`, averaged"), configuration: None }),
            more => Err(format!("has {more} averages in `{place}.shadow_params` that belong to no parameter")),
        }
    }

    fn module_weights(&mut self, id: Id, place: &str) -> Result<Weights, String> {
        let mut tensors = Vec::new();
        self.module(id, "", 0, &mut tensors)?;
        let Node::Module(module) = self.pickle.node(id) else { return Err("is no module".into()) };
        let found = match place {
            "" => format!("the module {}", module.class),
            place => format!("`{place}`, a module {}", module.class),
        };
        let arguments = module.state.and_then(|state| self.pickle.get(state, "_init_kwargs"));
        let configuration = match arguments {
            Some(arguments) => {
                let arguments = self.json(arguments, 0)?;
                let class = Value::from(&*module.class);
                Some(Value::Object(Map::from_iter([("class_name".into(), class), ("init_kwargs".into(), arguments)])))
            }
            None => None,
        };
        Ok(Weights { tensors, found, configuration })
    }

    /// Parameters, buffers and parts of a module, in PyTorch's order.
    fn module(
        &mut self,
        id: Id,
        prefix: &str,
        depth: usize,
        tensors: &mut Vec<(String, Tensor)>,
    ) -> Result<(), String> {
        if depth > MOST_DEPTH || prefix.len() > MOST_NAME {
            return Err(format!("nests modules more than {MOST_DEPTH} deep"));
        }
        let Node::Module(module) = self.pickle.node(id) else {
            return Err(format!("has {} at `{prefix}`, expected a module", self.kind(id)));
        };
        let Some(state) = module.state else { return Ok(()) };
        self.visit(1 + self.pickle.entries(state).map_or(0, Iterator::count))?;
        let passing: HashSet<&str> = match self.pickle.get(state, "_non_persistent_buffers_set") {
            Some(set) => match self.pickle.node(set) {
                Node::Set(items) => {
                    self.visit(items.len())?;
                    // No tensor has a longer name, and hashing one that is recalled again and again takes its time.
                    let names = items.iter().filter_map(|&item| self.text(item));
                    names.filter(|name| name.len() <= MOST_NAME).collect()
                }
                _ => HashSet::new(),
            },
            None => HashSet::new(),
        };
        for attribute in ["_parameters", "_buffers"] {
            for (name, value) in self.attribute(state, attribute)? {
                match self.pickle.node(value) {
                    Node::Tensor(_) if attribute == "_buffers" && name.len() <= MOST_NAME && passing.contains(name) => {
                    }
                    Node::Tensor(tensor) => self.keep(tensors, (prefix, name), tensor)?,
                    Node::None => (),
                    other => {
                        let name = self.name(prefix, name)?;
                        return Err(format!("has {} as `{name}`, expected a tensor", kind(other)));
                    }
                }
            }
        }
        for (name, value) in self.attribute(state, "_modules")? {
            if !matches!(self.pickle.node(value), Node::None) {
                let prefix = format!("{}.", self.name(prefix, name)?);
                self.module(value, &prefix, depth + 1, tensors)?;
            }
        }
        Ok(())
    }

    fn attribute(&mut self, state: Id, name: &str) -> Result<Vec<(&'a str, Id)>, String> {
        let pickle = self.pickle;
        let Some(id) = pickle.get(state, name) else { return Ok(Vec::new()) };
        let entries = pickle.entries(id).ok_or_else(|| format!("has a module whose {name} is no dictionary"))?;
        let entries: Vec<_> = entries.collect();
        self.visit(entries.len())?;
        Ok(entries)
    }

    fn text(&self, id: Id) -> Option<&'a str> {
        match self.pickle.node(id) {
            Node::Text(text) => Some(text),
            _ => None,
        }
    }

    fn kind(&self, id: Id) -> &'static str {
        kind(self.pickle.node(id))
    }

    /// Plain values as JSON; others are `null`.
    fn json(&mut self, id: Id, depth: usize) -> Result<Value, String> {
        self.visit(1)?;
        if depth > MOST_DEPTH {
            return Err("nests its configuration too deep".into());
        }
        Ok(match self.pickle.node(id) {
            Node::Bool(value) => Value::from(*value),
            Node::Integer(value) => i64::try_from(*value).map_or(Value::Null, Value::from),
            Node::Float(value) => Value::from(*value),
            Node::Text(text) => {
                // A text may be met many times over.
                self.visit(text.len() / 16)?;
                Value::from(&**text)
            }
            Node::Tuple(items) | Node::List(items) => {
                Value::Array(items.iter().map(|&item| self.json(item, depth + 1)).collect::<Result<_, _>>()?)
            }
            Node::Dictionary(_) => {
                let pickle = self.pickle;
                let mut map = Map::new();
                for (key, value) in pickle.entries(id).into_iter().flatten() {
                    // As with a text: a key may be met many times over.
                    self.visit(key.len() / 16)?;
                    map.insert(key.to_owned(), self.json(value, depth + 1)?);
                }
                Value::Object(map)
            }
            _ => Value::Null,
        })
    }
}

/// Whether score_sde's average leaves this tensor out: a buffer, or the fixed frequencies of an embedding.
fn frozen(name: &str) -> bool {
    let frequencies = || {
        let index = name.strip_prefix("all_modules.")?.strip_suffix(".W")?;
        Some(index.bytes().all(|digit| digit.is_ascii_digit()))
    };
    name == "sigmas" || frequencies().unwrap_or(false)
}

/// Takes off the `module.` that `DataParallel` puts in front of every name.
fn without_prefix(tensors: Vec<(String, Tensor)>) -> Vec<(String, Tensor)> {
    match tensors.iter().all(|(name, _)| name.starts_with("module.")) {
        true => tensors.into_iter().map(|(name, tensor)| (name["module.".len()..].to_owned(), tensor)).collect(),
        false => tensors,
    }
}

fn kind(node: &Node) -> &'static str {
    match node {
        Node::None => "None",
        Node::Bool(_) | Node::Integer(_) | Node::Float(_) => "a number",
        Node::Text(_) => "a text",
        Node::Bytes(_) => "bytes",
        Node::Tuple(_) => "a tuple",
        Node::List(_) => "a list",
        Node::Set(_) => "a set",
        Node::Dictionary(_) => "a dictionary",
        Node::Name(_) | Node::NumpyDtype(_) | Node::Incidental => "something without weights",
        Node::Storage(_) => "a storage",
        Node::Tensor(_) => "a tensor",
        Node::Module(_) => "a module",
    }
}

fn shown(keys: &[&str]) -> String {
    match keys {
        [] => "(none)".into(),
        keys => keys.iter().map(|key| key.chars().take(40).collect::<String>()).collect::<Vec<_>>().join(", "),
    }
}
