# Started in place of the program by `biopsy run --exact`; see below.
"""Run a Python program under its interpreter's own cProfile, all threads merged.

    PYTHON [interpreter options] THIS_FILE OUT_FILE FORM TARGET [arguments]

FORM is `script`, `module` or `command` and TARGET what would have followed
nothing, `-m` or `-c`.  OUT_FILE gets what `cProfile.Profile.dump_stats` writes:
a marshalled dict, (file, line, name) -> (cc, nc, tt, ct, callers).

Collecting
  3.6 - 3.11   One `_lsprof.Profiler` per thread (PyEval_SetProfile is a property
               of the thread).  `_thread.start_new_thread` is wrapped, so threads
               of `threading` and of `_thread` are covered; threads made by C code
               are not.
  3.12 - 3.15  `_lsprof` uses sys.monitoring, whose callbacks serve all threads,
               but a Profiler has one call stack (Modules/_lsprof.c:
               currentProfilerContext), so with two threads its times and callers
               are wrong.  Here the main thread's Profiler is registered directly,
               as Profiler.enable() does, until an audit event announces the first
               other thread; from then on each event is handed to the Profiler of
               its thread.  A tool id of our own leaves cProfile to the program.

Being invisible
  The target runs in the real `__main__`, from a single extra frame with the same
  globals.  A with block, not a try, surrounds it: its exit is kept on the
  interpreter's stack, so that `__main__` holds no name of ours.  What an uncaught
  exception shows of us is cut off in sys.excepthook, set for that one call.
  A target that cannot start (no such file, syntax error) is left to a plain
  Python by exec, which says so in its own words.
  What Python does with the main program follows Modules/main.c, Python/pathconfig.c
  and Python/pythonrun.c (3.6 - 3.15) and Lib/runpy.py.

Writing
  By an atexit handler registered first, hence run last: after the non-daemon
  threads and after the program's own handlers, all of which are counted.  Only in
  the process that started; a forked child is not profiled (3.6: profiled, not
  written).  Nothing is written if Python does not finalise: os._exit, exec, a
  deadly signal.
"""


