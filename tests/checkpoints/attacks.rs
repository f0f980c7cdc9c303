//! Hostile files: each is refused by name, quickly and in little memory, whatever it claims.

use super::golden;
use super::memory::largest;
use super::writer::{Packed, Pickle, archive, safetensors, small, stream, stream_of, zip};
use std::sync::LazyLock;
use std::time::{Duration, Instant};
use tweedie::checkpoints::TensorFile;

/// A file, what it does, and a part of what has to be said of it.
struct Attack {
    what: String,
    file: Vec<u8>,
    said: String,
}

#[derive(Default)]
struct Attacks(Vec<Attack>);

impl Attacks {
    fn add(&mut self, what: &str, file: Vec<u8>, said: &str) {
        self.0.push(Attack { what: what.into(), file, said: said.into() });
    }

    /// A pickle on its own.
    fn pickle(&mut self, what: &str, pickle: Pickle, said: &str) {
        self.add(what, pickle.stop(), said);
    }

    /// A pickle in an archive with one storage, `0`, of four numbers.
    fn value(&mut self, what: &str, pickle: Pickle, said: &str) {
        self.add(what, archive(&pickle.stop(), &[("0", &[0; 16])]), said);
    }

    /// An archive of these entries.
    fn zip(&mut self, what: &str, entries: &[Packed], said: &str) {
        self.add(what, zip(entries), said);
    }
}

fn begin() -> Pickle {
    Pickle::new()
}

/// A pickle without the opcode for its protocol, 2.
fn four(pickle: Pickle) -> Pickle {
    let mut pickle = pickle;
    pickle.0[1] = 4;
    pickle
}

fn short_text(text: &str) -> Vec<u8> {
    [&[0x8c, text.len() as u8], text.as_bytes()].concat()
}

fn programs(all: &mut Attacks) {
    for (module, name) in [
        ("posix", "system"),
        ("nt", "system"),
        ("builtins", "eval"),
        ("builtins", "exec"),
        ("builtins", "getattr"),
        ("__builtin__", "apply"),
        ("torch", "load"),
        ("torch.jit", "load"),
        ("torch.hub", "load"),
        ("importlib", "import_module"),
        ("operator", "attrgetter"),
        ("collections", "OrderedDict.fromkeys"),
        ("torch_utils.persistence", "import_hook"),
    ] {
        let call = begin().class(module, name).op(b"(").text("echo").op(b"tR");
        let said =
            format!("has opcode 0x52 REDUCE of class {module}.{name}, which no checkpoint needs; nothing was run");
        all.pickle(&format!("calls {module}.{name}"), call.clone(), &said);
        all.value(&format!("calls {module}.{name} in an archive"), call, &said);
        let named = four(begin()).op(&short_text(module)).op(&short_text(name)).op(b"\x93(").text("echo").op(b"tR");
        all.pickle(&format!("calls {module}.{name} by STACK_GLOBAL"), named, &said);
        let made = begin().class(module, name).op(b")\x81");
        all.pickle(&format!("makes a {module}.{name}"), made, &format!("opcode 0x81 NEWOBJ of class {module}.{name}"));
        let built = begin().class(module, name).op(b"}b");
        all.pickle(
            &format!("sets state of {module}.{name}"),
            built,
            &format!("opcode 0x62 BUILD of class {module}.{name}"),
        );
        let kept = begin().op(b"}").text("w").class(module, name).op(b"s");
        all.pickle(&format!("only names {module}.{name}"), kept, &format!("names the class {module}.{name}"));
    }
    // The name is put together by what was remembered.
    let built = begin().text("posix").put(7).op(b"0").text("system").put(9).op(b"0").get(7).get(9);
    all.pickle("remembered texts as a name", built.op(b"\x93)R"), "opcode 0x52 REDUCE of class posix.system");
    all.pickle(
        "a name of integers",
        begin().op(b"K\x01K\x02\x93"),
        "opcode 0x93 STACK_GLOBAL at byte 6: expected two short",
    );
    all.pickle("calls a text", begin().text("system").op(b")R"), "expected the name of a class");
    all.pickle("calls with no tuple", begin().class("collections", "OrderedDict").op(b"]R"), "expected a tuple");
    for (opcode, name) in [
        (&b"\x82\x01"[..], "0x82 EXT1"),
        (b"\x83\x01\x00", "0x83 EXT2"),
        (b"\x84\x01\x00\x00\x00", "0x84 EXT4"),
        (b"iposix\nsystem\n", "0x69 INST"),
        (b"(cposix\nsystem\no", "0x6f OBJ"),
        (b"P123\n", "0x50 PERSID"),
        (b"I1\n", "0x49 INT"),
        (b"L1L\n", "0x4c LONG"),
        (b"S'a'\n", "0x53 STRING"),
        (b"Va\n", "0x56 UNICODE"),
        (b"F1.0\n", "0x46 FLOAT"),
        (b"p0\n", "0x70 PUT"),
        (b"g0\n", "0x67 GET"),
        (b"(d", "0x64 DICT"),
        (b"(l", "0x6c LIST"),
        (b"\x8b\xff\xff\xff\x7f", "0x8b LONG4"),
        (b"\x92", "0x92 NEWOBJ_EX"),
        (b"\x96\xff\xff\xff\xff\xff\xff\xff\x7f", "0x96 BYTEARRAY8"),
        (b"\x97", "0x97 NEXT_BUFFER"),
        (b"\x98", "0x98 READONLY_BUFFER"),
        (b"\xff", "0xff (no opcode of any protocol)"),
        (b"\x00", "0x00 (no opcode of any protocol)"),
    ] {
        all.pickle(name, begin().op(opcode), &format!("has opcode {name} at byte"));
    }
    all.add("a pickle of protocol 0", b"(dp0\n.".to_vec(), "is not a whole safetensors file");
    all.add(
        "protocol 0 in an archive",
        archive(b"(dp0\n.", &[]),
        "is no pickle of protocol 2 to 5: begins with opcode 0x28 MARK",
    );
    all.pickle("another protocol on the way", begin().op(&[0x80, 9]), "opcode 0x80 PROTO at byte 2: protocol 9");
}

