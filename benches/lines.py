#!/usr/bin/env python3
"""What counting the hits of lines costs a program: `biopsy run --exact --lines` beside line_profiler.

    PYTHON_WITH_LINE_PROFILER benches/lines.py BIOPSY [--rounds 7] [--calls 400000]

Each program below runs by itself, under line_profiler with all its functions decorated, and under biopsy, one after the
other in each round, and says how much CPU time its work took. The least of all rounds counts. `added` is what biopsy adds
as a part of what line_profiler adds.
"""
import argparse
import os
import subprocess
import sys
import tempfile

PROGRAM = '''
import sys
import time


def straight(n):
    t = 0
    for i in range(n):
        a = i * 2
        if a % 3:
            t += a
        else:
            t -= 1
    return t


def callee(x):
    y = x + 1
    return y


def calls(n):
    t = 0
    for i in range(n):
        t += callee(i)
    return t


def write_sorted_letters(n):
    words = []
    for i in range(n // 10):
        letters = list('hello world')
        letters.sort()
        words.append(''.join(letters))
    return words


ALL = straight, callee, calls, write_sorted_letters

if __name__ == '__main__':
    if sys.argv[2:] == ['line_profiler']:
        import line_profiler
        profiler = line_profiler.LineProfiler()
        for function in ALL:
            globals()[function.__name__] = profiler(function)
    for name in 'straight', 'calls', 'write_sorted_letters':
        work = globals()[name]
        began = time.process_time()
        work(int(sys.argv[1]))
        print('CPU', name, time.process_time() - began)
'''


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("biopsy")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--calls", type=int, default=400000)
    args = parser.parse_args()
    import line_profiler
    print(f"CPython {sys.version.split()[0]}, line_profiler {line_profiler.__version__}; CPU seconds, the least of {args.rounds} rounds")
    with tempfile.TemporaryDirectory() as folder:
        script = os.path.join(folder, "program.py")
        with open(script, "w") as file:
            file.write(PROGRAM)
        plain = [sys.executable, script, str(args.calls)]
        ways = {
            "alone": plain,
            "line_profiler": plain + ["line_profiler"],
            "biopsy": [args.biopsy, "run", "-q", "--exact", "--lines", "-o", os.path.join(folder, "a.lprof"), "--"] + plain,
        }
        least = {}
        for _ in range(args.rounds):
            for way, words in ways.items():
                ran = subprocess.run(words, stdout=subprocess.PIPE, check=True, universal_newlines=True)
                for line in ran.stdout.splitlines():
                    if line.startswith("CPU "):
                        _, name, seconds = line.split()
                        least[way, name] = min(least.get((way, name), 1e9), float(seconds))
    print(f"{'':>22} {'alone':>8} {'line_profiler':>14} {'biopsy':>8} {'added':>6}")
    for name in dict.fromkeys(name for _, name in least):
        alone, theirs, ours = (least[way, name] for way in ways)
        print(f"{name:>22} {alone:8.3f} {theirs:14.3f} {ours:8.3f} {(ours - alone) / (theirs - alone):6.2f}")


main()
