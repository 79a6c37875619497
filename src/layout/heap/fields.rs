//! Fields that hold references, by type and version (the struct of each type in Include/ and Objects/ of CPython 3.8 to
//! 3.15; from the headers and debug information of the versions that the tables of each version name).

use super::exceptions::EXCEPTIONS;
use super::{Field, Row};

/// The fields of instances of the type called `name`; `None` for one that is not listed. `[]` means that it holds no
/// references.
pub fn of(minor: u32, name: &str) -> Option<&'static [Field]> {
    find(FIELDS, minor, name).or_else(|| find(EXCEPTIONS, minor, name))
}

/// The fields of a type in one table.
pub(super) fn find(rows: &[Row], minor: u32, name: &str) -> Option<&'static [Field]> {
    rows.iter()
        .find(|(from, to, known, _)| *known == name && (*from..=*to).contains(&minor))
        .map(|(.., fields)| *fields)
}

/// Without `var_cached`, which is borrowed: `contextvar_tp_traverse` (Python/context.c) visits name and default, and the
/// context that the value is set in holds it.
const CONTEXT_VARIABLE: &[Field] = &[("name", 16), ("default", 24)];
const CONTEXT: &[Field] = &[("ctx_prev", 16), ("ctx_vars", 24)];
/// `keyobject` of `functools.cmp_to_key` (Modules/_functoolsmodule.c); the collector knows it from 3.10 on.
pub const KEY_WRAPPER: &[Field] = &[("cmp", 16), ("obj", 24)];
/// `m_base.m_copy` of a `PyModuleDef` (Include/moduleobject.h): what the dict of a module was when it was made, from which another
/// import makes it again. From 3.13 on it is in the cache of extensions.
pub const MODULE_DEFINITION: &[Field] = &[("m_copy", 32)];
const TOKEN: &[Field] = &[("context", 16), ("var", 24), ("old_value", 32)];

/// Of `combinationsobject` and `cwrobject` (Modules/itertoolsmodule.c).
const POOL: &[Field] = &[("pool", 16), ("result", 32)];

