#!/usr/bin/env python3
"""Makes the tables in src/layout: those of structs from their templates, by compiling against the headers of each CPython, and those of
opcodes by opcodes.py in each interpreter.

A template (`*.rs.in`) is the Rust file with a C expression in each place where a number belongs: `${offsetof(PyThreadState, next)}`. The
expressions are compiled with the headers that stand behind `includes:` in the template's first line, for the version in its name (`v3_13`;
`v3_13t` is the free-threaded build of that version).

usage: generate.py [--check] [INCLUDE_FOLDER...]
  Without folders: those of pyenv and of .ci/newer-pythons, and the system's. With --check nothing is written, and a file that differs from
  its template is an error, a note where the headers are of another patch release than the template names. Versions whose headers are not
  found are named and left as they are.
"""

import glob
import os
import re
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
SOURCE = os.path.join(os.path.dirname(os.path.dirname(HERE)), "src", "layout")
PLACE = re.compile(r"\$\{([^}]*)\}")

# The lowest bit of a string's kind in the word of its state: a bit field has no offsetof.
BIT_OF_KIND = """
static long bit_of_kind(void) {
  PyASCIIObject text;
  unsigned int state;
  memset(&text, 0, sizeof(text));
  text.state.kind = 1;
  memcpy(&state, &text.state, sizeof(state));
  return __builtin_ctz(state);
}"""


def places():
    """The folders of the cache, of .ci/newer-pythons and of pyenv."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    newer = os.environ.get("BIOPSY_NEWER_PYTHONS") or os.path.join(cache, "biopsy", "newer-pythons")
    return cache, newer, os.environ.get("PYENV_ROOT") or os.path.expanduser("~/.pyenv")


def include_folders():
    """Folders with headers of CPython."""
    _, newer, pyenv = places()
    found = glob.glob(os.path.join(pyenv, "versions", "*", "include", "python3.*"))
    found += glob.glob(os.path.join(newer, "usr", "include", "python3.*"))
    found += glob.glob("/usr/include/python3.*") + glob.glob("/usr/local/include/python3.*")
    return found


def version_of(folder):
    """(minor, micro) of the headers in a folder; None where they are no headers for the interpreter's own structs."""
    try:
        with open(os.path.join(folder, "patchlevel.h")) as file:
            text = file.read()
    except OSError:
        return None
    if not os.path.isdir(os.path.join(folder, "internal")):
        return None
    numbers = dict(re.findall(r"#define PY_(MINOR|MICRO)_VERSION\s+(\d+)", text))
    # Builds with and without the GIL have different structs: those without are made of the headers of those with it.
    with open(os.path.join(folder, "pyconfig.h"), errors="replace") as file:
        config = file.read()
    if re.search(r"^#define (Py_GIL_DISABLED|Py_DEBUG) 1", config, re.M):
        return None
    return int(numbers["MINOR"]), int(numbers["MICRO"])


def values(expressions, includes, folder, free_threaded):
    """What the C compiler makes of the expressions, as text."""
    lines = ["#define Py_BUILD_CORE 1", "#include <Python.h>"]
    lines += ["#include <%s>" % include for include in includes]
    lines += ["#include <stddef.h>", "#include <stdio.h>", "#include <string.h>", BIT_OF_KIND, "int main(void) {"]
    lines += ['  printf("%%ld\\n", (long)(%s));' % expression for expression in expressions]
    lines += ["  return 0;", "}"]
    with tempfile.TemporaryDirectory() as work:
        source, program = os.path.join(work, "a.c"), os.path.join(work, "a")
        with open(source, "w") as file:
            file.write("\n".join(lines) + "\n")
        words = [os.environ.get("CC", "cc"), "-w", "-I", folder, "-I", os.path.join(folder, "internal")]
        # Debian keeps pyconfig.h in a folder of the machine's own.
        words += ["-I", os.path.dirname(folder), source, "-o", program]
        words += ["-DPy_GIL_DISABLED=1"] if free_threaded else []
        compiled = subprocess.run(words, capture_output=True, text=True)
        if compiled.returncode != 0:
            errors = [line for line in compiled.stderr.splitlines() if "error" in line]
            sys.exit("generate.py: %s does not compile:\n%s" % (folder, "\n".join(errors[:20])))
        return subprocess.run([program], capture_output=True, text=True, check=True).stdout.split()


