"""Which paths are on another machine's disk, from what the kernel says is mounted."""

from pathlib import Path

import pytest

from nearfield.mounts import is_remote

MOUNTS = r"""
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:26 / /srv/nearfield rw,relatime shared:12 - nfs4 10.77.0.2:/srv/nearfield rw,vers=4.2
31 30 0:27 / /srv/nearfield/scratch rw - tmpfs tmpfs rw
32 22 0:40 / /home/ann/far rw,nosuid - fuse.sshfs ann@far:/data rw,user_id=1000
33 22 0:41 / /mnt/with\040space rw - cifs //server/share rw
34 22 0:42 / /containers rw - fuse.fuse-overlayfs fuse-overlayfs rw
35 22 0:43 / /covered rw - nfs server:/old rw
36 22 0:44 / /covered rw - xfs /dev/vdb rw
"""


@pytest.fixture
def mounts(tmp_path):
    path = tmp_path / "mountinfo"
    path.write_text(MOUNTS.strip() + "\n")
    return path


@pytest.mark.parametrize(
    ("path", "remote"),
    [
        ("/var/lib/run", False),
        ("/srv/nearfield/job/vectors.npy", True),
        ("/srv/nearfield", True),
        ("/srv/nearfieldish", False),
        ("/srv/nearfield/scratch/x", False),
        ("/home/ann/far/run", True),
        ("/mnt/with space/run", True),
        ("/containers/run", False),
        ("/covered/run", False),
    ],
)
def test_the_kind_of_the_innermost_and_last_mount_decides(mounts, path, remote):
    assert is_remote(Path(path), mounts) is remote


def test_where_the_kernel_says_nothing_all_is_near(tmp_path):
    assert not is_remote(tmp_path, tmp_path / "none")


def test_this_machines_own_folder_is_near(tmp_path):
    assert not is_remote(tmp_path)
