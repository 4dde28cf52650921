"""The warm interpreter of one environment: it imports ahead, and forks a child for each attempt ahead of time.

    keeper ── control: how to be, then for each spare its end of a socket for the job ─► zygote
    zygote ── fork ─► spare, which is the keeper's child (``birth.py``)
    executor ── the job, and the descriptors for its output ─► spare, which becomes the script

Of an environment that a task has asked for there is no zygote: the keeper starts its interpreter ahead of time, as the user of
a slot, and with a list of modules this file bears nothing in it, and is the spare itself.

Runs as a file, with ``birth.py`` and ``silence.py`` beside it, in any CPython from 3.9 on, with nothing but the standard
library, and one thread. It uses modules that a bare interpreter has not got loaded, and hides them again: the script shall find
what a bare interpreter would have.

What goes over the sockets is a length in eight bytes and an object of :mod:`marshal`; paths and texts are the system's bytes.
"""

from __future__ import annotations

#: What the module ``__main__`` of a bare interpreter has, in this version.
_MAIN = {name: value for name, value in globals().items() if name != "annotations"}

import marshal  # noqa: E402
import os  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402

_BARE = set(sys.modules) - {"__future__"}

import _signal  # type: ignore[import-not-found]  # noqa: E402
import _socket  # noqa: E402
import array  # noqa: E402
import gc  # noqa: E402
import resource  # noqa: E402

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any

    from taskyard.executor.birth import Births
    from taskyard.executor.silence import LIBC, TASKS, Silence, count
else:
    from birth import Births  # they lie beside this file
    from silence import LIBC, TASKS, Silence, __builtins__, count

#: None, as ``LIBC`` is, where the interpreter was built without it: the kernel's last safety nets are not spread.
ctypes: Any = sys.modules.get("ctypes")
for _name in set(sys.modules) - _BARE:
    del sys.modules[_name]

#: The keeper knows them as the same.
READY = b"ready "
#: What a spare says before it closes the socket: from now on it is the script.
BEGUN = b"\0"
LENGTH_BYTES = 8
MAX_DESCRIPTORS = 2
#: Modules that leave threads behind which are known to survive a fork: OpenBLAS ends its own before, and starts them after.
SAFE_THREADS = {"numpy"}
_DESCRIPTORS = "/proc/self/fd"
#: How the signals are handled that the zygote and its spares do not see: whoever sends them to all means the executor.
_LATE_SIGNALS = {
    _signal.SIGTERM: _signal.SIG_DFL,
    _signal.SIGHUP: _signal.SIG_DFL,
    _signal.SIGINT: _signal.default_int_handler,
}
_SIGNALS = {_one: _signal.getsignal(_one) for _one in _signal.valid_signals()}
#: Seconds without a job after which a spare rehearses: where jobs wait in line it would only take the CPU from them.
LEISURE = 0.01
#: A little of what scripts do.
REHEARSAL = """
import sys
class A:
    def f(self, *args, **kwargs): return f"{self.x!r} {args} {kwargs}"
    x = 1.5
def g(n): return [str(i) for i in range(n)], {i: i * i for i in range(n)}, sum(range(n)) / 7
try:
    A().f(1, a=2), g(20), sorted("rehearsal"), "a,b".split(","), b"x".decode(), int("12"), there_is_no_such_name
except NameError:
    pass
"""
_SET_PDEATHSIG, _SET_DUMPABLE, _SET_NO_NEW_PRIVS = 1, 4, 38  # <linux/prctl.h>
_SIGKILL = 9
#: The variable of the zygote's own environment whose place in memory gets the script's variables.
ROOM = b"TASKYARD_ROOM"
_CLOSE_ON_EXEC = getattr(_socket, "MSG_CMSG_CLOEXEC", 0)


# --- the sockets ----------------------------------------------------------------------------------------------------------


def receive(end: _socket.socket) -> tuple[Any, list[int]]:
    """One object and the descriptors that came with it. Ends the process with the stream."""
    head, descriptors = _first(end)
    head = _filled(end, head, LENGTH_BYTES)
    length = int.from_bytes(head, "little")
    body = _filled(end, b"", length)
    if len(head) < LENGTH_BYTES or len(body) < length:
        os._exit(0)
    return marshal.loads(body), descriptors  # noqa: S302


def send(end: _socket.socket, message: Any) -> None:
    """Send one object."""
    body = marshal.dumps(message, 2)
    end.sendall(len(body).to_bytes(LENGTH_BYTES, "little") + body)