def made(template, folder):
    with open(template) as file:
        head, text = file.read().split("\n", 1)
    includes = head.split("includes:", 1)[1].split()
    expressions = PLACE.findall(text)
    numbers = iter(values(expressions, includes, folder, template.endswith("t.rs.in")))
    return PLACE.sub(lambda _: next(numbers), text)


def interpreters():
    """Words that start the newest interpreter of each minor version that is found."""
    _, newer, pyenv = places()
    found = {}
    for program in glob.glob(os.path.join(pyenv, "versions", "3.*", "bin", "python")):
        numbers = re.search(r"versions/3\.(\d+)\.(\d+)/", program)
        if numbers and (numbers.group(1) not in found or int(numbers.group(2)) > found[numbers.group(1)][0]):
            found[numbers.group(1)] = (int(numbers.group(2)), [program])
    for program in glob.glob(os.path.join(newer, "usr", "bin", "python3.*")):
        numbers = re.fullmatch(r"python3\.(\d+)", os.path.basename(program))
        if numbers and hasattr(os, "geteuid") and os.geteuid() == 0:
            found.setdefault(numbers.group(1), (0, ["chroot", newer, "/usr/bin/" + numbers.group(0)]))
    return {int(minor): words for minor, (_, words) in found.items()}


def opcodes(target, words):
    """The file with what opcodes.py says in that interpreter, below the file's own head."""
    with open(target) as file:
        text = file.read()
    with open(os.path.join(HERE, "opcodes.py")) as file:
        said = subprocess.run(words + ["-"], stdin=file, capture_output=True, text=True, check=True).stdout
    head = re.split(r"^/// (?:Specialised and|Number, inline)", text, maxsplit=1, flags=re.M)[0]
    return head + said


def main():
    words = sys.argv[1:]
    check = "--check" in words
    folders = [word for word in words if not word.startswith("-")] or include_folders()
    by_minor = {}
    for folder in folders:
        version = version_of(folder)
        if version and (version[0] not in by_minor or version > by_minor[version[0]][0]):
            by_minor[version[0]] = (version, folder)
    wrong = 0
    for template in sorted(glob.glob(os.path.join(HERE, "*", "v3_*.rs.in"))):
        relative = os.path.relpath(template, HERE)[: -len(".in")]
        minor = int(re.search(r"v3_(\d+)", relative).group(1))
        if minor not in by_minor:
            print("NOT HERE: headers of CPython 3.%d; %s is left as it is" % (minor, relative))
            continue
        (_, micro), folder = by_minor[minor]
        text = made(template, folder)
        target = os.path.join(SOURCE, relative)
        try:
            with open(target) as file:
                same = file.read() == text
        except OSError:
            same = False
        named = re.search(r"\b3\.%d\.(\d+)" % minor, text)
        if not same and check and named and int(named.group(1)) != micro:
            # Structs of another patch release may differ; that is no mistake of the table.
            print("NOTE: %s is of 3.%d.%s, and differs from the headers of 3.%d.%d" % (relative, minor, named.group(1), minor, micro))
        elif not same and check:
            wrong += 1
            print("%s is not what its template gives with the headers of 3.%d.%d" % (relative, minor, micro))
        elif not same:
            with open(target, "w") as file:
                file.write(text)
            print("wrote %s from the headers of 3.%d.%d" % (relative, minor, micro))
        else:
            print("%s: as its template gives with the headers of 3.%d.%d" % (relative, minor, micro))
    here = interpreters()
    for target in sorted(glob.glob(os.path.join(SOURCE, "opcodes", "v3_*.rs"))):
        relative = os.path.relpath(target, SOURCE)
        minor = int(re.search(r"v3_(\d+)", relative).group(1))
        if minor not in here:
            print("NOT HERE: an interpreter of CPython 3.%d; %s is left as it is" % (minor, relative))
            continue
        try:
            text = opcodes(target, here[minor])
        except (OSError, subprocess.CalledProcessError) as error:
            print("NOT HERE: CPython 3.%d does not run (%s); %s is left as it is" % (minor, error, relative))
            continue
        with open(target) as file:
            same = file.read() == text
        if not same and check:
            wrong += 1
            print("%s is not what opcodes.py says in 3.%d" % (relative, minor))
        elif not same:
            with open(target, "w") as file:
                file.write(text)
            print("wrote %s" % relative)
        else:
            print("%s: as opcodes.py says in 3.%d" % (relative, minor))
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