fn stack(all: &mut Attacks) {
    for (what, opcodes, said) in [
        ("nothing at all", &b""[..], "has a STOP: an empty stack"),
        ("a call of nothing", b"R", "opcode 0x52 REDUCE at byte 2: an empty stack"),
        ("a pair of nothing", b"\x86", "an empty stack"),
        ("a tuple without a mark", b"Nt", "no mark"),
        ("an append to nothing", b"Na", "an empty stack"),
        ("an append to a number", b"K\x01Na", "expected a list or a set below"),
        ("a key without a value", b"}(Nu", "a key without a value"),
        ("an item of a list", b"](NNu", "expected a dictionary below"),
        ("a value below a mark", b"N(\x85", "an empty stack"),
        ("a copy of nothing", b"2", "an empty stack"),
        ("a mark and no more", b"(", "has a STOP: an empty stack"),
        ("nothing to remember", b"\x94", "an empty stack"),
        ("nothing remembered", b"h\x05", "nothing was remembered as 5"),
        ("a state of a number", b"K\x01}b", "of a value that takes no such state"),
        ("a persistent number", b"K\x01Q", "expected a tuple"),
        ("a dictionary as its own key", b"}q\x00h\x00h\x00s", "holds a dictionary with the keys (none)"),
        ("a list that holds itself", b"]q\x00h\x00a", "holds a list whose first value is no dictionary"),
        ("a number", b"K\x01", "holds a number, no dictionary, list or module with tensors"),
    ] {
        all.pickle(what, begin().op(opcodes), said);
    }
    all.pickle("a far place remembered", begin().op(b"N").get(u32::MAX), "nothing was remembered as 4294967295");
    all.pickle("a place far away", begin().op(b"N").put(u32::MAX), "holds None");
}

fn sizes(all: &mut Attacks) {
    let long =
        |opcode: u8, length: u64, width: usize| begin().op(&[opcode]).op(&length.to_le_bytes()[..width]).op(b"abc");
    all.pickle(
        "a text of 4 GB",
        long(b'X', u32::MAX.into(), 4),
        "a text of 4294967295 bytes, at most 1048576 are read",
    );
    all.pickle("a text of 8 EB", long(0x8d, 1 << 63, 8), "a text of 9223372036854775808 bytes");
    all.pickle("a text longer than the file", long(b'X', 1 << 20, 4), "1048576 bytes at byte 7 are missing");
    all.pickle("bytes of 4 GB", long(b'B', u32::MAX.into(), 4), "4294967295 bytes at byte 7 are missing");
    all.pickle("bytes of 16 EB", long(0x8e, u64::MAX, 8), "18446744073709551615 bytes at byte 11 are missing");
    all.pickle("a frame of 16 EB", long(0x95, u64::MAX, 8), "a frame of 18446744073709551615 bytes");
    all.pickle("a text that is not UTF-8", begin().op(b"X\x02\x00\x00\x00\xc3\x28"), "a text that is not UTF-8");
    all.pickle("an endless name", begin().op(b"c").op(&vec![b'a'; 1 << 20]), "has a name of more than 256 bytes");
    let many = |opcodes: &[u8], count: usize| begin().op(&opcodes.repeat(count));
    all.pickle("marks in marks", many(b"(", 1000), "nested more than 256 deep");
    all.pickle(
        "a million lists in one another",
        many(b"]", 1 << 20).op(&b"a".repeat((1 << 20) - 1)),
        "holds a list whose first",
    );
    all.pickle("more lists in one another", many(b"]", (1 << 20) + 1), "more than 1048576 values");
    all.pickle(
        "a hundred thousand lists in one another",
        many(b"]", 100_000).op(&b"a".repeat(99_999)),
        "holds a list whose first",
    );
    all.pickle("tuples in one another", begin().op(b"N").op(&b"\x85".repeat(1 << 19)), "holds a list whose first");
    all.pickle("three million copies", begin().op(b"N").op(&b"2".repeat(3_000_000)), "more than 1048576 values");
    all.pickle("three million nothings", many(b"N0", 1_500_000), "too much to do");
    all.pickle("a million numbers", many(b"K\x00", 1_100_000), "more than 1048576 values");
    all.pickle("thirty million opcodes", begin().op(b"N").op(&b"20".repeat(15_000_000)), "too much to do");
    let texts = [b"X\x00\x00\x08\x00".to_vec(), vec![b'a'; 1 << 19]].concat().repeat(40);
    all.pickle("many long texts", begin().op(&texts), "has a text of 524288 bytes, at most 0 are read");
    let names =
        begin().text(&"m".repeat(250)).put(0).text(&"n".repeat(250)).put(1).op(&b"h\x00h\x01\x93".repeat(500_000));
    all.pickle("a name half a million times", names, "too many names");
    // Every state is a copy of half a million entries.
    let wide = begin().op(b"}(").op(&b"NN".repeat(200_000)).op(b"u").put(0);
    let class = |pickle: Pickle| pickle.class("collections", "OrderedDict").put(1);
    all.pickle("copies of a wide dictionary", class(wide).op(&b"h\x01)Rh\x00b".repeat(1000)), "too much to do");
    let list = begin().op(b"](").op(&b"N".repeat(400_000)).op(b"e\x85").put(0).class("builtins", "set").put(1);
    all.pickle("sets of a long list", list.op(&b"h\x01h\x00R".repeat(1000)), "too much to do");
}