def _first(end: _socket.socket) -> tuple[bytes, list[int]]:
    space = _socket.CMSG_SPACE(MAX_DESCRIPTORS * array.array("i").itemsize)
    try:
        data, extra, _, _ = end.recvmsg(LENGTH_BYTES, space, _CLOSE_ON_EXEC)
    except ConnectionError:
        return b"", []
    descriptors = array.array("i")
    for level, kind, content in extra:
        if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
            descriptors.frombytes(content[: len(content) - len(content) % descriptors.itemsize])
    return data, list(descriptors)


def _filled(end: _socket.socket, begun: bytes, length: int) -> bytes:
    """So many bytes, ``begun`` among them; fewer where the stream ends."""
    data = bytearray(begun)
    while len(data) < length:
        try:
            piece = end.recv(length - len(data))
        except ConnectionError:
            break
        if not piece:
            break
        data += piece
    return bytes(data)


# --- the zygote -----------------------------------------------------------------------------------------------------------


def serve(descriptor: int) -> dict[str, Any]:
    """Be the zygote on that control socket. Returns in each spare, with its job, and nowhere else."""
    control = _socket.socket(fileno=descriptor)
    os.set_inheritable(descriptor, False)
    _be_quiet()
    opened, _ = receive(control)
    room = _room()
    os.environb.pop(ROOM, None)
    send(control, _warm_up(opened["preload"]))
    births = Births(os.path.realpath(sys.executable))
    silence = _settled()
    gc.disable()  # a collection would copy what the spares share
    while True:
        request, (end,) = receive(control)
        if _packages() != _begun_with:
            send(control, {"stale": True})  # the keeper ends us
            os.close(end)
            continue
        job = _bear({**request, "room": room, "silence": silence}, _socket.socket(fileno=end), control, births)
        if job is not None:
            return job


def stand_by(descriptor: int, preload: list[str]) -> dict[str, Any]:
    """Be a spare that no zygote has forked, with the slot's user already. Its job comes over that socket."""
    end = _socket.socket(fileno=descriptor)
    os.set_inheritable(descriptor, False)
    try:
        if _handlers():
            raise OSError("its environment has registered something with atexit, which a script would have too")
        if _has_children():
            raise OSError("its environment starts processes, which a script would have too")
        return _warmed_up(end, preload)
    except (OSError, ValueError) as error:
        _complain(end, error)
    os._exit(1)


def _warmed_up(end: _socket.socket, preload: list[str]) -> dict[str, Any]:
    """Its job."""
    _be_quiet()
    warm = _warm_up(preload)
    if (unsafe := warm.get("unsafe")) is not None:
        # Only another interpreter is without that thread. Its output is not to be a file either.
        os.set_inheritable(end.fileno(), True)
        for number in (1, 2):
            os.dup2(end.fileno(), number)
        rest = ",".join(name for name in preload if name != unsafe)
        os.execv(sys.executable, [sys.executable, __file__, str(end.fileno()), rest])  # noqa: S606
    room = _room()
    os.environb.pop(ROOM, None)
    silence = _settled()
    loaded = " ".join(name for name in warm["loaded"] if name.isidentifier())
    return _wait_for_job(end, room, silence, f" {loaded}\n".encode())


def _settled() -> Silence:
    """Made once all is there that is to be before the script."""
    _rehearse()  # what the interpreter makes once for all time, such as the types of a syntax tree, the spares share
    gc.collect()
    return Silence({**_SIGNALS, **_LATE_SIGNALS})


def _has_children() -> bool:
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return False
    return True


