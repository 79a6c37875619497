#!/usr/bin/env python3
"""Shares of biopsy beside those of py-spy in blocking mode, on programs of pyperformance.

    python3 benches/shares.py BIOPSY [PROGRAM ...] [--seconds 20] [--rate 250] [--python python3]

Each program (the script of that benchmark, in an endless loop, with a stand-in for pyperf) is sampled while it
runs, in turn by biopsy and by py-spy, in slices of a few seconds. Printed: the ten functions with the largest
inclusive shares by either, both shares with the standard error of the mean of the slices, and how far they are apart.
pyperformance and py-spy are installed with pip into target/shares when they are not there.
"""
import argparse
import collections
import json
import math
import os
import platform
import re
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
PROGRAMS = ["richards", "deltablue", "raytrace", "hexiom"]
PYPERF = '''"""Stands in for pyperf: runs what it is given again and again."""
import argparse
from time import perf_counter


class Runner:
    def __init__(self, add_cmdline_args=None, **_):
        self.argparser = argparse.ArgumentParser()
        self.metadata = {}

    def parse_args(self):
        return self.argparser.parse_args()

    def again(self, call):
        end = perf_counter() + 1
        while perf_counter() < end:
            call()
        print("ready", flush=True)
        while True:
            call()

    def bench_func(self, name, func, *args, **_):
        self.again(lambda: func(*args))

    def bench_time_func(self, name, func, *args, **_):
        self.again(lambda: func(1, *args))
'''


def install(folder):
    """The folder of pyperformance's programs, and py-spy."""
    tools = os.path.join(folder, "tools")
    programs = os.path.join(tools, "pyperformance", "data-files", "benchmarks")
    py_spy = os.path.join(tools, "bin", "py-spy")
    if not (os.path.isdir(programs) and os.path.exists(py_spy)):
        subprocess.check_call([sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", tools,
                               "pyperformance==1.14.0", "py-spy==0.4.3"])
    with open(os.path.join(folder, "pyperf.py"), "w") as file:
        file.write(PYPERF)
    return programs, py_spy


def with_biopsy(path, pid, seconds, rate, out):
    subprocess.check_call([path, "attach", str(pid), "-q", "-r", str(rate), "-d", str(seconds), "-f", "json", "-o", out])
    with open(out) as file:
        profile = json.load(file)
    functions = profile["functions"]
    whole = sum(row["tottime_s"] for row in functions)
    shares = {(row["name"], os.path.basename(row["file"]), row["line"]): 100 * row["cumtime_s"] / whole
              for row in functions if row["file"] != "~"}
    return shares, profile["samples"]


def with_py_spy(path, pid, seconds, rate, out):
    subprocess.check_call([path, "record", "-p", str(pid), "-r", str(rate), "-d", str(seconds), "--function",
                           "-f", "raw", "-o", out], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    counts = collections.Counter()
    samples = 0
    with open(out) as file:
        for line in file:
            stack, count = line.rstrip().rsplit(" ", 1)
            samples += int(count)
            for frame in set(stack.split(";")):
                found = re.match(r"(.*) \((.*):(\d+)\)$", frame)
                if found:
                    name, file_name, first = found.groups()
                    # py-spy has qualified names where Python has them, biopsy those of cProfile.
                    name = name.rsplit(".", 1)[-1]
                    counts[name, os.path.basename(file_name), int(first)] += int(count)
    return {function: 100.0 * count / samples for function, count in counts.items()}, samples


def mean_and_error(slices, function):
    values = [shares.get(function, 0.0) for shares in slices]
    mean = sum(values) / len(values)
    spread = sum((value - mean) ** 2 for value in values) / max(1, len(values) - 1)
    return mean, math.sqrt(spread / len(values))


def compare(name, programs, py_spy, folder, args):
    script = os.path.join(programs, "bm_" + name, "run_benchmark.py")
    target = subprocess.Popen([args.python, script], stdout=subprocess.PIPE, universal_newlines=True,
                              env=dict(os.environ, PYTHONPATH=folder))
    slices = ([], [])
    samples = [0, 0]
    try:
        assert target.stdout.readline().strip() == "ready", name
        with tempfile.TemporaryDirectory() as out:
            out = os.path.join(out, "out")
            for _ in range(args.slices):
                for tool, run in enumerate((with_biopsy, with_py_spy)):
                    path, rate = ((args.biopsy, args.biopsy_rate), (py_spy, args.rate))[tool]
                    shares, count = run(path, target.pid, args.seconds // args.slices, rate, out)
                    slices[tool].append(shares)
                    samples[tool] += count
    finally:
        target.kill()
        target.wait()
    top = set()
    for tool in slices:
        every = {function: mean_and_error(tool, function)[0] for shares in tool for function in shares}
        top.update(sorted(every, key=every.get, reverse=True)[:10])
    print("\n%s: %d samples by biopsy, %d by py-spy" % (name, samples[0], samples[1]))
    print("%-44s %16s %16s %11s" % ("inclusive share of", "biopsy", "py-spy", "difference"))
    farthest = 0
    for function in sorted(top, key=lambda function: -mean_and_error(slices[1], function)[0]):
        (ours, our_error), (theirs, their_error) = (mean_and_error(tool, function) for tool in slices)
        farthest = max(farthest, abs(ours - theirs))
        print("%-44s %6.2f %% +- %4.2f %6.2f %% +- %4.2f %+10.2f" % (
            "%s (%s:%d)" % function, ours, our_error, theirs, their_error, ours - theirs))
    print("farthest apart: %.2f points" % farthest, flush=True)
    return farthest


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("biopsy")
    parser.add_argument("programs", nargs="*", default=PROGRAMS)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--slices", type=int, default=5)
    parser.add_argument("--rate", type=int, default=250, help="of py-spy")
    parser.add_argument("--biopsy-rate", type=int, default=1000)
    parser.add_argument("--python", default=sys.executable)
    args = parser.parse_args()
    args.slices = max(1, args.slices)
    args.seconds = args.slices * max(1, int(args.seconds) // args.slices)
    folder = os.path.join(os.path.dirname(HERE), "target", "shares")
    os.makedirs(folder, exist_ok=True)
    programs, py_spy = install(folder)
    print("%s, %s cores, Python %s, %d s each in %d slices, biopsy at %d Hz, py-spy (blocking) at %d Hz" % (
        platform.platform(), os.cpu_count(),
        subprocess.check_output([args.python, "-V"], universal_newlines=True).split()[1],
        args.seconds, args.slices, args.biopsy_rate, args.rate))
    farthest = [compare(name, programs, py_spy, folder, args) for name in args.programs]
    return 1 if max(farthest) > 2 else 0


if __name__ == "__main__":
    sys.exit(main())
