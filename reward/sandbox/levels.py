"""Sandbox levels: how strongly this machine can confine a program, and the command line for it.

| level | what holds a program |
|---|---|
| 0 | resource limits alone |
| 1 | a user of its own: it can signal no process of ours, and all of its own can be killed |
| 2 | also Landlock and seccomp: no network, and no file but its own and the interpreter's |
| 3 | also namespaces (bubblewrap): an empty root, its own processes, bounded temporary space |
| 4 | also a kernel of its own (gVisor's `runsc`) |

A level counts only when a rehearsal with it was held (`reward.sandbox.inside.child`). Nothing falls
to a lower level unless the caller allows that level.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import sys
import tempfile
from enum import IntEnum
from pathlib import Path
from typing import Any

# What a program's process imports of ours: a folder as a whole, and the packages above it.
_PACKAGES = ("reward/__init__.py", "reward/sandbox/__init__.py", "reward/sandbox/inside")
_INSIDE = "/sandbox"  # where a namespace finds our modules
_VENV_INSIDE = "/venv"
SCRATCH_INSIDE = "/scratch"
# No `-E`, which `-I` implies: it would ignore PYTHONHASHSEED. The environment is made here anyway.
_PYTHON = (
    "-s",
    "-P",
    "-c",
    """
import sys
sys.path.insert(0, sys.argv[1])
from reward.sandbox.inside.child import main
sys.path.pop(0)
script = main(sys.argv[2])
if script:  # the process of a script, with no frame of ours but this one
    with script:
        exec(script.code, script.namespace)
""",
)
ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "LANG": "C.UTF-8",
    "PYTHONHASHSEED": "0",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONINTMAXSTRDIGITS": "100000",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "ARROW_DEFAULT_MEMORY_POOL": "system",  # its own pool asks for a GiB of addresses at once
}
# The server keeps what it needs to become another user, to kill that user's processes and to empty
# a directory of its; the programs keep nothing.
_SERVER_CAPABILITIES = ("SETUID", "SETGID", "KILL", "CHOWN", "DAC_OVERRIDE", "FOWNER")
_SYSTEM_DIRECTORIES = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64")
_SYSTEM_FILES = ("/etc/ld.so.cache", "/etc/localtime", "/etc/alternatives")
_CLONE_NAMESPACES = (0x20000, *(1 << bit for bit in range(25, 31)))
_DENIED = (
    # other processes, and the kernel's own interfaces
    "ptrace process_vm_readv process_vm_writev process_madvise kcmp pidfd_getfd",
    "perf_event_open bpf userfaultfd io_uring_setup io_uring_enter io_uring_register",
    "lookup_dcookie syslog acct",
    # keys, modules, machine
    "add_key request_key keyctl init_module finit_module delete_module kexec_load",
    "kexec_file_load reboot swapon swapoff settimeofday clock_settime clock_adjtime adjtimex",
    "sethostname setdomainname iopl ioperm quotactl quotactl_fd nfsservctl vhangup",
    # namespaces and file systems
    "unshare setns mount umount2 pivot_root chroot open_tree move_mount fsopen fsconfig fsmount",
    "fspick mount_setattr name_to_handle_at open_by_handle_at fanotify_init mknod mknodat",
    # the network; pairs of sockets within a process stay
    "socket connect bind listen accept accept4 socketcall",
)


class Level(IntEnum):
    """What confines a program; see the module's table."""

    NONE = 0
    USER = 1
    KERNEL = 2
    NAMESPACES = 3
    GVISOR = 4


@functools.cache
def seccomp_filter() -> bytes:
    """The filter of levels 2 and up, as the kernel takes it. Raises OSError without libseccomp."""
    try:
        import pyseccomp  # noqa: PLC0415 - it loads the C library  # pyright: ignore[reportMissingTypeStubs]
    except (ImportError, OSError, RuntimeError) as error:
        raise OSError(f"libseccomp: {error}") from error

    rules = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
    refuse = pyseccomp.ERRNO(1)  # EPERM
    for name in " ".join(_DENIED).split():
        try:
            rules.add_rule(refuse, name)
        except (OSError, ValueError):  # unknown to this library or this architecture
            continue
    for flag in _CLONE_NAMESPACES:
        rules.add_rule(refuse, "clone", pyseccomp.Arg(0, pyseccomp.MASKED_EQ, flag, flag))
    rules.add_rule(pyseccomp.ERRNO(38), "clone3")  # ENOSYS: libraries then use clone
    with tempfile.TemporaryFile() as file:
        rules.export_bpf(file)
        file.seek(0)
        return file.read()


def python_roots() -> list[str]:
    """Directories of the interpreter and its packages that the system directories do not hold."""
    roots = {os.path.realpath(root) for root in (sys.base_prefix, sys.prefix)} | {sys.prefix}
    return sorted(root for root in roots if not _is_system(root))


def readable_paths() -> list[str]:
    """What a program may read under Landlock alone."""
    return [*_SYSTEM_DIRECTORIES, *_SYSTEM_FILES, *python_roots()]


def server_command(level: Level, settings: str, scratch_bytes: int, bundle: Path) -> list[str]:
    """The command that starts a fork server; `settings` is its argument.

    `bundle` is a directory that may be filled. Raises OSError where a program is missing.
    """
    if level < Level.NAMESPACES:
        return [sys.executable, *_PYTHON, str(_project()), settings]
    inside = [_interpreter_inside(), *_PYTHON, _INSIDE, settings]
    if level is Level.NAMESPACES:
        return [*_bubblewrap(scratch_bytes), "--", *inside]
    return _gvisor(inside, scratch_bytes, bundle)


