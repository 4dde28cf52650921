"""Whether a script's interpreter may be left without its own end. A part of the zygote, which has it beside itself: in any
CPython from 3.9 on, with nothing but the standard library.
"""

from __future__ import annotations

import _io
import _signal  # type: ignore[import-not-found]
import _thread
import _warnings
import _weakref
import atexit as _atexit
import builtins
import gc
import os
import sys

#: Those of the functions below: what a script puts in the place of a builtin is not called by them.
__builtins__ = dict(vars(builtins))  # type: ignore[assignment]

try:
    import ctypes
except ImportError:  # this interpreter was built without it: every script has the whole end
    ctypes = None  # type: ignore[assignment]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

LIBC = ctypes.CDLL(None) if ctypes else None
#: Looked up here: ctypes does that in Python, which the script can change.
_exit, _getenv = (LIBC.exit, LIBC.getenv) if LIBC else (None, None)
#: A folder with an entry for each thread of this process.
TASKS = "/proc/self/task"
#: Modules in C of which no object does anything that can be seen when it goes, unless its type has a finalizer.
_SILENT_MODULES = """
    __main__ _abc _ast _bisect _blake2 _bz2 _codecs _collections _contextvars _csv _datetime _decimal _functools _hashlib
    _heapq _imp _io _json _locale _lsprof _lzma _md5 _opcode _operator _pickle _posixsubprocess _queue _random _sha1 _sha2
    _sha256 _sha3 _sha512 _signal _socket _sre _stat _statistics _string _struct _symtable _thread _tokenize _tracemalloc
    _typing _uuid _warnings _weakref _zoneinfo array atexit binascii builtins cmath errno fcntl gc grp io itertools marshal
    math posix pwd resource select sys time unicodedata zlib
"""
SILENT_MODULES = frozenset(_SILENT_MODULES.split())
#: The same of packages, where they were imported ahead; but C code of theirs, or of what they load, may have an end.
SILENT_PACKAGES = frozenset(("numpy", "_ctypes"))
#: The loaders of modules that are written in Python.
LOADERS_OF_PYTHON = {
    "SourceFileLoader",
    "SourcelessFileLoader",
    "FrozenImporter",
    "NamespaceLoader",
    "_NamespaceLoader",
}
#: More objects than that are not looked through one by one.
MANY_OBJECTS = 50_000
#: More blocks of memory than that, and the list of the objects alone may be too much.
MANY_BLOCKS = 500_000
_HAS_GC = 1 << 14  # of type.__flags__: the garbage collector knows of the type's objects
_BASES, _NAMES, _FLAGS = (type.__dict__[name].__get__ for name in ("__mro__", "__dict__", "__flags__"))
_ahead: set[str] = set()  # of those packages
_FILES = {_io.FileIO, _io.BufferedReader, _io.BufferedWriter, _io.BufferedRandom, _io.TextIOWrapper}
_CALLBACK = _weakref.ReferenceType.__dict__["__callback__"].__get__


class Silence:
    """Tells whether the interpreter's own end would be silent: nothing is flushed by it, called or said. Then it is left out,
    since it would copy most of what is shared, only to throw it away. Made before the script is there: it freezes the
    collector, which then tells of what has come later. ``handlers`` are those of signals that the script will begin with."""

    def __init__(self, handlers: dict[int, Any]) -> None:
        streams = (sys.stdin, sys.stdout, sys.stderr)
        known = [one for stream in streams for one in (stream, stream.buffer, getattr(stream.buffer, "raw", None))]
        ours = (type, type(sys))  # of the modules those that are listed count
        made = [one for one in gc.get_objects() if not isinstance(one, ours) and not any(one is each for each in known)]
        _ahead.update(SILENT_PACKAGES & set(sys.modules))
        self._begun = not any(map(_speaks, made))
        # What else is on our list has no end in C, and that one writes to memory too.
        self._exit: Any = _exit if _ahead or "LD_PRELOAD" in os.environ else os._exit
        self._streams = streams
        self._filters = list(_warnings.filters)
        self._handlers = dict(handlers)
        self._hooks: list[str] = []
        sys.addaudithook(self._note_hook)
        gc.freeze()
        self._blocks = sys.getallocatedblocks()
        self._later: list[None] = []

    def leave(self, code: int) -> None:
        """End the process with that exit code. Returns where the interpreter must do it, which nothing stands in the way of."""
        if _exit is None or not -(1 << 31) <= code < 1 << 31:
            return
        try:
            if not self.is_kept():
                return
            for stream in self._streams[1:]:
                stream.flush()
        except BaseException:  # the script has changed what we use; or the interpreter is to say what its streams say
            return
        self._exit(code & 0xFF)

    def is_kept(self) -> bool:
        """Whether the end would be silent now."""
        return (
            self._begun
            and not self._hooks
            and sys.getallocatedblocks() - self._blocks < MANY_BLOCKS
            and all(_signal.getsignal(number) == handler for number, handler in self._handlers.items())
            and _are_same(self._streams, (sys.stdin, sys.stdout, sys.stderr))
            and _are_same(self._streams, (sys.__stdin__, sys.__stdout__, sys.__stderr__))
            and not _has_callbacks()
            and _thread._count() == 0
            and count(TASKS) == 1
            and self._filters == _warnings.filters == getattr(sys.modules.get("warnings"), "filters", self._filters)
            and not _is_interactive()
            and all(map(_is_silent, list(sys.modules.values())))
            and self._is_heap_silent()
        )

    def _note_hook(self, event: str, arguments: object) -> None:
        """Nothing lists the hooks that a script has added, and what we ask would be told to them."""
        if event == "sys.addaudithook":
            self._hooks.append(event)

    def _is_heap_silent(self) -> bool:
        """Whether nothing that has been made since the beginning has an end of its own."""
        objects = gc.get_objects()
        if len(objects) > MANY_OBJECTS or not any(one is self._later for one in objects):  # the script froze them too
            return False
        return not any(map(_speaks, objects))


