#!/usr/bin/env python3
"""`biopsy heap` beside muppy (pympler) and guppy on heaps of the same shape, in one run; prints ratios.

    python3 benches/heap_peers.py BIOPSY [--python python3] [--users 50000 500000 2000000] [--peers-up-to 500000]

Makes a virtual environment in target/bench-venv-X.Y with pympler and guppy3 if it is not there. biopsy is measured as a
whole command (wall time and peak memory of the process); muppy and guppy inside their process, imports aside. The
smallest of three runs counts.
"""
import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
TARGET = os.path.join(HERE, "heap_target.py")
REPEATS = 3


def environment(python):
    version = subprocess.check_output(
        [python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"], universal_newlines=True).strip()
    folder = os.path.join(os.path.dirname(HERE), "target", "bench-venv-" + version)
    inside = os.path.join(folder, "bin", "python")
    if not os.path.exists(inside):
        subprocess.check_call([python, "-m", "venv", folder])
    missing = subprocess.call([inside, "-c", "import pympler, guppy"], stderr=subprocess.DEVNULL)
    if missing:
        subprocess.call([inside, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "pympler", "guppy3"])
    return inside


def resident(pid):
    with open("/proc/%d/statm" % pid) as statm:
        return int(statm.read().split()[1]) * resource.getpagesize()


def measure(command):
    """Wall seconds, peak bytes, CPU seconds and the output of a command."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = status
    seconds = time.perf_counter() - started
    if status:
        sys.exit("%s ended with %d" % (" ".join(command), status))
    return seconds, usage.ru_maxrss * 1024, usage.ru_utime + usage.ru_stime, output


def best(command):
    return min((measure(command) for _ in range(REPEATS)), key=lambda found: found[0])


def inside(python, users, how):
    found = None
    for _ in range(REPEATS):
        done = subprocess.run([python, TARGET, str(users), how], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              universal_newlines=True)
        if done.returncode:
            print("%s: %s" % (how, (done.stderr.strip().splitlines() or ["failed"])[-1]))
            return None
        seconds, objects, before, after = done.stdout.split()
        row = (float(seconds), int(objects), (int(after) - int(before)) * 1024)
        found = min(found, row) if found else row
    return found


def line(what, seconds, objects, note=""):
    print("  %-34s %8.3f s %12s objects  %s" % (what, seconds, objects, note))


def one_size(args, python, users):
    target = subprocess.Popen([python, TARGET, str(users)], stdout=subprocess.PIPE, universal_newlines=True)
    try:
        pid = int(target.stdout.readline().split()[1])
        memory = resident(pid)
        print("%d users, %.0f MB resident" % (users, memory / 1e6))
        summary, peak, cpu, output = best([args.biopsy, "heap", "summary", str(pid), "--json"])
        document = json.loads(output)
        line("biopsy heap summary", summary, document["total"]["objects"],
             "pause %.1f ms (%.3f s per GB), peak %.2f x the target, CPU %.2f s" % (
                 document["pause_ms"], document["pause_ms"] / 1e3 / (memory / 1e9), peak / memory, cpu))
        muppy, peak, _, output = best([args.biopsy, "heap", "summary", str(pid), "--muppy", "--json"])
        line("biopsy heap summary --muppy", muppy, json.loads(output)["total"]["objects"],
             "peak %.2f x" % (peak / memory))
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "users.heap")
            seconds, peak, _, _ = best([args.biopsy, "heap", "snapshot", str(pid), "-q", "-o", path])
            size = os.path.getsize(path)
            line("biopsy heap snapshot", seconds, document["total"]["objects"], "%.1f bytes an object, peak %.2f x" % (
                size / document["total"]["objects"], peak / memory))
            seconds, peak, _, _ = best([args.biopsy, "heap", "summary", path, "--json"])
            line("biopsy heap summary of the file", seconds, document["total"]["objects"], "peak %.0f MB" % (peak / 1e6))
    finally:
        target.kill()
        target.wait()
    if users <= args.peers_up_to:
        for how in ("muppy", "guppy"):
            found = inside(python, users, how)
            if found:
                seconds, objects, grown = found
                line(how + ", inside", seconds, objects, "%.1f x biopsy's time; its process grew by %.0f MB" % (
                    seconds / summary, grown / 1e6))
    return users, document["total"]["objects"], summary


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("biopsy")
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--users", type=int, nargs="*", default=[50000, 500000, 2000000])
    parser.add_argument("--peers-up-to", type=int, default=500000)
    args = parser.parse_args()
    python = environment(args.python)
    version = subprocess.check_output([python, "-V"], universal_newlines=True).split()[1]
    print("%s, %s cores, Python %s" % (platform.platform(), os.cpu_count(), version))
    rows = [one_size(args, python, users) for users in args.users]
    for (_, few, short), (_, many, long) in zip(rows, rows[1:]):
        print("%.1f times the objects, %.1f times the time" % (many / few, long / short))


if __name__ == "__main__":
    main()