/// `depth` modules of which each has the next one twice.
fn doubled(depth: usize) -> Pickle {
    let mut pickle = begin().op(b"N").put(0).op(b"0");
    for level in 0..depth as u32 {
        pickle = pickle.class("torch_utils.persistence", "_reconstruct_persistent_obj").op(b"}");
        pickle = pickle.text("class_name").text("M").op(b"s").text("state").op(b"}").text("_modules").op(b"}");
        pickle = pickle.text("a").get(level).op(b"s").text("b").get(level).op(b"sss\x85R").put(level + 1);
    }
    pickle
}

fn nesting(all: &mut Attacks) {
    all.pickle("a tree of modules with 2³⁰ leaves", doubled(30), "nests its values over and over");
    all.pickle("modules in modules", doubled(200), "nests modules more than 32 deep");
    // The laughs of a configuration: ten times ten times ten …
    let mut laughs = begin().text("ha").put(0);
    for level in 0..12 {
        laughs =
            laughs.op(b"](").op(&[&b"j"[..], &u32::to_le_bytes(level)].concat().repeat(10)).op(b"e").put(level + 1);
    }
    let module = laughs.class("torch_utils.persistence", "_reconstruct_persistent_obj").op(b"}");
    let module = module.text("class_name").text("M").op(b"s").text("state").op(b"}");
    let module = module.text("_init_kwargs").op(b"}").text("a").get(12).op(b"sss\x85R");
    all.pickle("a billion laughs in a configuration", module, "nests its values over and over");
    // One text of a megabyte, which three bytes recall.
    let long = || begin().text(&"k".repeat(1 << 20)).put(0).op(b"0");
    let too_long = "has a tensor or a module whose name has 1048576 bytes, at most 512 are read";
    let state = |pickle: Pickle| pickle.op(b"}").tensor(("0", 4), 0, &[1], &[1]).put(1).op(b"0");
    all.value("a long key a thousand times", state(long()).op(b"(").op(&b"h\x00h\x01".repeat(1000)).op(b"u"), too_long);
    let module = |pickle: Pickle, attribute: &str, entries: &[u8]| {
        let pickle = pickle.class("torch_utils.persistence", "_reconstruct_persistent_obj").op(b"}");
        let pickle = pickle.text("class_name").text("M").op(b"s").text("state").op(b"}");
        pickle.text(attribute).op(b"}(").op(&entries.repeat(1000)).op(b"uss\x85R")
    };
    let one = long().tensor(("0", 4), 0, &[1], &[1]).put(1).op(b"0");
    all.value("a long parameter a thousand times", module(one.clone(), "_parameters", b"h\x00h\x01"), too_long);
    all.value("a long buffer a thousand times", module(one, "_buffers", b"h\x00h\x01"), too_long);
    let inner = long().class("torch.nn.modules.container", "ModuleDict").op(b")\x81").put(1).op(b"0");
    all.pickle("a long part a thousand times", module(inner, "_modules", b"h\x00h\x01"), too_long);
    let recalled = module(long(), "_init_kwargs", b"h\x00N");
    all.pickle("a long key of a configuration a thousand times", recalled, "nests its values over and over");
    let short = begin().text(&"k".repeat(500)).put(0).op(b"0").op(b"}").tensor(("0", 4), 0, &[1], &[1]).put(1).op(b"0");
    let short = short.op(b"(").op(&b"h\x00h\x01".repeat(100_000)).op(b"u");
    all.value("a key a hundred thousand times", short, "nests its values over and over");
    let mut wrapped = begin();
    for _ in 0..50 {
        wrapped = wrapped.op(b"}").text("model");
    }
    all.pickle("models in models", wrapped.op(b"}").op(&b"s".repeat(50)), "nests dictionaries down to model.model");
}

