"""Stands as `sitecustomize` before a program that `biopsy heap run --at` starts, and tells biopsy about moments.

MOMENTS, which biopsy fills in, is a tuple of ('exit',) and ('call', NUMBER, MODULE, FUNCTION,
BEFORE, AFTER, EVERY).  At such a moment a line goes into the pipe `up` beside this file, and the thread waits for a
byte from the pipe `down`: then biopsy has its snapshot.  Other threads run on until biopsy stops the process.

What the program sees of it
  The folder leaves sys.path and PYTHONPATH at once, so programs that this one starts are not followed; forked
  children are not either.  A `sitecustomize` of the program's own is imported as without us.
  `exit` is an atexit handler registered first, hence run last: after the main module, the non-daemon threads and the
  program's own handlers, before modules are taken apart.
  A function gets another `__code__`, which calls a copy of it: whoever took hold of the function before (a
  decorator, a table of routes) calls the same object.  `__wrapped__` leads inspect.signature() to the copy.
  Functions of `__main__` cannot be met at an import; a profile function of the main thread waits until they exist.

What it adds to the heap: about 40 objects, all made before the program's first line and alike in every snapshot,
and for each function that is watched the copy, its new code and one more.  Nothing is imported that `site` has not
imported, but for C modules inside the interpreter.
"""


