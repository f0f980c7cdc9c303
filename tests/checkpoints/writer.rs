//! Pickles, archives and headers written byte by byte, so that none of the project's own code stands behind them.

/// A pickle of protocol 2, opcode by opcode.
#[derive(Clone, Debug)]
pub(crate) struct Pickle(pub(crate) Vec<u8>);

impl Pickle {
    pub(crate) fn new() -> Self {
        Self(vec![0x80, 2])
    }

    pub(crate) fn op(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }

    pub(crate) fn text(self, text: &str) -> Self {
        self.op(b"X").op(&(text.len() as u32).to_le_bytes()).op(text.as_bytes())
    }

    pub(crate) fn integer(self, integer: i64) -> Self {
        self.op(&[0x8a, 8]).op(&integer.to_le_bytes())
    }

    pub(crate) fn class(self, module: &str, name: &str) -> Self {
        self.op(format!("c{module}\n{name}\n").as_bytes())
    }

    pub(crate) fn put(self, index: u32) -> Self {
        self.op(b"r").op(&index.to_le_bytes())
    }

    pub(crate) fn get(self, index: u32) -> Self {
        self.op(b"j").op(&index.to_le_bytes())
    }

    pub(crate) fn integers(mut self, integers: &[i64]) -> Self {
        self = self.op(b"(");
        for &integer in integers {
            self = self.integer(integer);
        }
        self.op(b"t")
    }

    /// `torch.FloatStorage` of that many numbers.
    pub(crate) fn storage(self, key: &str, elements: i64) -> Self {
        self.op(b"(").text("storage").class("torch", "FloatStorage").text(key).text("cpu").integer(elements).op(b"tQ")
    }

    /// A tensor of that storage.
    pub(crate) fn tensor(self, (key, elements): (&str, i64), offset: i64, shape: &[i64], strides: &[i64]) -> Self {
        self.class("torch._utils", "_rebuild_tensor_v2")
            .op(b"(")
            .storage(key, elements)
            .integer(offset)
            .integers(shape)
            .integers(strides)
            .op(b"\x89}tR")
    }

    pub(crate) fn stop(self) -> Vec<u8> {
        self.op(b".").0
    }
}

/// `{"w": tensor}` of four numbers in storage `0`.
pub(crate) fn small() -> Vec<u8> {
    Pickle::new().op(b"}").text("w").tensor(("0", 4), 0, &[2, 2], &[2, 1]).op(b"s").stop()
}

/// An entry of an archive, and what its headers say of it.
#[derive(Clone, Debug)]
pub(crate) struct Packed {
    pub(crate) name: String,
    pub(crate) data: Vec<u8>,
    pub(crate) method: u16,
    pub(crate) flags: u16,
    /// What the headers say the size is.
    pub(crate) size: u32,
    pub(crate) sum: u32,
    /// Where the directory says the entry is, if elsewhere.
    pub(crate) at: Option<u32>,
    /// What the directory calls it, if otherwise.
    pub(crate) called: Option<String>,
}

impl Packed {
    pub(crate) fn new(name: &str, data: &[u8]) -> Self {
        let sum = crc32fast::hash(data);
        let (method, flags, size) = (0, 0, data.len() as u32);
        Self { name: name.into(), data: data.into(), method, flags, size, sum, at: None, called: None }
    }
}

/// A zip file.
pub(crate) fn zip(entries: &[Packed]) -> Vec<u8> {
    let mut file = Vec::new();
    let mut directory = Vec::new();
    for entry in entries {
        let common = [
            &entry.flags.to_le_bytes()[..],
            &entry.method.to_le_bytes(),
            &[0; 4],
            &entry.sum.to_le_bytes(),
            &entry.size.to_le_bytes(),
            &entry.size.to_le_bytes(),
        ]
        .concat();
        let called = entry.called.as_ref().unwrap_or(&entry.name);
        directory.extend(b"PK\x01\x02\x00\x00\x00\x00");
        directory.extend(&common);
        directory.extend((called.len() as u16).to_le_bytes());
        directory.extend([0; 12]);
        directory.extend(entry.at.unwrap_or(file.len() as u32).to_le_bytes());
        directory.extend(called.as_bytes());
        file.extend(b"PK\x03\x04\x00\x00");
        file.extend(&common);
        file.extend((entry.name.len() as u16).to_le_bytes());
        file.extend([0, 0]);
        file.extend(entry.name.as_bytes());
        file.extend(&entry.data);
    }
    let (offset, count) = (file.len() as u32, entries.len() as u16);
    file.extend(&directory);
    file.extend(b"PK\x05\x06\x00\x00\x00\x00");
    file.extend(count.to_le_bytes());
    file.extend(count.to_le_bytes());
    file.extend((directory.len() as u32).to_le_bytes());
    file.extend(offset.to_le_bytes());
    file.extend([0, 0]);
    file
}