def _bootstrap():
    # Called with globals of its own: those of this file become the program's.
    import sys
    with_path0 = not (sys.flags.isolated or getattr(sys.flags, 'safe_path', False))
    if with_path0:
        del sys.path[0]     # our own folder: nothing is to be looked for there
    import atexit
    import marshal
    import os
    import _lsprof
    import _thread

    own_file = sys._getframe().f_code.co_filename
    own_argv = sys.argv
    sys.path_importer_cache.pop(own_argv[0], None)
    out_file = os.path.abspath(own_argv[1])
    form, target = own_argv[2:4]
    arguments = own_argv[4:]
    main_globals = sys.modules['__main__'].__dict__
    function_type = type(lambda: None)
    version = sys.version_info[:2]

    # The program may replace or break these before the end.
    open_file, write, close, replace = os.open, os.write, os.close, os.replace
    getpid, get_ident = os.getpid, _thread.get_ident
    own_pid = getpid()

    # ---- collecting -------------------------------------------------------

    profilers = {}

    def thread_profiler():
        # By identity: that of a dead thread comes back with another one, whose
        # calls then go to the same Profiler.  This bounds their number.
        ident = get_ident()
        profiler = profilers.get(ident)
        if profiler is None:
            profiler = profilers[ident] = _lsprof.Profiler()
        return profiler

    def wrap_start_new_thread(begin):
        """From now on each new thread calls `begin` first."""
        start_new_thread = _thread.start_new_thread

        class Entry:
            # Calling an instance looks up `__call__` in the new thread,
            # which calls `begin`, then calls the function itself: no frame
            # of ours is below it.
            __slots__ = ('function',)

            def __init__(self, function):
                self.function = function

            @property
            def __call__(self):
                begin()
                return self.function

            def __repr__(self):
                return repr(self.function)

        def wrapper(*args):
            if args and callable(args[0]):
                args = (Entry(args[0]),) + args[1:]
            return start_new_thread(*args)

        wrapper.__name__ = wrapper.__qualname__ = 'start_new_thread'
        wrapper.__module__ = '_thread'
        wrapper.__doc__ = start_new_thread.__doc__
        _thread.start_new_thread = _thread.start_new = wrapper
        if 'threading' in sys.modules:
            sys.modules['threading']._start_new_thread = wrapper

    class SetProfile:
        """3.6 - 3.11: a profile function in each thread."""

        start_name = '<built-in method _thread.start_new_thread>'

        def start(self):
            wrap_start_new_thread(lambda: thread_profiler().enable())
            if hasattr(os, 'register_at_fork'):
                os.register_at_fork(after_in_child=self.forget)
            thread_profiler().enable()

        def forget(self):
            if isinstance(sys.getprofile(), _lsprof.Profiler):
                sys.setprofile(None)

        def stop(self):
            thread_profiler().disable()
            for profiler in list(profilers.values()):
                profiler.disable()

    class Monitoring:
        """3.12 and later: events of all threads."""

        start_name = None
        started = ('_thread.start_new_thread', '_thread.start_joinable_thread')

        def start(self):
            monitoring = self.monitoring = sys.monitoring
            for tool in (4, 3, 1, 0):
                if monitoring.get_tool(tool) is None:
                    break
            monitoring.use_tool_id(tool, 'biopsy')
            self.tool = tool
            self.active = True
            self.dispatching = False
            throw = '_pystart_callback'
            if hasattr(_lsprof.Profiler, '_pythrow_callback'):
                throw = '_pythrow_callback'
            event = monitoring.events
            self.callbacks = {
                event.PY_START: '_pystart_callback',
                event.PY_RESUME: '_pystart_callback',
                event.PY_THROW: throw,
                event.PY_RETURN: '_pyreturn_callback',
                event.PY_YIELD: '_pyreturn_callback',
                event.PY_UNWIND: '_pyreturn_callback',
                event.CALL: '_ccall_callback',
                event.C_RETURN: '_creturn_callback',
                event.C_RAISE: '_creturn_callback',
            }
            os.register_at_fork(after_in_child=self.forget)
            sys.addaudithook(self.audit)
            profiler = thread_profiler()
            for number, name in self.callbacks.items():
                monitoring.register_callback(tool, number, getattr(profiler, name))
            monitoring.set_events(tool, sum(self.callbacks))

        def audit(self, event, args):
            # Runs in the starting thread before the new one exists; neither the
            # hook nor what it calls makes events.
            if event in self.started and self.active and not self.dispatching:
                self.dispatching = True
                self.dispatch()

        def dispatch(self):
            from operator import attrgetter

            # Dispatching by C code alone: thread-local attribute `call`, reached
            # through a property.  A Python function would cost more, and could be
            # interrupted by a signal handler, Ctrl-C for one.
            class Dispatcher(_thread._local):
                def __init__(self, name):
                    self.call = getattr(thread_profiler(), name)

                __call__ = property(attrgetter('call'))

            by_name = {name: Dispatcher(name) for name in set(self.callbacks.values())}
            for number, name in self.callbacks.items():
                self.monitoring.register_callback(self.tool, number, by_name[name])

        def forget(self):
            if self.active:
                self.active = False
                self.monitoring.set_events(self.tool, 0)

        def stop(self):
            if not self.active:
                return
            monitoring, tool = self.monitoring, self.tool
            monitoring.set_events(tool, 0)
            self.active = False
            for number in self.callbacks:
                monitoring.register_callback(tool, number, None)
            monitoring.free_tool_id(tool)
            if monitoring.get_tool(monitoring.PROFILER_ID) is None:
                # disable() counts what daemon threads are in the middle of.
                # Called by map(), as no call event is made for that.
                for ident in sys._current_frames():
                    if ident != get_ident() and ident in profilers:
                        list(map(_lsprof.Profiler.enable, [profilers[ident]]))
                        list(map(_lsprof.Profiler.disable, [profilers[ident]]))

    line_collector = None
    line_words = ()

    # ---- the result -------------------------------------------------------

    def label(code):
        if isinstance(code, str):
            return ('~', 0, code)
        return (code.co_filename, code.co_firstlineno, code.co_name)

    def add(total, callcount, reccallcount, tottime, cumtime):
        total[0] += callcount
        total[1] += callcount - reccallcount
        total[2] += tottime
        total[3] += cumtime

    def merge():
        """label -> [nc, cc, tt, ct, {caller: [nc, cc, tt, ct]}] of all threads.

        Code objects with equal labels (two lambdas of a line) are added up;
        cProfile's create_stats keeps the last.
        """
        rows = {}
        for profiler in list(profilers.values()):
            entries = profiler.getstats()
            for entry in entries:
                row = rows.setdefault(label(entry.code), [0, 0, 0.0, 0.0, {}])
                add(row, entry.callcount, entry.reccallcount,
                    entry.inlinetime, entry.totaltime)
            for entry in entries:
                caller = label(entry.code)
                for call in entry.calls or ():
                    callee = rows.get(label(call.code))
                    if callee is not None:
                        edge = callee[4].setdefault(caller, [0, 0, 0.0, 0.0])
                        add(edge, call.callcount, call.reccallcount,
                            call.inlinetime, call.totaltime)
        return rows

    def remove_own(rows, start_name):
        """Take out our functions and the calls of built-in functions they made.

        Our wrapper's callers become callers of the real start_new_thread.
        """
        own = {key: rows.pop(key) for key in list(rows) if key[0] == own_file}
        for key, row in list(rows.items()):
            edges = row[4]
            for caller in [caller for caller in edges if caller in own]:
                edge = edges.pop(caller)
                if key[2] == start_name:
                    share = 1.0 / own[caller][0]
                    for outer, calls in own[caller][4].items():
                        total = edges.setdefault(outer, [0, 0, 0.0, 0.0])
                        part = calls[0] * share
                        add(total, calls[0], calls[0] - calls[1],
                            edge[2] * part, edge[3] * part)
                elif key[0] == '~':
                    for i in range(4):
                        row[i] -= edge[i]
            if row[0] <= 0:
                del rows[key]

    def write_out(stats):
        data = marshal.dumps(stats)
        part = '%s.%d.tmp' % (out_file, own_pid)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, 'O_BINARY', 0)
        handle = open_file(part, flags, 0o600)
        try:
            while data:
                data = data[write(handle, data):]
        finally:
            close(handle)
        replace(part, out_file)

    def finish():
        collector.stop()
        if getpid() != own_pid:
            return
        try:
            if line_collector:
                return write_out(collector.result())
            rows = merge()
            remove_own(rows, collector.start_name)
            write_out({
                key: (cc, nc, tt, ct,
                      {caller: tuple(edge) for caller, edge in callers.items()})
                for key, (nc, cc, tt, ct, callers) in rows.items()})
        except Exception as error:
            text = 'biopsy: cannot write profile: %s\n' % error
            try:
                write(2, text.encode('utf-8', 'backslashreplace'))
            except OSError:
                pass

    # ---- the program ------------------------------------------------------

    def plain_command():
        """The command line as it would be without us, [] if unknown."""
        command = list(getattr(sys, 'orig_argv', ()))
        if not command:
            try:
                with open('/proc/self/cmdline', 'rb') as file:
                    command = [os.fsdecode(arg) for arg in file.read().split(b'\0')[:-1]]
            except OSError:
                return []
        flag = {'script': [], 'module': ['-m'], 'command': ['-c']}[form]
        return command[:-len(own_argv)] + flag + [target] + arguments

    plain = plain_command()

    def hand_over():
        if plain and sys.executable:
            os.execv(sys.executable, plain)

    def set_path0(path0):
        if with_path0:
            sys.path.insert(0, path0)

    def fresh_main():
        """A `__main__` as the interpreter makes it.

        Not the first one: from that the interpreter removes `__file__` once our
        own code has run.
        """
        main = sys.modules['__main__'] = type(sys)('__main__')
        values = dict.fromkeys(main_globals)
        for name in ('__file__', '__cached__', '_bootstrap'):
            values.pop(name, None)
        values.update(
            __name__='__main__',
            __builtins__=main_globals['__builtins__'],
            __loader__=sys.modules['_frozen_importlib'].BuiltinImporter)
        if '__annotations__' in values:
            values['__annotations__'] = {}
        main.__dict__.update(values)
        return main.__dict__

    def run_code(code, namespace):
        # Not exec(): that would be a call in the profile, and the caller of all.
        return function_type(code, namespace)

    def run_module(name, alter_argv):
        import runpy
        from functools import partial
        fresh_main()
        return partial(runpy._run_module_as_main, name, alter_argv)

    def run_command():
        sys.argv = ['-c'] + arguments
        set_path0('')
        source = target + '\n'
        if version >= (3, 14):
            source = dedent(source)
        try:
            code = compile(source, '<string>', 'exec', 0, True)
        except Exception:
            hand_over()
            raise
        if version >= (3, 13):
            import linecache
            known = code if hasattr(linecache, '_interactive_cache') else '<string>'
            linecache._register_code(known, source, '<string>')
        return run_code(code, fresh_main())

    def dedent(source):
        # 3.14: pymain_run_command, _PyUnicode_Dedent.
        lines = source.split('\n')
        margin = None
        for line in lines:
            body = line.lstrip(' \t')
            if body:
                if margin is None:
                    margin = line[:len(line) - len(body)]
                while not line.startswith(margin):
                    margin = margin[:-1]
        if not margin:
            return source
        return '\n'.join(line[len(margin):] if line.strip(' \t') else '' for line in lines)

    def run_script():
        sys.argv = [target] + arguments
        filename = target
        if version >= (3, 9) and not os.path.isabs(target):
            filename = os.getcwd() + '/' + target
        importer = None
        for hook in sys.path_hooks:
            try:
                importer = hook(filename)
                break
            except ImportError:
                pass
        sys.path_importer_cache[filename] = importer
        if importer is not None:
            sys.path.insert(0, filename)
            return run_module('__main__', False)

        set_path0(os.path.dirname(os.path.realpath(target)))
        external = sys.modules['_frozen_importlib_external']
        loader = external.SourceFileLoader
        try:
            with open(filename, 'rb') as file:
                source = file.read()
            if filename.endswith('.pyc') or source[:2] == external.MAGIC_NUMBER[:2]:
                if source[:4] != external.MAGIC_NUMBER:
                    raise RuntimeError('Bad magic number in .pyc file')
                code = marshal.loads(source[16 if version >= (3, 7) else 12:])
                loader = external.SourcelessFileLoader
            else:
                code = compile(source, filename, 'exec', 0, True)
        except Exception:
            hand_over()
            raise
        main_globals['__doc__'] = None
        main_globals['__file__'] = filename
        main_globals['__loader__'] = loader('__main__', filename)
        return run_code(code, main_globals)

    def without_own(trace):
        while trace is not None and trace.tb_frame.f_code.co_filename == own_file:
            trace = trace.tb_next
        return trace

    def report_with(hook):
        """An excepthook for one call, which calls `hook` without our frames."""
        def report(kind, error, trace):
            sys.excepthook = hook
            trace = without_own(trace)
            error.__traceback__ = sys.last_traceback = trace
            try:
                hook(kind, error, trace)
            except SystemExit:
                raise
            except BaseException as failure:
                # As Python/pythonrun.c, PyErr_PrintEx
                failure.__context__ = None
                failure.__traceback__ = without_own(failure.__traceback__)
                sys.stderr.write('Error in sys.excepthook:\n')
                sys.__excepthook__(type(failure), failure, failure.__traceback__)
                sys.stderr.write('\nOriginal exception was:\n')
                sys.__excepthook__(kind, error, trace)
        return report

    class Program:
        def __enter__(self):
            return self

        def __exit__(self, kind, error, trace):
            if kind is not None and not issubclass(kind, SystemExit):
                sys.excepthook = report_with(getattr(sys, 'excepthook', sys.__excepthook__))

        def prepare(self):
            del main_globals['_bootstrap']
            if hasattr(sys, 'orig_argv'):
                sys.orig_argv = plain
            if form == 'script':
                run = run_script()
            elif form == 'command':
                run = run_command()
            else:
                sys.argv = ['-m'] + arguments
                try:
                    set_path0(os.getcwd() if version >= (3, 7) else '')
                except OSError:
                    pass
                run = run_module(target, True)
            atexit.register(finish)
            collector.start()
            return run

    if line_collector:
        collector = line_collector(line_words)
    else:
        collector = Monitoring() if version >= (3, 12) else SetProfile()
    return Program()


with type(_bootstrap)(_bootstrap.__code__, {'__builtins__': __builtins__})() as _bootstrap:
    _bootstrap.prepare()()
