"""Makes seeds: `python3 fuzz/seeds.py [FILE.biopsy|FILE.heap ...]`, by any Python of 3.8 or newer, adds those of that version.

Names and paths in them are made up. Those of our own formats are made of small files, by 3.14 or newer, which has zstd: in the form that
`Parts` (src/lib.rs) reads.
"""

import marshal
import pathlib
import pickle
import struct
import sys

CORPUS = pathlib.Path(__file__).parent / "corpus"
VERSION = "%d.%d" % sys.version_info[:2]


def put(target, name, data):
    folder = CORPUS / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)


def marshals():
    values = [None, True, -5, 1 << 80, 1.5, 2j, "name", "n\u00e4me", b"bytes", (1, ("a", 2)), [1, 2], {"k": (1, 2.5)}, frozenset([3])]
    for version in (0, 2, 4):
        put("marshal", "values-%d" % version, marshal.dumps(values, version))


def pstats():
    f, g, b = ("work.py", 1, "f"), ("work.py", 9, "g"), ("~", 0, "<built-in method builtins.sum>")
    edge = (3, 2, 0.5, 1.5)
    stats = {
        f: (3, 3, 0.25, 2.0, {}),
        g: (5, 2, 1.0, 1.75, {f: edge, g: (2, 1, 0.125, 0.125)}),
        b: (7, 7, 0.0625, 0.0625, {g: 7}),
    }
    put("pstats", "three", marshal.dumps(stats))
    put("pstats", "old", marshal.dumps(stats, 0))


class LineStats:
    """As line_profiler's: `timings` and `unit`."""


def lprof():
    stats = LineStats()
    stats.timings = {("work.py", 1, "f"): [(2, 10, 2500), (3, 9, 40)], ("work.py", 9, "g"): []}
    stats.unit = 1e-9
    LineStats.__module__, LineStats.__qualname__ = "line_profiler._line_profiler", "LineStats"
    module = type(sys)("line_profiler._line_profiler")
    module.LineStats = LineStats
    sys.modules["line_profiler"] = type(sys)("line_profiler")
    sys.modules["line_profiler._line_profiler"] = module
    for protocol in (2, 4, 5):
        put("lprof", "protocol-%d" % protocol, pickle.dumps(stats, protocol))


def collapsed():
    put("collapsed", "plain", b"main (work.py:1);f (work.py:9) 12\nmain (work.py:1) 3\n")
    put("collapsed", "bare", b"a;b;c 5\na;b 1.5\n")
    put("collapsed", "austin", b"# austin: 3.6.0\n# interval: 100\n# mode: wall\n# python: 3.11.0\n\n"
        b"P12;T0:12;work.py:main:3;work.py:f:9 100\nP12;T0:12;work.py:main:4 250\n")
    put("collapsed", "threads", b"process 1:\"python work.py\";thread (0x7f00): \"MainThread\";f (work.py:3) 4\n")


def opcodes():
    def loop(n):
        total = 0
        for i in range(n):
            try:
                total += sum([i, len(str(i))], *())
            finally:
                total -= 1
        while total > 3:
            total -= max(1, total, key=abs)
        return [x for x in range(total) if x]

    versions = ["3.8", "3.9", "3.10", "3.11", "3.12", "3.13", "3.14", "3.15"]
    if VERSION not in versions:
        return
    code = loop.__code__
    table = getattr(code, "co_exceptiontable", b"")
    head = bytes([versions.index(VERSION), min(code.co_stacksize, 255), len(table)])
    put("opcodes", "code-" + VERSION, head + table + code.co_code)
    lines = code.co_linetable if hasattr(code, "co_linetable") else code.co_lnotab
    put("opcodes", "lines-" + VERSION, bytes([head[0], 9, min(len(lines), 255)]) + lines[:255] + code.co_code[:8])


def debug_offsets():
    """The block as the interpreter's own file has it."""
    if sys.version_info < (3, 13):
        return
    import ctypes

    start = ctypes.addressof(ctypes.c_char.in_dll(ctypes.pythonapi, "_PyRuntime"))
    block = ctypes.string_at(start, 1024)
    put("debug_offsets", "block-" + VERSION, bytes([sys.version_info[1] - 8, 0]) + block)


def core():
    """Core files for x86-64: notes, and memory of which the first bytes are there."""
    page = 4096

    def note(kind, contents, name=b"CORE\0"):
        pad = lambda data: data + b"\0" * (-len(data) % 4)
        return struct.pack("<3I", len(name), len(contents), kind) + pad(name) + pad(contents)

    status = bytearray(336)
    struct.pack_into("<i", status, 32, 4711)
    info = bytearray(136)
    struct.pack_into("<i", info, 24, 4711)
    info[40:47] = b"python3"
    info[56:71] = b"python3 work.py"
    files = [(0x400000, 0x401000, 0), (0x401000, 0x402000, 1)]
    mapped = struct.pack("<2Q", len(files), page) + b"".join(struct.pack("<3Q", *file) for file in files)
    mapped += b"/usr/bin/python-made-up\0" * len(files)
    notes = note(1, bytes(status)) + note(3, bytes(info)) + note(0x46494C45, mapped)
    block = (CORPUS / "debug_offsets" / "block-3.13")
    data = block.read_bytes()[2:] if block.exists() else b"xdebugpy" + bytes(56)
    for name, kept in [("whole", len(data)), ("cut", len(data) // 2)]:
        loads = [(0x401000, len(data), 6), (0x7F0000000000, 0, 6)]
        place = 64 + 56 * (1 + len(loads))
        head = b"\x7fELF\2\1\1" + bytes(9) + struct.pack("<HHIQQQIHHHHHH", 4, 62, 1, 0, 64, 0, 0, 64, 56, 1 + len(loads), 0, 0, 0)
        headers = struct.pack("<IIQQQQQQ", 4, 0, place, 0, 0, len(notes), 0, 4)
        at = place + len(notes)
        for address, size, flags in loads:
            headers += struct.pack("<IIQQQQQQ", 1, flags, at, address, 0, size, page, page)
            at += size
        put("core", name, (head + headers + notes + data)[: place + len(notes) + kept])


def take_varint(data):
    value, shift = 0, 0
    for byte in data:
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value


def own(path):
    from compression import zstd

    data = path.read_bytes()
    is_heap = data.startswith(b"BIOPSYHP")
    at, blocks = 12, []
    while at < len(data) - 16 * is_heap:
        kind, stored, _, _ = struct.unpack_from("<4I", data, at)
        blocks.append((kind, zstd.decompress(data[at + 16 : at + 16 + stored])))
        at += 16 + stored
    # The last one has the numbers of rows: of a recording after that of blocks.
    last = iter(blocks.pop()[1])
    totals = [take_varint(last) for _ in range(7 if is_heap else 2)]
    seed = b"".join(struct.pack("<H", total) for total in (totals if is_heap else totals[1:]))
    for kind, contents in blocks:
        seed += struct.pack("<BH", kind, len(contents)) + contents
    put("snapshot" if is_heap else "recording", path.stem, seed)


for file in sys.argv[1:]:
    own(pathlib.Path(file))
for make in (marshals, pstats, lprof, collapsed, opcodes, debug_offsets, core):
    make()