def _are_same(some: tuple[Any, ...], others: tuple[Any, ...]) -> bool:
    return all(one is other for one, other in zip(some, others))  # noqa: B905


def _has_callbacks() -> bool:
    """Whether something is called at the end, or when memory is cleared up."""
    found: Any = sys.modules.get
    threading = found("threading")
    return bool(
        _atexit._ncallbacks()  # of the whole interpreter, from Python 3.10 on
        or (threading is not None and (getattr(threading, "_threading_atexits", True) or not _is_own_end(threading)))
        or gc.callbacks
        or gc.get_debug()
    )


def _is_own_end(threading: Any) -> bool:
    """Whether what the interpreter calls at its end, to wait for threads, is that module's own still."""
    end, own = vars(threading).get("_shutdown"), vars(threading).get("__file__")
    return type(end) is type(_is_own_end) and end.__code__.co_filename == own


def _is_interactive() -> bool:
    """Whether the interpreter would ask for more: it looks there at its end, wherever that was set."""
    return _getenv is not None and bool(_getenv(b"PYTHONINSPECT"))


def _is_silent(module: Any) -> bool:
    """Whether it is written in Python, or known not to speak."""
    if type(module) is not type(sys):
        return issubclass(type(module), type)  # typing.io is one
    found = vars(module).get
    loader = getattr(found("__spec__"), "loader", None) or found("__loader__")
    name = getattr(loader, "__name__", type(loader).__name__)
    known = found("__name__")
    return name in LOADERS_OF_PYTHON or known in SILENT_MODULES or str(known).partition(".")[0] in _ahead


def _speaks(one: Any) -> bool:
    """Whether something may happen when it goes. Files and generators that wait in a ``finally`` have finalizers too.
    Nothing is asked of an object itself: its class may have its own ways to answer."""
    kind = type(one)
    if kind is type(sys):  # also one that is in no list of modules
        return not _is_silent(one) or (one.__name__ == "atexit" and bool(one._ncallbacks()))
    if issubclass(kind, type):  # the collector may not tell of its objects
        return _has_finalizer(kind) or (_has_finalizer(one) and not _FLAGS(one) & _HAS_GC)
    if issubclass(kind, _weakref.ReferenceType):
        return not _calls_nobody(_CALLBACK(one))
    if kind in (_weakref.ProxyType, _weakref.CallableProxyType):  # nobody can ask whom they call
        return True
    return _has_finalizer(kind) and not (kind in _FILES and _is_closed(one))


def _calls_nobody(called: Any) -> bool:
    """Whether a weak reference calls nothing but what keeps a collection of the standard library tidy."""
    if type(called) is type(len):
        return bool(called.__name__ == "_destroy")  # of abstract classes
    if type(called) is type(_speaks):
        return called.__module__ in ("weakref", "_weakrefset") and called.__name__ in ("remove", "_remove")
    return called is None


def _is_closed(file: Any) -> bool:
    try:
        return bool(file.closed)
    except ValueError:  # it has given its buffer away
        return False


def _has_finalizer(kind: type) -> bool:
    return any("__del__" in _NAMES(one) for one in _BASES(kind))


def count(folder: str) -> int:
    """How many entries it has: 1 where the system has no such folder."""
    try:
        return len(os.listdir(folder))
    except OSError:
        return 1