fn tensors(all: &mut Attacks) {
    let one = |offset: i64, shape: &[i64], strides: &[i64]| {
        begin().op(b"}").text("w").tensor(("0", 4), offset, shape, strides).op(b"s")
    };
    let large = 1_i64 << 40;
    for (what, offset, shape, strides) in [
        ("one number too many", 0, &[5][..], &[1][..]),
        ("an offset behind the end", 4, &[1], &[1]),
        ("a stride too wide", 0, &[2, 2], &[3, 1]),
        ("a number many times over", 0, &[1 << 20], &[0]),
        ("a shape that overflows", 0, &[large, large], &[1, 1]),
        ("strides that overflow", 0, &[2, 2], &[i64::MAX, i64::MAX]),
        ("an offset that overflows", i64::MAX, &[2], &[i64::MAX]),
    ] {
        all.value(what, one(offset, shape, strides), "do not fit a storage of 4 numbers");
    }
    all.value("a negative stride", one(3, &[2], &[-1]), "a stride of -1");
    all.value("a negative offset", one(-1, &[1], &[1]), "an offset of -1");
    all.value("a negative size", one(0, &[-1], &[1]), "a size of -1");
    all.value("more strides than sizes", one(0, &[2], &[1, 1]), "1 sizes and 2 strides");
    all.value(
        "seventeen dimensions",
        one(0, &[1; 17], &[1; 17]),
        "17 sizes and 17 strides, expected as many, at most 16",
    );
    let rebuild = || begin().class("torch._utils", "_rebuild_tensor_v2");
    all.value("a tensor of three arguments", rebuild().op(b"K\x00K\x00K\x00\x87R"), "fewer than four arguments");
    all.value("a tensor of no storage", rebuild().op(b"(NK\x00))tR"), "expected a storage");
    all.value(
        "a size that is a text",
        rebuild().op(b"(").storage("0", 4).op(b"K\x00(").text("4").op(b"t)tR"),
        "1 sizes and 0 strides",
    );
    let parameter = begin().class("torch._utils", "_rebuild_parameter").op(b"N\x89}\x87R");
    all.value("a parameter of nothing", parameter, "expected a tensor");
    let storage = |key: &str, elements: i64| begin().op(b"}").text("w").tensor((key, elements), 0, &[1], &[1]).op(b"s");
    all.value("a storage that is not there", storage("1", 4), "has no entry data/1");
    all.value("a storage outside", storage("../data.pkl", 4), "has no entry data/../data.pkl");
    all.value(
        "a storage larger than its entry",
        storage("0", 1 << 40),
        "has storage 0 in 16 bytes, its tensors say 1099511627776 of F32",
    );
    all.value("a storage whose size overflows", storage("0", i64::MAX), "has storage 0 in 16 bytes");
    all.value("a storage of fewer than nothing", storage("0", -4), "a storage of -4 numbers");
    all.value(
        "a key of 100 bytes",
        storage(&"k".repeat(100), 4),
        "a storage with a key of 100 bytes, at most 64 are read",
    );
    all.pickle("a storage without an archive", storage("0", 4), "its storage 0 is not in the file");
    let twice = begin().op(b"}").text("a").tensor(("0", 4), 0, &[1], &[1]).op(b"s");
    all.value(
        "a storage of two sizes",
        twice.clone().text("b").tensor(("0", 3), 0, &[1], &[1]).op(b"s"),
        "storage 0 as 4 of F32 and as 3",
    );
    all.value("a name twice", twice.clone().text("a").tensor(("0", 4), 0, &[1], &[1]).op(b"s"), "has tensor a twice");
    for (what, name) in [("no name", ""), ("a name with a line feed", "a\nb"), ("the name of metadata", "__metadata__")]
    {
        let value = begin().op(b"}").text(name).tensor(("0", 4), 0, &[1], &[1]).op(b"s");
        all.value(what, value, &format!("has a tensor called {name:?}"));
    }
    let id = |parts: Pickle| begin().op(b"(").op(&parts.0[2..]).op(b"tQ");
    let text = || begin().text("storage");
    all.value(
        "a persistent module",
        id(begin().text("module").op(b"NNNN")),
        r#"a persistent id of kind "module", expected "storage""#,
    );
    all.value("a persistent id of two parts", id(text().op(b"N")), "a persistent id of fewer than five parts");
    let dictionary = text().class("collections", "OrderedDict").text("0").text("cpu").integer(4);
    all.value("a storage of another class", id(dictionary), "a storage of class collections.OrderedDict");
    let shell = text().class("posix", "system").text("0").text("cpu").integer(4);
    all.value("a storage that is a program", id(shell), "opcode 0x51 BINPERSID of class posix.system");
    let view = text().class("torch", "FloatStorage").text("0").text("cpu").integer(4).text("view");
    all.value("a view of another storage", id(view), "a storage that is a view of another");
    let mut many = begin().op(b"}");
    for index in 0..600 {
        many = many.text(&index.to_string()).tensor(("0", 250_000), 0, &[250_000], &[1]).op(b"s");
    }
    all.add(
        "a gigabyte of the same megabyte",
        archive(&many.stop(), &[("0", &[0; 1_000_000])]),
        "bytes in all in a file of",
    );
    // Two numbers each, at both ends of it.
    let mut wide = begin().op(b"}");
    for index in 0..600 {
        wide = wide.text(&index.to_string()).tensor(("0", 250_000), 0, &[2], &[249_999]).op(b"s");
    }
    all.add(
        "a gigabyte between few numbers",
        archive(&wide.stop(), &[("0", &[0; 1_000_000])]),
        "bytes in all in a file of",
    );
    let mut many = begin()
        .class("torch._utils", "_rebuild_tensor_v2")
        .op(b"(")
        .storage("0", 4)
        .op(b"K\x00))\x89}t")
        .put(1)
        .op(b"0")
        .put(0);
    many = many.op(&b"h\x00h\x01R0".repeat(70_000));
    all.value("seventy thousand tensors", many, "more than 65536 tensors");
}