def _be_quiet() -> None:
    """Say nothing any more. Until now the output was a pipe or a socket, as a script's is: what Python made of it stays."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    for number in (1, 2):
        os.dup2(nothing, number)
    os.close(nothing)


def _warm_up(preload: list[str]) -> dict[str, Any]:
    """Import what is to be imported ahead. ``warnings`` has a sentence for each module that could not be, ``loaded`` the top
    names of what a bare interpreter has not got loaded. ``unsafe`` is a module that ``leaves`` a thread, or a file open that
    all attempts would share: nobody can take that back, and the keeper begins again without it."""
    warnings = []
    safe = Safe()
    sys.path[0] = os.path.join(sys.path[0], "nowhere")  # what lies beside this file is nothing to import
    for name in preload:
        threads, files, handlers = count(TASKS) - safe.threads, count(_DESCRIPTORS), _handlers()
        try:
            safe.load(name)
        except BaseException as error:
            warnings.append(f"{name} could not be imported ahead: {type(error).__name__}: {error}")
        gc.collect()
        if count(TASKS) - safe.threads > threads:
            return {"unsafe": name, "leaves": "a thread running"}
        if count(_DESCRIPTORS) > files:
            return {"unsafe": name, "leaves": "a file open"}
        if _handlers() > handlers:
            warnings.append(f"what {name} has registered with atexit is not run at the end of a script")
    return {"warnings": warnings, "loaded": sorted({name.partition(".")[0] for name in set(sys.modules) - _BARE})}


class Safe:
    """Imports, and counts the threads of modules that are known to be safe, whoever imports them."""

    def __init__(self) -> None:
        self.threads = 0
        self._import = __import__

    def load(self, name: str) -> None:
        builtins: Any = sys.modules["builtins"]
        builtins.__import__ = self._watched
        try:
            builtins.__import__(name)
        finally:
            builtins.__import__ = self._import

    def _watched(self, name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0) -> Any:
        top = name.partition(".")[0]
        if not level and top in SAFE_THREADS and top not in sys.modules:
            before = count(TASKS)
            self._import(top)
            self.threads += count(TASKS) - before
        return self._import(name, globals, locals, fromlist, level)


def _handlers() -> int:
    """How many handlers of others than the standard library, whose own :func:`_forget` knows, are registered for the end."""
    found: Any = sys.modules.get
    if (atexit := found("atexit")) is None:
        return 0
    finalize = getattr(found("weakref"), "finalize", None)
    known = ("logging" in sys.modules) + ("multiprocessing.util" in sys.modules)
    return atexit._ncallbacks() - known - bool(getattr(finalize, "_registered_with_atexit", False))  # type: ignore[no-any-return]


def _bear(
    request: dict[str, Any], end: _socket.socket, control: _socket.socket, births: Births
) -> dict[str, Any] | None:
    """Fork a spare. None in the zygote, the job in the spare."""
    zygote = os.getpid()
    try:
        if births.bear(request["cells"]):
            control.close()
            _leave_zygote(request)
            return _wait_for_job(end, request["room"], request["silence"])
    except (OSError, ValueError) as error:  # there is no room for another process, or no spare can be made of this one
        _complain(end, error)
        if os.getpid() != zygote:
            os._exit(1)
    end.close()
    return None


def _complain(end: _socket.socket, error: Exception) -> None:
    try:
        end.sendall(str(error).encode(errors="replace") or b"unknown error")
    except OSError:
        return  # nobody waits for it any more


# --- the spare ------------------------------------------------------------------------------------------------------------


def _leave_zygote(request: dict[str, Any]) -> None:
    os.setsid()
    user = request["user"]
    if user is not None:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
        _prctl(_SET_NO_NEW_PRIVS, 1)
        _prctl(_SET_DUMPABLE, 1)  # a change of the user takes it away: its own files in /proc would be root's
    _prctl(_SET_PDEATHSIG, _SIGKILL)
    if os.getppid() != request["keeper"]:
        raise OSError("the keeper has died")


def _wait_for_job(end: _socket.socket, room: tuple[int, int], silence: Silence, more: bytes = b"") -> dict[str, Any]:
    """Say that this spare is ready, and ``more``, and wait."""
    _forget()
    if room[1]:
        ctypes.memset(room[0], 0, room[1])
    end.sendall(READY + str(os.getpid()).encode() + more)
    end.settimeout(LEISURE)
    try:
        end.recv(1, _socket.MSG_PEEK)
    except OSError:  # there is no job yet, and so the time for it
        _rehearse()
        silence.is_kept()
    end.settimeout(None)
    job, outputs = receive(end)
    for number, descriptor in enumerate(outputs, 1):
        os.dup2(descriptor, number)
        os.close(descriptor)
    for kind, amount in job["rlimits"]:
        _, hard = resource.getrlimit(kind)
        amount = amount if hard == resource.RLIM_INFINITY else min(amount, hard)
        resource.setrlimit(kind, (amount, amount))
    os.chdir(job["directory"])
    for number, handler in _LATE_SIGNALS.items():
        _signal.signal(number, handler)
    coerced = os.environb.get(b"LC_CTYPE")  # Python sets it where there is no locale
    os.environb.clear()
    os.environb.update(job["environment"])
    if coerced is not None:
        os.environb[b"LC_CTYPE"] = coerced
    _show_environment(job, *room)
    end.sendall(BEGUN)
    end.close()
    return {**job, "silence": silence}


def _room() -> tuple[int, int]:
    """Address and size of what ``/proc/<pid>/environ`` shows of that variable; zeros where there is no such thing."""
    value = os.environb.get(ROOM)
    if LIBC is None or value is None or sys.platform != "linux":
        return 0, 0
    wanted = ROOM + b"="
    variables = ctypes.POINTER(ctypes.c_void_p).in_dll(LIBC, "environ")
    number = 0
    while (address := variables[number]) is not None:
        if ctypes.string_at(address, len(wanted)) == wanted:
            return address, len(wanted) + len(value)
        number += 1
    return 0, 0


def _show_environment(job: dict[str, Any], address: int, size: int) -> None:
    """Have ``/proc/<pid>/environ`` show the script's variables, as far as there is room, which is clear; first the attempt's
    mark, by which its processes are found."""
    shown = job["mark"]
    if len(shown) >= size:
        return
    for name, value in job["environment"]:
        entry = name + b"=" + value
        if entry != job["mark"] and len(shown) + 1 + len(entry) < size:
            shown += b"\0" + entry
    ctypes.memmove(address, shown, len(shown))


def _prctl(option: int, argument: int) -> None:
    if LIBC is not None and sys.platform == "linux":
        LIBC.prctl(option, argument, 0, 0, 0)


def _rehearse() -> None:
    """Do what a job needs, so that what is made or written to by that is there already. Nothing of it stays."""
    job = marshal.dumps({"arguments": [b""], "environment": [(b"A", b"b")], "mark": b""}, 2)
    marshal.loads(job)  # noqa: S302
    os.environb.update(dict(os.environb))
    for name in (__file__, os.curdir):
        os.path.dirname(os.path.realpath(name))
    sys.argv[:] = list(sys.argv)
    _finds_other_packages()
    _catch_up()
    namespace = {"__name__": "__rehearsal__", "__builtins__": __builtins__}
    exec(compile(REHEARSAL, "<rehearsal>", "exec", dont_inherit=True), namespace)  # noqa: S102
    for stream in (sys.stdout, sys.stderr):
        stream.write("")
        stream.flush()


def _forget() -> None:
    """Let nothing of what was imported ahead tell this process from a bare interpreter that imports it only now."""
    gc.enable()
    _signal.set_wakeup_fd(-1)
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())
    for number, handler in _SIGNALS.items():
        if handler is not None and _signal.getsignal(number) != handler:
            _signal.signal(number, handler)
    sys.path_importer_cache.pop(os.path.dirname(os.path.abspath(__file__)), None)
    found: Any = sys.modules.get
    if (atexit := found("atexit")) is not None:
        atexit._clear()
    if (logging := found("logging")) is not None:
        atexit.register(logging.shutdown)
    if (util := found("multiprocessing.util")) is not None:
        atexit.register(util._exit_function)
    if (process := found("multiprocessing.process")) is not None:
        process.current_process().authkey = os.urandom(32)
    if (weakref := found("weakref")) is not None:
        weakref.finalize._registry.clear()
        weakref.finalize._registered_with_atexit = False
    if (tempfile := found("tempfile")) is not None:
        tempfile.tempdir = tempfile._name_sequence = None
    if (uuid := found("uuid")) is not None:
        uuid._node = uuid._last_timestamp = None
    if (numpy_random := found("numpy.random")) is not None:
        numpy_random.seed()
    if (torch := found("torch")) is not None:
        torch.seed()


def _catch_up() -> None:
    """What depends on the time of the start, on the job's environment or its directory."""
    found: Any = sys.modules.get
    for path, finder in list(sys.path_importer_cache.items()):
        if finder is None and os.path.exists(path):  # it was not there when the zygote looked
            del sys.path_importer_cache[path]
    if (process := found("multiprocessing.process")) is not None:
        process.ORIGINAL_DIR = os.getcwd()
    if (logging := found("logging")) is not None:
        logging._startTime = time.time() if isinstance(logging._startTime, float) else time.time_ns()


