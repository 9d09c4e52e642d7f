"""Which file system a path is on, and whether SQLite can be trusted there."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fetcher.errors import StoreError

MOUNTINFO = Path("/proc/self/mountinfo")
"""Linux's table of what is mounted where (proc_pid_mountinfo(5)); elsewhere there is none, and nothing is known."""

NETWORK = frozenset(
    {
        *("9p", "afpfs", "afs", "beegfs", "blobfuse2", "ceph", "ceph-fuse", "cifs", "coda"),
        *("curlftpfs", "davfs", "davfs2", "gcsfuse", "glusterfs", "goofys", "gpfs", "gvfsd-fuse", "juicefs"),
        *("lustre", "ncpfs", "nfs", "nfs4", "orangefs", "rclone", "s3fs", "smb3", "smbfs"),
        *("smbnetfs", "sshfs"),
    }
)
"""Types that reach files over a network, or as 9p does over what behaves like one; FUSE's without their `fuse.`.

virtiofs is not among them: the files are the host's, but the kernel that maps and locks them is this one, so that all
goes well as long as no other machine opens the database.
"""

IN_MEMORY = frozenset({"tmpfs", "ramfs"})
"""Types whose files are gone after a reboot."""

_ESCAPED = re.compile(rb"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class FileSystem:
    """What holds a path: where it is mounted, and its type as the kernel names it."""

    mount: Path
    kind: str

    @property
    def is_network(self) -> bool:
        """Whether it is reached over a network, where SQLite's locks and write-ahead log do not work."""
        return self.kind.removeprefix("fuse.") in NETWORK

    @property
    def is_in_memory(self) -> bool:
        """Whether a reboot empties it."""
        return self.kind in IN_MEMORY


def file_system_of(path: Path, mountinfo: str | Path | None = None) -> FileSystem | None:
    """What holds `path`, which need not exist yet: the longest mount point above it, of several there the last.

    `mountinfo` is the table's text, or where to read it. None where nobody can tell.
    """
    try:
        # First this: a folder that is mounted when somebody looks into it is not in the table before.
        resolved = path.resolve()
        table = _read(MOUNTINFO if mountinfo is None else mountinfo)
    except (OSError, RuntimeError):
        return None
    found = None
    for line in table.splitlines():
        before, separator, after = line.partition(b" - ")
        fields = before.split(b" ")
        if not separator or len(fields) < 5:
            continue
        mount = Path(os.fsdecode(_ESCAPED.sub(lambda octal: bytes([int(octal[1], 8) & 0xFF]), fields[4])))
        if resolved.is_relative_to(mount) and (found is None or len(mount.parts) >= len(found.mount.parts)):
            found = FileSystem(mount, os.fsdecode(after.split(b" ")[0]))
    return found


def refuse_network(path: Path, *, allowed: bool = False, warn: Callable[[str], None] = lambda _: None) -> None:
    """Raise StoreError when `path` is on a network file system, or only `warn` when that is `allowed`."""
    found = file_system_of(path)
    if found is None or not found.is_network:
        return
    where = f"{path} is on a network file system ({found.kind} at {found.mount})"
    why = "SQLite's locks and its write-ahead log do not work there, and the database may be damaged"
    if not allowed:
        raise StoreError(
            f"{where}: {why}: name a local path, or allow it with ALLOW_NETWORK_FILE_SYSTEM"
            " (--allow-network-file-system)"
        )
    warn(f"{where}, which is allowed: {why}; let no other machine open it")


def _read(mountinfo: str | Path) -> bytes:
    return os.fsencode(mountinfo) if isinstance(mountinfo, str) else mountinfo.read_bytes()
