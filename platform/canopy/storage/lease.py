"""The lease on a run directory: one pipeline at a time writes to it.

``lease.json`` names its holder and is renewed every ``HEARTBEAT_S`` seconds. A second pipeline refuses to
start. The lease of a dead holder is taken over: at once where its process was on the same machine and is
gone, otherwise ``LIMIT_S`` seconds after its last heartbeat, by the clocks of both machines.

On a local disk a lock on the directory excludes other processes while a lease is taken. Object stores offer
no such operation through pyarrow, so a holder reads its lease back after a pause: of two pipelines that start
at once, the last writer wins.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from pyarrow import fs

from canopy.errors import CanopyError, RunDirError
from canopy.storage import files, local_files

logger = logging.getLogger(__name__)

NAME = "lease.json"
HEARTBEAT_S = 15.0
LIMIT_S = 120.0
SETTLE_S = 1.0
"""Pause in seconds before a lease is read back."""


@dataclass(frozen=True)
class Holder:
    """The content of ``lease.json``.

    Args:
        host: name of the machine.
        machine: identifies a boot and its process namespace, so that ``pid`` can be looked up.
        pid: process id.
        process_start: start of the process in clock ticks after boot; distinguishes reused process ids.
        started: time at which the lease began, in seconds since the epoch.
        heartbeat: time of the last renewal, in seconds since the epoch.
        token: random; unique to this lease.
    """

    host: str
    machine: str
    pid: int
    process_start: int
    started: float
    heartbeat: float
    token: str

    @classmethod
    def of_this_process(cls) -> Holder:
        """A new lease for the current process."""
        now, pid = time.time(), os.getpid()
        start = process_start(pid) or 0
        return cls(socket.gethostname(), machine_id(), pid, start, now, now, uuid.uuid4().hex)

    @classmethod
    def from_json(cls, data: bytes) -> Holder:
        """The holder in ``lease.json``.

        Raises:
            ValueError: when the file is damaged.
        """
        value = json.loads(data)
        try:
            return cls(
                str(value["host"]),
                str(value["machine"]),
                int(value["pid"]),
                int(value["process_start"]),
                float(value["started"]),
                float(value["heartbeat"]),
                str(value["token"]),
            )
        except (TypeError, KeyError) as error:
            raise ValueError(f"no valid lease: {error}") from None

    def to_json(self) -> bytes:
        """The form in ``lease.json``."""
        return f"{json.dumps(asdict(self), indent=1)}\n".encode()

    def is_alive(self) -> bool:
        """Whether the holder still works, as far as this machine can know."""
        if self.machine == machine_id():
            return process_start(self.pid) == self.process_start
        return time.time() - self.heartbeat < LIMIT_S

    def __str__(self) -> str:
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.started))
        age = max(0, round(time.time() - self.heartbeat))
        return f"process {self.pid} on {self.host}, at work since {since}, last heartbeat {age} s ago"


class Lease:
    """A held lease; :func:`hold_lease` makes it.

    Args:
        root: the run directory.
        holder: this process.
    """

    def __init__(self, root: str, holder: Holder) -> None:
        self._root, self._path = root, files.join(root, NAME)
        self._holder = holder
        self._ended = threading.Event()
        self._successor: Holder | None = None
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)

    def check(self) -> None:
        """Refuse to go on after another pipeline has taken the lease over.

        Raises:
            RunDirError: names the other pipeline.
        """
        if self._successor is not None:
            raise in_use_error(self._root, self._successor)

    def acquire(self) -> None:
        """Take the lease and start its renewal.

        Raises:
            RunDirError: when another pipeline holds it.
            StorageError: when the object store refuses.
        """
        filesystem, directory = files.resolve(self._root)
        if isinstance(filesystem, fs.LocalFileSystem):
            local_files.make_directories(Path(directory))
            with local_files.directory_lock(Path(directory)) as locked:
                take(self._root, self._path, self._holder, settle=not locked)
        else:
            take(self._root, self._path, self._holder, settle=True)
        self._thread.start()

    def release(self) -> None:
        """End the renewal and remove the lease."""
        self._ended.set()
        self._thread.join()
        try:
            found = read_holder(self._path)
            if found is not None and found.token == self._holder.token:
                files.delete(self._path)
        except (OSError, CanopyError) as error:
            logger.warning("the lease %s could not be removed: %s", files.shown(self._path), error)

    def _renew(self) -> None:
        while not self._ended.wait(HEARTBEAT_S):
            try:
                found = read_holder(self._path)
                if found is not None and found.token != self._holder.token:
                    self._successor = found
                    logger.warning("%s was taken over by %s", files.shown(self._root), found)
                    return
                self._holder = replace(self._holder, heartbeat=time.time())
                files.write_bytes(self._path, self._holder.to_json())
            except (OSError, CanopyError) as error:
                logger.warning("the lease %s could not be renewed: %s", files.shown(self._path), error)


@contextmanager
def hold_lease(root: str) -> Iterator[Lease]:
    """Hold the lease on a run directory in the block.

    Args:
        root: path or URI of the run directory; made if it is missing.

    Raises:
        RunDirError: when another pipeline holds it.
        StorageError: when the object store refuses, or the disk is full or fails.
    """
    existed = files.is_uri(root) or Path(root).exists()
    lease = Lease(root, Holder.of_this_process())
    lease.acquire()
    try:
        yield lease
    finally:
        lease.release()
        if not existed:
            remove_if_empty(Path(root))


def take(root: str, path: str, ours: Holder, settle: bool) -> None:
    """Write the lease, unless a living pipeline holds it.

    Args:
        root: the run directory.
        path: the file of the lease.
        ours: this process.
        settle: wait and read the lease back, where no lock excludes other processes.

    Raises:
        RunDirError: when another pipeline holds it.
        StorageError: when the object store refuses, or the disk is full or fails.
    """
    found = read_holder(path)
    if found is not None and found.is_alive():
        raise in_use_error(root, found)
    if found is not None:
        logger.info("the lease of %s is taken over", found)
    files.write_bytes(path, ours.to_json())
    if settle:
        time.sleep(SETTLE_S)
        found = read_holder(path)
        if found is not None and found.token != ours.token:
            raise in_use_error(root, found)


def read_holder(path: str) -> Holder | None:
    """The holder of the lease; None where there is no lease, or a damaged one.

    Raises:
        StorageError: when the object store refuses.
    """
    try:
        return Holder.from_json(files.read_bytes(path))
    except FileNotFoundError:
        return None
    except ValueError as error:
        logger.warning("the lease %s is damaged and is replaced: %s", files.shown(path), error)
        return None


def in_use_error(root: str, holder: Holder) -> RunDirError:
    """The error of a pipeline that finds the lease held."""
    return RunDirError(
        f"Run directory {files.shown(root)}",
        "must be used by one pipeline at a time",
        str(holder),
        "Wait until it has ended, or choose another --run-dir. If it has crashed, start again "
        f"{LIMIT_S:.0f} s after its last heartbeat.",
    )


def machine_id() -> str:
    """Identifies this boot of the machine and the namespace of its process ids."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"  # noqa: PTH115 (the link leads to no path)
    except OSError:
        return f"{socket.gethostname()} {uuid.getnode()}"


def process_start(pid: int) -> int | None:
    """Start of a process in clock ticks after boot, 0 where it is unknown; None when it has ended."""
    try:
        # The fields after the command in parentheses: state, parent, …; field 22 of proc(5) is the start.
        after_command = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if after_command[0] in "ZX" else int(after_command[19])
    except FileNotFoundError:
        if Path("/proc/self/stat").exists():
            return None
    except (OSError, IndexError, ValueError):
        return None
    try:  # no proc filesystem
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        return 0
    return 0


def remove_if_empty(directory: Path) -> None:
    """Remove a directory that holds nothing."""
    if directory.is_dir() and not any(directory.iterdir()):
        directory.rmdir()
