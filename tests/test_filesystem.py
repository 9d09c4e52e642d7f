"""A database is not opened for writing where SQLite's locks do not work, unless somebody asks for it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fetcher import StoreError, fetch
from fetcher.cli import main
from fetcher.simulator import Simulator
from fetcher.stores import filesystem
from fetcher.stores.filesystem import FileSystem, file_system_of
from tests.helpers import FAST, mirror, run

MOUNTINFO = r"""22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard
30 27 0:40 / /home rw,relatime shared:2 master:1 - nfs4 server:/home rw,vers=4.2
31 30 254:1 /x /home/local\040disk rw - xfs /dev/vdb rw
32 27 0:41 / /mnt/a\134b rw - fuse.sshfs me@host:/ rw
33 27 0:42 / /mnt/a\011tab rw - cifs //host/share rw
34 27 0:43 / /auto rw - autofs systemd-1 rw
35 34 0:44 / /auto rw - nfs server:/auto rw
a line that says nothing
36 27 0:45 / /homestead rw - virtiofs shared rw
37 27 0:46 / /run rw - tmpfs tmpfs rw
"""


def a_network(folder: Path, kind: str = "nfs4") -> str:
    """A table in which that folder is on a network file system."""
    escaped = str(folder).replace("\\", r"\134").replace(" ", r"\040")
    return f"1 0 8:1 / / rw - ext4 /dev/sda rw\n2 1 0:40 / {escaped} rw shared:7 - {kind} server:/x rw\n"


@pytest.mark.parametrize(
    ("path", "mount", "kind", "network"),
    [
        ("/var/x.db", "/", "ext4", False),
        ("/home/me/x.db", "/home", "nfs4", True),
        ("/home", "/home", "nfs4", True),
        ("/home/local disk/x.db", "/home/local disk", "xfs", False),
        ("/mnt/a\\b/x.db", "/mnt/a\\b", "fuse.sshfs", True),
        ("/mnt/a\ttab/x.db", "/mnt/a\ttab", "cifs", True),
        ("/mnt/a/x.db", "/", "ext4", False),
        ("/auto/x.db", "/auto", "nfs", True),
        ("/homestead/x.db", "/homestead", "virtiofs", False),
        ("/run/x.db", "/run", "tmpfs", False),
    ],
)
def test_the_longest_mount_point_above_a_path_holds_it(path: str, mount: str, kind: str, network: bool) -> None:
    found = file_system_of(Path(path), MOUNTINFO)
    assert found == FileSystem(Path(mount), kind)
    assert found.is_network is network


@pytest.mark.parametrize(
    "kind",
    [
        "nfs",
        "nfs4",
        "cifs",
        "smb3",
        "smbfs",
        "9p",
        "afs",
        "ceph",
        "fuse.sshfs",
        "fuse.rclone",
        "fuse.s3fs",
        "glusterfs",
        "fuse.glusterfs",
        "lustre",
        "beegfs",
        "davfs",
    ],
)
def test_what_goes_over_a_network_is_known(kind: str) -> None:
    assert FileSystem(Path("/"), kind).is_network


@pytest.mark.parametrize(
    "kind", ["ext4", "xfs", "btrfs", "zfs", "overlay", "tmpfs", "fuseblk", "fuse.mergerfs", "virtiofs"]
)
def test_what_is_local_is_left_alone(kind: str) -> None:
    assert not FileSystem(Path("/"), kind).is_network


def test_a_link_is_followed_to_where_the_file_is(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "link.db").symlink_to(tmp_path / "far" / "x.db")
    found = file_system_of(Path("link.db"), a_network(tmp_path / "far"))
    assert found is not None
    assert found.mount == tmp_path / "far"


def test_a_mount_point_that_is_no_text_is_found(tmp_path: Path) -> None:
    table = tmp_path / "mountinfo"
    folder = os.fsdecode(b"/far/\xff")
    table.write_bytes(b"1 0 8:1 / /far/\xff rw - nfs x rw\n")
    found = file_system_of(Path(folder, "x.db"), table)
    assert found == FileSystem(Path(folder), "nfs")


def test_where_there_is_no_table_nothing_is_known_and_nothing_refused(
    db: Path, shared_simulator: Simulator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert file_system_of(db, tmp_path / "none") is None
    assert file_system_of(db, "") is None
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert file_system_of(tmp_path / "loop" / "x.db", tmp_path / "none") is None
    monkeypatch.setattr(filesystem, "MOUNTINFO", tmp_path / "none")
    assert mirror(db, shared_simulator, limit=1).exit_code == 0


@pytest.fixture
def far(db: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A database to be, in a folder that is on a network file system."""
    table = tmp_path / "mountinfo"
    table.write_text(a_network(db.parent), encoding="utf-8")
    monkeypatch.setattr(filesystem, "MOUNTINFO", table)
    return db


def test_a_database_on_a_network_file_system_is_refused_and_nothing_is_made(
    far: Path, shared_simulator: Simulator
) -> None:
    before = shared_simulator.requests.total()
    with pytest.raises(StoreError) as refused:
        mirror(far, shared_simulator)
    message = str(refused.value)
    for words in (str(far), "nfs4", "locks", "local path", "ALLOW_NETWORK_FILE_SYSTEM", "--allow-network-file-system"):
        assert words in message
    assert "\n" not in message
    assert list(far.parent.iterdir()) == []
    assert shared_simulator.requests.total() == before


def test_who_asks_for_it_gets_it_with_a_warning(
    far: Path, shared_simulator: Simulator, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert mirror(far, shared_simulator, allow_network_file_system=True, limit=1).exit_code == 0
    (warning,) = [each for each in caplog.messages if "nfs4" in each]
    assert "is allowed" in warning
    with pytest.raises(SystemExit) as left:
        main(["fetch", str(far), "--allow-network-file-system", "--base-url", shared_simulator.url, "--limit", "1"])
    assert left.value.code == 0
    monkeypatch.setenv("ALLOW_NETWORK_FILE_SYSTEM", "true")
    assert fetch(db=far, api_base_url=shared_simulator.url, limit=1, **FAST).exit_code == 0


def test_the_command_line_says_so_in_one_line(db: Path, shared_simulator: Simulator, tmp_path: Path) -> None:
    table = tmp_path / "mountinfo"
    table.write_text(a_network(db.parent, "fuse.sshfs"), encoding="utf-8")
    code = f"import fetcher.stores.filesystem as f, pathlib; f.MOUNTINFO = pathlib.Path({str(table)!r})"
    done = run(shared_simulator, db, code=code)
    assert done.returncode == 6
    assert done.stderr.count("\n") == 1
    assert "fuse.sshfs" in done.stderr
