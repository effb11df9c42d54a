"""The file system inside: built here at the `unshare` level, cleaned here at every level."""

from __future__ import annotations

import os
from typing import Any

from . import kernel

_DEVICES = ("null", "zero", "full", "random", "urandom")
_LINKS = {"fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2"}


def enclose(setting: dict[str, Any]) -> None:
    """Prepare the container around the runner, once.

    Args:
        setting: `level`; `nested`: whether we may mount; `read`: paths that stay readable;
            `scratch`: directories that programs may write to; `scratch_bytes`: their size.
    """
    if setting["level"] == "unshare":
        _build_root(setting["read"], setting["scratch"])
    elif setting["nested"]:
        # bubblewrap's mounts belong to a user namespace around ours; a copy of them is ours.
        kernel.unshare(kernel.CLONE_NEWNS)
    if setting["nested"]:
        for place in setting["scratch"]:
            _mount_scratch(place, setting)
    os.umask(0o022)


def clean(setting: dict[str, Any]) -> None:
    """Leave nothing of one program for the next."""
    if not setting["nested"]:
        return
    for place in setting["scratch"]:
        # A fresh file system instead of deleting: no hostile tree is ever walked.
        if os.listdir(place):
            os.chdir("/")
            kernel.unmount(place)
            _mount_scratch(place, setting)


def _mount_scratch(place: str, setting: dict[str, Any]) -> None:
    """An empty file system, but for what programs can read below it, as an interpreter there."""
    below = [path for path in setting["read"] if path.startswith(place + "/")]
    opened = {path: os.open(path, os.O_PATH) for path in below}  # before they are covered
    options = f"size={setting['scratch_bytes']},nr_inodes=10000,mode=1777"
    kernel.mount("tmpfs", place, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, options)
    for path, fd in opened.items():
        _bind(f"/proc/self/fd/{fd}", path)
        kernel.make_read_only(path)
        os.close(fd)


def _build_root(read: list[str], scratch: list[str]) -> None:
    """A new root with the readable paths, a few devices, /proc and empty scratch directories."""
    root = "/tmp"
    links = {path: os.readlink(path) for path in read if os.path.islink(path)}  # /bin -> usr/bin
    paths = [*(path for path in read if path not in links), *(f"/dev/{n}" for n in _DEVICES)]
    # Opened before the new root covers /tmp, so that a path below it can be bound too.
    places = {path: os.open(path, os.O_PATH) for path in paths if os.path.exists(path)}
    kernel.mount("none", "/", "", kernel.MS_REC | kernel.MS_PRIVATE)
    kernel.mount("tmpfs", root, "tmpfs", kernel.MS_NOSUID, "size=1m,mode=755")
    for path, target in links.items():
        os.symlink(target, root + path)
    for path, place in places.items():
        _bind(f"/proc/self/fd/{place}", root + path)
        if not path.startswith("/dev/"):
            kernel.make_read_only(root + path)
        os.close(place)
    for name, target in _LINKS.items():
        os.symlink(target, f"{root}/dev/{name}")
    for place_name in ["/proc", *scratch]:
        os.makedirs(root + place_name, exist_ok=True)
    flags = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC
    # Programs and runner are the same user here; so programs see no processes but their own.
    kernel.mount("proc", root + "/proc", "proc", flags, "hidepid=2")
    for name in ("sys", "sysrq-trigger", "irq", "bus"):
        if os.path.exists(f"{root}/proc/{name}"):
            _bind(f"{root}/proc/{name}", f"{root}/proc/{name}")
            kernel.make_read_only(f"{root}/proc/{name}")
    kernel.pivot_root(root)
    kernel.mount("none", "/", "", kernel.MS_REMOUNT | kernel.MS_BIND | kernel.MS_RDONLY)


def _bind(source: str, target: str) -> None:
    if not os.path.exists(target):
        if os.path.isdir(source):
            os.makedirs(target)
        else:
            os.makedirs(os.path.dirname(target), exist_ok=True)
            with open(target, "w"):
                pass
    kernel.mount(source, target, "", kernel.MS_BIND | kernel.MS_REC)
