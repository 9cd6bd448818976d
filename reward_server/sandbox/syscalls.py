"""The seccomp filter of a child: what one Python process needs to compute, read its input and write its output.

An allow-list, built by libseccomp: a system call that is not here (or not known yet) is refused with EPERM.
Not here, on purpose: sockets, new processes, exec, ptrace and its kin, mounts, namespaces, System V and POSIX
shared memory (it escapes RLIMIT_AS), io_uring, keyrings, prctl (it could undo PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import errno
from ctypes import CDLL, POINTER, Structure, c_char_p, c_int, c_uint, c_uint32, c_uint64, c_void_p

_ALLOWED = """
    read readv pread64 preadv write writev pwrite64 close close_range fstat newfstatat stat lstat statx lseek
    _llseek fstat64 fstatat64 stat64 lstat64 mmap2 fcntl64 access faccessat faccessat2 open openat readlink
    readlinkat getdents getdents64 getcwd chdir fcntl dup dup2 dup3 pipe pipe2 poll ppoll select pselect6
    epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait eventfd eventfd2
    mmap munmap mprotect mremap madvise brk membarrier
    futex futex_waitv set_robust_list get_robust_list set_tid_address rseq sched_yield sched_getaffinity
    rt_sigaction rt_sigprocmask rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigpending sigaltstack
    nanosleep clock_nanosleep clock_gettime clock_getres gettimeofday time times getitimer setitimer alarm pause
    getpid getppid gettid getpgrp getpgid getsid getuid geteuid getgid getegid getresuid getresgid getgroups umask
    getrlimit setrlimit getrusage sysinfo uname getrandom arch_prctl restart_syscall exit exit_group
"""
_TERMINAL_QUESTIONS = (0x5401, 0x5450, 0x5451)  # TCGETS (isatty), FIONCLEX, FIOCLEX: what open() asks
_CLONE_THREAD = 0x00010000
_CLONE_NAMESPACES = 0x7E020080  # CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET; NEWTIME
_ALLOW = 0x7FFF0000
_ERRNO = 0x00050000
_NE, _EQ, _MASKED_EQ = 1, 4, 7
_UNKNOWN = -1


class _Compare(Structure):
    _fields_ = (("arg", c_uint), ("op", c_int), ("a", c_uint64), ("b", c_uint64))


class Filter:
    """Built once, before the walls hide libseccomp; each child then loads it for itself.

    Raises OSError when there is no libseccomp or it refuses a rule.
    """

    def __init__(self) -> None:
        self._library = _library()
        self._context = self._library.seccomp_init(_ERRNO | errno.EPERM)
        if not self._context:
            raise OSError("libseccomp cannot make a filter")
        for name in _ALLOWED.split():
            self._rule(_ALLOW, name)
        for request in _TERMINAL_QUESTIONS:
            self._rule(_ALLOW, "ioctl", _Compare(1, _EQ, request, 0))
        mask = _CLONE_THREAD | _CLONE_NAMESPACES
        self._rule(_ALLOW, "clone", _Compare(0, _MASKED_EQ, mask, _CLONE_THREAD))
        # Its flags lie in memory, where no filter can look; ENOSYS sends the C library back to clone.
        self._rule(_ERRNO | errno.ENOSYS, "clone3")
        self._rule(_ALLOW, "prlimit64", _Compare(0, _EQ, 0, 0))  # 0: its own limits, which it can only lower

    def load(self, pid: int) -> None:
        """Bind the calling process, whose id is `pid`, for good. It may signal itself and nobody else."""
        for name in ("kill", "tgkill"):
            self._rule(_ALLOW, name, _Compare(0, _EQ, pid, 0))
        # Sets no_new_privs too, which is what lets an ordinary user load a filter.
        _check(self._library.seccomp_load(self._context), "load the filter")

    def _rule(self, action: int, name: str, *conditions: _Compare) -> None:
        number = self._library.seccomp_syscall_resolve_name(name.encode())
        if number == _UNKNOWN:
            return  # not a call of this library's time: refused like everything unknown
        array = (_Compare * len(conditions))(*conditions)
        _check(
            self._library.seccomp_rule_add_array(self._context, action, number, len(conditions), array),
            f"add a rule for {name}",
        )


def _library() -> CDLL:
    library = CDLL("libseccomp.so.2", use_errno=True)
    library.seccomp_init.restype = c_void_p
    library.seccomp_init.argtypes = (c_uint32,)
    library.seccomp_syscall_resolve_name.argtypes = (c_char_p,)
    library.seccomp_rule_add_array.argtypes = (c_void_p, c_uint32, c_int, c_uint, POINTER(_Compare))
    library.seccomp_load.argtypes = (c_void_p,)
    return library


def _check(result: int, what: str) -> None:
    if result < 0:
        raise OSError(-result, f"libseccomp cannot {what}")
