"""The scripts that are run as tasks."""

#: Prints what it was given, after a while.
WORK = "import sys, time\ntime.sleep(float(sys.argv[2]))\nprint(sys.argv[1])\n"

#: Never ends by itself.
FOR_EVER = "import time\nprint('begun', flush=True)\ntime.sleep(3600)\n"

#: Leaves files where everybody may write, folders that nobody may enter or whose files only their owners remove, System V's
#: shared memory, and two processes that get away from its group, one of which ignores SIGTERM. Prints its user and
#: capabilities.
MESSY = """
import ctypes, os, pathlib, subprocess, sys
ctypes.CDLL(None).shmget(0, 4096, 0o1600)
for folder in ("/tmp", "/var/tmp", "/dev/shm"):
    inner = pathlib.Path(folder, f"left-{os.getpid()}")
    inner.mkdir()
    (inner / "x").write_text("y")
    inner.chmod(0)
    pathlib.Path(folder, f"file-{os.getpid()}").write_text("z")
sticky = pathlib.Path("sticky")
sticky.mkdir()
sticky.chmod(0o1777)
(sticky / "x").write_text("y")
closed = pathlib.Path("closed")
closed.mkdir()
(closed / "x").write_text("y")
closed.chmod(0)
pathlib.Path(os.environ["TASKYARD_OUTPUT"], "large.bin").write_bytes(b"x" * 300_000)
ignoring = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(3600)"
daemon = subprocess.Popen([sys.executable, "-c", ignoring], start_new_session=True, stdout=subprocess.PIPE)
daemon.stdout.readline()
subprocess.Popen(["sleep", "3600"], start_new_session=True)
status = pathlib.Path("/proc/self/status").read_text()
print(os.getuid(), status.partition("CapEff:")[2].split()[0], status.partition("NoNewPrivs:")[2].split()[0], flush=True)
"""

#: Says which packages it has.
PACKAGES = """# /// script
# dependencies = ["attrs", "psutil"]
# ///
import attrs, os, psutil
print(os.getuid(), psutil.__file__, flush=True)
"""
