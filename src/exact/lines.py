# Part of bootstrap.py with --lines: in the place of its line `line_collector = None`, inside of `_bootstrap`.

# Hits of lines, as line_profiler counts them: line events of the functions that are wanted.
#
#   3.6 - 3.11   A trace function in each thread (sys.settrace is a property of the thread), which counts in a dict of its
#                own. A program that sets one itself, such as a debugger, takes our place; then hits are lower bounds.
#   3.12 - 3.15  sys.monitoring: LINE events, switched on for each wanted code object when it first starts, all others
#                having none. The callback calls nothing, and begins like a frame after `yield from`, where the interpreter
#                looks neither for signals nor for threads that wait: so no signal handler runs or raises in it, and no
#                other thread comes between its reading and its writing of a number.

def line_collector(words):
    most_functions = 100000

    def matches(pattern, name):
        """Whether the whole name is what a pattern with `*` and `?` says."""
        at = start = 0
        star = None                 # behind the last `*`, and where the text that it stands for ends
        while start < len(name):
            if at < len(pattern) and pattern[at] == '*':
                at += 1
                star = at, start
            elif at < len(pattern) and pattern[at] in ('?', name[start]):
                at += 1
                start += 1
            elif star:
                star = star[0], star[1] + 1
                at, start = star
            else:
                return False
        return not pattern[at:].strip('*')

    class Word:
        """A function as people name it: see `biopsy calls`."""

        def __init__(self, text):
            self.text, self.found = text, False
            file, _, line = text.rpartition(':')
            self.file = self.line = None
            if file and line.isdigit():
                self.file, self.line = file, int(line)

        def means(self, code, full_name):
            if self.line is None:
                return matches(self.text, full_name) or matches('*.' + self.text, full_name)
            before = code.co_filename[:-len(self.file)]
            return (code.co_filename.endswith(self.file)
                    and (not before or before.endswith('/') or self.file.startswith('/'))
                    and not code.co_name.startswith('<')
                    and self.line in span(code)
                    and not any(self.line in span(inner) for inner in named_inside(code)))

    def lines_of(code):
        if hasattr(code, 'co_lines'):
            return {line for _, _, line in code.co_lines() if line}
        # 3.6 - 3.9: Objects/lnotab_notes.txt
        lines, line, table = {code.co_firstlineno}, code.co_firstlineno, code.co_lnotab
        for step in table[1::2]:
            line += step - 256 if step > 127 else step
            lines.add(line)
        return lines

    def span(code):
        last = max([code.co_firstlineno] + [max(lines_of(inner), default=0) for inner in everything(code)])
        return range(code.co_firstlineno, last + 1)

    def everything(code):
        codes = [code]
        for one in codes:
            codes.extend(c for c in one.co_consts if isinstance(c, type(code)))
        return codes

    def named_inside(code):
        return [c for c in everything(code)[1:] if not c.co_name.startswith('<') and is_function(c)]

    def is_function(code):
        return code.co_flags & 1    # CO_OPTIMIZED: no body of a module or class

    qualnames = {}                  # of code objects that do not know theirs: up to 3.10

    def learn_qualnames(code, prefix=''):
        for inner in code.co_consts:
            if isinstance(inner, type(code)):
                name = qualnames[label(inner)] = prefix + inner.co_name
                learn_qualnames(inner, name + ('.<locals>.' if is_function(inner) else '.'))

    def qualname_of(code, names):
        if hasattr(code, 'co_qualname'):
            return code.co_qualname
        if code.co_name == '<module>':
            learn_qualnames(code)
        if label(code) not in qualnames:
            # Of a module that was there before us.
            for value in list(names.values()):
                inside = list(vars(value).values()) if isinstance(value, type) else [value]
                for one in inside:
                    if getattr(one, '__code__', None) is code:
                        return one.__qualname__
        return qualnames.get(label(code), code.co_name)

    library = tuple({os.path.dirname(os.__file__) + '/', os.path.dirname(os.path.realpath(os.__file__)) + '/'})

    def is_own_file(name):
        """Whether it is the program's, and not one of the interpreter's or of an installed package."""
        if name.startswith('<'):
            return form == 'command' and name == '<string>'
        return not (name.startswith(library) or '/site-packages/' in name or '/dist-packages/' in name)

    words = [Word(text) for text in words]
    wanted_names = {}               # label -> qualified name, where code objects know theirs

    def is_wanted(code, names):
        wanted = means(code, names)
        if wanted and hasattr(code, 'co_qualname'):
            wanted_names.setdefault(label(code), code.co_qualname)
        return wanted

    def means(code, names):
        if code.co_filename == own_file:
            return False
        if not words:
            return is_own_file(code.co_filename)
        full_name = '%s.%s' % (names.get('__name__'), qualname_of(code, names))
        if not is_function(code):
            return False
        meant = [word for word in words if word.means(code, full_name)]
        for word in meant:
            word.found = True
        return bool(meant)

    class Lines:
        """What both ways have in common."""

        start_name = None

        def __init__(self):
            self.at_least = False
            self.number = 0

        def has_room(self):
            if self.number < most_functions:
                return True
            self.at_least = True
            return False

        def result(self):
            sums = {}
            for key, line, hits in self.hits():
                lines = sums.setdefault(key, {})
                lines[line] = lines.get(line, 0) + hits
            rows = [key + (sorted(lines.items()),) for key, lines in sums.items()]
            names = [key + (wanted_names[key],) for key in sums if key in wanted_names]
            return {'at_least': self.at_least, 'lines': rows, 'qualnames': names,
                    'not_found': [word.text for word in words if not word.found]}

    class TracedLines(Lines):
        """3.6 - 3.11: a trace function in each thread."""

        def start(self):
            self.traces = {}
            self.setting = set()
            self.stopped = False
            wrap_start_new_thread(self.set)
            if hasattr(sys, 'addaudithook'):
                sys.addaudithook(self.audit)
            if hasattr(os, 'register_at_fork'):
                os.register_at_fork(after_in_child=self.forget)
            self.set()

        def audit(self, event, args):
            # The program traces itself: from now on it does so in our place.
            if event == 'sys.settrace' and get_ident() not in self.setting and not self.stopped:
                self.at_least = True

        def set(self):
            ident = get_ident()
            known = self.traces.get(ident)
            if known is None:
                # Each thread counts for itself: it can be interrupted between reading a number and writing it. The
                # ident of one that has ended comes back, which bounds their number.
                known = self.traces[ident] = self.trace_function()
            self.setting.add(ident)
            sys.settrace(known[0])
            self.setting.discard(ident)

        def trace_function(self):
            decided = {}
            by_label = {}

            def begin(frame, event, arg):
                code = frame.f_code
                key = code.co_filename, code.co_firstlineno, code.co_name
                try:
                    return decided[key]
                except KeyError:
                    pass
                decided[key] = None
                if is_wanted(code, frame.f_globals) and self.has_room():
                    self.number += 1
                    decided[key] = self.local(by_label.setdefault(key, {}))
                return decided[key]

            return begin, by_label

        def local(self, counts):
            def trace(frame, event, arg):
                if event == 'line':
                    line = frame.f_lineno
                    try:
                        counts[line] += 1
                    except KeyError:
                        counts[line] = 1
                return trace
            return trace

        def forget(self):
            self.stopped = True
            if sys.gettrace() is not None and self.is_own(sys.gettrace()):
                sys.settrace(None)

        def is_own(self, trace):
            return getattr(getattr(trace, '__code__', None), 'co_filename', None) == own_file

        def stop(self):
            if not self.is_own(sys.gettrace()) and not self.stopped:
                self.at_least = True
            self.forget()

        def hits(self):
            for _, by_label in list(self.traces.values()):
                for key, counts in list(by_label.items()):
                    for line, hits in list(counts.items()):
                        yield key, line, hits

    class MonitoredLines(Lines):
        """3.12 and later: events of the code objects that are wanted, in all threads."""

        # A list is faster than a dict; one for a code object alone would be as long as what is before it in its file.
        longest_list = 1000000
        resume = {(3, 12): 151, (3, 13): 149, (3, 14): 128, (3, 15): 128}

        def start(self):
            monitoring = self.monitoring = sys.monitoring
            for tool in (4, 3, 1, 0):
                if monitoring.get_tool(tool) is None:
                    break
            monitoring.use_tool_id(tool, 'biopsy')
            self.tool = tool
            self.active = True
            self.by_file = {}       # file -> first line -> name -> where hits are counted, by line
            self.layers = {}        # file -> such lists, each with the lines that are taken
            self.parts = []         # label, lines, where they are counted
            self.hidden = {}        # label -> whether its start is to have an event each time
            self.event = event = monitoring.events
            os.register_at_fork(after_in_child=self.forget)
            monitoring.register_callback(tool, event.LINE, self.uninterrupted(self.callback()))
            monitoring.register_callback(tool, event.PY_START, self.begin)
            monitoring.set_events(tool, event.PY_START)

        def begin(self, code, offset):
            monitoring = self.monitoring
            if not self.active:
                return monitoring.DISABLE
            if not monitoring.get_local_events(self.tool, code):
                if not (is_wanted(code, sys._getframe(1).f_globals) and self.has_room()):
                    return monitoring.DISABLE
                self.add(code)
                monitoring.set_local_events(self.tool, code, self.event.LINE)
            if self.hides_a_line(code):
                return None
            return monitoring.DISABLE

        def hides_a_line(self, code):
            """Whether it goes on in the line of a RESUME, such as a function of one line. From 3.13 on there is a LINE event for
            that only while the RESUME has one of its own (Python/instrumentation.c, _Py_call_instrumentation_line)."""
            if version < (3, 13):
                return False
            key = label(code)
            if key not in self.hidden:
                data = code.co_code
                lines = {at: line for start, end, line in code.co_lines() for at in range(start, end, 2)}
                self.hidden[key] = False
                for at in range(0, len(data), 2):
                    if data[at] == self.resume.get(version) and data[at + 1] & 3 == 0:
                        behind = next((place for place in range(at + 2, len(data), 2) if data[place]), at)
                        if lines.get(at) and lines.get(at) == lines.get(behind):
                            self.hidden[key] = True
            return self.hidden[key]

        def add(self, code):
            """Makes a place for the hits of a code object; those with the same label share one."""
            by_line = self.by_file.setdefault(code.co_filename, {})
            by_name = by_line.setdefault(code.co_firstlineno, {})
            lines = lines_of(code)
            known = by_name.get(code.co_name)
            if known:
                if lines <= known[1]:
                    return
                # Code that was edited and loaded again.
                lines |= known[1]
            else:
                self.number += 1
            counts = self.place(code.co_filename, lines)
            self.parts.append((label(code), lines, counts))
            by_name[code.co_name] = counts, lines

        def place(self, file, lines):
            length = max(lines, default=0) + 1
            if length > self.longest_list:
                return dict.fromkeys(lines, 0)
            layers = self.layers.setdefault(file, [])
            for counts, taken in layers:
                if taken.isdisjoint(lines):
                    break
            else:
                counts, taken = [], set()
                layers.append((counts, taken))
            taken |= lines
            counts.extend([0] * (length - len(counts)))
            return counts

        def hits(self):
            for key, lines, counts in self.parts:
                for line in lines:
                    yield key, line, counts[line]

        def callback(self):
            by_file = self.by_file
            last = counts = None

            def hit(code, line):
                nonlocal last, counts
                if code is not last:
                    # Not by the code object: its hash is made anew each time, over all that is in it.
                    counts = by_file[code.co_filename][code.co_firstlineno][code.co_name][0]
                    last = code
                counts[line] += 1
            return hit

        def uninterrupted(self, function):
            code = function.__code__
            data = bytearray(code.co_code)
            for at in 0, 2:
                if data[at] == self.resume.get(version) and data[at + 1] == 0:
                    data[at + 1] = 2
                    function.__code__ = code.replace(co_code=bytes(data))
                    break
            return function

        def forget(self):
            if not self.active:
                return
            self.active = False
            monitoring, tool, event = self.monitoring, self.tool, self.event
            monitoring.set_events(tool, 0)
            monitoring.register_callback(tool, event.PY_START, None)
            # Each line says goodbye once: which code objects have events is not known any more.
            monitoring.register_callback(tool, event.LINE, lambda code, line: monitoring.DISABLE)

        def stop(self):
            if self.active:
                self.forget()
                self.monitoring.free_tool_id(self.tool)

    return MonitoredLines() if version >= (3, 12) else TracedLines()
