"""Small scripts that read, print and end in the many ways that a Python process has."""

from __future__ import annotations

# What each is given; every script reads the same.
STDIN = "3 4\nhello wörld\r\nlast line without an end"

STREAMS = {
    "rewrapped": "import io, sys\nsys.stdout = io.TextIOWrapper(sys.stdout.buffer, encoding='utf-8')\n"
    "print('é', 5)",
    "rewrapped, line buffered": "import io, sys\nsys.stdout = io.TextIOWrapper(sys.stdout.buffer, "
    "line_buffering=True)\nprint(5)\nprint(6, end='')",
    "rewrapped by descriptor": "import io, sys\nsys.stdout = io.TextIOWrapper(open(sys.stdout.fileno()"
    ", 'wb', 0), write_through=True)\nprint(5)",
    "rewrapped, not kept": "import io, sys\nout = io.TextIOWrapper(sys.stdout.buffer)\nout.write('x')",
    "rewrapped, kept by a function": "import io, sys\nout = io.TextIOWrapper(sys.stdout.buffer)\n"
    "def say(x): out.write(x)\nsay('x')",
    "rewrapped input": "import io, sys\nsys.stdin = io.TextIOWrapper(sys.stdin.buffer)\n"
    "print([line for line in sys.stdin])",
    "detached": "import io, sys\nraw = sys.stdout.detach()\nsys.stdout = io.TextIOWrapper(raw)\n"
    "print('again')",
    "detached buffer": "import sys\nout = sys.stdout.detach()\nout.write(b'abc')\nsys.stdout = None",
    "detached and left": "import sys\nout = sys.stdout.detach()\nout.write(b'abc')",
    "detached twice": "import sys\nraw = sys.stdout.detach().detach()\nraw.write(b'raw')\n"
    "sys.stdout = None",
    "text kept, then printed": "import io, sys\nsys.stdout = io.StringIO()\nprint(3)\n"
    "sys.__stdout__.write(sys.stdout.getvalue())",
    "bytes kept, then written at exit": "import atexit, io, sys\nbuffer = io.BytesIO()\n"
    "sys.stdout = io.TextIOWrapper(buffer)\natexit.register(lambda: (sys.stdout.flush(), "
    "sys.__stdout__.buffer.write(buffer.getvalue())))\nprint(7)",
    "redirected": "import contextlib, io\nb = io.StringIO()\nwith contextlib.redirect_stdout(b):\n"
    "    print('in')\nprint(b.getvalue() * 2)",
    "closed": "import sys\nprint(5)\nsys.stdout.close()",
    "closed, printed after": "import sys\nprint(5)\nsys.stdout.close()\nprint(6)",
    "closed descriptor": "import os\nprint(5, flush=True)\nos.close(1)",
    "closed descriptor, unflushed": "import os\nprint(5)\nos.close(1)",
    "closed input": "import sys\nsys.stdin.close()\nprint(1)",
    "no output stream": "import sys\nsys.stdout = None\nprint(5)",
    "deleted output stream": "import sys\nprint(5)\ndel sys.stdout",
    "no original stream": "import sys\nprint(5)\nsys.__stdout__ = None",
    "a class for a stream": "import sys\nclass Out:\n    def write(self, s): sys.__stdout__.write(s.upper())"
    "\n    def flush(self): sys.__stdout__.write('F')\nsys.stdout = Out()\nprint('abc')",
    "a stream that cannot flush": "import sys\nclass Out:\n    def write(self, s): sys.__stdout__."
    "write(s)\nsys.stdout = Out()\nprint('abc')",
    "FastIO": "import os, sys\nfrom io import BytesIO, IOBase\nclass FastIO(IOBase):\n    newlines = 0\n"
    "    def __init__(self, file):\n        self._fd = file.fileno()\n        self.buffer = BytesIO()\n"
    "        self.writable = 'x' in file.mode or 'r' not in file.mode\n"
    "        self.write = self.buffer.write if self.writable else None\n"
    "    def readline(self):\n        while self.newlines == 0:\n"
    "            b = os.read(self._fd, max(os.fstat(self._fd).st_size, 8192))\n"
    "            self.newlines = b.count(b'\\n') + (not b)\n            ptr = self.buffer.tell()\n"
    "            self.buffer.seek(0, 2), self.buffer.write(b), self.buffer.seek(ptr)\n"
    "        self.newlines -= 1\n        return self.buffer.readline()\n    def flush(self):\n"
    "        if self.writable:\n            os.write(self._fd, self.buffer.getvalue())\n"
    "            self.buffer.truncate(0), self.buffer.seek(0)\nclass IOWrapper(IOBase):\n"
    "    def __init__(self, file):\n        self.buffer = FastIO(file)\n"
    "        self.flush = self.buffer.flush\n        self.writable = self.buffer.writable\n"
    "        self.write = lambda s: self.buffer.write(s.encode('ascii'))\n"
    "        self.readline = lambda: self.buffer.readline().decode()\n"
    "sys.stdin, sys.stdout = IOWrapper(sys.stdin), IOWrapper(sys.stdout)\n"
    "input = lambda: sys.stdin.readline().rstrip('\\r\\n')\nprint(sum(map(int, input().split())))",
    "attributes": "import sys\nfor s in (sys.stdin, sys.stdout, sys.stderr):\n    print(s, s.name, s.mode, "
    "s.encoding, s.errors, s.line_buffering, s.write_through, s.isatty(), s.fileno(), s.buffer.raw, "
    "s.newlines)\nprint(sys.stdout is sys.__stdout__, sys.stdin is sys.__stdin__)",
    "reconfigured": "import sys\nsys.stdout.reconfigure(encoding='latin-1', newline='\\r\\n')\n"
    "print('\\xe9')",
    "a surrogate": "print('a\\udce9')",
    "a lone surrogate": "print('a\\ud800')",
    "bytes and text": "import sys\nsys.stdout.write('a')\nsys.stdout.flush()\nsys.stdout.buffer.write("
    "b'b')\nsys.stdout.write('c')\nsys.stdout.buffer.write(b'd')",
    "text and descriptor": "import os\nprint('a')\nos.write(1, b'b')\nprint('c')",
    "to standard error": "import sys\nsys.stderr.write('x')\nsys.stderr = sys.stdout\n"
    "print('y', file=sys.stderr)",
    "printed by C": "import ctypes\nctypes.CDLL(None).printf(b'from C\\n')",
}
INPUT = {
    "input": "print([input(), input(), input()])",
    "prompts": "a = input('first: ')\nb = input('second: ')\nprint(a + b)",
    "end of input": "while True:\n    try:\n        print(input())\n    except EOFError:\n        break",
    "beyond the end": "for _ in range(9): print(input())",
    "open 0": "print(open(0).read())",
    "open 0 twice": "print(open(0).read())\nopen(0).read()",
    "open 0 after input": "print(input())\nprint(open(0, closefd=False).read())",
    "open 1": "f = open(1, 'w')\nf.write('text')\nf.close()",
    "open 1, not closed": "f = open(1, 'w')\nf.write('text')",
    "open 1, closefd": "with open(1, 'w', closefd=False) as f: print('a', file=f)\nprint('b')",
    "/dev/stdin": "print(open('/dev/stdin').read())",
    "/dev/stdout": "with open('/dev/stdout', 'w') as f: f.write('x')",
    "/proc/self/fd/0": "print(open('/proc/self/fd/0').read())",
    "fileinput": "import fileinput\nfor line in fileinput.input(): print(fileinput.lineno(), repr(line))",
    "readlines": "import sys\nprint(sys.stdin.readlines())",
    "buffer": "import sys\nprint(sys.stdin.buffer.readline(), sys.stdin.buffer.read())",
    "iteration and input": "import sys\nfor line in sys.stdin:\n    print(repr(line))\n    break\n"
    "print(sys.stdin.read())",
    "seek": "import sys\nsys.stdin.read()\nsys.stdin.seek(0)\nprint(sys.stdin.seekable(), input())",
    "tell": "import os, sys\nsys.stdin.readline()\nprint(sys.stdin.buffer.tell(), os.fstat(0).st_size)",
    "mmap": "import mmap\nm = mmap.mmap(0, 0, prot=mmap.PROT_READ)\nprint(m[:9])",
    "select": "import select, sys\nprint(select.select([sys.stdin], [], [], 0)[0] == [sys.stdin])",
    "input from a file": "import sys\nopen('in.txt', 'w').write('12\\n')\nsys.stdin = open('in.txt')\n"
    "print(int(input()) + 1)",
    "output to a file": "import os, sys\nsys.stdout = open('out.txt', 'w')\nprint(1)\nsys.stdout.close()\n"
    "sys.stdout = sys.__stdout__\nprint(open('out.txt').read())",
    "subprocess": "import subprocess, sys\nprint(subprocess.run(['cat'], capture_output=True, text=True)"
    ".stdout)",
    "subprocess, inherited": "import subprocess\nprint('a', flush=True)\nsubprocess.run(['echo', 'b'])\n"
    "print('c')",
    "system": "import os\nos.system('echo hi')\nprint('after')",
    "asyncio": "import asyncio, sys\nasync def f():\n    await asyncio.sleep(0.001)\n    return input()\n"
    "print(asyncio.run(f()))",
}
MODULE = {
    "argv": "import sys\nprint(sys.argv, len(sys.argv))\nif len(sys.argv) > 1: sys.stdin = open(sys.argv[1])\n"
    "print(input())",
    "globals": "print(list(globals()), __name__, __doc__, __spec__, __package__, __annotations__)",
    "docstring": "'''What it does.'''\nprint(__doc__)",
    "file": "import os\nprint(os.path.basename(__file__), os.path.isabs(__file__), os.listdir('.'), "
    "os.path.dirname(__file__) == os.getcwd())",
    "own source": "print(open(__file__).read())",
    "quine": "import inspect, sys\nprint(inspect.getsource(sys.modules['__main__']))",
    "source of a function": "import inspect\ndef f(x):\n    return x  # doubled\nprint(inspect.getsource(f))",
    "traceback": "import traceback\ndef f(): 1/0\ntry: f()\nexcept ZeroDivisionError:\n"
    "    print(traceback.format_exc().replace(__file__, 'F'))",
    "main module": "import __main__, sys\nprint(__main__ is sys.modules['__main__'], __main__.__file__ "
    "== __file__)\nx = 5\nprint(__main__.x)",
    "builtins": "import builtins\nprint(__builtins__ is builtins, type(__loader__).__name__)",
    "pickle": "import pickle\nclass A:\n    def __init__(self): self.x = 3\n"
    "print(pickle.loads(pickle.dumps(A())).x, A)",
    "annotations": "x: int = 3\nprint(__annotations__)",
    "undefined annotation": "def total(a: List[int]) -> int:\n    return sum(a)\nprint(total([1, 2]))",
    "dataclass types": "from dataclasses import dataclass, fields\n@dataclass\nclass A:\n    x: int\n"
    "print(fields(A)[0].type is int)",
    "string annotations": "from __future__ import annotations\ndef f(a: Nope): pass\n"
    "print(f.__annotations__)",
    "evaluated code": "def f(x: int): pass\nexec('def g(x: int): pass')\nprint(f.__annotations__, "
    "g.__annotations__)",
    "barry": "print(eval('1 != 2'))",
    "type hints": "import typing\nclass A:\n    x: int\n    y: 'A'\nprint(typing.get_type_hints(A))",
    "named tuple": "from typing import NamedTuple\nclass P(NamedTuple):\n    x: int\n    y: float = 1.0\n"
    "print(P(1), P.__annotations__)",
    "single dispatch": "from functools import singledispatch\n@singledispatch\ndef f(x): return 'any'\n"
    "@f.register\ndef _(x: int): return 'int'\nprint(f(1), f('a'))",
    "import of an own file": "open('helper.py', 'w').write('x = 41')\nimport helper\nprint(helper.x + 1)",
    "import of itself": "if __name__ == '__main__':\n    import solution\n    print(solution.__name__)",
    "coding line": "# -*- coding: latin-1 -*-\nprint('é')",
    "byte order mark": "\ufeffprint('x')",
    "carriage returns": "print(1)\r\nif True:\r\n    print('''a\r\nb''')\r\n",
    "a null byte": "print(1)\0",
    "indentation": " print(1)",
    "relative import": "from . import x",
    "walrus and match": "match input().split():\n    case [a, b] if (n := int(a)): print(n, b)",
    "recursion limit": "import sys\nprint(sys.getrecursionlimit())\ndef f(n): return n and f(n - 1)\n"
    "print(f(980))\ntry: f(1001)\nexcept RecursionError: print('deep')",
    "deep recursion": "import sys\nsys.setrecursionlimit(10**6)\ndef f(n): return 1 + f(n - 1) if n else 0\n"
    "print(f(50000))",
    "thread with a large stack": "import sys, threading\nsys.setrecursionlimit(10**6)\n"
    "threading.stack_size(1 << 27)\ndef f(n): return 1 + f(n - 1) if n else 0\n"
    "t = threading.Thread(target=lambda: print(f(20000)))\nt.start()\nt.join()",
    "big integers": "print(len(str(10 ** 4000)))\ntry: str(10 ** 5000)\nexcept ValueError as e: print(e)",
    "warnings": "import warnings\nwarnings.warn('x')\nprint('ok')",
    "sets": "print({'b', 'a', 'c'}, hash('a') == hash('a'))",
}
ENDS = {
    "exit with a text": "import sys\nprint(1)\nsys.exit('wrong')",
    "exit with a status": "print(1)\nexit(3)",
    "exit with nothing": "import sys\nprint(1)\nsys.exit()",
    "exit with 0": "print(1)\nquit(0)",
    "exit with False": "import sys\nprint(1)\nsys.exit(False)",
    "exit with 0.0": "import sys\nprint(1)\nsys.exit(0.0)",
    "exit with 256": "import sys\nprint(1)\nsys.exit(256)",
    "exit with an empty text": "import sys\nprint(1)\nsys.exit('')",
    "exit in a function": "def main():\n    print(1)\n    raise SystemExit\nmain()\nprint(2)",
    "exit of the process": "import os\nprint(1)\nos._exit(0)",
    "exit of the process, flushed": "import os\nprint(1, flush=True)\nos._exit(0)",
    "exit of a thread": "import sys, threading\nt = threading.Thread(target=sys.exit, args=(3,))\nt.start()"
    "\nt.join()\nprint('on')",
    "error": "print(1)\n1 / 0",
    "error in a thread": "import threading\nt = threading.Thread(target=lambda: 1/0)\nt.start()\nt.join()\n"
    "print('on')",
    "hook of errors": "import sys\ndef hook(*a):\n    print('hooked', a[0].__name__)\nsys.excepthook = hook\n"
    "1 / 0",
    "hook that leaves": "import os, sys\ndef hook(*a):\n    print('hooked', flush=True)\n    os._exit(0)\n"
    "sys.excepthook = hook\n1 / 0",
    "killed": "import os, signal\nprint(1, flush=True)\nos.kill(os.getpid(), signal.SIGKILL)",
    "interrupted": "import os, signal\nprint(1)\nos.kill(os.getpid(), signal.SIGINT)",
    "aborted": "import os\nprint(1, flush=True)\nos.abort()",
    "at exit": "import atexit\natexit.register(print, 'first')\natexit.register(print, 'second')\nprint(0)",
    "at exit, after an error": "import atexit\natexit.register(print, 'bye')\n1 / 0",
    "error at exit": "import atexit\natexit.register(lambda: 1 / 0)\natexit.register(print, 'a')\nprint(0)",
    "exit at exit": "import atexit, sys\natexit.register(sys.exit, 3)\nprint(0)",
    "exit of the process at exit": "import atexit, os\natexit.register(os._exit, 0)\nprint(0)",
    "at exit, registered there": "import atexit\ndef f():\n    print('f')\n    atexit.register(print, 'g')\n"
    "atexit.register(f)",
    "unregistered": "import atexit\natexit.register(print, 1)\natexit.unregister(print)\nprint(0)",
    "finalizer": "import weakref\nclass A: pass\na = A()\nweakref.finalize(a, print, 'gone')\nprint('end')",
    "thread at the end": "import threading, time\ndef f():\n    time.sleep(0.05)\n    print('late')\n"
    "threading.Thread(target=f).start()\nprint('early')",
    "daemon at the end": "import threading, time\nthreading.Thread(target=time.sleep, args=(60,), "
    "daemon=True).start()\nprint('early')",
    "main in a thread": "import sys, threading\ndef main(): print(sys.stdin.read())\n"
    "t = threading.Thread(target=main)\nt.start()\nt.join()",
    "timer": "import threading\nthreading.Timer(0.05, print, ['ding']).start()",
    "pool of threads": "from concurrent.futures import ThreadPoolExecutor\np = ThreadPoolExecutor(2)\n"
    "f = p.submit(lambda: print('in pool'))\nprint('end')",
    "deleted at the end": "class A:\n    def __del__(self): print('del')\na = A()\nprint('end')",
    "deleted, in a cycle": "class A:\n    def __del__(self): print('del')\na = A()\na.me = a\nprint('end')",
    "deleted, with its function": "class A:\n    def __del__(self): print('del', x)\nx = 3\na = A()\n"
    "def f(): return a\nprint('end')",
    "deleted, in order": "class A:\n    def __init__(self, n): self.n = n\n    def __del__(self): "
    "print('del', self.n)\na, b = A(1), A(2)\n_c = A(3)\nprint('end')",
    "deleted, kept by a library": "import random\nclass A:\n    def __del__(self): print('del')\n"
    "random.kept = A()\nprint('end')",
    "writes when deleted": "class W:\n    def __init__(self): self.out = []\n    def __del__(self):\n"
    "        import sys\n        sys.stdout.write(''.join(self.out))\nw = W()\nw.out.append('x\\n')",
    "a generator left open": "def g():\n    try: yield 1\n    finally: print('closed')\nx = g()\nnext(x)",
    "a file left open": "f = open('f', 'w')\nf.write('abc')\nprint('end')",
    "a context left open": "import contextlib\ns = contextlib.ExitStack()\ns.callback(print, 'closed')\n"
    "print('end')",
    "an alarm": "import signal, time\nsignal.signal(signal.SIGALRM, lambda *a: print('ring'))\n"
    "signal.setitimer(signal.ITIMER_REAL, 0.02)\ntime.sleep(0.1)",
    "garbage off": "import gc\ngc.disable()\nclass A:\n    def __del__(self): print('del')\na = A()\na.b = a\n"
    "del a\nprint('end')",
    "frames": "import sys\nprint(sys._getframe().f_code.co_name, sys._getframe().f_lineno)",
    "empty": "",
    "only a comment": "# nothing",
    "logging": "import logging, sys\nlogging.basicConfig(stream=sys.stdout)\nlogging.warning('x')",
}
PROCESSES = {
    "fork": "import os\nprint('before')\nif os.fork() == 0:\n    print('child')\nelse:\n    os.wait()\n"
    "    print('parent')",
    "fork, the child leaves": "import os, sys\nif os.fork() == 0:\n    print('child')\n    sys.exit(1)\n"
    "print(os.waitstatus_to_exitcode(os.wait()[1]))",
    "fork, the child fails": "import os\nif os.fork() == 0:\n    1 / 0\nos.wait()\nprint('parent')",
    "executed": "import os\nos.execvp('echo', ['echo', 'other'])",
    "process": "from multiprocessing import Process\np = Process(target=print, args=('in process',))\n"
    "p.start()\np.join()\nprint(p.exitcode)",
    "pool": "from multiprocessing import Pool\ndef f(x): return x * x\nif __name__ == '__main__':\n"
    "    with Pool(2) as p: print(p.map(f, range(5)))",
    "pool, starmap and async": "import multiprocessing as m\ndef f(x, y): return x + y\n"
    "with m.Pool(2) as p:\n    print(p.starmap(f, [(1, 2), (3, 4)]), p.apply_async(f, (5, 6)).get())",
    "queue": "from multiprocessing import Process, Queue\ndef f(q): q.put([1, 2])\nq = Queue()\n"
    "p = Process(target=f, args=(q,))\np.start()\nprint(q.get())\np.join()",
    "lock and value": "from multiprocessing import Lock, Process, Value\ndef f(v, lock):\n"
    "    for _ in range(50):\n        with lock: v.value += 1\nv, lock = Value('i', 0), Lock()\n"
    "ps = [Process(target=f, args=(v, lock)) for _ in range(2)]\n[p.start() for p in ps]\n"
    "[p.join() for p in ps]\nprint(v.value)",
    "array": "from multiprocessing import Array, Process\ndef f(a): a[0] = 7\na = Array('i', 3)\n"
    "p = Process(target=f, args=(a,))\np.start()\np.join()\nprint(a[:])",
    "pipe": "from multiprocessing import Pipe, Process\na, b = Pipe()\n"
    "p = Process(target=lambda: b.send('x'))\np.start()\nprint(a.recv())\np.join()",
    "event, semaphore and condition": "import multiprocessing as m\ne, s, c = m.Event(), m.Semaphore(2), "
    "m.Condition()\np = m.Process(target=e.set)\np.start()\nprint(e.wait(5), s.acquire(), s.acquire(), "
    "s.acquire(timeout=0.01))\nwith c: c.notify_all()\np.join()",
    "locks": "import multiprocessing as m\nl, r = m.Lock(), m.RLock()\nwith r:\n    with r: print('twice')\n"
    "print(l.acquire(False), l.acquire(False), l.acquire(timeout=0.01))\nl.release()\n"
    "try: l.release()\nexcept ValueError as e: print(e)\ntry: r.release()\nexcept AssertionError as e: "
    "print(e)\nprint(l, r)",
    "barrier": "import multiprocessing as m\nb = m.Barrier(2)\np = m.Process(target=b.wait)\np.start()\n"
    "b.wait()\np.join()\nprint('passed')",
    "executor of processes": "from concurrent.futures import ProcessPoolExecutor\n"
    "def f(x): return x + 1\nif __name__ == '__main__':\n    with ProcessPoolExecutor(2) as p: "
    "print(list(p.map(f, [1, 2])))",
}
SCRIPTS = {
    f"{kind}: {name}": code
    for kind, codes in {
        "streams": STREAMS,
        "input": INPUT,
        "module": MODULE,
        "ends": ENDS,
        "processes": PROCESSES,
    }.items()
    for name, code in codes.items()
}
