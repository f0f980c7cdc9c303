//! The classes and functions that a checkpoint's pickle may name, and what each of them stands for.
//!
//! None of them is ever called or imported: a name on this list says how the data beside it are to be read.

use safetensors::tensor::Dtype;

/// What a name in a pickle stands for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Class {
    /// A dictionary, maybe built from a list of pairs.
    Dictionary,
    /// A dictionary whose argument is the class of its defaults.
    DefaultDictionary,
    /// A set, its argument a list.
    Set,
    /// `torch.Size`: the tuple that is its argument.
    Size,
    /// `argparse.Namespace`: the dictionary of its attributes.
    Namespace,
    /// A network's part, pickled by its attributes.
    Module(&'static str),
    /// Numbers of this type, whatever the device they were on.
    Storage(Dtype),
    /// `(storage, offset, shape, strides, …)`.
    RebuildTensor,
    /// `(tensor, requires_grad, hooks)`.
    RebuildParameter,
    /// A stream of `torch.save` in a string of bytes.
    LoadFromBytes,
    /// EDM's modules: `{class_name, state, module_src, …}`; the text of the program is passed over.
    Persistent,
    /// `(dtype, bytes)`.
    NumpyScalar,
    /// `(text, align, copy)`.
    NumpyDtype,
    /// Something whose value says nothing about weights: a device, a type, bytes in a coding.
    Incidental,
}

/// The meaning of `module.name`, if it is on the list.
pub(super) fn listed(name: &str) -> Option<Class> {
    CLASSES.iter().find(|(listed, _)| *listed == name).map(|(_, class)| *class)
}

const CLASSES: &[(&str, Class)] = &[
    ("collections.OrderedDict", Class::Dictionary),
    ("collections.defaultdict", Class::DefaultDictionary),
    ("dnnlib.util.EasyDict", Class::Dictionary),
    ("builtins.dict", Class::Dictionary),
    ("__builtin__.dict", Class::Dictionary),
    ("builtins.set", Class::Set),
    ("__builtin__.set", Class::Set),
    ("argparse.Namespace", Class::Namespace),
    ("torch.Size", Class::Size),
    ("torch.FloatStorage", Class::Storage(Dtype::F32)),
    ("torch.DoubleStorage", Class::Storage(Dtype::F64)),
    ("torch.HalfStorage", Class::Storage(Dtype::F16)),
    ("torch.BFloat16Storage", Class::Storage(Dtype::BF16)),
    ("torch.LongStorage", Class::Storage(Dtype::I64)),
    ("torch.IntStorage", Class::Storage(Dtype::I32)),
    ("torch.ShortStorage", Class::Storage(Dtype::I16)),
    ("torch.CharStorage", Class::Storage(Dtype::I8)),
    ("torch.ByteStorage", Class::Storage(Dtype::U8)),
    ("torch.BoolStorage", Class::Storage(Dtype::BOOL)),
    ("torch.cuda.FloatStorage", Class::Storage(Dtype::F32)),
    ("torch.cuda.DoubleStorage", Class::Storage(Dtype::F64)),
    ("torch.cuda.HalfStorage", Class::Storage(Dtype::F16)),
    ("torch.cuda.BFloat16Storage", Class::Storage(Dtype::BF16)),
    ("torch.cuda.LongStorage", Class::Storage(Dtype::I64)),
    ("torch.cuda.IntStorage", Class::Storage(Dtype::I32)),
    ("torch.cuda.ByteStorage", Class::Storage(Dtype::U8)),
    ("torch._utils._rebuild_tensor", Class::RebuildTensor),
    ("torch._utils._rebuild_tensor_v2", Class::RebuildTensor),
    ("torch._utils._rebuild_parameter", Class::RebuildParameter),
    ("torch.storage._load_from_bytes", Class::LoadFromBytes),
    ("torch_utils.persistence._reconstruct_persistent_obj", Class::Persistent),
    ("torch.nn.modules.container.ModuleDict", Class::Module("ModuleDict")),
    ("torch.nn.modules.container.ModuleList", Class::Module("ModuleList")),
    ("torch.nn.modules.container.Sequential", Class::Module("Sequential")),
    ("numpy.core.multiarray.scalar", Class::NumpyScalar),
    ("numpy._core.multiarray.scalar", Class::NumpyScalar),
    ("numpy.dtype", Class::NumpyDtype),
    ("_codecs.encode", Class::Incidental),
    ("torch.device", Class::Incidental),
    ("torch.float32", Class::Incidental),
    ("torch.float16", Class::Incidental),
    ("torch.bfloat16", Class::Incidental),
    ("torch.float64", Class::Incidental),
    ("torch.int64", Class::Incidental),
    ("builtins.int", Class::Incidental),
    ("builtins.float", Class::Incidental),
    ("builtins.list", Class::Incidental),
    ("__builtin__.int", Class::Incidental),
    ("__builtin__.float", Class::Incidental),
    ("__builtin__.list", Class::Incidental),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_none_of_them_runs_anything() {
        for (index, (name, _)) in CLASSES.iter().enumerate() {
            assert!(CLASSES[..index].iter().all(|(other, _)| other != name), "{name} twice");
            assert!(name.contains('.'), "{name}");
        }
        for name in ["posix.system", "builtins.eval", "torch.load", "torch.jit.load", "collections", "torch"] {
            assert_eq!(listed(name), None, "{name}");
        }
    }
}