/// The same as a file of more than four gigabytes has it: sizes and places in 64 bits, in the directory and at the end.
pub(crate) fn zip_in_64_bits(entries: &[Packed]) -> Vec<u8> {
    let whole = zip(entries);
    let directory = whole.windows(4).position(|bytes| bytes == b"PK\x01\x02").unwrap();
    let mut file = whole[..directory].to_vec();
    let mut place = 0_u64;
    for entry in entries {
        let length = entry.data.len() as u64;
        file.extend(b"PK\x01\x02\x2d\x00\x2d\x00\x00\x00\x00\x00\x00\x00\x00\x00");
        file.extend(entry.sum.to_le_bytes());
        file.extend([0xff; 8]);
        file.extend((entry.name.len() as u16).to_le_bytes());
        // A field of another kind stands before the one with the three numbers.
        file.extend([5 + 28, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
        file.extend(entry.name.as_bytes());
        file.extend(b"FB\x01\x00Z\x01\x00\x18\x00");
        [length, length, place].iter().for_each(|number| file.extend(number.to_le_bytes()));
        place += 30 + entry.name.len() as u64 + length;
    }
    let (end, count) = (file.len() as u64, entries.len() as u64);
    file.extend(b"PK\x06\x06\x2c\x00\x00\x00\x00\x00\x00\x00\x2d\x00\x2d\x00\x00\x00\x00\x00\x00\x00\x00\x00");
    [count, count, end - directory as u64, directory as u64]
        .iter()
        .for_each(|number| file.extend(number.to_le_bytes()));
    file.extend(b"PK\x06\x07\x00\x00\x00\x00");
    file.extend(end.to_le_bytes());
    file.extend([1, 0, 0, 0]);
    file.extend(b"PK\x05\x06\x00\x00\x00\x00");
    file.extend([0xff; 12]);
    file.extend([0, 0]);
    file
}

/// What `torch.save` writes: the value, and numbers for each storage.
pub(crate) fn archive(value: &[u8], storages: &[(&str, &[u8])]) -> Vec<u8> {
    let mut entries = vec![Packed::new("m/data.pkl", value), Packed::new("m/byteorder", b"little")];
    entries.extend(storages.iter().map(|(key, data)| Packed::new(&format!("m/data/{key}"), data)));
    zip(&entries)
}

/// What `torch.save` wrote before PyTorch 1.6.
pub(crate) fn stream(value: &[u8], storages: &[(&str, u64, &[u8])]) -> Vec<u8> {
    let mut keys = Pickle::new().op(b"](");
    for (key, ..) in storages {
        keys = keys.text(key);
    }
    let mut file = stream_of(1001, true, value, &keys.op(b"e").stop());
    for (_, count, data) in storages {
        file.extend(count.to_le_bytes());
        file.extend(*data);
    }
    file
}

/// The parts of a stream before its numbers.
pub(crate) fn stream_of(protocol: u16, little_endian: bool, value: &[u8], keys: &[u8]) -> Vec<u8> {
    let magic = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";
    let system = Pickle::new().op(b"}").text("little_endian").op(&[if little_endian { 0x88 } else { 0x89 }]).op(b"s");
    let protocol = Pickle::new().op(b"M").op(&protocol.to_le_bytes()).stop();
    [&magic[..], &protocol, &system.stop(), value, keys].concat()
}

/// A safetensors file of this header and that many zeros.
pub(crate) fn safetensors(header: &str, data: usize) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.resize(file.len() + data, 0);
    file
}
