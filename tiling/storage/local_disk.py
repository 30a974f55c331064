"""Disks of this machine, told from file systems that lie across a network."""

from __future__ import annotations

from pathlib import Path

import psutil

LOCAL = frozenset(
    ("apfs", "bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "hfs", "jfs", "overlay", "tmpfs", "ufs", "xfs", "zfs")
)


def is_local_disk(path: Path) -> bool:
    """True if a place lies on this machine's own disks; False where its file system isn't known to."""
    real = path.resolve()
    mounts = {Path(each.mountpoint): each.fstype for each in psutil.disk_partitions(all=True)}
    return next((mounts[place] for place in (real, *real.parents) if place in mounts), "") in LOCAL