def _start(moments):
    import os
    import sys
    import _thread
    import atexit
    from itertools import count

    folder = os.path.dirname(__file__)
    rest = os.environ.get('PYTHONPATH', '').partition(os.pathsep)[2]
    if rest:
        os.environ['PYTHONPATH'] = rest
    else:
        os.environ.pop('PYTHONPATH', None)
    sys.path[:] = [entry for entry in sys.path if entry != folder]
    sys.path_importer_cache.pop(folder, None)
    sys.modules.pop('sitecustomize', None)

    # For reading too: a write then gives no SIGPIPE when biopsy is gone.
    up = os.open(folder + '/up', os.O_RDWR)
    down = os.open(folder + '/down', os.O_RDONLY)
    # The program may replace these.
    read, write, getpid, get_ident = os.read, os.write, os.getpid, _thread.get_ident
    own = getpid()
    lock = _thread.allocate_lock()
    teller = owed = 0

    def tell(*words):
        """Tells biopsy, and waits until it has done what it does then."""
        nonlocal teller, owed
        # A signal handler may run, and meet a moment, while its own thread waits.
        if getpid() != own or teller == get_ident():
            return
        line = ' '.join(map(str, words)).replace('\n', ' ')[:900] + '\n'
        with lock:
            teller = get_ident()
            try:
                write(up, line.encode('utf-8', 'backslashreplace'))
                owed += 1
                while owed and read(down, 1):
                    owed -= 1
            except OSError:
                pass
            finally:
                teller = 0

    class Watched:
        """A function whose calls are moments."""

        __slots__ = 'number', 'before', 'after', 'every', 'next', 'code', 'function'

        def begin(self):
            call = self.next()
            if call % self.every:
                return 0
            if self.before:
                tell('call', self.number, 'before', call)
            return call

        def end(self, call):
            if call and self.after:
                tell('call', self.number, 'after', call)

    # 'watched' becomes the Watched among the constants of a copy of the code.

    def plain(*args, **kwargs):
        call = 'watched'.begin()
        try:
            return 'watched'.function(*args, **kwargs)
        finally:
            del args, kwargs
            'watched'.end(call)

    def generator(*args, **kwargs):
        call = 'watched'.begin()
        try:
            return (yield from 'watched'.function(*args, **kwargs))
        finally:
            del args, kwargs
            'watched'.end(call)

    async def coroutine(*args, **kwargs):
        call = 'watched'.begin()
        try:
            return await 'watched'.function(*args, **kwargs)
        finally:
            del args, kwargs
            'watched'.end(call)

    function_type = type(tell)

    def meant(wrong, place):
        """'; did you mean ...' for the name in a module, class or dict that is most like a wrong one, if one is."""
        best, least = '', (len(wrong) // 3 + 2,)
        # Not by getattr(): that may run code of the program.
        known = place if type(place) is dict else getattr(place, '__dict__', {})
        for name in list(known)[:5000]:
            if type(name) is not str or not 0 < len(name) <= 100:
                continue
            if known is not sys.modules and not (
                    callable(known[name]) or isinstance(known[name], (staticmethod, classmethod))):
                continue
            row = list(range(len(wrong) + 1))
            for at, letter in enumerate(name, 1):
                before, row[0] = row[0], at
                for column, other in enumerate(wrong, 1):
                    before, row[column] = row[column], min(row[column] + 1, row[column - 1] + 1,
                                                           before + (letter.lower() != other.lower()))
            # One that was typed in part is near too; of two the one that begins alike.
            apart = 1 if len(wrong) > 2 and name.startswith(wrong) else row[-1]
            score = apart, name[0] != wrong[0], abs(len(name) - len(wrong))
            if score < least:
                best, least = name, score
        return '; did you mean ' + best + '?' if best else ''

    def attach(module, moment):
        """Gives the function other code; None when it cannot be watched."""
        _, number, module_name, path, before, after, every = moment
        name = module_name + ':' + path
        function = module
        missing.discard(moment)
        try:
            for part in path.split('.'):
                place = function
                function = getattr(function, part)
            function = getattr(function, '__func__', function)
            for _ in range(100):
                function = getattr(function, '__wrapped__', function)
        except AttributeError:
            return tell('problem', name + ': there is no such function in the module' + meant(part, place))
        if type(function) is not function_type:
            return tell('problem', name + ': it is no Python function')
        code = function.__code__
        if code.co_flags & 0x200:       # CO_ASYNC_GENERATOR
            return tell('problem', name + ': asynchronous generators are not supported')
        copy = function_type(code, function.__globals__, function.__name__,
                             function.__defaults__, function.__closure__)
        copy.__kwdefaults__ = function.__kwdefaults__
        copy.__qualname__ = function.__qualname__
        copy.__module__ = function.__module__
        watched = Watched()
        watched.number, watched.before, watched.after, watched.every = number, before, after, every
        watched.next, watched.code, watched.function = count(1).__next__, code, copy
        # CO_COROUTINE, CO_GENERATOR
        kind = coroutine if code.co_flags & 0x80 else generator if code.co_flags & 0x20 else plain
        kind = kind.__code__
        function.__code__ = kind.replace(
            co_name=code.co_name,
            co_freevars=code.co_freevars,
            co_consts=tuple(watched if constant == 'watched' else constant for constant in kind.co_consts))
        function.__wrapped__ = copy
        return watched

    calls = [moment for moment in moments if moment[0] == 'call']
    missing = set(calls)

    def tell_missing():
        for moment in calls:
            if moment not in missing:
                continue
            _, _, module, path, *_ = moment
            main = sys.modules.get('__main__')
            if module == '__main__':
                tell('problem', module + ':' + path + ': the program has made no such function'
                     + meant(path.partition('.')[0], main))
            else:
                tell('problem', module + ':' + path + ': the module was never imported'
                     + meant(module, sys.modules))

    class Finder:
        """Meets the modules when they are imported."""

        @staticmethod
        def find_spec(name, path=None, target=None):
            wanted = [moment for moment in calls if moment[2] == name]
            if not wanted:
                return None
            for finder in sys.meta_path:
                find_spec = getattr(finder, 'find_spec', None)
                spec = find_spec(name, path, target) if find_spec and finder is not Finder else None
                if spec is not None:
                    break
            else:
                return None
            loader = spec.loader
            if loader is None or isinstance(loader, type):
                return spec
            exec_module = loader.exec_module

            def exec_and_attach(module):
                del loader.exec_module
                exec_module(module)
                for moment in wanted:
                    attach(module, moment)

            loader.exec_module = exec_and_attach
            return spec

    def wait_for_main(wanted):
        main = sys.modules['__main__']
        first = [moment[3].partition('.')[0] for moment in wanted]

        def poll(frame, event, arg):
            for at, name in enumerate(first):
                if name not in main.__dict__:
                    continue
                del first[at]
                watched = attach(main, wanted.pop(at))
                sys.setprofile(poll if wanted else None)
                # The call that is just beginning still runs the old code.
                if watched and event == 'call' and frame.f_code is watched.code:
                    call = watched.begin()
                    if call and watched.after:
                        finish(frame, watched, call)
                return

        def finish(started, watched, call):
            before = sys.getprofile()

            def wait(frame, event, arg):
                if frame is started and event == 'return':
                    sys.setprofile(before)
                    watched.end(call)

            sys.setprofile(wait)

        sys.setprofile(poll)

    tell('hello', own)
    if ('exit',) in moments:
        atexit.register(tell, 'exit')
    if calls:
        atexit.register(tell_missing)
    in_main = []
    for moment in calls:
        if moment[2] == '__main__':
            in_main.append(moment)
        elif moment[2] in sys.modules:
            attach(sys.modules[moment[2]], moment)
    if len(in_main) < len(calls):
        sys.meta_path.insert(0, Finder)
    if in_main:
        wait_for_main(in_main)


MOMENTS = ()
_start(MOMENTS)
import sitecustomize  # noqa: the program's own; without one, site expects this very error
