"""What the profilers watch in peers.py; prints `ready`, ends on SIGTERM with `rate N` (iterations a second).

    peers_target.py                 fib(12) again and again below 31 nested calls: about 43 frames, a call every 50 ns
    peers_target.py --native N      the same beside N threads that run no Python and sleep (as those of a BLAS do)
    peers_target.py --sleep N       a server without work: N Python threads that wait in a queue, main in select()
"""
import ctypes
import queue
import select
import signal
import sys
import threading
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


def native(count):
    libc = ctypes.CDLL(None, use_errno=True)
    sleep = ctypes.cast(libc.pause, ctypes.c_void_p)
    for _ in range(count):
        thread = ctypes.c_ulong()
        if libc.pthread_create(ctypes.byref(thread), None, sleep, None):
            sys.exit("pthread_create failed")


def serve(count):
    requests = queue.Queue()
    for _ in range(count):
        threading.Thread(target=requests.get, daemon=True).start()
    print("ready", flush=True)
    while not stop:
        select.select([], [], [], 30)
    return 0.0


def end(*_):
    global stop
    stop = True
    if "--sleep" in sys.argv:
        raise KeyboardInterrupt


signal.signal(signal.SIGTERM, end)
kind, number = sys.argv[1:3] if len(sys.argv) > 2 else ("", 0)
if kind == "--sleep":
    try:
        serve(int(number))
    except KeyboardInterrupt:
        print("rate 0.0", flush=True)
else:
    if kind == "--native":
        native(int(number))
    print("ready", flush=True)
    print("rate %.1f" % nested(30), flush=True)
