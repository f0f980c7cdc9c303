//! Pickles read as data.
//!
//! A pickle is a program for a small stack machine. This machine has no instruction that could call anything: `REDUCE`,
//! `NEWOBJ` and `BUILD` of a [listed](super::class) name note what the data beside it mean, and of every other name they
//! are refused. Values live in one list and refer to one another by index, so that nothing recurses over what a file
//! nests, and every size is bounded before anything is allocated for it.
//!
//! Opcodes: <https://docs.python.org/3/library/pickletools.html>, protocols 2 to 5 as far as checkpoints use them.

use super::bytes::{Bytes, Cursor};
use super::class::{Class, listed};
use super::legacy;
use super::opcode::named;
use safetensors::tensor::Dtype;
use std::collections::HashMap;
use std::ops::Range;

/// Index of a value.
pub(super) type Id = u32;

/// A value of a pickle.
#[derive(Debug)]
pub(super) enum Node {
    None,
    Bool(bool),
    Integer(i128),
    Float(f64),
    Text(Box<str>),
    /// Where the bytes lie in the file.
    Bytes(Range<u64>),
    Tuple(Vec<Id>),
    List(Vec<Id>),
    Set(Vec<Id>),
    Dictionary(Vec<(Id, Id)>),
    Name(Box<str>),
    /// Index among [`Pickle::storages`].
    Storage(usize),
    Tensor(Box<Tensor>),
    Module(Box<Module>),
    /// Text of the type of a NumPy scalar, such as `f8`.
    NumpyDtype(Box<str>),
    /// Something that says nothing about weights.
    Incidental,
}

/// A part of a network that was pickled by its attributes.
#[derive(Debug)]
pub(super) struct Module {
    pub(super) class: Box<str>,
    /// The dictionary of its attributes.
    pub(super) state: Option<Id>,
}

/// Numbers that tensors are views of.
#[derive(Debug)]
pub(super) struct Storage {
    pub(super) key: Box<str>,
    pub(super) dtype: Dtype,
    pub(super) elements: u64,
    /// Byte of the first number in the file, once it is known.
    pub(super) start: Option<u64>,
}

/// A view of a storage; in numbers, not in bytes. Every number of it is in the storage.
#[derive(Clone, Debug)]
pub(super) struct Tensor {
    pub(super) storage: usize,
    pub(super) offset: u64,
    pub(super) shape: Vec<usize>,
    /// `None` if the numbers follow one another in the order of the shape.
    pub(super) strides: Option<Vec<u64>>,
}

/// A pickle that has been read.
#[derive(Debug)]
pub(super) struct Pickle {
    pub(super) nodes: Vec<Node>,
    pub(super) root: Id,
    pub(super) storages: Vec<Storage>,
}

/// How much a pickle may ask for.
///
/// The largest checkpoint of this kind that is known, EDM's ImageNet network with all its modules' attributes, takes a
/// fifth of [`WHOLE`](Self::WHOLE).
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    operations: usize,
    values: usize,
    /// Bytes of all texts.
    text: usize,
    /// Whether `torch.storage._load_from_bytes` may hold another stream.
    streams: bool,
}

impl Limits {
    /// Of the pickle of a whole file.
    pub(super) const WHOLE: Self = Self { operations: 1 << 21, values: 1 << 20, text: 1 << 24, streams: true };
    /// Of the small ones around a storage inside of another pickle.
    pub(super) const WITHIN: Self = Self { operations: 1 << 10, values: 1 << 10, text: 1 << 12, streams: false };
}

const MOST_MARKS: usize = 256;
const MOST_NAME: usize = 256;
const MOST_KEY: usize = 64;
const MOST_DTYPE: usize = 16;
const MOST_TEXT: usize = 1 << 20;
const MOST_DIMENSIONS: usize = 16;
const MOST_TENSORS: usize = 1 << 16;

