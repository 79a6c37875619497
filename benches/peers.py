#!/usr/bin/env python3
"""biopsy beside its peers on the same live target, one after the other in one run; prints ratios.

    python3 benches/peers.py BIOPSY [--rate 1000] [--seconds 5] [--python python3]

Each profiler attaches to a fresh target (peers_target.py, about 43 frames) for the same time at the same
rate. Measured: CPU time of the profiler (user + system, attaching included), samples that it got, CPU per
sample, and the target's own speed beside that of an unwatched one. py-spy and Austin are taken from the
PATH (pip install py-spy austin-dist==3.7.0); one that is missing is named.
"""
import argparse
import json
import os
import platform
import re
import resource
import shutil
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))


def start(python):
    target = subprocess.Popen(
        [python, os.path.join(HERE, "peers_target.py")],
        stdout=subprocess.PIPE, universal_newlines=True,
    )
    assert target.stdout.readline().strip() == "ready"
    return target


def finish(target):
    target.terminate()
    rate = float(target.stdout.readline().split()[1])
    target.wait()
    return rate


def run(command):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return cpu, done


def biopsy(path, pid, args, out, extra=()):
    out += ".json"
    cpu, done = run([path, "attach", str(pid), "-q", "-r", str(args.rate), "-d", str(args.seconds), "-o", out, *extra])
    document = json.load(open(out)) if os.path.exists(out) else None
    return cpu, document and document["samples"], document and document["given_up"], done.stdout


def py_spy(path, pid, args, out, extra=()):
    cpu, done = run([path, "record", "-p", str(pid), "-r", str(args.rate), "-d", str(args.seconds),
                     "-f", "raw", "-o", out, *extra])
    found = re.search(r"Samples: (\d+) Errors: (\d+)", done.stdout)
    return cpu, found and int(found.group(1)), found and int(found.group(2)), done.stdout


def austin(path, pid, args, out):
    interval = int(1e6 / args.rate)
    cpu, done = run([path, "-i", "%dus" % interval, "-x", str(args.seconds), "-o", out, "-p", str(pid)])
    found = re.search(r"Error rate[^\d]*(\d+)/(\d+)", re.sub(r"\x1b\[[0-9;]*m", "", done.stdout))
    return cpu, found and int(found.group(2)), found and int(found.group(1)), done.stdout


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("biopsy")
    parser.add_argument("--rate", type=int, default=1000)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--python", default=sys.executable)
    args = parser.parse_args()
    tools = [("biopsy", lambda pid, out: biopsy(args.biopsy, pid, args, out))]
    for name, call in (
        ("py-spy", lambda path: lambda pid, out: py_spy(path, pid, args, out)),
        ("py-spy --nonblocking", lambda path: lambda pid, out: py_spy(path, pid, args, out, ("--nonblocking",))),
        ("austin", lambda path: lambda pid, out: austin(path, pid, args, out)),
    ):
        path = shutil.which(name.split()[0])
        if path:
            tools.append((name, call(path)))
        else:
            print("not here: %s" % name)

    print("%s, %s cores, Python %s, %d Hz, %d s" % (
        platform.platform(), os.cpu_count(),
        subprocess.check_output([args.python, "-V"], universal_newlines=True).split()[1], args.rate, args.seconds))
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        alone = []
        for name, call in tools:
            # The unwatched speed is taken before and between, as machines get slower and faster.
            target = start(args.python)
            try:
                subprocess.run(["sleep", str(args.seconds)])
            finally:
                alone.append(finish(target))
            target = start(args.python)
            try:
                cpu, samples, errors, output = call(target.pid, os.path.join(folder, "out"))
            finally:
                rate = finish(target)
            if not samples:
                print("%s gave no samples:\n%s" % (name, output[-500:]))
                continue
            rows.append((name, cpu, samples, errors, rate / alone[-1]))
    base = rows[0][1] / rows[0][2] if rows else None
    print("%-22s %8s %8s %7s %10s %8s %14s" % ("", "samples", "errors", "cpu s", "us/sample", "x biopsy", "target's speed"))
    for name, cpu, samples, errors, speed in rows:
        print("%-22s %8d %8s %7.3f %10.1f %8.1f %13.1f%%" % (
            name, samples, errors, cpu, 1e6 * cpu / samples, cpu / samples / base, 100 * speed))
    print("unwatched targets made %s iterations a second" % ", ".join("%.0f" % rate for rate in alone))


if __name__ == "__main__":
    main()
