"""`python -m biopsy ps`: the program of the same installation, in place of this process."""

import csv
import glob
import os
import sys
import sysconfig


def candidates():
    """Where the program may be, the surest first."""
    site = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    # The list of what was installed with this package (PEP 376), with paths that begin at `site`.
    for record in glob.glob(os.path.join(glob.escape(site), "biopsy-*.dist-info", "RECORD")):
        with open(record, encoding="utf-8", newline="") as lines:
            for row in csv.reader(lines):
                if row and os.path.basename(row[0]) == "biopsy":
                    yield os.path.normpath(os.path.join(site, row[0]))
    # `pip install --target` moves files after it has written the list.
    yield os.path.join(site, "bin", "biopsy")
    # Packages of a distribution, and checkouts on PYTHONPATH.
    yield os.path.join(sysconfig.get_path("scripts"), "biopsy")


def words(typed):
    """Scripts are run by the interpreter that was typed, as with other modules after -m, unless --python names one."""
    ours = typed[: typed.index("--")] if "--" in typed else typed
    if any(word == "--python" or word.startswith("--python=") for word in ours):
        return typed
    for command in (["run"], ["calls"], ["heap", "run"]):
        if sys.executable and typed[: len(command)] == command:
            return command + ["--python", sys.executable] + typed[len(command) :]
    return typed


def main():
    tried = []
    for path in candidates():
        if os.path.isfile(path) and os.access(path, os.X_OK):
            os.execv(path, [path] + words(sys.argv[1:]))
        tried.append(path)
    sys.exit("biopsy: cannot start the program: it is not at %s\n  install the package again" % " or ".join(tried))


if __name__ == "__main__":
    main()