impl Pickle {
    /// Reads one pickle from the cursor to its `STOP`.
    ///
    /// # Errors
    /// The byte, the opcode by its name, and what is wrong with it.
    pub(super) fn read(bytes: &Bytes, cursor: &mut Cursor<'_>, limits: Limits) -> Result<Self, String> {
        let mut machine = Machine {
            bytes,
            limits,
            nodes: Vec::new(),
            storages: Vec::new(),
            keys: HashMap::new(),
            streams: HashMap::new(),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
            tensors: 0,
        };
        let start = cursor.position();
        loop {
            let position = cursor.position();
            let opcode = cursor.byte()?;
            if position == start && opcode != 0x80 {
                return Err(format!("is no pickle of protocol 2 to 5: begins with {}", named(opcode)));
            }
            if opcode == b'.' {
                break;
            }
            let done = machine.charge(1).and_then(|()| machine.step(opcode, cursor));
            done.map_err(|reason| match reason.starts_with("of class ") {
                true => format!("has {} {reason} (at byte {position})", named(opcode)),
                false => format!("has {} at byte {position}: {reason}", named(opcode)),
            })?;
        }
        let root = machine.pop().map_err(|reason| format!("has a STOP: {reason}"))?;
        if let Some(Node::Name(name)) =
            machine.nodes.iter().find(|node| matches!(node, Node::Name(name) if listed(name).is_none()))
        {
            return Err(format!("names the class {name}, which no checkpoint needs; nothing was run"));
        }
        Ok(Self { nodes: machine.nodes, root, storages: machine.storages })
    }

    pub(super) fn node(&self, id: Id) -> &Node {
        &self.nodes[id as usize]
    }

    /// The entries of a dictionary whose keys are texts, those with other keys left out.
    pub(super) fn entries(&self, id: Id) -> Option<impl Iterator<Item = (&str, Id)>> {
        let Node::Dictionary(entries) = self.node(id) else { return None };
        Some(entries.iter().filter_map(|&(key, value)| match self.node(key) {
            Node::Text(key) => Some((&**key, value)),
            _ => None,
        }))
    }

    /// The value of `key` in a dictionary; as in Python the last one counts.
    pub(super) fn get(&self, id: Id, key: &str) -> Option<Id> {
        self.entries(id)?.filter(|(name, _)| *name == key).last().map(|(_, value)| value)
    }
}

struct Machine<'a> {
    bytes: &'a Bytes,
    /// What is left.
    limits: Limits,
    nodes: Vec<Node>,
    storages: Vec<Storage>,
    keys: HashMap<Box<str>, usize>,
    /// Storages of streams by the byte where their stream begins.
    streams: HashMap<u64, usize>,
    stack: Vec<Id>,
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
    tensors: usize,
}

