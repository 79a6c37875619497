"""Prints the tables of src/layout/opcodes for the interpreter that runs it: from its `opcode` and `dis`, and from what stands here because they do not say it.

Runs on 3.8 and newer, alone: generate.py pipes it into each interpreter.
"""

import dis
import opcode
import sys

MINOR = sys.version_info[1]

# Where `dis.stack_effect` is not what the interpreter does. Up to 3.10: what enters and leaves `finally` counts six values always, and one is there
# unless an exception is on its way; GEN_START takes what was sent. 3.11: nothing is popped at PRECALL and everything at CALL. RETURN_GENERATOR pushes one value.
FIXED = {
    8: {
        "BEGIN_FINALLY": (1, 1),
        "WITH_CLEANUP_START": (1, 1),
        "WITH_CLEANUP_FINISH": (-2, -2),
        "END_FINALLY": (-1, -1),
        "POP_FINALLY": (-1, -1),
        "SETUP_WITH": (1, 1),
        "SETUP_ASYNC_WITH": (0, 0),
    },
    10: {"GEN_START": (0, 0)},
    11: {"RETURN_GENERATOR": (1, 1), "PRECALL": (0, 0)},
    12: {"RETURN_GENERATOR": (1, 1)},
}.get(MINOR, {})
PER_ARGUMENT = {11: {"CALL": (-1, -1)}}.get(MINOR, {})

STOPS = {"RETURN_VALUE", "RETURN_CONST", "RAISE_VARARGS", "RERAISE", "INTERPRETER_EXIT"}
CALLS = {
    "CALL": "Positional",
    "PRECALL": "Positional",
    "CALL_FUNCTION": "Positional",
    "CALL_KW": "Keywords",
    "CALL_FUNCTION_KW": "Keywords",
    "CALL_METHOD": "Method",
    "CALL_FUNCTION_EX": "Unpacked",
}


def flow(name, code):
    if name == "EXTENDED_ARG":
        return "Extend"
    if name in STOPS:
        return "Stop"
    if MINOR <= 10:
        special = {"YIELD_FROM": "Again", "CALL_FINALLY": "CallFinally", "END_FINALLY": "EndFinally", "JUMP_FORWARD": "Jump", "JUMP_ABSOLUTE": "JumpTo"}
        if name in special:
            return special[name]
        if name.startswith("SETUP_") and code in opcode.hasjrel:
            return "Handler"
        if code in opcode.hasjabs:
            return "BranchTo"
        return "Branch" if code in opcode.hasjrel else "Next"
    if name == "JUMP_FORWARD":
        return "Jump"
    if name.startswith("JUMP_BACKWARD"):
        return "JumpBack"
    if code not in opcode.hasjrel:
        return "Next"
    return "BranchBack" if "BACKWARD" in name else "Branch"


def effect(name, code, jump):
    if name in FIXED:
        return "Fixed(%d)" % FIXED[name][1 if jump else 0]
    if name in PER_ARGUMENT:
        return "PerArgument(%d, %d)" % PER_ARGUMENT[name]
    named = {"BUILD_SLICE": "BuildSlice", "FORMAT_VALUE": "FormatValue", "UNPACK_EX": "UnpackEx"}
    if name in named:
        return named[name]
    if name == "MAKE_FUNCTION" and MINOR <= 12:
        return "MakeFunctionNamed" if MINOR <= 10 else "MakeFunction"
    if code < dis.HAVE_ARGUMENT if MINOR <= 12 else code not in opcode.hasarg:
        return "Fixed(%d)" % dis.stack_effect(code, None, jump=jump)
    found = []
    for argument in range(6):
        try:
            found.append(dis.stack_effect(code, argument, jump=jump))
        except ValueError:
            # Of some there are few arguments.
            break
    steps = {b - a for a, b in zip(found, found[1:])}
    if len(steps) <= 1:
        step = steps.pop() if steps else 0
        return "PerArgument(%d, %d)" % (found[0], step) if step else "Fixed(%d)" % found[0]
    if found[::2] == found[:1] * len(found[::2]) and found[1::2] == found[1:2] * len(found[1::2]):
        return "LowBit(%d, %d)" % (found[0], found[1] - found[0])
    raise SystemExit("no effect of %s fits %s" % (name, found))


def caches(name, code):
    entries = getattr(opcode, "_inline_cache_entries", None)
    if entries is None:
        return 0
    return entries.get(name, 0) if hasattr(entries, "get") else entries[code]


def bases():
    """Specialised and instrumented opcodes to their base."""
    known = dict(getattr(dis, "_all_opmap", opcode.opmap))
    known.update(getattr(opcode, "_specialized_opmap", {}))
    plain = {}
    for family, specials in getattr(opcode, "_specializations", {}).items():
        plain.update({special: family for special in specials})
    plain.update(getattr(dis, "deoptmap", {}))
    base = [0] * 256
    for name, code in known.items():
        if name in ("CACHE", "RESERVED", "ENTER_EXECUTOR", "INSTRUMENTED_LINE", "INSTRUMENTED_INSTRUCTION") or code >= 256:
            continue
        if name.startswith("INSTRUMENTED_"):
            name = name[len("INSTRUMENTED_") :]
        base[code] = opcode.opmap.get(plain.get(name, name), 0)
    return base


def main():
    rows = []
    for name, code in sorted(opcode.opmap.items(), key=lambda item: item[1]):
        if code >= 256 or name in ("CACHE", "RESERVED", "ENTER_EXECUTOR") or name.startswith("INSTRUMENTED_") or "<" in name:
            continue
        effects = tuple(effect(name, code, jump) for jump in (False, True))
        call = CALLS.get(name, "None")
        rows.append("    op(%d, %d, Effect::%s, Effect::%s, Flow::%s, CallKind::%s), // %s" % ((code, caches(name, code)) + effects + (flow(name, code), call, name)))
    if MINOR >= 11:
        print("/// Specialised and instrumented opcodes to their base; 0 for unknown ones.\n#[rustfmt::skip]\nstatic BASE: [u8; 256] = [")
        base = bases()
        for at in range(0, 256, 16):
            print("    %s," % ", ".join(map(str, base[at : at + 16])))
        print("];\n")
    print("/// Number, inline caches, effect on the stack, the same when it jumps, where it goes on, how it calls.\n#[rustfmt::skip]")
    print("static OPS: [Op; %d] = [" % len(rows))
    print("\n".join(rows))
    print("];")


main()
