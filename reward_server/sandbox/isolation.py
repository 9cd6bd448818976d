"""The sandbox around the supervisor: what it sees of files, processes and the network, and who it is.

`namespaces`: mount, pid, network, IPC, UTS and cgroup namespaces of its own, made as root where we are root,
else inside a user namespace. Its whole file system is one read-only folder: the standard library.
`landlock`: for containers that refuse namespaces. The kernel lets it open nothing but the standard library;
other processes stay visible by number, but the filter of `syscalls` leaves no call that reaches them.
`bubblewrap` builds the same as `namespaces` from outside (`host` has its arguments); nothing is left to do here.

Both end as an ordinary user without capabilities. A kernel that refuses a step raises OSError: no half-built sandbox.
"""

from __future__ import annotations

import os
import struct
import sys

from . import libc

_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNS = 0x00020000
# pid, network, IPC, UTS, cgroup, mounts
_NAMESPACES = 0x20000000 | 0x40000000 | 0x08000000 | 0x04000000 | 0x02000000 | _CLONE_NEWNS
_MS_BIND, _MS_REC, _MS_PRIVATE, _MS_REMOUNT, _MS_RDONLY = 4096, 16384, 1 << 18, 32, 1
_MS_NOSUID_NODEV = 2 | 4
_MNT_DETACH = 2
_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000
_SYS_MOUNT_SETATTR = 442  # calls from 424 on have one number on every architecture
_SYS_LANDLOCK = (444, 445, 446)  # create_ruleset, add_rule, restrict_self
_LANDLOCK_READ = 1 << 2 | 1 << 3  # read a file, list a folder
_LANDLOCK_ALL_V1 = (1 << 13) - 1  # every right of the first version, 5.13: execute, write, make, remove, ...
_FIRST_UID = 30_000  # the uids between the people and the services; each sandbox takes one of its own
_NOBODY = 65534  # who an ordinary user is, seen from inside
_MOUNT_POINT = "/tmp"  # covered in the private mount namespace only


def library_folders() -> list[str]:
    """The standard library of this interpreter, extension modules included."""
    folders = {os.path.realpath(path) for path in sys.path if os.path.isdir(path)}
    return sorted(path for path in folders if not any(path.startswith(other + "/") for other in folders))


def build(mechanism: str, folders: list[str]) -> None:
    """Wall in this process, and return in it (or, for namespaces, in the child that goes on as pid 1)."""
    if mechanism == "namespaces":
        _namespaces(folders)
    elif mechanism == "landlock":
        _become_nobody()
        _landlock(folders)
    elif mechanism != "bubblewrap":
        raise OSError(f"no such mechanism: {mechanism}")
    libc.drop_capabilities()


def _namespaces(folders: list[str]) -> None:
    if os.geteuid() == 0 and libc.unshare(_NAMESPACES, refusal_allowed=True):
        in_user_namespace = False
    else:
        _become_nobody()
        uid, gid = os.getuid(), os.getgid()
        libc.unshare(_NAMESPACES | _CLONE_NEWUSER)
        for name, content in (
            ("setgroups", "deny"),
            ("uid_map", f"{_NOBODY} {uid} 1"),
            ("gid_map", f"{_NOBODY} {gid} 1"),
        ):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(content)
        in_user_namespace = True
    uid = _own_uid()
    _continue_as_pid_1()
    _make_root(folders)
    if not in_user_namespace:
        _become_nobody(uid)


def _continue_as_pid_1() -> None:
    """Unsharing the pid namespace binds children only: a child goes on, this process waits for it and ends."""
    child = os.fork()
    if child == 0:
        libc.die_with_parent()
        return
    for fd in range(3, 16):  # a pipe held here would keep its reader waiting after the child's end
        try:
            os.close(fd)
        except OSError:
            continue
    os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) & 0xFF)


def _make_root(folders: list[str]) -> None:
    """A file system of nothing but `folders` and /dev/null, all read-only, and away with the old one."""
    libc.mount(None, "/", None, _MS_REC | _MS_PRIVATE)  # no mount of ours reaches the machine
    libc.mount("tmpfs", _MOUNT_POINT, "tmpfs", _MS_NOSUID_NODEV, "size=64k,mode=755")
    sources = [os.open(path, os.O_PATH) for path in folders]  # they may lie below the mount point
    for path, source in zip(folders, sources, strict=True):
        inside = _MOUNT_POINT + path
        os.makedirs(inside, 0o755)
        libc.mount(f"/proc/self/fd/{source}", inside, None, _MS_BIND | _MS_REC)
        os.close(source)
        # struct mount_attr: read-only, nosuid, nodev; nothing cleared
        attributes = struct.pack("=4Q", _MS_RDONLY | _MS_NOSUID_NODEV, 0, 0, 0)
        libc.syscall(_SYS_MOUNT_SETATTR, _AT_FDCWD, inside.encode(), _AT_RECURSIVE, attributes, len(attributes))
    os.mkdir(f"{_MOUNT_POINT}/dev", 0o755)
    os.close(os.open(f"{_MOUNT_POINT}/dev/null", os.O_CREAT | os.O_WRONLY, 0o644))
    libc.mount("/dev/null", f"{_MOUNT_POINT}/dev/null", None, _MS_BIND)
    os.chdir(_MOUNT_POINT)
    libc.pivot_root(".", ".")  # the old root now lies over the new one
    libc.unmount(".", _MNT_DETACH)
    libc.mount(None, "/", None, _MS_REMOUNT | _MS_BIND | _MS_RDONLY | _MS_NOSUID_NODEV)
    os.chdir("/")


def _own_uid() -> int:
    """One uid for each sandbox: RLIMIT_NPROC counts by uid, and a sandbox must not spend another's threads."""
    return _FIRST_UID + os.getpid() % _FIRST_UID


def _become_nobody(uid: int | None = None) -> None:
    """From root to a uid that owns nothing; an ordinary user stays who it is."""
    if os.geteuid() != 0:
        return
    uid = _own_uid() if uid is None else uid
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    libc.set_dumpable()  # else /proc/self/uid_map would still be root's to write
    libc.die_with_parent()  # the kernel forgets it when the uid changes


def _landlock(folders: list[str]) -> None:
    create, add, restrict = _SYS_LANDLOCK
    handled = struct.pack("=Q", _LANDLOCK_ALL_V1)
    ruleset = libc.syscall(create, handled, len(handled), 0)
    for path in folders:
        folder = os.open(path, os.O_PATH)
        rule = struct.pack("=Qi", _LANDLOCK_READ, folder)
        libc.syscall(add, ruleset, 1, rule, 0)
        os.close(folder)
    libc.no_new_privileges()
    libc.syscall(restrict, ruleset, 0)
    os.close(ruleset)