impl Machine<'_> {
    fn step(&mut self, opcode: u8, cursor: &mut Cursor<'_>) -> Result<(), String> {
        match opcode {
            0x80 => {
                let protocol = cursor.byte()?;
                if !(2..=5).contains(&protocol) {
                    return Err(format!("protocol {protocol}, expected 2 to 5"));
                }
                Ok(())
            }
            0x95 => {
                let length = u64::from_le_bytes(cursor.array()?);
                if length > cursor.remaining() {
                    return Err(format!("a frame of {length} bytes, {} are left", cursor.remaining()));
                }
                Ok(())
            }
            b'(' => {
                if self.marks.len() == MOST_MARKS {
                    return Err(format!("nested more than {MOST_MARKS} deep"));
                }
                self.marks.push(self.stack.len());
                Ok(())
            }
            b'0' => match self.marks.last() == Some(&self.stack.len()) {
                true => self.marks.pop().map(drop).ok_or_else(|| "an empty stack".into()),
                false => self.pop().map(drop),
            },
            b'1' => self.above_mark().map(drop),
            b'2' => {
                let top = self.top()?;
                self.put_back(top)
            }
            b'N' => self.push(Node::None),
            0x88 => self.push(Node::Bool(true)),
            0x89 => self.push(Node::Bool(false)),
            b'J' => self.push(Node::Integer(i32::from_le_bytes(cursor.array()?).into())),
            b'K' => self.push(Node::Integer(cursor.byte()?.into())),
            b'M' => self.push(Node::Integer(u16::from_le_bytes(cursor.array()?).into())),
            0x8a => {
                let length = cursor.byte()?;
                let digits = cursor.take(length.into(), 255, "an integer")?;
                let integer = integer(&digits);
                self.push(integer)
            }
            b'G' => self.push(Node::Float(f64::from_be_bytes(cursor.array()?))),
            0x8c => {
                let length = cursor.byte()?.into();
                self.text(cursor, length)
            }
            b'X' => {
                let length = u32::from_le_bytes(cursor.array()?).into();
                self.text(cursor, length)
            }
            0x8d => {
                let length = u64::from_le_bytes(cursor.array()?);
                self.text(cursor, length)
            }
            // Text of Python 2, whose names are ASCII.
            b'U' => {
                let length = cursor.byte()?.into();
                self.text(cursor, length)
            }
            b'T' => {
                let length = u32::from_le_bytes(cursor.array()?).into();
                self.text(cursor, length)
            }
            b'C' => {
                let length = cursor.byte()?.into();
                self.byte_string(cursor, length)
            }
            b'B' => {
                let length = u32::from_le_bytes(cursor.array()?).into();
                self.byte_string(cursor, length)
            }
            0x8e => {
                let length = u64::from_le_bytes(cursor.array()?);
                self.byte_string(cursor, length)
            }
            b')' => self.push(Node::Tuple(Vec::new())),
            b']' => self.push(Node::List(Vec::new())),
            b'}' => self.push(Node::Dictionary(Vec::new())),
            0x8f => self.push(Node::Set(Vec::new())),
            0x85..=0x87 => {
                let length = usize::from(opcode - 0x84);
                self.above(length)?;
                let items = self.stack.split_off(self.stack.len() - length);
                self.push(Node::Tuple(items))
            }
            b't' => {
                let items = self.above_mark()?;
                self.push(Node::Tuple(items))
            }
            0x91 => {
                let items = self.above_mark()?;
                self.push(Node::Set(items))
            }
            b'a' => {
                let item = self.pop()?;
                self.extend(vec![item])
            }
            b'e' | 0x90 => {
                let items = self.above_mark()?;
                self.extend(items)
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.set_items(vec![key, value])
            }
            b'u' => {
                let items = self.above_mark()?;
                self.set_items(items)
            }
            b'h' => {
                let index = cursor.byte()?.into();
                self.recall(index)
            }
            b'j' => {
                let index = u32::from_le_bytes(cursor.array()?);
                self.recall(index)
            }
            b'q' => {
                let index = cursor.byte()?.into();
                self.memoize(index)
            }
            b'r' => {
                let index = u32::from_le_bytes(cursor.array()?);
                self.memoize(index)
            }
            0x94 => self.memoize(self.memo.len() as u32),
            b'c' => {
                let (module, name) = (cursor.line(MOST_NAME)?, cursor.line(MOST_NAME)?);
                let text = |line| String::from_utf8(line).map_err(|_| "a name that is not UTF-8".to_owned());
                self.name(&text(module)?, &text(name)?)
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                match (&self.nodes[module as usize], &self.nodes[name as usize]) {
                    (Node::Text(module), Node::Text(name)) if module.len().max(name.len()) <= MOST_NAME => {
                        let (module, name) = (module.clone(), name.clone());
                        self.name(&module, &name)
                    }
                    _ => Err("expected two short texts".into()),
                }
            }
            b'Q' => {
                let id = self.pop()?;
                self.persistent(id)
            }
            b'R' => {
                let (arguments, function) = (self.pop()?, self.pop()?);
                let node = self.reduce(function, arguments)?;
                self.push(node)
            }
            0x81 => {
                let (arguments, class) = (self.pop()?, self.pop()?);
                let node = self.new_object(class, arguments)?;
                self.push(node)
            }
            b'b' => {
                let state = self.pop()?;
                self.build(state)
            }
            _ => Err("no checkpoint needs it; nothing was run".into()),
        }
    }

    /// Takes `count` off what may still be done: one for every opcode, and one for every value that is copied or looked at.
    fn charge(&mut self, count: usize) -> Result<(), String> {
        self.limits.operations = self.limits.operations.checked_sub(count).ok_or("too much to do for a checkpoint")?;
        Ok(())
    }

    fn push(&mut self, node: Node) -> Result<(), String> {
        if self.nodes.len() >= self.limits.values {
            return Err(format!("more than {} values", self.limits.values));
        }
        self.nodes.push(node);
        self.put_back(self.nodes.len() as Id - 1)
    }

    fn put_back(&mut self, id: Id) -> Result<(), String> {
        if self.stack.len() >= self.limits.values {
            return Err(format!("a stack of more than {} values", self.limits.values));
        }
        self.stack.push(id);
        Ok(())
    }

    /// Whether there are `count` values above the last mark.
    fn above(&self, count: usize) -> Result<(), String> {
        let floor = self.marks.last().copied().unwrap_or(0);
        match self.stack.len() - floor >= count {
            true => Ok(()),
            false => Err("an empty stack".into()),
        }
    }

    fn top(&self) -> Result<Id, String> {
        self.above(1)?;
        self.stack.last().copied().ok_or_else(|| "an empty stack".into())
    }

    fn pop(&mut self) -> Result<Id, String> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    fn above_mark(&mut self) -> Result<Vec<Id>, String> {
        let mark = self.marks.pop().ok_or("no mark")?;
        Ok(self.stack.split_off(mark))
    }

    fn node(&self, id: Id) -> &Node {
        &self.nodes[id as usize]
    }

    fn text(&mut self, cursor: &mut Cursor<'_>, length: u64) -> Result<(), String> {
        let bytes = cursor.take(length, self.limits.text.min(MOST_TEXT), "a text")?;
        self.limits.text -= bytes.len();
        let text = String::from_utf8(bytes).map_err(|_| "a text that is not UTF-8")?;
        self.push(Node::Text(text.into()))
    }

    fn byte_string(&mut self, cursor: &mut Cursor<'_>, length: u64) -> Result<(), String> {
        let range = cursor.skip(length)?;
        self.push(Node::Bytes(range))
    }

    fn recall(&mut self, index: u32) -> Result<(), String> {
        match self.memo.get(&index) {
            Some(&id) => self.put_back(id),
            None => Err(format!("nothing was remembered as {index}")),
        }
    }

    fn memoize(&mut self, index: u32) -> Result<(), String> {
        let top = self.top()?;
        self.memo.insert(index, top);
        Ok(())
    }

    fn name(&mut self, module: &str, name: &str) -> Result<(), String> {
        let name = format!("{module}.{name}");
        let Some(left) = self.limits.text.checked_sub(name.len()) else { return Err("too many names".into()) };
        self.limits.text = left;
        self.push(Node::Name(name.into()))
    }

    fn extend(&mut self, items: Vec<Id>) -> Result<(), String> {
        let target = self.top()?;
        match &mut self.nodes[target as usize] {
            Node::List(list) | Node::Set(list) => {
                list.extend(items);
                Ok(())
            }
            _ => Err("expected a list or a set below".into()),
        }
    }

    fn set_items(&mut self, items: Vec<Id>) -> Result<(), String> {
        let target = self.top()?;
        if !items.len().is_multiple_of(2) {
            return Err("a key without a value".into());
        }
        match &mut self.nodes[target as usize] {
            Node::Dictionary(entries) => {
                entries.extend(items.chunks_exact(2).map(|pair| (pair[0], pair[1])));
                Ok(())
            }
            _ => Err("expected a dictionary below".into()),
        }
    }

    fn tuple(&self, id: Id) -> Result<&[Id], String> {
        match self.node(id) {
            Node::Tuple(items) => Ok(items),
            _ => Err("expected a tuple".into()),
        }
    }

    /// The class that `id` names, and how the file calls it.
    fn class(&self, id: Id) -> Result<(Class, &str), String> {
        match self.node(id) {
            Node::Name(name) => match listed(name) {
                Some(class) => Ok((class, name)),
                None => Err(format!("of class {name}, which no checkpoint needs; nothing was run")),
            },
            _ => Err("expected the name of a class".into()),
        }
    }

    fn reduce(&mut self, function: Id, arguments: Id) -> Result<Node, String> {
        let (class, name) = self.class(function)?;
        let name = name.to_owned();
        let length = self.tuple(arguments).map_err(|reason| format!("of class {name}: {reason}"))?.len();
        self.charge(length)?;
        let arguments = self.tuple(arguments)?.to_vec();
        self.charge(arguments.first().map_or(0, |&first| self.length(first)))?;
        let node = match class {
            Class::Dictionary => self.dictionary(&arguments),
            Class::DefaultDictionary => Ok(Node::Dictionary(Vec::new())),
            Class::Set => Ok(match arguments.first().map(|&id| self.node(id)) {
                Some(Node::List(items)) => Node::Set(items.clone()),
                _ => Node::Set(Vec::new()),
            }),
            Class::Size => match arguments.first().map(|&id| self.node(id)) {
                Some(Node::Tuple(items) | Node::List(items)) => Ok(Node::Tuple(items.clone())),
                _ => Err("expected a tuple".into()),
            },
            Class::RebuildTensor => self.tensor(&arguments).map(|tensor| Node::Tensor(Box::new(tensor))),
            Class::RebuildParameter => match arguments.first().map(|&id| self.node(id)) {
                Some(Node::Tensor(tensor)) => {
                    let tensor = tensor.clone();
                    self.count_tensor().map(|()| Node::Tensor(tensor))
                }
                _ => Err("expected a tensor".into()),
            },
            Class::LoadFromBytes => self.stream(&arguments),
            Class::Persistent => self.persistent_module(&arguments),
            Class::NumpyScalar => self.numpy_scalar(&arguments),
            Class::NumpyDtype => match arguments.first().map(|&id| self.node(id)) {
                Some(Node::Text(text)) if text.len() <= MOST_DTYPE => Ok(Node::NumpyDtype(text.clone())),
                _ => Err("expected a short text".into()),
            },
            Class::Incidental => Ok(Node::Incidental),
            Class::Namespace | Class::Module(_) | Class::Storage(_) => Err("cannot be called".into()),
        };
        node.map_err(|reason| format!("of class {name}: {reason}"))
    }

    /// How many values a value holds.
    fn length(&self, id: Id) -> usize {
        match self.node(id) {
            Node::Tuple(items) | Node::List(items) | Node::Set(items) => items.len(),
            Node::Dictionary(entries) => 2 * entries.len(),
            _ => 0,
        }
    }

    fn new_object(&mut self, class: Id, arguments: Id) -> Result<Node, String> {
        let (class, name) = self.class(class)?;
        self.tuple(arguments)?;
        match class {
            Class::Dictionary | Class::Namespace => Ok(Node::Dictionary(Vec::new())),
            Class::Module(class) => Ok(Node::Module(Box::new(Module { class: class.into(), state: None }))),
            _ => Err(format!("of class {name}: not made that way")),
        }
    }

    /// The state of the value below; what it means depends on the value.
    fn build(&mut self, state: Id) -> Result<(), String> {
        let target = self.top()?;
        self.charge(self.length(state))?;
        let attributes = match self.node(state) {
            Node::Dictionary(entries) => Some(entries.clone()),
            _ => None,
        };
        match (&mut self.nodes[target as usize], attributes) {
            (Node::Module(module), Some(_)) if module.state.is_none() => {
                module.state = Some(state);
                Ok(())
            }
            // A namespace is its attributes; those of an ordered dictionary (`_metadata`) are no entries of it, but its
            // entries come first.
            (Node::Dictionary(entries), Some(attributes)) => {
                if entries.is_empty() {
                    *entries = attributes;
                }
                Ok(())
            }
            (Node::NumpyDtype(_) | Node::Incidental, _) => Ok(()),
            (Node::Name(name), _) => Err(format!("of class {name}, which takes no state; nothing was run")),
            _ => Err("of a value that takes no such state".into()),
        }
    }

    /// An ordered dictionary, of nothing or of a list of pairs.
    fn dictionary(&self, arguments: &[Id]) -> Result<Node, String> {
        let Some(&pairs) = arguments.first() else { return Ok(Node::Dictionary(Vec::new())) };
        let pairs = match self.node(pairs) {
            Node::List(pairs) | Node::Tuple(pairs) => pairs,
            _ => return Err("expected a list of pairs".into()),
        };
        let pair = |&id: &Id| match self.node(id) {
            Node::List(pair) | Node::Tuple(pair) if pair.len() == 2 => Ok((pair[0], pair[1])),
            _ => Err("expected pairs of a key and a value".to_owned()),
        };
        Ok(Node::Dictionary(pairs.iter().map(pair).collect::<Result<_, _>>()?))
    }

    /// `("storage", class, key, device, elements)`, with `None` behind it in old files.
    fn persistent(&mut self, id: Id) -> Result<(), String> {
        let items = self.tuple(id)?;
        let [kind, class, key, _, elements] = *items.get(..5).ok_or("a persistent id of fewer than five parts")? else {
            return Err("a persistent id of fewer than five parts".into());
        };
        match self.node(kind) {
            Node::Text(kind) if &**kind == "storage" => (),
            Node::Text(kind) => return Err(format!("a persistent id of kind {kind:?}, expected \"storage\"")),
            _ => return Err("a persistent id without a kind".into()),
        }
        if items.get(5).is_some_and(|&view| !matches!(self.node(view), Node::None)) {
            return Err("a storage that is a view of another, as before PyTorch 0.4".into());
        }
        let (Class::Storage(dtype), name) = self.class(class)? else {
            return Err(format!("a storage of class {}", self.class(class)?.1));
        };
        let (Node::Text(key), Node::Integer(elements)) = (self.node(key), self.node(elements)) else {
            return Err("a storage without a key or a number of elements".into());
        };
        if key.len() > MOST_KEY {
            return Err(format!("a storage with a key of {} bytes, at most {MOST_KEY} are read", key.len()));
        }
        let elements = u64::try_from(*elements).map_err(|_| format!("a storage of {elements} numbers"))?;
        let index = match self.keys.get(key) {
            Some(&index) => {
                let known = &self.storages[index];
                if (known.dtype, known.elements) != (dtype, elements) {
                    let (was, size) = (known.dtype, known.elements);
                    return Err(format!("storage {key} as {size} of {was:?} and as {elements} of {name}"));
                }
                index
            }
            None => {
                let key = key.clone();
                self.keys.insert(key.clone(), self.storages.len());
                self.storages.push(Storage { key, dtype, elements, start: None });
                self.storages.len() - 1
            }
        };
        self.push(Node::Storage(index))
    }

    fn stream(&mut self, arguments: &[Id]) -> Result<Node, String> {
        if !self.limits.streams {
            return Err("a stream within a stream".into());
        }
        let Some(Node::Bytes(range)) = arguments.first().map(|&id| self.node(id)) else {
            return Err("expected bytes".into());
        };
        // Bytes that are recalled again and again are read once. No two byte strings begin at the same place.
        let start = range.start;
        if let Some(&index) = self.streams.get(&start) {
            return Ok(Node::Storage(index));
        }
        let inner = legacy::read(self.bytes, range.clone(), Limits::WITHIN)?;
        let Node::Storage(index) = *inner.node(inner.root) else {
            return Err("a stream that is not a storage".into());
        };
        let mut storages = inner.storages;
        let made = self.storages.len();
        self.storages.push(storages.swap_remove(index));
        self.streams.insert(start, made);
        Ok(Node::Storage(made))
    }

    fn count_tensor(&mut self) -> Result<(), String> {
        self.tensors += 1;
        match self.tensors <= MOST_TENSORS {
            true => Ok(()),
            false => Err(format!("more than {MOST_TENSORS} tensors")),
        }
    }

    fn tensor(&mut self, arguments: &[Id]) -> Result<Tensor, String> {
        self.count_tensor()?;
        let [storage, offset, shape, strides] = *arguments.get(..4).ok_or("fewer than four arguments")? else {
            return Err("fewer than four arguments".into());
        };
        let Node::Storage(storage) = *self.node(storage) else { return Err("expected a storage".into()) };
        let size = |id: Id, what: &str| match self.node(id) {
            Node::Integer(size) => u64::try_from(*size).map_err(|_| format!("{what} {size}")),
            _ => Err(format!("{what} that is no integer")),
        };
        let offset = size(offset, "an offset of")?;
        let (shape, strides) = (self.tuple(shape)?, self.tuple(strides)?);
        if shape.len() != strides.len() || shape.len() > MOST_DIMENSIONS {
            let (a, b) = (shape.len(), strides.len());
            return Err(format!("{a} sizes and {b} strides, expected as many, at most {MOST_DIMENSIONS}"));
        }
        let shape = shape.iter().map(|&id| size(id, "a size of")).collect::<Result<Vec<_>, _>>()?;
        let strides = strides.iter().map(|&id| size(id, "a stride of")).collect::<Result<Vec<_>, _>>()?;
        let all = self.storages[storage].elements;
        let beyond =
            || format!("shape {shape:?}, strides {strides:?} at {offset} do not fit a storage of {all} numbers");
        let elements = shape.iter().try_fold(1_u64, |product, &size| product.checked_mul(size)).ok_or_else(beyond)?;
        if elements > 0 {
            let last = shape
                .iter()
                .zip(&strides)
                .try_fold(offset, |last, (&size, &stride)| last.checked_add((size - 1).checked_mul(stride)?));
            // More numbers than there are would be one number many times over.
            if last.is_none_or(|last| last >= all) || elements > all {
                return Err(beyond());
            }
        }
        let mut following = 1_u64;
        let mut contiguous = true;
        for (&size, &stride) in shape.iter().zip(&strides).rev() {
            contiguous &= size <= 1 || stride == following;
            // Only a shape without any number can be too large for it.
            following = following.wrapping_mul(size);
        }
        let sizes = shape.iter().map(|&size| usize::try_from(size).map_err(|_| beyond()));
        let sizes = sizes.collect::<Result<_, _>>()?;
        Ok(Tensor { storage, offset, shape: sizes, strides: (!contiguous && elements > 0).then_some(strides) })
    }

    fn persistent_module(&self, arguments: &[Id]) -> Result<Node, String> {
        let Some(Node::Dictionary(entries)) = arguments.first().map(|&id| self.node(id)) else {
            return Err("expected a dictionary".into());
        };
        let get = |wanted: &str| {
            let is = |key: Id| matches!(self.node(key), Node::Text(key) if &**key == wanted);
            entries.iter().find(|(key, _)| is(*key)).map(|(_, value)| *value)
        };
        let (Some(Node::Text(class)), Some(state)) = (get("class_name").map(|id| self.node(id)), get("state")) else {
            return Err("expected class_name and state".into());
        };
        if class.len() > MOST_NAME {
            return Err(format!("a class whose name has {} bytes", class.len()));
        }
        Ok(Node::Module(Box::new(Module { class: class.clone(), state: Some(state) })))
    }

    /// A NumPy number; one of a type that no configuration uses says nothing.
    fn numpy_scalar(&self, arguments: &[Id]) -> Result<Node, String> {
        let [dtype, bytes] = *arguments else { return Err("expected a type and bytes".into()) };
        let (Node::NumpyDtype(dtype), Node::Bytes(range)) = (self.node(dtype), self.node(bytes)) else {
            return Ok(Node::Incidental);
        };
        let array = |length: u64| match range.end - range.start == length {
            true => self.bytes.copy(range.clone()),
            false => Err(format!("{} bytes for a number of type {dtype}", range.end - range.start)),
        };
        let fixed = |bytes: Vec<u8>| <[u8; 8]>::try_from(bytes).unwrap_or_default();
        Ok(match dtype.trim_start_matches(['<', '=']) {
            "f8" => Node::Float(f64::from_le_bytes(fixed(array(8)?))),
            "i8" => Node::Integer(i64::from_le_bytes(fixed(array(8)?)).into()),
            "f4" => {
                let bytes = array(4)?;
                Node::Float(f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]).into())
            }
            _ => Node::Incidental,
        })
    }
}

/// Little-endian two's complement of any length; what 128 bits cannot hold is no size and no step.
fn integer(digits: &[u8]) -> Node {
    if digits.len() > 16 {
        return Node::Incidental;
    }
    let negative = digits.last().is_some_and(|&byte| byte & 0x80 != 0);
    let mut bytes = [if negative { 0xff } else { 0 }; 16];
    bytes[..digits.len()].copy_from_slice(digits);
    Node::Integer(i128::from_le_bytes(bytes))
}
