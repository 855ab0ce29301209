"""Whether a path lies on a disk of this machine or on another machine's, by the kernel's mounts.

Owns which kinds of file system are remote. Refuses to guess where the kernel says nothing: then a
path counts as near.
"""

import os
from collections.abc import Iterable
from pathlib import Path

REMOTE = frozenset(
    ["nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "lustre", "gpfs", "beegfs", "pvfs2", "afs"]
)
LOCAL_FUSE = frozenset(["fuse.fuse-overlayfs", "fuse.portal"])
"""FUSE is how most clients of remote storage mount it; these are the exceptions."""
MOUNTS = Path("/proc/self/mountinfo")


def is_remote(path: Path, mounts: Path = MOUNTS) -> bool:
    """Whether reading the file means asking another machine."""
    try:
        lines = mounts.read_text().splitlines()
    except OSError:
        return False
    kind = _kind_at(os.path.realpath(path), lines)
    return kind in REMOTE or (kind.startswith("fuse.") and kind not in LOCAL_FUSE)


def _kind_at(path: str, lines: Iterable[str]) -> str:
    """The file system's kind at a path; of mounts over each other the last one counts."""
    found, longest = "", -1
    for line in lines:
        before, _, after = line.partition(" - ")
        point = before.split()[4].encode().decode("unicode_escape")
        if len(point) >= longest and _below(path, point):
            found, longest = after.split()[0], len(point)
    return found


def _below(path: str, point: str) -> bool:
    return point in ("/", path) or path.startswith(f"{point}/")