fn streams(all: &mut Attacks) {
    let data = [0; 16];
    all.add(
        "a stream of another protocol",
        stream_of(1002, true, &small(), b""),
        "has PyTorch's stream protocol Integer(1002), expected 1001",
    );
    all.add(
        "a stream in the other order of bytes",
        stream_of(1001, false, &small(), b""),
        "was written on a big-endian machine",
    );
    all.add("a stream without keys", stream(&small(), &[]), "has no numbers for storage 0");
    all.add(
        "keys that are a text",
        stream_of(1001, true, &small(), &begin().text("0").stop()),
        "has no list of storages",
    );
    all.add(
        "a key that is a number",
        stream_of(1001, true, &small(), &begin().op(b"]K\x00a").stop()),
        "a storage whose key is no text",
    );
    all.add(
        "a storage twice",
        stream(&small(), &[("0", 4, &data), ("0", 4, &data)]),
        "has storage 0 twice, or for no tensor",
    );
    all.add(
        "a storage for nothing",
        stream(&small(), &[("0", 4, &data), ("1", 4, &data)]),
        "has storage 1 twice, or for no tensor",
    );
    all.add(
        "a storage of another size",
        stream(&small(), &[("0", 5, &data)]),
        "has storage 0 of 5 numbers, its tensors say 4",
    );
    all.add(
        "a storage of 2⁶³ numbers",
        stream(&small(), &[("0", 1 << 63, &data)]),
        "has storage 0 of 9223372036854775808 numbers",
    );
    let huge = begin().op(b"}").text("w").tensor(("0", i64::MAX), 0, &[1], &[1]).op(b"s").stop();
    all.add(
        "a storage of 2⁶³ bytes",
        stream(&huge, &[("0", i64::MAX as u64, &data)]),
        "has storage 0 of 9223372036854775807 numbers",
    );
    all.add("a storage behind the end", stream(&small(), &[("0", 4, &data[..15])]), "16 bytes at byte");
    let program = begin().class("posix", "system").op(b")R").stop();
    all.add("a program in a stream", stream(&program, &[]), "opcode 0x52 REDUCE of class posix.system");
    let load = |bytes: &[u8]| {
        let bytes = [&b"B"[..], &(bytes.len() as u32).to_le_bytes(), bytes].concat();
        begin().class("torch.storage", "_load_from_bytes").op(&bytes).op(b"\x85R")
    };
    all.pickle("bytes that are no stream", load(b"\x80\x02K\x01."), "does not begin with the magic number");
    all.pickle(
        "a stream of a dictionary",
        load(&stream(&small(), &[("0", 4, &data)])),
        "a stream that is not a storage",
    );
    let inner = load(&stream(&begin().storage("0", 4).stop(), &[("0", 4, &data)])).stop();
    let single = stream(&begin().storage("0", 4).stop(), &[("0", 4, &data)]);
    let bytes = [&b"B"[..], &(single.len() as u32).to_le_bytes(), &single].concat();
    let again =
        begin().class("torch.storage", "_load_from_bytes").put(0).op(b"0").op(&bytes).op(b"\x85").put(1).op(b"0");
    let again = again.op(&b"h\x00h\x01R0".repeat(400_000)).op(b"N");
    all.pickle("a stream four hundred thousand times", again, "holds None");
    all.pickle("a stream in a stream", load(&stream(&inner, &[])), "a stream within a stream");
    all.pickle("a program in a stream in a pickle", load(&stream(&program, &[])), "of class posix.system");
    let long = begin().op(b"N").op(&b"20".repeat(2000)).stop();
    all.pickle("much to do in a stream in a pickle", load(&stream(&long, &[])), "too much to do");
    all.pickle(
        "a stream of a text",
        begin().class("torch.storage", "_load_from_bytes").text("a").op(b"\x85R"),
        "expected bytes",
    );
}

