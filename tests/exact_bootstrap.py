"""Test of src/exact/bootstrap.py: run under each interpreter, `pythonX.Y exact_bootstrap.py`.

Part 1 runs programs with and without the bootstrap and compares output, exit
status and what the program sees of itself.  Part 2 compares profiles with
known numbers and with `python -m cProfile`.
"""
import marshal
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile

VERSION = sys.version_info[:2]
SOURCE = os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'src', 'exact', 'bootstrap.py')
WORK = os.path.realpath(tempfile.mkdtemp(prefix='exact-test-'))
PRIVATE = tempfile.mkdtemp(prefix='importlib-biopsy-')
BOOT = os.path.join(PRIVATE, 'biopsy_bootstrap.py')
OUT = os.path.join(PRIVATE, 'out')
shutil.copy(SOURCE, BOOT)
failures = []


def path(*parts):
    return os.path.join(WORK, *parts)


def put(name, text, mode='w'):
    os.makedirs(os.path.dirname(path(name)), exist_ok=True)
    with open(path(name), mode) as file:
        file.write(text)


def run(command, kill=None, env=None, stdin=None):
    environ = dict(os.environ, PYTHONHASHSEED='0')
    environ.update(env or {})
    process = subprocess.Popen(command, cwd=WORK, env=environ, stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if kill is not None:
        time.sleep(0.6)
        process.send_signal(kill)
    out, err = process.communicate(stdin, timeout=60)
    # Addresses and process ids differ; so does the depth reached before a
    # RecursionError: our frame takes one.
    err = re.sub(rb'0x[0-9a-f]+|pid=\d+|repeated \d+ more', b'*', err)
    return process.returncode, out, err


def commands(form, target, args=(), options=()):
    flag = {'script': [], 'module': ['-m'], 'command': ['-c']}[form]
    python = [sys.executable] + list(options)
    return (python + flag + [target] + list(args),
            python + [BOOT, OUT, form, target] + list(args))


def profile():
    with open(OUT, 'rb') as file:
        return marshal.load(file)


def same(title, form, target, args=(), options=(), written=True, **more):
    if os.path.exists(OUT):
        os.remove(OUT)
    plain, ours = commands(form, target, args, options)
    expected, got = run(plain, **more), run(ours, **more)
    if expected != got:
        failures.append(title)
        print('FAIL', VERSION, title)
        for what, a, b in zip(('status', 'stdout', 'stderr'), expected, got):
            if a != b:
                if what != 'status':
                    a, b = ([line for line in x.split(b'\n') if line not in y.split(b'\n')] for x, y in ((a, b), (b, a)))
                print('  %s without: %r\n  %s with:    %r' % (what, a, ' ' * len(what), b))
    if written is not None and os.path.exists(OUT) != written:
        failures.append(title)
        print('FAIL', VERSION, title, '-- result', 'missing' if written else 'unexpected')
    elif written:
        for key in () if 'own profiler' in title else profile():
            if key[0] == BOOT or '_lsprof' in key[2] or 'sys.monitoring' in key[2]:
                failures.append(title)
                print('FAIL', VERSION, title, '-- row of our own', key)
    left = [name for name in os.listdir(PRIVATE) if name.endswith('.tmp')]
    assert not left, left
    return got


def check(title, condition, *facts):
    if not condition:
        failures.append(title)
        print('FAIL', VERSION, title, *facts)


SELF = '''
import sys, os
import re
m = sys.modules['__main__']
assert m.__dict__ is globals()
for k in sorted(m.__dict__):
    print(k, re.sub('0x[0-9a-f]+', '0x', repr(m.__dict__[k])) if k.startswith('__') else '')
print(list(m.__dict__)[:9])
print(sys.argv, sys.path, sys.flags, sys.warnoptions, sys._xoptions, getattr(sys, 'orig_argv', None))
print(sorted(p for p in sys.path_importer_cache if 'lib-dynload' not in p))
print(sys.excepthook, sys.getrecursionlimit(), sys.gettrace())
print(*sorted(set(sys.modules) - {'_lsprof', 'atexit', 'encodings.ascii'}), sep=chr(10))
print(__name__, sys._getframe().f_code.co_filename, sys._getframe().f_locals is globals() or sys._getframe().f_locals == globals())
import pickle
class K: pass
print(pickle.loads(pickle.dumps(K)) is K)
'''
put('self.py', '"""Doc."""\n' + SELF)
put('nodoc.py', SELF)
put('pkg/__init__.py', 'print("init", __name__, __import__("sys").argv)\n')
put('pkg/mod.py', SELF)
put('pkg/__main__.py', SELF)
put('folder/__main__.py', SELF)
put('folder/other.py', '')
put('empty/nothing.py', '')
with zipfile.ZipFile(path('app.zip'), 'w') as archive:
    archive.writestr('__main__.py', SELF + '\n1/0\n')
os.makedirs(path('sub', 'deep'))
put('sub/deep/real.py', SELF)
os.symlink('deep/real.py', path('sub', 'link.py'))
os.symlink(path('sub', 'link.py'), path('abs.py'))
os.symlink('abs.py', path('rel.py'))

for name in ('self.py', './self.py', path('self.py'), 'nodoc.py', 'sub/../self.py', 'sub/link.py',
             'abs.py', 'rel.py', 'folder', './folder', path('folder'), 'app.zip', path('app.zip'), 'pkg'):
    same('self ' + name, 'script', name, ['a', '-b', 'ü'])
for name in ('pkg', 'pkg.mod', 'nodoc', 'self'):
    same('self -m ' + name, 'module', name, ['a', '-m'])
same('self -c', 'command', SELF, ['a', '-c'])
if VERSION >= (3, 14):
    same('-c indented tabs', 'command', '\n\t  x = 1\n\t\n\t  if x:\n\t    print(repr("""a\n\t  b"""))\n \n')
    same('-c indented', 'command', '\n    x = 1\n    if x:\n\n        print(x)\n    1/0\n')
options = [['-I'], ['-O'], ['-OO', '-B'], ['-S'], ['-s', '-E', '-u'], ['-X', 'dev'], ['-X', 'utf8', '-W', 'ignore'], ['-b', '-q']]
if VERSION >= (3, 11):
    options += [['-P']]
    same('safe path', 'script', 'self.py', env={'PYTHONSAFEPATH': '1'})
    same('safe path -m', 'module', 'self', env={'PYTHONSAFEPATH': '1', 'PYTHONPATH': WORK})
for option in options:
    for form, name in (('script', 'self.py'), ('module', 'pkg.mod'), ('command', SELF), ('script', 'folder'), ('script', 'app.zip')):
        missing = form == 'module' and option[0] in ('-I', '-P')
        same('%s %s %s' % (option, form, name[:9]), form, name, ['x'], option, written=None if missing else True)

put('latin.py', '# -*- coding: latin-1 -*-\nprint(ascii("\xe9"))\n'.encode('latin-1'), 'wb')
put('bom.py', b'\xef\xbb\xbfprint(ascii("\xc3\xa9"))\r\nprint(2)\r\n', 'wb')
put('blank.py', '')
for name in ('latin.py', 'bom.py', 'blank.py'):
    same(name, 'script', name)
subprocess.check_call([sys.executable, '-c', 'import py_compile; py_compile.compile("self.py", "comp.pyc"); py_compile.compile("self.py", "comp.bin")'], cwd=WORK)
same('pyc', 'script', 'comp.pyc')
same('pyc by magic', 'script', 'comp.bin')
put('bad.pyc', b'\0' * 40, 'wb')

put('broken/syntax.py', 'x = 1\ny = = 2\n')
put('broken/indent.py', 'if 1:\n  x\n y\n')
put('broken/nonutf.py', b'x = "\xe9"\n', 'wb')
put('broken/null.py', b'x = 1\n\0y = 2\n', 'wb')
put('broken/codec.py', '# coding: nonsense\n')
put('broken/package/__init__.py', 'x = = 1')
put('broken/package/m.py', '')
put('broken/raising/__init__.py', '1/0')
put('broken/raising/m.py', '')
for name in ('broken/syntax.py', 'broken/indent.py', 'broken/nonutf.py', 'broken/null.py', 'broken/codec.py',
             'no such.py', './none.py', path('none.py'), 'bad.pyc', 'nodir/x.py'):
    same(name, 'script', name, written=False)
same('no __main__', 'script', 'empty', written=None)
for name in ('nosuch', 'no.such', 'broken.syntax', 'broken.package.m', 'broken.raising.m', 'broken', 'pkg.none', 'self.x', ''):
    same('-m ' + name, 'module', name, written=None)
for text in ('x = = 1', 'x = (', '\tx\n y', 'x = 1;;', 'if 1:\n  x\n y'):
    same('-c ' + text, 'command', text, written=False)

ENDS = {
    'return': '',
    'raise': 'def f(n):\n    if n: f(n-1)\n    raise ValueError("no", n)\nf(3)',
    'chain': 'def f():\n  try:\n    1/0\n  except Exception as e:\n    raise KeyError("x") from e\ntry:\n  f()\nexcept Exception:\n  [][1]',
    'note': 'class E(Exception):\n  def __str__(self): return "s\\u00fc"\nraise E',
    'badstr': 'class E(Exception):\n  def __str__(self): 1/0\nraise E',
    'recursion': 'def f(): f()\nf()',
    'base': 'class E(BaseException): pass\nraise E',
    'exit none': 'import sys; sys.exit()',
    'exit 3': 'import sys; sys.exit(3)',
    'exit str': 'import sys; sys.exit("bye")',
    'exit obj': 'import sys; sys.exit([1,2])',
    'exit true': 'import sys; sys.exit(True)',
    'exit big': 'import sys; sys.exit(2**40)',
    'exit subclass': 'class E(SystemExit): pass\nraise E(4)',
    'builtin exit': 'exit(5)',
    'keyboard': 'raise KeyboardInterrupt',
    'keyboard sub': 'class K(KeyboardInterrupt): pass\nraise K("x")',
    'signal self': 'import os, signal\ndef f(): os.kill(os.getpid(), signal.SIGINT)\nf()\nfor i in range(10**6): pass',
    'syntax': 'def f(): compile("x = = 1", "other", "exec")\nf()',
    'importing': 'import broken.syntax',
    'import missing': 'import nothing_here',
    'excepthook': 'import sys\ndef hook(t, v, tb):\n  import traceback\n  print("hook", t, v, v.__traceback__ is tb)\n  traceback.print_exception(t, v, tb)\n  print(sys.excepthook is hook, sys.last_traceback is tb, sys.last_value is v)\nsys.excepthook = hook\n1/0',
    'bad excepthook': 'import sys\ndef hook(t, v, tb):\n  def g(): [][v]\n  g()\nsys.excepthook = hook\ndef f(): 1/0\nf()',
    'exit in excepthook': 'import sys\ndef hook(t, v, tb):\n  sys.exit(9)\nsys.excepthook = hook\n1/0',
    'excepthook keyboard': 'import sys\nsys.excepthook = lambda *a: print(a[0])\nraise KeyboardInterrupt',
    'atexit': 'import atexit\nfor i in range(3): atexit.register(print, i)\natexit.register(lambda: 1/0)\nprint("end")',
    'atexit file': 'import atexit\natexit.register(lambda: print("__file__" in globals(), __name__))',
    'atexit raise': 'import atexit, sys\natexit.register(lambda: print(sys.excepthook, sys.last_type))\n1/0',
    'del': 'class D:\n  def __del__(self): print("del")\nd = D()\nclass C: pass\nc = C(); c.c = c; c.d = D()',
    'thread exit': 'import threading, sys\nt = threading.Thread(target=sys.exit, args=(3,))\nt.start(); t.join(); print(t.is_alive())',
    'late thread': 'import threading, time, atexit\natexit.register(print, "atexit")\ndef f():\n  time.sleep(.3)\n  print("late", "__file__" in globals(), __name__)\nthreading.Thread(target=f).start()\nprint("main done")',
    'late thread raise': 'import threading, time\ndef f():\n  time.sleep(.3)\n  print("late")\nthreading.Thread(target=f).start()\n1/0',
    'raw thread': 'import _thread, time\ndef g(): 1/0\ndef f(*a, **k): print(a, k)\n_thread.start_new_thread(f, (1, 2), {"x": 3})\ntime.sleep(.1)\n_thread.start_new_thread(f, (1, 2))\ntime.sleep(.1)\n_thread.start_new_thread(exit, ())\ntime.sleep(.1)',
    'daemon': 'import threading, time\ndef f():\n  while True: time.sleep(.01)\nthreading.Thread(target=f, daemon=True).start()\ntime.sleep(.1)',
    'warn': 'import warnings\nwarnings.warn("a")\nwarnings.warn("b", stacklevel=2)\nwarnings.warn("c", stacklevel=3)\ndef f(): warnings.warn("d", stacklevel=2)\nf()',
    'deprecation': 'import warnings\nwarnings.warn("b", DeprecationWarning)\nx = "\\d"\n',
    'close stderr': 'import os\nos.close(2)\n1/0',
    'no stdout': 'import sys\nsys.stdout.write("x"); sys.stdout.close()',
    'fork': 'import os\ndef f(): pass\np = os.fork()\nf()\nif not p:\n  print("child", flush=True)\nelse:\n  os.wait(); print("parent")',
    'fork in thread': 'import os, threading\ndef f():\n  p = os.fork()\n  if not p:\n    os._exit(0)\n  print(os.wait()[1])\nt = threading.Thread(target=f); t.start(); t.join()',
    'broken builtins': 'import os, builtins\nopen = os.open = os.replace = os.getpid = os.write = None\nbuiltins.open = None\nlen = list = dict = tuple = issubclass = isinstance = None',
    'own profiler': 'import sys\nif sys.version_info >= (3, 12):\n  import cProfile\n  p = cProfile.Profile(); p.enable(); p.disable()\n  sys.setprofile(lambda *a: None); sys.setprofile(None)\n  print(sys.getprofile())',
    'chdir': 'import os\nos.chdir("/")',
    'annotations': 'x: int = 3\nprint(sorted(k for k in globals() if k != "__cached__"))',
    'future': 'print(__import__("sys")._getframe().f_code.co_flags)',
    'frames': 'import sys\nprint(sys._getframe().f_code.co_name)\nraise type("E", (Exception,), {"__module__": "m"})("x")',
}
for title, text in sorted(ENDS.items()):
    name = 'end_' + title.replace(' ', '_')
    put(name + '.py', text + '\n')
    same('%s (script)' % title, 'script', name + '.py')
    same('%s (module)' % title, 'module', name)
    same('%s (command)' % title, 'command', text)
    if title in ('raise', 'keyboard', 'warn', 'excepthook'):
        with zipfile.ZipFile(path(name + '.zip'), 'w') as archive:
            archive.writestr('__main__.py', text)
        same('%s (zip)' % title, 'script', name + '.zip')

put('end_osexit.py', 'import os\nos._exit(7)')
same('os._exit', 'script', 'end_osexit.py', written=False)
put('end_exec.py', 'import os, sys\nos.execv(sys.executable, [sys.executable, "-c", "print(1)"])')
same('os.exec', 'script', 'end_exec.py', written=False)
put('sleeper.py', 'import time\ndef f():\n  time.sleep(20)\nf()\n')
put('sleepers.py', 'import time, threading\ndef f(): time.sleep(1.2)\nthreading.Thread(target=f).start()\ntime.sleep(20)\n')
for number, written in ((signal.SIGINT, True), (signal.SIGTERM, False)):
    for form, name in (('script', 'sleeper.py'), ('module', 'sleeper'), ('command', 'import time\ntime.sleep(20)'), ('script', 'sleepers.py')):
        same('%s %s' % (number, name), form, name, kill=number, written=written)

MULTI = '''
import multiprocessing, sys
class K:
    def __init__(self, x): self.x = x
def work(k): return K(k.x * 2)
def loud(x): print('loud', x, __name__, flush=True)
if __name__ == '__main__':
    for method in ('fork', 'spawn', 'forkserver'):
        c = multiprocessing.get_context(method)
        with c.Pool(2) as pool:
            print(method, sum(k.x for k in pool.map(work, [K(i) for i in range(10)])))
        p = c.Process(target=loud, args=(1,))
        p.start(); p.join(); print(p.exitcode)
'''
put('multi.py', MULTI)
same('multiprocessing', 'script', 'multi.py')
check('multiprocessing profile', (path('multi.py') if VERSION >= (3, 9) else 'multi.py', 5, '__init__') in
      {(k[0], 5, k[2]) for k in profile() if k[2] == '__init__'})
same('multiprocessing -m', 'module', 'multi')
put('stdin.py', 'import sys\nprint(sys.stdin.read())')
same('stdin', 'script', 'stdin.py', stdin=b'hello')
if os.path.exists('/dev/stdin'):
    same('script from stdin', 'script', '/dev/stdin', stdin=b'print(3)\n')

# An unwritable result: one line, same status.
plain, ours = commands('script', 'end_exit_3.py')
ours[ours.index(OUT)] = path('no', 'such', 'folder', 'out')
status, out, err = run(ours)
check('cannot write', status == 3 and err.startswith(b'biopsy: cannot write profile: ') and err.count(b'\n') == 1, status, err)


# ---- part 2: profiles -------------------------------------------------------

def profiled(form, target, args=(), options=()):
    if os.path.exists(OUT):
        os.remove(OUT)
    status, out, err = run(commands(form, target, args, options)[1])
    check('profiled ' + target, status == 0, status, err)
    return profile(), out


def named(stats):
    return {(os.path.basename(k[0]), k[1], k[2]): v for k, v in stats.items()}


def row(stats, name):
    found = [v for k, v in stats.items() if k[2] == name]
    check('row ' + name, len(found) == 1, found)
    return found[0]


SINGLE = '''
def fib(n): return n if n < 2 else fib(n - 1) + fib(n - 2)
def even(n): return True if n == 0 else odd(n - 1)
def odd(n): return False if n == 0 else even(n - 1)
def gen(n):
    for i in range(n):
        got = yield i
def fails():
    raise ValueError
def caught(n):
    for i in range(n):
        try: fails()
        except ValueError: len("x")
class C:
    def __init__(self): self.x = 1
    def method(self): return sorted([3, 1, 2], key=lambda v: -v)
    @property
    def prop(self): return self.method()
def main():
    fib(15)
    even(20); odd(21)
    sum(gen(50))
    list(map(str, gen(7)))
    caught(9)
    for i in range(11): C().prop
    exec("x = [len(str(i)) for i in range(5)]")
    g = gen(5); next(g); g.close()
    g = gen(5); next(g)
    try: g.throw(KeyError)
    except KeyError: pass
    try: int("x")
    except ValueError: pass
main()
'''
put('single.py', SINGLE)
# -S: some .pth file may import threading, whose shutdown only we count.
ours, _ = profiled('script', 'single.py', options=['-S'])
plain_out = path('plain.prof')
subprocess.check_call([sys.executable, '-S', '-m', 'cProfile', '-o', plain_out, 'single.py'], cwd=WORK)
with open(plain_out, 'rb') as file:
    plain = marshal.load(file)


def program_rows(stats):
    """Without what differs by construction: cProfile's own exec and disable."""
    rows = {}
    for key, (cc, nc, tt, ct, callers) in named(stats).items():
        if "'disable' of" in key[2]:
            continue
        edges = {(os.path.basename(c[0]), c[1], c[2]): e[:2] for c, e in callers.items()
                 if 'exec>' not in c[2]}
        if 'exec>' in key[2]:
            edges = cc = nc = None
        rows[key] = (cc, nc, edges)
    return rows


a, b = program_rows(ours), program_rows(plain)
for key in sorted(set(a) | set(b)):
    check('single', a.get(key) == b.get(key), key, a.get(key), b.get(key))
check('fib', row(ours, 'fib')[:2] == (1, 1973), row(ours, 'fib'))
check('exec', row(ours, '<built-in method builtins.exec>')[:2] == (1, 1))
check('module has no caller', [v[4] for k, v in ours.items() if k[2] == '<module>' and k[0].endswith('single.py')] == [{}])

THREADS = '''
import threading, time, _thread
def sleeper():
    time.sleep(1)
def spin(seconds):
    end = time.perf_counter() + seconds
    while time.perf_counter() < end: tick()
def tick(): pass
def leaf(): return len(())
def middle(n):
    for i in range(n): leaf()
def fib(n): return n if n < 2 else fib(n - 1) + fib(n - 2)
def worker(n):
    middle(n)
    fib(15)
def other(n):
    for i in range(n): leaf()
done = []
def raw(x):
    other(100)
    done.append(x)
def main():
    middle(10)
    threads = [threading.Thread(target=worker, args=(5000,)) for i in range(8)]
    for t in threads: t.start()
    other(3000)
    for t in threads: t.join()
    for i in range(5): _thread.start_new_thread(raw, (i,))
    while len(done) < 5: time.sleep(.01)
    a = threading.Thread(target=sleeper); b = threading.Thread(target=spin, args=(1,))
    a.start(); b.start()
    a.join(); b.join()
    for i in range(300):
        t = threading.Thread(target=leaf); t.start(); t.join()
main()
'''
put('threads.py', THREADS)
stats, _ = profiled('script', 'threads.py')
for name, cc, nc in (('worker', 8, 8), ('middle', 9, 9), ('leaf', 8 * 5000 + 10 + 3000 + 500 + 300, None),
                     ('fib', 8, 8 * 1973), ('other', 6, 6), ('raw', 5, 5), ('sleeper', 1, 1), ('spin', 1, 1),
                     ('main', 1, 1)):
    got = row(stats, name)
    check('threads ' + name, got[:2] == (cc, nc or cc), got[:2], (cc, nc or cc))
file = [k for k in stats if k[2] == 'leaf'][0][0]
callers = {k[2]: v[0] for k, v in row(stats, 'leaf')[4].items()}
check('callers of leaf', callers == {'middle': 40010, 'other': 3500, 'run': 300}, callers)
check('callers of middle', {k[2]: v[0] for k, v in row(stats, 'middle')[4].items()} == {'worker': 8, 'main': 1})
check('callers of fib', {k[2]: v[0] for k, v in row(stats, 'fib')[4].items()} == {'worker': 8, 'fib': 8 * 1972})
check('callers of worker', {k[2] for k in row(stats, 'worker')[4]} == {'run'})
for name in ('_bootstrap', '_bootstrap_inner', 'run'):
    got = [v[:2] for k, v in stats.items() if k[2] == name and os.path.basename(k[0]) == 'threading.py']
    check('threading ' + name, got == [(310, 310)], got)
starts = [(k, v) for k, v in stats.items() if 'start_new_thread' in k[2] or 'start_joinable_thread' in k[2]]
check('thread starts', sum(v[1] for k, v in starts) == 315
      and sum(e[0] for k, v in starts for e in v[4].values()) == 315
      and {k2[2] for k, v in starts for k2 in v[4]} == {'start', 'main'}, starts)
for name in ('sleeper', 'spin'):
    ct = row(stats, name)[3]
    check('time of ' + name, abs(ct - 1) < 0.05, ct)
sleep = row(stats, '<built-in method time.sleep>')[4]
check('sleep by', abs([v for k, v in sleep.items() if k[2] == 'sleeper'][0][3] - 1) < 0.05)
total = sum(v[2] for k, v in stats.items() if k[2] in ('spin', 'tick') or 'perf_counter' in k[2])
check('spin adds up', abs(total - 1) < 0.05, total)

LATE = '''
import threading, time, atexit
def late():
    time.sleep(.3)
    for i in range(10): after()
def after(): pass
def handler(): after()
def forever():
    while True: nap()
def nap(): time.sleep(5)
atexit.register(handler)
threading.Thread(target=forever, daemon=True).start()
threading.Thread(target=late).start()
'''
put('late.py', LATE)
stats, _ = profiled('script', 'late.py')
for name, count in (('late', 1), ('after', 11), ('handler', 1), ('nap', 1), ('forever', 1)):
    check('late ' + name, row(stats, name)[:2] == (count, count), row(stats, name))

put('mod_m.py', 'def f(): pass\nfor i in range(4): f()\n')
for form, target in (('module', 'mod_m'), ('command', 'def f(): pass\nfor i in range(4): f()')):
    stats, _ = profiled(form, target)
    check('form ' + form, row(stats, 'f')[:2] == (4, 4))
put('lambdas.py', 'a, b = (lambda: 1), (lambda: 2)\nfor i in range(4): a()\nfor i in range(3): b()\n')
stats, _ = profiled('script', 'lambdas.py')
check('two lambdas of a line', row(stats, '<lambda>')[:2] == (7, 7), row(stats, '<lambda>'))

# Ctrl-C in the middle of counted calls, one thread and several: never a frame of ours.
put('busy.py', '''
import sys, threading
def leaf(): return len(())
def busy():
    while True: leaf()
if len(sys.argv) > 1:
    t = threading.Thread(target=busy, daemon=True); t.start()
busy()
''')
for args in ([], ['t']) * 3:
    status, out, err = run(commands('script', 'busy.py', args)[1], kill=signal.SIGINT)
    check('Ctrl-C', status == (1 if VERSION < (3, 8) else -signal.SIGINT) and b'biopsy' not in err
          and err.endswith(b'KeyboardInterrupt\n'), status, err)

fixture = os.path.join(os.path.dirname(SOURCE), '..', '..', 'fixtures', 'programs', 'mixed_lines.py')
if os.path.exists(fixture):
    ours, _ = profiled('script', fixture, options=['-S'])
    run([sys.executable, '-S', '-m', 'cProfile', '-o', plain_out, fixture])
    with open(plain_out, 'rb') as file:
        plain = marshal.load(file)
    a, b = program_rows(ours), program_rows(plain)
    labels, codes = [], [compile(open(fixture).read(), 'mixed_lines.py', 'exec')]
    while codes:
        code = codes.pop()
        labels.append(('mixed_lines.py', code.co_firstlineno, code.co_name))
        codes += [const for const in code.co_consts if isinstance(const, type(code))]
    check('mixed_lines ran', len(b) > 10, b)
    for key in b:
        if key[0] == 'mixed_lines.py':
            # Of code objects with one label cProfile keeps one, ours is their sum.
            twins = labels.count(key) > 1
            check('mixed_lines', a[key][1] >= b[key][1] if twins else a.get(key) == b[key],
                  key, a.get(key), b[key])

if len(sys.argv) > 1 and sys.argv[1] == 'overhead':
    put('heavy.py', '''
import sys, time, threading
def fib(n): return n if n < 2 else fib(n - 1) + fib(n - 2)
def work():
    fib(25)
    for i in range(200000): len(())
if len(sys.argv) > 1:
    t = threading.Thread(target=int); t.start(); t.join()
t = time.perf_counter(); work(); print(time.perf_counter() - t)
''')
    def best(command):
        return min(float(run(command)[1]) for i in range(5))
    python = [sys.executable]
    print(VERSION, 'plain %.3f  cProfile %.3f  ours %.3f  ours after a thread %.3f' % (
        best(python + ['heavy.py']), best(python + ['-m', 'cProfile', '-o', plain_out, 'heavy.py']),
        best(commands('script', 'heavy.py')[1]), best(commands('script', 'heavy.py', ['t'])[1])))
    null = path('null.py')
    put('null.py', '')
    def startup(command):
        times = []
        for i in range(15):
            begin = time.perf_counter()
            run(command)
            times.append(time.perf_counter() - begin)
        return min(times) * 1000
    plain, ours = commands('script', 'null.py')
    print(VERSION, 'start and end: plain %.1f ms, ours %.1f ms' % (startup(plain), startup(ours)))

shutil.rmtree(WORK)
shutil.rmtree(PRIVATE)
print(VERSION, 'FAILED %d' % len(failures) if failures else 'ok')
sys.exit(bool(failures))