def _packages() -> dict[str, int]:
    """The folders of installed packages, and when each was changed last, in nanoseconds."""
    site: Any = sys.modules.get("site")
    changed = {}
    for folder in site.getsitepackages() if site is not None else ():
        try:
            changed[folder] = os.stat(folder).st_mtime_ns
        except OSError:
            changed[folder] = 0
    return changed


def _finds_other_packages() -> bool:
    """Whether a fresh interpreter would: some have come or gone, or the job's ``HOME`` has its own."""
    site: Any = sys.modules.get("site")
    if site is None:
        return False
    before, site.USER_SITE, site.USER_BASE = site.USER_SITE, None, None
    now = site.getusersitepackages()
    of_user = site.ENABLE_USER_SITE and now != before and (before in sys.path or os.path.isdir(now))
    return bool(of_user) or _packages() != _begun_with


# --- the script -----------------------------------------------------------------------------------------------------------


def run(arguments: list[bytes], silence: Silence) -> None:
    """Run what ``python`` would have run with these arguments. Leaves the process to the interpreter's own end, where that
    would not be silent."""
    words = [os.fsdecode(one) for one in arguments]
    try:
        if words[0] == "-m":
            _become_main(path=None)
            sys.path[0] = os.getcwd()
            sys.argv[:] = ["-m", *words[2:]]
            import runpy

            runpy._run_module_as_main(words[1])  # type: ignore[attr-defined]
        else:
            exec(*_program(words))  # noqa: S102
    except SystemExit as error:
        if (error.code is None or type(error.code) is int) and sys.gettrace() is sys.getprofile() is None:
            silence.leave(error.code or 0)
        raise
    except BaseException as error:
        raised = error
    else:
        if sys.gettrace() is sys.getprofile() is None:  # they would be told
            silence.leave(0)
        return
    _show(raised)  # here, where no exception is being handled: one in the script's own hook has no other behind it
    if isinstance(raised, KeyboardInterrupt):  # it ends the process as the signal does, once all has been cleared up
        sys.excepthook = lambda *_: None
        raise raised
    sys.exit(1)


