#!/usr/bin/env python3
"""biopsy beside its peers on the same live targets, one after the other in one run; prints ratios.

    python3 benches/peers.py BIOPSY [--seconds 4] [--python "python3"] [--only NAME ...]

Each profiler attaches to a fresh target (peers_target.py) for the same time: at 1 kHz, at 10 kHz, as fast as it goes,
at 1 kHz with 160 threads that run no Python, and at 1 kHz to a server that sleeps. Measured: CPU time of the profiler
(user + system, attaching included), the samples that it got and how many a second of its whole run, CPU per sample,
and the target's own speed beside that of an unwatched one. A sample is a moment (Austin's: one thread at a moment).
py-spy stops at seconds x rate samples however long that takes: it is interrupted when the time is over. py-spy and
Austin are taken from the PATH, else installed into target/bench-venv. Austin 4's binary needs glibc 2.38: on older systems it is
started by the loader of the Debian folder that `.ci/newer-pythons` makes. `profiling.sampling` wants a target of its own version, 3.15:

    python3 benches/peers.py BIOPSY --python "chroot FOLDER /usr/bin/python3.15"

It samples the main thread, or with -a all threads; it starts as a Python program, which is in its CPU time.
"""
import argparse
import json
import os
import platform
import re
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import namedtuple

HERE = os.path.dirname(os.path.abspath(__file__))
PACKAGES = {"py-spy": "py-spy", "austin": "austin-dist==4.0.0"}
# How long py-spy may take to begin and to write, beside the time it samples for.
GRACE = 0.5
# A chroot has no locales.
ENVIRONMENT = dict(os.environ, LC_ALL="C", LANG="C")
# "As fast as it goes" for those that have no word for it.
FULL_SPEED = 1000000

# `rate` is None for full speed; `per` says what the ratio is of.
Scenario = namedtuple("Scenario", "name about target rate per")
SCENARIOS = [
    Scenario("1k", "43 frames, 1000 Hz", [], 1000, "sample"),
    Scenario("10k", "43 frames, 10000 Hz", [], 10000, "sample"),
    Scenario("max", "43 frames, as fast as it goes", [], None, "sample"),
    Scenario("native", "43 frames beside 160 native threads, 1000 Hz", ["--native", "160"], 1000, "sample"),
    Scenario("sleep", "a server whose 33 threads sleep, 1000 Hz", ["--sleep", "32"], 1000, "run"),
]

Run = namedtuple("Run", "cpu wall samples errors output")
Row = namedtuple("Row", "name run speed")


def find(name):
    """Path of a peer, installed when it is nowhere."""
    path = shutil.which(name)
    folder = os.path.join(os.path.dirname(HERE), "target", "bench-venv")
    inside = os.path.join(folder, "bin", name)
    if path is None and not os.path.exists(inside):
        if not os.path.exists(os.path.join(folder, "bin", "python")):
            subprocess.check_call([sys.executable, "-m", "venv", folder])
        subprocess.call([os.path.join(folder, "bin", "python"), "-m", "pip", "install", "-q", PACKAGES[name]])
    return path or (inside if os.path.exists(inside) else None)


def newer_root():
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.environ.get("BIOPSY_NEWER_PYTHONS") or os.path.join(cache, "biopsy", "newer-pythons")


def works(words):
    return subprocess.run(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=ENVIRONMENT).returncode == 0


def startable(path):
    """The words that start a program, by a newer loader where it needs that; None where it cannot be."""
    root = newer_root()
    loader = [os.path.join(root, "lib64", "ld-linux-x86-64.so.2"), "--library-path",
              os.path.join(root, "usr", "lib", "x86_64-linux-gnu")]
    for words in ([path], loader + [path]):
        if os.path.exists(words[0]) and works(words + ["--version"]):
            return words
    return None


def root_of(python):
    return python[1] if os.path.basename(python[0]) == "chroot" else "/"


