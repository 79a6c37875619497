"""The heap that the memory goals are stated for: N users, about nine objects each.

    python3 heap_target.py N            builds it, prints "ready PID", sleeps
    python3 heap_target.py N muppy      builds it, then times pympler's muppy and summary inside itself
    python3 heap_target.py N guppy      builds it, then times guppy's hpy().heap() inside itself
"""
import os
import resource
import sys
import time


class User:
    def __init__(self, number):
        self.id = number
        self.name = "user%d" % number
        self.tags = ["t%d" % (number % 100), str(number)]
        self.meta = {"k": number, "v": float(number)}


def main():
    count = int(sys.argv[1])
    how = sys.argv[2] if len(sys.argv) > 2 else ""
    users = {number: User(number) for number in range(count)}
    if not how:
        print("ready %d" % os.getpid(), flush=True)
        time.sleep(3600)
        return
    # Importing is not what is measured.
    if how == "muppy":
        from pympler import muppy, summary
    else:
        from guppy import hpy
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    if how == "muppy":
        objects = sum(row[1] for row in summary.summarize(muppy.get_objects()))
    else:
        objects = hpy().heap().count
    seconds = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print("%.3f %d %d %d" % (seconds, objects, before, after))
    sys.stdout.flush()
    os._exit(len(users) == 0)


main()