fn archives(all: &mut Attacks) {
    let value = || Packed::new("m/data.pkl", &small());
    let storage = || Packed::new("m/data/0", &[0; 16]);
    all.zip(
        "a packed entry",
        &[value(), Packed { method: 8, ..storage() }],
        r#"has the entry "m/data/0" packed by method 8"#,
    );
    all.zip(
        "an encrypted entry",
        &[Packed { flags: 1, ..value() }, storage()],
        r#"has the entry "m/data.pkl" encrypted"#,
    );
    all.zip(
        "an entry of 4 GB",
        &[value(), Packed { size: 0xffff_fff0, ..storage() }],
        r#"has the entry "m/data/0" outside of the file"#,
    );
    all.zip(
        "an entry with a 64-bit size that is not there",
        &[value(), Packed { size: u32::MAX, ..storage() }],
        "outside of the file",
    );
    all.zip("an entry twice", &[value(), storage(), storage()], r#"has the entry "m/data/0" twice"#);
    all.zip(
        "two entries in the same bytes",
        &[value(), Packed { at: Some(0), called: Some("m/data.pkl".into()), ..storage() }],
        r#"has the entry "m/data.pkl" twice"#,
    );
    // An entry whose numbers are another entry with its header.
    let inner = zip(&[storage()]);
    let at = 30 + "m/data.pkl".len() + small().len() + 30 + "m/outer".len();
    let outer = [value(), Packed::new("m/outer", &inner), Packed { at: Some(at as u32), ..storage() }];
    all.zip("entries that share bytes", &outer, "has entries that share bytes");
    all.zip(
        "an entry beyond the end",
        &[value(), Packed { at: Some(0x7fff_ffff), ..storage() }],
        "outside of the file",
    );
    all.zip(
        "a header of another name",
        &[value(), Packed { called: Some("m/data/1".into()), ..storage() }],
        "with a header that says otherwise",
    );
    all.zip(
        "a name that differs from its header",
        &[Packed { called: Some("n/data.pkl".into()), ..value() }],
        "with a header that says otherwise",
    );
    all.zip("no value", &[storage()], "is a zip archive without data.pkl");
    all.zip(
        "two values",
        &[value(), Packed::new("n/data.pkl", &small())],
        r#"has two values, "m/data.pkl" and "n/data.pkl""#,
    );
    all.zip(
        "a value deep in folders",
        &[Packed::new("../../m/data.pkl", &small())],
        "is a zip archive without data.pkl",
    );
    all.zip(
        "big-endian numbers",
        &[value(), storage(), Packed::new("m/byteorder", b"big")],
        r#"has numbers in the order "big""#,
    );
    all.zip(
        "a value that was changed",
        &[Packed { sum: 1, ..value() }, storage()],
        "is damaged: m/data.pkl has CRC-32",
    );
    let longer = [small(), b"N.".to_vec()].concat();
    all.add(
        "something behind the value",
        archive(&longer, &[("0", &[0; 16])]),
        "has 2 bytes behind the value in data.pkl",
    );
    all.zip("nothing at all", &[], "is a zip archive without data.pkl");
    let whole = zip(&[value(), storage()]);
    let end = whole.len() - 22;
    let changed = |at: usize, bytes: &[u8]| {
        let mut file = whole.clone();
        file[end + at..end + at + bytes.len()].copy_from_slice(bytes);
        file
    };
    all.add("an archive in parts", changed(4, &[1]), "is a part of a zip archive of several files");
    all.add("more entries than there are", changed(8, &[3, 0, 3, 0]), "has a directory that is cut short");
    all.add("a directory beyond its end", changed(16, &[0xf0, 0xff, 0xff, 0x7f]), "beyond its end");
    all.add("a directory of 2 GB", changed(12, &[0xf0, 0xff, 0xff, 0x7f]), "has 2 entries in 2147483632 bytes");
    all.add(
        "a directory in the middle of an entry",
        changed(16, &[1, 0, 0, 0]),
        "has a directory with fewer entries than it says",
    );
    all.add(
        "a 64-bit end that is not there",
        changed(16, &[0xff; 4]),
        "has no 64-bit end where its directory needs one",
    );
    all.add("a comment longer than the file", changed(20, &[9, 0]), "is a zip archive without its end");
    // An end in the comment of the true one: the last that fits the file counts, and its directory is not one.
    let mut fake = changed(20, &[22, 0]);
    fake.extend([&b"PK\x05\x06"[..], &[0; 18]].concat());
    all.add("an end within the comment of the end", fake, "is a zip archive without data.pkl");
    let mut large = whole[..end].to_vec();
    large.extend([&b"PK\x06\x07"[..], &[0; 4], &u64::MAX.to_le_bytes(), &[1, 0, 0, 0]].concat());
    large.extend([&b"PK\x05\x06"[..], &[0; 4], &[0xff; 12], &[0; 2]].concat());
    all.add("a 64-bit end far away", large, "has no 64-bit end where its directory needs one");
    let mut large = whole[..end].to_vec();
    let at = large.len() as u64;
    large.extend([&b"PK\x06\x06"[..], &[0; 20], &[0xff; 8], &[0xff; 8], &[0xff; 8], &[0xff; 8]].concat());
    large.extend([&b"PK\x06\x07"[..], &[0; 4], &at.to_le_bytes(), &[1, 0, 0, 0]].concat());
    large.extend([&b"PK\x05\x06"[..], &[0; 4], &[0xff; 12], &[0; 2]].concat());
    all.add("2⁶⁴ entries", large, "has 18446744073709551615 entries in 18446744073709551615 bytes");
    all.add("sixty thousand ends", b"PK\x05\x06".repeat(60_000), "is a zip archive without its end");
    let many: Vec<Packed> = (0..30_000).map(|index| Packed::new(&format!("m/data/{index}"), b"")).collect();
    all.zip("thirty thousand empty entries", &many, "is a zip archive without data.pkl");
}

fn headers(all: &mut Attacks) {
    let said = "is not a whole safetensors file (";
    let tensor = |name: &str, dtype: &str, shape: &str, from: u64, to: u64| {
        format!(r#""{name}":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{from},{to}]}}"#)
    };
    let one = tensor("a", "F32", "[1]", 0, 4);
    let of = |entries: &str| safetensors(&format!("{{{entries}}}"), 8);
    for length in [1 << 63, u64::MAX, u64::MAX - 7, 100_000_001, 1 << 25] {
        let file = [&u64::to_le_bytes(length)[..], b"{}"].concat();
        all.add(&format!("a header of {length} bytes"), file, &format!("{said}a header of {length} bytes"));
    }
    all.add("a tensor twice", of(&format!("{one},{}", tensor("a", "F32", "[1]", 4, 8))), "header: a twice");
    all.add("metadata twice", of(r#""__metadata__":{},"__metadata__":{}"#), "header: __metadata__ twice");
    all.add("a text of the metadata twice", of(r#""__metadata__":{"x":"1","x":"2"}"#), "header: x twice");
    all.add("metadata that are no texts", of(r#""__metadata__":{"x":1}"#), "header: invalid type: integer `1`");
    all.add(
        "an overlap",
        of(&format!("{one},{}", tensor("b", "F32", "[2]", 0, 8))),
        "tensor b at bytes 0 to 8, expected it to begin at 4",
    );
    all.add(
        "a hole",
        of(&format!("{one},{}", tensor("b", "U8", "[1]", 7, 8))),
        "tensor b at bytes 7 to 8, expected it to begin at 4",
    );
    all.add("an end that is missing", of(&one), "8 bytes behind the header, its tensors take 4");
    all.add("offsets that fall", of(&tensor("a", "F32", "[1]", 8, 4)), "tensor a at bytes 8 to 4");
    all.add(
        "offsets beyond the file",
        of(&tensor("a", "F32", "[4000000000]", 0, 16_000_000_000)),
        "its tensors take 16000000000",
    );
    all.add(
        "offsets at the end of all numbers",
        of(&tensor("a", "U8", "[18446744073709551615]", 0, u64::MAX)),
        "its tensors take 18446744073709551615",
    );
    all.add(
        "a shape that overflows",
        of(&tensor("a", "F32", "[4294967296,4294967296,2]", 0, 8)),
        "tensor a of [4294967296, 4294967296, 2] F32 in 8 bytes",
    );
    all.add("a shape of another size", of(&tensor("a", "F32", "[3]", 0, 8)), "tensor a of [3] F32 in 8 bytes");
    all.add("a negative size", of(&tensor("a", "F32", "[-2]", 0, 8)), "header: invalid value: integer `-2`");
    all.add("a type of half a byte", of(&tensor("a", "F4", "[16]", 0, 8)), "tensor a of type F4");
    all.add("an unknown type", of(&tensor("a", "F12", "[2]", 0, 8)), "header: unknown variant `F12`");
    all.add("a header that is a list", safetensors("[]", 0), said);
    all.add("brackets in brackets", of(&format!(r#""a":{}"#, "[".repeat(100_000))), said);
    all.add("maps in maps", safetensors(&r#"{"a":"#.repeat(100_000), 8), said);
    all.add(
        "a million sizes",
        of(&tensor("a", "F32", &format!("[1{}]", ",1".repeat(1_000_000)), 0, 4)),
        "more than 16 dimensions",
    );
    let entry = |index: usize| tensor(&index.to_string(), "F32", "[0]", 0, 0);
    let many: Vec<String> = (0..200_000).map(entry).collect();
    all.add("two hundred thousand tensors", of(&many.join(",")), "header: more than 65536 tensors");
    let mut broken = safetensors(r#"{"a?":1}"#, 0);
    broken[11] = 0xff;
    all.add("a header that is not UTF-8", broken, "a header that is not UTF-8");
    // 10 million entries would take 500 MB, more than a header may have.
    let file = [&500_000_000_u64.to_le_bytes()[..], b"{"].concat();
    all.add("ten million tensors", file, "a header of 500000000 bytes, at most 33554432 are read");
    for (what, file, said) in [
        ("a web page", &b"<!DOCTYPE html><html>"[..], "looks like HTML"),
        ("a pointer", b"version https://git-lfs.github.com/spec/v1\noid sha256:", "is a pointer of Git LFS"),
        ("a GGUF file", b"GGUF\x03\x00\x00\x00", "is a GGUF file"),
        ("an index", b"{\"weight_map\": {}}", "is an index of several files"),
        ("nothing", b"", "is not a whole safetensors file (0 bytes, a header needs 8)"),
        ("zeros", &[0; 64], said),
    ] {
        all.add(what, file.to_vec(), said);
    }
    let mut tar = vec![b'x'; 512];
    tar[257..262].copy_from_slice(b"ustar");
    all.add("a tar archive", tar, "is a tar archive, as PyTorch wrote before 0.1.10");
}

fn attacks() -> Vec<Attack> {
    let mut all = Attacks::default();
    for part in [programs, stack, sizes, nesting, tensors, streams, archives, headers] {
        part(&mut all);
    }
    all.0
}

/// The most that one hostile file may take.
const TIME: Duration = Duration::from_secs(1);
const MEMORY: u64 = 200_000_000;

/// Items 41 to 43, 45, 46 and 48 of the list of faults.
#[test]
fn hostile_files_are_refused_by_name() {
    let all = attacks();
    assert!(all.len() > 200, "{} files", all.len());
    let mut wrong = Vec::new();
    for Attack { what, file, said } in all {
        let message = match TensorFile::from_bytes(file, "x") {
            Ok(file) => format!("was read: {:?}", file.index()),
            Err(error) => error.to_string(),
        };
        if !message.strip_prefix("model x: ").is_some_and(|reason| reason.contains(&said)) || message.len() > 1000 {
            wrong.push(format!("{what}: `{message}` lacks `{said}`"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

// Items 41 and 43. Runs in a process of its own, which nothing else takes memory of.
#[test]
fn hostile_files_take_neither_time_nor_memory() {
    let folder = tempfile::tempdir().unwrap();
    for (index, Attack { file, .. }) in attacks().into_iter().enumerate() {
        std::fs::write(folder.path().join(format!("{index:04}")), file).unwrap();
    }
    let report = super::memory::alone(module_path!(), "all_files_of_a_folder_alone", folder.path());
    let (slowest, memory): (u64, u64) = {
        let mut numbers = report.split_whitespace().map(|number| number.parse().unwrap());
        (numbers.next().unwrap(), numbers.next().unwrap())
    };
    println!("the slowest took {slowest} ms, all of them {memory} bytes");
    assert!(Duration::from_millis(slowest) < TIME, "the slowest took {slowest} ms");
    assert!(memory < MEMORY, "{memory} bytes");
}

/// How long this thread has run, waiting for a processor left out where the system counts it.
fn working_time() -> Duration {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    let counted = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let nanoseconds = counted.and_then(|text| text.split(' ').next()?.parse().ok());
    nanoseconds.map_or_else(|| START.elapsed(), Duration::from_nanos)
}

/// What the test above runs: the milliseconds of the slowest file, and the most memory.
#[test]
#[ignore = "run by another test in a process of its own"]
fn all_files_of_a_folder_alone() {
    super::memory::report(|folder| {
        let mut slowest = Duration::ZERO;
        let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        for file in files {
            let start = working_time();
            assert!(TensorFile::open(&file).is_err(), "{}", file.display());
            slowest = slowest.max(working_time() - start);
        }
        format!("{} {}", slowest.as_millis(), largest())
    });
}

#[test]
fn files_cut_at_any_byte_are_refused() {
    let data = [0; 16];
    let header = r#"{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}"#;
    for whole in [archive(&small(), &[("0", &data)]), stream(&small(), &[("0", 4, &data)]), safetensors(header, 16)] {
        assert!(TensorFile::from_bytes(whole.clone(), "x").is_ok());
        for length in 0..whole.len() {
            assert!(
                TensorFile::from_bytes(whole[..length].to_vec(), "x").is_err(),
                "{length} of {} bytes",
                whole.len()
            );
        }
    }
    // A module, in steps: the genuine file has a quarter of a million bytes.
    let whole = std::fs::read(golden("edm-tiny/edm-ddpmpp/network-snapshot-layout.pkl")).unwrap();
    for length in (0..whole.len()).step_by(997) {
        assert!(TensorFile::from_bytes(whole[..length].to_vec(), "x").is_err(), "{length} of {} bytes", whole.len());
    }
}

/// Whole numbers below `limit` from a multiplicative congruence.
fn draws(seed: u64) -> impl FnMut(usize) -> usize {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    move |limit| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) as usize) % limit.max(1)
    }
}

// Whatever was changed, the file is refused or read; what is read has as many numbers as its shapes say.
#[test]
fn two_thousand_damaged_files_are_refused_or_read_without_a_panic() {
    let genuine = [
        "score-sde-tiny/ve-ncsnpp-residual/checkpoint_7.pth",
        "ncsnv2-tiny/ncsnv2-cifar10/checkpoint_12345.pth",
        "ncsn-tiny/ncsn-cifar10/checkpoint.pth",
        "edm-tiny/edm-ddpmpp/network-snapshot-layout.pkl",
        "edm-tiny/edm-ncsnpp/inner-state-dict.pt",
        "drunet-tiny/color/drunet.pth",
        "drunet-tiny/color/weights.safetensors",
        "diffusers-tiny/ddpm-google/old-key-names/diffusion_pytorch_model.bin",
    ]
    .map(|name| std::fs::read(golden(name)).unwrap());
    let mut refused = 0;
    for seed in 0..2000 {
        let mut draw = draws(seed);
        let mut file = genuine[seed as usize % genuine.len()].clone();
        // The structure is at the start and at the end; most of the rest is numbers.
        let length = file.len();
        let mut place = || match draw(4) {
            0 => draw(length),
            1 => length - 1 - draw(length.min(20_000)),
            _ => draw(length.min(60_000)),
        };
        let places: Vec<usize> = (0..3).map(|_| place()).collect();
        match draw(6) {
            0 | 1 => places.iter().for_each(|&at| file[at] ^= 1 << draw(8)),
            2 => file[places[0]] = draw(256) as u8,
            3 => {
                let end = (places[0] + 4).min(length);
                file[places[0]..end].fill([0xff, 0x00, 0x7f, 0x80][draw(4)]);
            }
            4 => file.truncate(places[0]),
            _ => drop(file.splice(places[0]..places[0], [draw(256) as u8])),
        }
        match TensorFile::from_bytes(file, "x") {
            Err(_) => refused += 1,
            Ok(read) => {
                for (name, (dtype, shape)) in read.index() {
                    let bytes = read.raw(&name).unwrap();
                    assert_eq!(bytes.len() * 8, shape.iter().product::<usize>() * dtype.bitsize(), "{name}");
                }
            }
        }
    }
    assert!((400..2000).contains(&refused), "{refused} of 2000 were refused");
}