def start(python, arguments):
    script = os.path.join(HERE, "peers_target.py")
    root = root_of(python)
    if root != "/":
        shutil.copy(script, os.path.join(root, "tmp", "peers_target.py"))
        script = "/tmp/peers_target.py"
    target = subprocess.Popen(python + [script] + arguments, stdout=subprocess.PIPE, universal_newlines=True, env=ENVIRONMENT)
    assert target.stdout.readline().strip() == "ready"
    return target


def finish(target):
    target.terminate()
    rate = float(target.stdout.readline().split()[1])
    target.wait()
    return rate


def run(command, seconds=None):
    """Runs `command`, interrupted after `seconds`: CPU seconds, wall seconds, output."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True,
                               env=ENVIRONMENT, errors="replace")
    try:
        output = process.communicate(timeout=seconds)[0]
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
        output = process.communicate()[0]
    wall = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return cpu, wall, output


def biopsy(path, extra=()):
    def sample(pid, rate, seconds, out):
        out += ".json"
        cpu, wall, output = run([path, "attach", str(pid), "-q", "-r", str(rate or "max"), "-d", str(seconds), "-o", out]
                                + list(extra))
        if not os.path.exists(out):
            return Run(cpu, wall, None, None, output)
        with open(out) as file:
            document = json.load(file)
        os.remove(out)
        return Run(cpu, wall, document["samples"], document["given_up"], output)
    return sample


def py_spy(path, extra=()):
    def sample(pid, rate, seconds, out):
        cpu, wall, output = run([path, "record", "-p", str(pid), "-r", str(rate or FULL_SPEED), "-d", str(seconds),
                                 "-f", "raw", "-o", out] + list(extra), seconds + GRACE)
        found = re.search(r"Samples: (\d+) Errors: (\d+)", output)
        return Run(cpu, wall, found and int(found.group(1)), found and int(found.group(2)), output)
    return sample


def austin(words):
    def sample(pid, rate, seconds, out):
        interval = int(1e6 / (rate or FULL_SPEED))
        cpu, wall, output = run(words + ["-i", "%dus" % interval, "-x", str(seconds), "-o", out, "-p", str(pid)])
        found = re.search(r"Error rate[^\d]*(\d+)/(\d+)", re.sub(r"\x1b\[[0-9;]*m", "", output))
        return Run(cpu, wall, found and int(found.group(2)), found and int(found.group(1)), output)
    return sample


def profiling_sampling(python, extra=()):
    def sample(pid, rate, seconds, out):
        inside = "/tmp/peers.collapsed"
        cpu, wall, output = run(python + ["-m", "profiling.sampling", "attach", "-r", str(rate or FULL_SPEED),
                                          "-d", str(seconds), "--collapsed", "-o", inside] + list(extra) + [str(pid)])
        written = root_of(python).rstrip("/") + inside
        if os.path.exists(written):
            os.remove(written)
        found = re.search(r"Captured ([\d,]+) samples", output)
        errors = re.search(r"Error rate: ([\d.]+)", output)
        samples = found and int(found.group(1).replace(",", ""))
        # It says them in percent of its attempts.
        return Run(cpu, wall, samples, int(float(errors.group(1)) / 100 * samples) if found and errors else 0, output)
    return sample


def find_tools(path, python):
    tools = [("biopsy", biopsy(path)), ("biopsy --no-counts", biopsy(path, ["--no-counts"])),
             ("biopsy interrupt", biopsy(path, ["--no-counts", "--reader", "interrupt"]))]
    spy, other = find("py-spy"), find("austin")
    other = other and startable(other)
    if spy:
        tools += [("py-spy", py_spy(spy)), ("py-spy --nonblocking", py_spy(spy, ["--nonblocking"]))]
    if other:
        tools.append(("austin", austin(other)))
    has_own = works(python + ["-c", "import profiling.sampling"])
    if has_own:
        tools += [("profiling.sampling", profiling_sampling(python)), ("profiling.sampling -a", profiling_sampling(python, ["-a"]))]
    for name, found in (("py-spy", spy), ("austin", other), ("profiling.sampling (a target of 3.15)", has_own)):
        if not found:
            print("not here: %s" % name)
    return tools


def versions():
    for words in [words for words in (startable(path) for path in map(find, PACKAGES) if path) if words]:
        text = subprocess.run(words + ["--version"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              universal_newlines=True).stdout.strip()
        yield text.splitlines()[0] if text else words[-1]


def describe(args):
    try:
        with open("/proc/cpuinfo") as file:
            cpu = re.search(r"model name\s*:\s*(.*)", file.read()).group(1)
    except (OSError, AttributeError):
        cpu = platform.processor() or "an unknown CPU"
    commit = subprocess.run(["git", "-C", HERE, "rev-parse", "--short", "HEAD"], stdout=subprocess.PIPE,
                            stderr=subprocess.DEVNULL, universal_newlines=True).stdout.strip()
    python = subprocess.check_output(args.python + ["-V"], universal_newlines=True).split()[1]
    print("%s, biopsy at commit %s, Python %s, %g s each" % (
        time.strftime("%Y-%m-%d"), commit or "unknown", python, args.seconds))
    print("%s, %d cores, load average %.1f, %s" % (cpu, os.cpu_count(), os.getloadavg()[0], platform.platform()))
    print("beside %s" % ", ".join(versions()))


def measure(scenario, tools, args, folder):
    rows, alone = [], []
    for name, sample in tools:
        # The unwatched speed is taken between, as machines get slower and faster.
        if scenario.per == "sample":
            target = start(args.python, scenario.target)
            try:
                time.sleep(min(args.seconds, 2))
            finally:
                alone.append(finish(target))
        target = start(args.python, scenario.target)
        try:
            done = sample(target.pid, scenario.rate, args.seconds, os.path.join(folder, "out"))
        finally:
            rate = finish(target)
        if done.samples or (done.samples == 0 and scenario.per == "run"):
            rows.append(Row(name, done, rate / alone[-1] if alone else None))
        else:
            print("%s gave no samples:\n%s" % (name, done.output[-500:]))
    return rows, alone


def show(scenario, rows, alone):
    def cost(row):
        return row.run.cpu / (row.run.samples if scenario.per == "sample" else row.run.wall)

    print("\n%s" % scenario.about)
    print("%-21s %8s %7s %9s %7s %6s %10s %8s %14s" % (
        "", "samples", "errors", "samples/s", "cpu s", "cpu %", "us/sample", "x biopsy", "target's speed"))
    for row in rows:
        done = row.run
        each = "%.1f" % (1e6 * done.cpu / done.samples) if scenario.per == "sample" else ""
        print("%-21s %8d %7d %9.0f %7.3f %6.1f %10s %8.1f %14s" % (
            row.name, done.samples, done.errors, done.samples / done.wall, done.cpu, 100 * done.cpu / done.wall,
            each, cost(row) / cost(rows[0]),
            "" if row.speed is None else "%.1f%%" % (100 * row.speed)))
    print("x biopsy: CPU time a %s" % ("sample" if scenario.per == "sample" else "second"))
    if alone:
        print("unwatched targets made %s iterations a second" % ", ".join("%.0f" % rate for rate in alone))
    sys.stdout.flush()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("biopsy")
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--only", nargs="+", choices=[scenario.name for scenario in SCENARIOS])
    args = parser.parse_args()
    args.python = shlex.split(args.python)
    tools = find_tools(args.biopsy, args.python)
    describe(args)
    with tempfile.TemporaryDirectory() as folder:
        for scenario in SCENARIOS:
            if not args.only or scenario.name in args.only:
                show(scenario, *measure(scenario, tools, args, folder))


if __name__ == "__main__":
    main()
