"""Work under about 43 frames: fib(12) again and again below 31 nested calls, a call every 50 ns or so, in one thread.

Prints `ready`; counts iterations until SIGTERM, then prints how many a second it made.
"""
import signal
import time

stop = False


def fib(n):
    return n if n < 2 else fib(n - 1) + fib(n - 2)


def nested(depth):
    if depth:
        return nested(depth - 1)
    count = 0
    started = time.perf_counter()
    while not stop:
        fib(12)
        count += 1
    return count / (time.perf_counter() - started)


def end(*_):
    global stop
    stop = True


signal.signal(signal.SIGTERM, end)
print("ready", flush=True)
print("rate %.1f" % nested(30), flush=True)