def removal_command(level: Level, bundle: Path) -> list[str] | None:
    """What removes whatever a killed server has left behind beyond its processes, if anything."""
    if level is not Level.GVISOR:
        return None
    return ["runsc", f"--root={bundle / 'state'}", "delete", "--force", bundle.name]


def _bubblewrap(scratch_bytes: int) -> list[str]:
    program = shutil.which("bwrap")
    if program is None:
        raise OSError("bubblewrap (bwrap) is not installed")
    command = [program, "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts"]
    command += ["--unshare-cgroup-try", "--as-pid-1", "--die-with-parent", "--new-session"]
    command += ["--clearenv", "--cap-drop", "ALL"]
    if os.geteuid() == 0:
        # No user namespace: in one, programs could not have a user of their own, by whom the kernel
        # counts their processes. New ones are denied by seccomp.
        for name in _SERVER_CAPABILITIES:
            command += ["--cap-add", f"CAP_{name}"]
    else:
        command += ["--unshare-user", "--disable-userns"]
    for name, value in ENVIRONMENT.items():
        command += ["--setenv", name, value]
    for path in _SYSTEM_DIRECTORIES:
        if os.path.islink(path):
            command += ["--symlink", os.readlink(path), path]
        else:
            command += ["--ro-bind-try", path, path]
    binds = _binds()
    for parent in sorted({str(p) for path in binds.values() for p in Path(path).parents}):
        command += ["--perms", "0755", "--dir", parent]  # else only this user may pass
    for source, path in binds.items():
        command += ["--ro-bind-try", source, path]
    command += ["--proc", "/proc", "--dev", "/dev"]
    # Nothing may be stored outside the scratch directory, whose size bounds it all.
    command += ["--size", "4096", "--perms", "0555", "--tmpfs", "/dev/shm"]
    command += ["--size", str(scratch_bytes), "--perms", "0711", "--tmpfs", SCRATCH_INSIDE]
    if not _holds_tmp():
        command += ["--symlink", f"{SCRATCH_INSIDE}/cwd", "/tmp"]
    return [*command, "--chdir", "/", "--remount-ro", "/"]


def _gvisor(inside: list[str], scratch_bytes: int, bundle: Path) -> list[str]:
    """Fill an OCI bundle and return the command that runs it."""
    program = shutil.which("runsc")
    if program is None:
        raise OSError("gVisor (runsc) is not installed")
    root = bundle / "rootfs"
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True, mode=0o755)
    # Empty, because gVisor lets any user open what other processes have open through it.
    mounts = [{"destination": "/proc", "type": "tmpfs", "source": "tmpfs", "options": ["ro"]}]
    for path in _SYSTEM_DIRECTORIES:
        if os.path.islink(path):
            (root / path.lstrip("/")).symlink_to(os.readlink(path))
        elif os.path.exists(path):
            mounts.append(_oci_bind(path, path))
    if not _holds_tmp():
        (root / "tmp").symlink_to(f"{SCRATCH_INSIDE}/cwd")
    mounts += [_oci_bind(path, target) for path, target in _binds().items()]
    options = ["mode=0711", f"size={scratch_bytes}"]
    scratch = {"destination": SCRATCH_INSIDE, "type": "tmpfs", "source": "tmpfs"}
    kept = [f"CAP_{name}" for name in _SERVER_CAPABILITIES]
    spec = {
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": inside,
            "env": [f"{name}={value}" for name, value in ENVIRONMENT.items()],
            "cwd": "/",
            "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), kept),
        },
        "root": {"path": "rootfs", "readonly": True},
        "mounts": [*mounts, {**scratch, "options": options}],
        "linux": {"namespaces": [{"type": name} for name in ("pid", "network", "ipc", "mount")]},
    }
    (bundle / "config.json").write_text(json.dumps(spec))
    flags = [f"--root={bundle / 'state'}", "--platform=ptrace", "--network=none"]
    return [program, *flags, "--ignore-cgroups", "run", f"--bundle={bundle}", bundle.name]


def _oci_bind(source: str, target: str) -> dict[str, Any]:
    options = ["ro", "rbind"]
    return {"destination": target, "type": "bind", "source": source, "options": options}


def _binds() -> dict[str, str]:
    """What a namespace holds of this machine beside the system directories, and where."""
    modules = {str(_project() / name): f"{_INSIDE}/{name}" for name in _PACKAGES}
    base = os.path.realpath(sys.base_prefix)
    paths = [*_SYSTEM_FILES, *(path for path in (base, sys.base_prefix) if not _is_system(path))]
    binds = {path: path for path in paths if os.path.exists(path)}
    if sys.prefix != sys.base_prefix:
        binds[sys.prefix] = _VENV_INSIDE
    return binds | modules


def _interpreter_inside() -> str:
    """Virtual environments find themselves wherever they are put; `/tmp` is a link in there."""
    if sys.prefix == sys.base_prefix:
        return sys.executable
    return f"{_VENV_INSIDE}/bin/{os.path.basename(sys.executable)}"


def _holds_tmp() -> bool:
    """Whether the interpreter itself lies in `/tmp`, which then stays what it is."""
    return any(target.startswith("/tmp/") for target in _binds().values())


def _is_system(path: str) -> bool:
    return path.startswith("/usr/") or path == "/usr"


def _project() -> Path:
    return Path(__file__).resolve().parents[2]