/// Types whose references are all in fields.
const FIELDS: &[Row] = &[
    (8, 9, "Context", CONTEXT),
    (8, 9, "ContextVar", CONTEXT_VARIABLE),
    (10, 15, "_contextvars.Context", CONTEXT),
    (10, 15, "_contextvars.ContextVar", CONTEXT_VARIABLE),
    (10, 15, "_contextvars.Token", TOKEN),
    (10, 15, "functools.KeyWrapper", KEY_WRAPPER),
    (8, 15, "NoneType", &[]),
    (8, 15, "NotImplementedType", &[]),
    (8, 15, "PyCapsule", &[]),
    // Locks, numbers, states of hashes and file descriptors: what looks like a reference in them is none (`lockobject` and
    // `rlockobject` of Modules/_threadmodule.c, `RandomObject` of Modules/_randommodule.c, `EVPobject` of Modules/_hashopenssl.c,
    // `BLAKE2bObject` of Modules/_blake2, `pyEpoll_Object` of Modules/selectmodule.c, `mmap_object` of Modules/mmapmodule.c).
    (8, 15, "_blake2.blake2b", &[]),
    (8, 15, "_blake2.blake2s", &[]),
    (8, 15, "_hashlib.HASH", &[]),
    (8, 15, "_hashlib.HASHXOF", &[]),
    (8, 15, "_hashlib.HMAC", &[]),
    (8, 15, "_random.Random", &[]),
    (8, 15, "_thread.RLock", &[]),
    (8, 15, "_thread.lock", &[]),
    (13, 15, "_thread._ThreadHandle", &[]),
    (8, 15, "mmap.mmap", &[]),
    (8, 15, "select.epoll", &[]),
    (8, 9, "Token", TOKEN),
    // Without a base until somebody asks for an attribute of one (3.8, 3.9): nothing of theirs is scanned.
    (
        8,
        15,
        "async_generator_asend",
        &[("ags_gen", 16), ("ags_sendval", 24)],
    ),
    (
        8,
        9,
        "async_generator_athrow",
        &[("agt_gen", 16), ("agt_args", 24)],
    ),
    (8, 9, "async_generator_wrapped_value", &[("agw_val", 16)]),
    (
        8,
        9,
        "async_generator",
        &[
            ("gi_frame", 16),
            ("gi_code", 32),
            ("__name__", 48),
            ("__qualname__", 56),
            ("exc_type", 64),
            ("exc_value", 72),
            ("exc_traceback", 80),
            ("ag_finalizer", 96),
        ],
    ),
    (
        10,
        10,
        "async_generator",
        &[
            ("gi_frame", 16),
            ("gi_code", 24),
            ("__name__", 40),
            ("__qualname__", 48),
            ("exc_type", 56),
            ("exc_value", 64),
            ("exc_traceback", 72),
            ("ag_finalizer", 88),
        ],
    ),
    (8, 15, "bytearray_iterator", &[("sequence", 24)]),
    (8, 15, "bytes", &[]),
    (8, 15, "bytes_iterator", &[("sequence", 24)]),
    (
        8,
        15,
        "callable_iterator",
        &[("callable", 16), ("sentinel", 24)],
    ),
    (8, 15, "cell", &[("cell_contents", 16)]),
    (8, 15, "classmethod", &[("__func__", 16), ("__dict__", 24)]),
    (8, 15, "classmethod_descriptor", &[("__objclass__", 16)]),
    (8, 15, "complex", &[]),
    (
        8,
        9,
        "coroutine",
        &[
            ("gi_frame", 16),
            ("gi_code", 32),
            ("__name__", 48),
            ("__qualname__", 56),
            ("exc_type", 64),
            ("exc_value", 72),
            ("exc_traceback", 80),
        ],
    ),
    (
        10,
        10,
        "coroutine",
        &[
            ("gi_frame", 16),
            ("gi_code", 24),
            ("__name__", 40),
            ("__qualname__", 48),
            ("exc_type", 56),
            ("exc_value", 64),
            ("exc_traceback", 72),
        ],
    ),
    (8, 15, "dict_itemiterator", &[("dict", 16), ("result", 40)]),
    (8, 15, "dict_items", &[("mapping", 16)]),
    (8, 15, "dict_keyiterator", &[("dict", 16), ("result", 40)]),
    (8, 15, "dict_keys", &[("mapping", 16)]),
    (
        8,
        15,
        "dict_reverseitemiterator",
        &[("dict", 16), ("result", 40)],
    ),
    (
        8,
        15,
        "dict_reversekeyiterator",
        &[("dict", 16), ("result", 40)],
    ),
    (
        8,
        15,
        "dict_reversevalueiterator",
        &[("dict", 16), ("result", 40)],
    ),
    (8, 15, "dict_valueiterator", &[("dict", 16), ("result", 40)]),
    (8, 15, "dict_values", &[("mapping", 16)]),
    (8, 15, "ellipsis", &[]),
    (
        8,
        15,
        "enumerate",
        &[("iterator", 24), ("result", 32), ("index", 40)],
    ),
    (8, 15, "filter", &[("function", 16), ("iterator", 24)]),
    (8, 15, "float", &[]),
    (
        8,
        9,
        "function",
        &[
            ("__code__", 16),
            ("__globals__", 24),
            ("__module__", 88),
            ("__defaults__", 32),
            ("__kwdefaults__", 40),
            ("__doc__", 56),
            ("__name__", 64),
            ("__dict__", 72),
            ("__closure__", 48),
            ("__annotations__", 96),
            ("__qualname__", 104),
        ],
    ),
    (
        10,
        11,
        "function",
        &[
            ("__code__", 48),
            ("__globals__", 16),
            ("__builtins__", 24),
            ("__module__", 104),
            ("__defaults__", 56),
            ("__kwdefaults__", 64),
            ("__doc__", 80),
            ("__name__", 32),
            ("__dict__", 88),
            ("__closure__", 72),
            ("__annotations__", 112),
            ("__qualname__", 40),
        ],
    ),
    (
        12,
        13,
        "function",
        &[
            ("__code__", 48),
            ("__globals__", 16),
            ("__builtins__", 24),
            ("__module__", 104),
            ("__defaults__", 56),
            ("__kwdefaults__", 64),
            ("__doc__", 80),
            ("__name__", 32),
            ("__dict__", 88),
            ("__closure__", 72),
            ("__annotations__", 112),
            ("__type_params__", 120),
            ("__qualname__", 40),
        ],
    ),
    (
        14,
        15,
        "function",
        &[
            ("__code__", 48),
            ("__globals__", 16),
            ("__builtins__", 24),
            ("__module__", 104),
            ("__defaults__", 56),
            ("__kwdefaults__", 64),
            ("__doc__", 80),
            ("__name__", 32),
            ("__dict__", 88),
            ("__closure__", 72),
            ("__annotations__", 112),
            ("__annotate__", 120),
            ("__type_params__", 128),
            ("__qualname__", 40),
        ],
    ),
    (
        8,
        15,
        "functools.partial",
        &[
            ("func", 16),
            ("args", 24),
            ("keywords", 32),
            ("__dict__", 40),
        ],
    ),
    (
        8,
        9,
        "generator",
        &[
            ("gi_frame", 16),
            ("gi_code", 32),
            ("__name__", 48),
            ("__qualname__", 56),
            ("exc_type", 64),
            ("exc_value", 72),
            ("exc_traceback", 80),
        ],
    ),
    (
        10,
        10,
        "generator",
        &[
            ("gi_frame", 16),
            ("gi_code", 24),
            ("__name__", 40),
            ("__qualname__", 48),
            ("exc_type", 56),
            ("exc_value", 64),
            ("exc_traceback", 72),
        ],
    ),
    (8, 15, "getset_descriptor", &[("__objclass__", 16)]),
    (8, 15, "hamt", &[("root", 16)]),
    (8, 15, "instancemethod", &[("__func__", 16)]),
    (8, 15, "iterator", &[("sequence", 24)]),
    (
        8,
        15,
        "itertools._grouper",
        &[("parent", 16), ("tgtkey", 24)],
    ),
    (8, 15, "itertools._tee", &[("dataobj", 16)]),
    (
        8,
        15,
        "itertools.accumulate",
        &[("total", 16), ("it", 24), ("binop", 32), ("initial", 40)],
    ),
    (12, 15, "itertools.batched", &[("it", 16)]),
    (8, 15, "itertools.chain", &[("source", 16), ("active", 24)]),
    (8, 15, "itertools.combinations", POOL),
    (8, 15, "itertools.combinations_with_replacement", POOL),
    (
        8,
        15,
        "itertools.compress",
        &[("data", 16), ("selectors", 24)],
    ),
    (
        8,
        15,
        "itertools.count",
        &[("long_cnt", 24), ("long_step", 32)],
    ),
    (8, 15, "itertools.cycle", &[("it", 16), ("saved", 24)]),
    (8, 15, "itertools.dropwhile", &[("func", 16), ("it", 24)]),
    (8, 15, "itertools.filterfalse", &[("func", 16), ("it", 24)]),
    // Without `currgrouper`, which is borrowed and may lead to what is gone.
    (
        8,
        15,
        "itertools.groupby",
        &[
            ("it", 16),
            ("keyfunc", 24),
            ("tgtkey", 32),
            ("currkey", 40),
            ("currvalue", 48),
        ],
    ),
    (8, 15, "itertools.islice", &[("it", 16)]),
    (10, 12, "itertools.pairwise", &[("it", 16), ("old", 24)]),
    (
        13,
        15,
        "itertools.pairwise",
        &[("it", 16), ("old", 24), ("result", 32)],
    ),
    (
        8,
        15,
        "itertools.permutations",
        &[("pool", 16), ("result", 40)],
    ),
    (8, 15, "itertools.product", &[("pools", 16), ("result", 32)]),
    (8, 15, "itertools.repeat", &[("element", 16)]),
    (8, 15, "itertools.starmap", &[("func", 16), ("it", 24)]),
    (8, 15, "itertools.takewhile", &[("func", 16), ("it", 24)]),
    (
        8,
        15,
        "itertools.zip_longest",
        &[("ittuple", 32), ("result", 40), ("fillvalue", 48)],
    ),
    (8, 15, "list_iterator", &[("sequence", 24)]),
    (8, 15, "list_reverseiterator", &[("sequence", 24)]),
    (8, 15, "managedbuffer", &[("obj", 40)]),
    (8, 15, "map", &[("iterators", 16), ("function", 24)]),
    (8, 15, "mappingproxy", &[("mapping", 16)]),
    (8, 15, "member_descriptor", &[("__objclass__", 16)]),
    (8, 15, "memoryview", &[("_mbuf", 24)]),
    (8, 15, "method", &[("__func__", 16), ("__self__", 24)]),
    (8, 15, "method-wrapper", &[("descr", 16), ("__self__", 24)]),
    (8, 15, "method_descriptor", &[("__objclass__", 16)]),
    (8, 15, "object", &[]),
    (8, 15, "operator.attrgetter", &[("attr", 24)]),
    (8, 15, "operator.itemgetter", &[("item", 24)]),
    (8, 9, "operator.methodcaller", &[("name", 24), ("args", 32)]),
    (
        10,
        13,
        "operator.methodcaller",
        &[("name", 16), ("args", 24), ("kwargs", 32)],
    ),
    (
        14,
        15,
        "operator.methodcaller",
        &[
            ("name", 16),
            ("args", 24),
            ("kwargs", 32),
            ("vectorcall_args", 40),
            ("vectorcall_kwnames", 48),
        ],
    ),
    (
        8,
        9,
        "property",
        &[("fget", 16), ("fset", 24), ("fdel", 32), ("__doc__", 40)],
    ),
    (
        10,
        15,
        "property",
        &[
            ("fget", 16),
            ("fset", 24),
            ("fdel", 32),
            ("__doc__", 40),
            ("__name__", 48),
        ],
    ),
    (8, 15, "range_iterator", &[]),
    (8, 15, "reversed", &[("sequence", 24)]),
    (8, 15, "set_iterator", &[("set", 16)]),
    (8, 15, "slice", &[("start", 16), ("stop", 24), ("step", 32)]),
    (8, 15, "staticmethod", &[("__func__", 16), ("__dict__", 24)]),
    (8, 15, "str_ascii_iterator", &[("sequence", 24)]),
    (8, 15, "str_iterator", &[("sequence", 24)]),
    (
        8,
        15,
        "super",
        &[
            ("__thisclass__", 16),
            ("__self__", 24),
            ("__self_class__", 32),
        ],
    ),
    (8, 15, "traceback", &[("tb_next", 16), ("tb_frame", 24)]),
    (8, 15, "tuple_iterator", &[("sequence", 24)]),
    (
        8,
        15,
        "types.GenericAlias",
        &[("__origin__", 16), ("__args__", 24), ("__parameters__", 32)],
    ),
    (8, 15, "types.SimpleNamespace", &[("__dict__", 16)]),
    (8, 15, "weakcallableproxy", &[("__callback__", 24)]),
    (8, 15, "weakproxy", &[("__callback__", 24)]),
    (8, 15, "weakref", &[("__callback__", 24)]),
    (8, 15, "weakref.CallableProxyType", &[("__callback__", 24)]),
    (8, 15, "weakref.ProxyType", &[("__callback__", 24)]),
    (8, 15, "weakref.ReferenceType", &[("__callback__", 24)]),
    (8, 15, "wrapper_descriptor", &[("__objclass__", 16)]),
    (8, 15, "zip", &[("iterators", 24), ("result", 32)]),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_has_one_row_in_each_version() {
        let rows: Vec<&Row> = FIELDS.iter().chain(EXCEPTIONS).collect();
        for (at, (from, to, name, _)) in rows.iter().enumerate() {
            assert!(from <= to, "{name}");
            let again = rows[..at]
                .iter()
                .any(|row| row.2 == *name && row.0 <= *to && *from <= row.1);
            assert!(!again, "{name} {from}..={to}");
        }
    }
}
