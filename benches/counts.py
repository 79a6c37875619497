#!/usr/bin/env python3
"""Numbers of calls of biopsy beside cProfile's, on programs of pyperformance with a fixed number of loops.

    python3 benches/counts.py BIOPSY [PROGRAM ...] [--seconds 10] [--rate 1000] [--python python3] [--rows]

Each program (the script of that benchmark with a stand-in for pyperf) is run once to find out how many loops take
the given time, then with so many loops by cProfile, and then by `biopsy run`. A row is a function that either of them
knows by file, first line and name. A row with an error is true when it is within three errors and 1 % of cProfile's
number; a lower bound is true when it is not above it. pyperformance is installed with pip into target/shares when it is not there.
"""
import argparse
import json
import os
import pstats
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
PROGRAMS = ["richards", "deltablue", "raytrace", "hexiom", "chaos", "go", "nbody", "float", "pyflate", "mdp", "nqueens",
            "deepcopy", "logging", "spectral_norm", "fannkuch", "generators", "coroutines", "json_dumps", "telco", "scimark"]
IMPORTS = ["builtins.exec", "__build_class__", "__import__", "marshal.loads", "_imp.", "posix."]
PYPERF = '''"""Stands in for pyperf: runs what it is given as often as LOOPS says, or for SECONDS."""
import argparse
import os
from time import perf_counter

perf_counter = perf_counter


def python_implementation():
    return "cpython"


class Runner:
    def __init__(self, add_cmdline_args=None, **_):
        self.argparser = argparse.ArgumentParser()
        self.metadata = {}

    def parse_args(self):
        return self.argparser.parse_args([])

    def again(self, call):
        if "LOOPS" in os.environ:
            left = int(os.environ["LOOPS"])
            while left > 0:
                call()
                left -= 1
        else:
            end, loops = perf_counter() + float(os.environ["SECONDS"]), 0
            while perf_counter() < end:
                call()
                loops += 1
            print("LOOPS", loops)
        raise SystemExit(0)

    def bench_func(self, name, func, *args, **_):
        self.again(lambda: func(*args))

    def bench_time_func(self, name, func, *args, **_):
        self.again(lambda: func(1, *args))

    def bench_async_func(self, name, func, *args, **_):
        import asyncio
        self.again(lambda: asyncio.run(func(*args)))
'''


def install(folder):
    """The folder of pyperformance's programs."""
    tools = os.path.join(folder, "tools")
    programs = os.path.join(tools, "pyperformance", "data-files", "benchmarks")
    if not os.path.isdir(programs):
        subprocess.check_call([sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", tools,
                               "pyperformance==1.14.0"])
    return programs


class Tally:
    def __init__(self):
        self.errors, self.bounds, self.false, self.off = [], 0, [], []
        # Functions with 1 % of the time and 5 us a call, and those of them with a count.
        self.large, self.counted = 0, 0

    def add(self, name, true, row, share, each_us, show):
        said, error, source = row["ncalls"], row["ncalls_error"], row["ncalls_from"]
        if true is None:
            return
        if error is not None:
            ok = abs(said - true) <= 3 * error + max(0.01 * true, 1)
            self.errors.append((said - true) / max(error, 1e-9))
        else:
            ok = said <= true
            self.bounds += 1
        large = share >= 0.01 and each_us >= 5
        self.large += large
        if large and error is not None:
            self.counted += 1
            self.off.append(abs(said / true - 1))
        if not ok:
            self.false.append(name)
        if show and share >= 0.01 or not ok:
            stated = "" if error is None else f" +- {error / true:.3f}"
            print(f"   {name:60.60s} true {true:9d} said {said / true:8.4f}{stated} {100 * share:5.1f} % "
                  f"{each_us:9.1f} us {source}{'' if ok else '  FALSE'}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("biopsy")
    parser.add_argument("programs", nargs="*", default=PROGRAMS)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rate", default="1000")
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--rows", action="store_true", help="print every function with 1 %% of the time")
    options = parser.parse_args()
    programs = install(os.path.join(HERE, os.pardir, "target", "shares"))
    everything = Tally()
    with tempfile.TemporaryDirectory() as folder:
        with open(os.path.join(folder, "pyperf.py"), "w") as f:
            f.write(PYPERF)
        environment = dict(os.environ, PYTHONPATH=folder, PYTHONHASHSEED="0", PYTHONDONTWRITEBYTECODE="1")
        for program in options.programs:
            one(program, programs, folder, environment, options, everything)
    off = sorted(everything.off)
    far = sum(abs(z) > 3 for z in everything.errors)
    count = max(len(everything.errors), 1)
    print(f"{len(everything.errors)} rows with an error, {far} further off than 3 of them, mean z {sum(everything.errors) / count:+.2f}; "
          f"{everything.bounds} lower bounds; {len(everything.false)} rows false; of {everything.large} functions with 1 % of the time and 5 us a call "
          f"{everything.counted} have a count, off by {off[len(off) // 2] if off else 0:.3f} in the median, {off[-1] if off else 0:.3f} at most")


def one(program, programs, folder, environment, options, everything):
    script = os.path.join(programs, f"bm_{program}", "run_benchmark.py")
    if not os.path.exists(script):
        print(f"{program}: NOT HERE")
        return
    run = lambda words, **more: subprocess.run(words, env=dict(environment, **more), capture_output=True, text=True)
    alone = run([options.python, script], SECONDS=str(options.seconds))
    loops = [line.split()[1] for line in alone.stdout.splitlines() if line.startswith("LOOPS ")]
    if not loops:
        print(f"{program}: does not run: {(alone.stderr.strip().splitlines() or ['?'])[-1]}")
        return
    prof, out = os.path.join(folder, "p.prof"), os.path.join(folder, "o.json")
    run([options.python, "-m", "cProfile", "-o", prof, script], LOOPS=loops[0])
    said = run([options.biopsy, "run", "-q", "-r", options.rate, "-o", out, "--", options.python, script], LOOPS=loops[0])
    if said.returncode != 0:
        print(f"{program}: {said.stderr.strip()}")
        return
    truth = {(os.path.basename(file), line, name): calls for (file, line, name), (_, calls, *_) in pstats.Stats(prof).stats.items()}
    profile = json.load(open(out))
    total = sum(row["tottime_s"] for row in profile["functions"])
    tally = Tally()
    for row in profile["functions"]:
        key = (os.path.basename(row["file"]), row["line"], row["name"])
        true = truth.get(key)
        if true is None and row["name"].startswith("<"):
            # cProfile calls C functions otherwise than we do in places.
            continue
        if row["file"].startswith("<frozen") or row["file"] == "~" and any(word in row["name"] for word in IMPORTS):
            # Python imports at its start what cProfile does not see.
            continue
        each = 1e6 * row["cumtime_s"] / true if true else 0
        for one_of in (tally, everything):
            one_of.add(f"{program} {key[0]}:{key[1]}({key[2]})", true, row, row["cumtime_s"] / max(total, 1e-9), each, options.rows and one_of is tally)
    print(f"{program}: {loops[0]} loops, {len(tally.errors)} rows with an error, {tally.bounds} lower bounds, {len(tally.false)} false; "
          f"{tally.counted} of {tally.large} large ones counted", flush=True)


main()