def _program(words: list[str]) -> tuple[Any, dict[str, Any]]:
    """The code of ``-c`` or of a script, and the namespace in which it runs."""
    if words[0] == "-c":
        sys.path[0] = ""
        sys.argv[:] = ["-c", *words[2:]]
        return _compiled(words[1] + "\n", "<string>", words), _become_main(path=None)
    script = words[0]
    sys.path[0] = os.path.dirname(os.path.realpath(script))
    sys.argv[:] = words
    path = script if os.path.isabs(script) else os.path.join(os.getcwd(), script)
    with open(path, "rb") as file:
        return _compiled(file.read(), path, words), _become_main(path)


def _compiled(source: str | bytes, name: str, words: list[str]) -> Any:
    try:
        return compile(source, name, "exec", dont_inherit=True)
    except (SyntaxError, ValueError):  # a fresh interpreter finds the words for what is wrong: they differ from ours
        os.execv(sys.executable, [sys.executable, *words])  # noqa: S606


def _become_main(path: str | None) -> dict[str, Any]:
    """A new ``__main__``; its namespace."""
    main = type(sys)("__main__")
    namespace = main.__dict__
    namespace.clear()
    namespace.update(_MAIN, __doc__=None)
    if "__annotations__" in namespace:
        namespace["__annotations__"] = {}
    bootstrap = sys.modules["_frozen_importlib_external" if path else "_frozen_importlib"]
    if path is None:
        namespace.pop("__file__", None)
        namespace.pop("__cached__", None)
        namespace["__loader__"] = bootstrap.BuiltinImporter
    else:
        namespace.update(__file__=path, __loader__=bootstrap.SourceFileLoader("__main__", path))
    sys.modules["__main__"] = main
    return namespace


def _show(error: BaseException) -> None:
    """Show an exception as the interpreter does, without the frames that are ours."""
    trace = _without_us(error)
    sys.last_type, sys.last_value, sys.last_traceback = type(error), error, trace
    if sys.version_info >= (3, 12):
        sys.last_exc = error
    try:
        sys.excepthook(type(error), error, trace)
    except SystemExit:
        raise
    except BaseException as raised:
        second = raised
    else:
        return
    sys.stderr.write("Error in sys.excepthook:\n")
    sys.__excepthook__(type(second), second, _without_us(second))
    sys.stderr.write("\nOriginal exception was:\n")
    sys.__excepthook__(type(error), error, trace)


def _without_us(error: BaseException) -> TracebackType | None:
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename == _show.__code__.co_filename:
        trace = trace.tb_next
    error.__traceback__ = trace
    return trace


if __name__ == "__main__":
    _begun_with = _packages()
    if len(sys.argv) == 2:
        _job = serve(int(sys.argv[1]))
    else:
        _job = stand_by(int(sys.argv[1]), [_one for _one in sys.argv[2].split(",") if _one])
    if _finds_other_packages():
        os.execv(sys.executable, [os.fsencode(sys.executable), *_job["arguments"]])  # noqa: S606
    if hasattr(sys, "orig_argv"):
        sys.orig_argv[1:] = [os.fsdecode(_one) for _one in _job["arguments"]]
    _catch_up()
    run(_job["arguments"], _job.pop("silence"))
