"""What code in the sandbox can see and reach of the machine, and what happens without walls."""

import json
import os
import platform
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.sandbox_fixtures import Box

from interlace.tools.python.sandbox.probe import probe
from interlace.tools.python.walls import namespaces, seccomp

CALLS = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *arguments):
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long(number), *arguments)
    return os.strerror(ctypes.get_errno()) if result < 0 else 'done'
"""


def test_the_environment_holds_no_secret(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    os.environ["INTERLACE_TEST_SECRET"] = "very secret"  # the zygote of this tool is older
    try:
        result = box.cell("import os; [v for v in os.environ.values() if 'secret' in v]")
        init = box.cell("open('/proc/1/environ').read()")
        ours = box.cell(f"open('/proc/{os.getpid()}/environ').read()")
    finally:
        del os.environ["INTERLACE_TEST_SECRET"]
    assert result.text == "[]"
    assert not init.ok and not ours.ok


def test_files_outside_can_not_be_read_listed_made_or_changed(box: Box, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("very secret")
    secret.chmod(0o666)
    codes = [
        f"open({str(secret)!r}).read()",
        f"open({str(secret)!r}, 'a').write('x')",
        f"import os; os.listdir({str(tmp_path)!r})",
        f"open({str(tmp_path / 'new')!r}, 'w')",
        f"import os; os.remove({str(secret)!r})",
        f"import os; os.rename({str(secret)!r}, 'mine')",
        f"import os; os.link({str(secret)!r}, 'mine'); open('mine').read()",
        f"import os; os.symlink({str(secret)!r}, 'link'); open('link').read()",
        "open('/etc/shadow').read()",
        "import os; os.listdir(os.path.expanduser('~root/.ssh'))",
        "open('/usr/bin/mine', 'w')",
        "import os, sys; open(os.path.join(sys.prefix, 'mine'), 'w')",
        "open('/dev/mem', 'rb').read(1)",
        "open('/sys/kernel/mm/x', 'w')",
        "open('/proc/sys/kernel/hostname', 'w').write('x')",
        "open('/proc/sysrq-trigger', 'w').write('x')",
    ]
    for code, result in zip(codes, box.cells(*codes), strict=True):
        assert not result.ok, code
        assert any(
            kind in result.text
            for kind in ("PermissionError", "FileNotFoundError", "OSError", "NotADirectoryError")
        ), (code, result.text)
    assert secret.read_text() == "very secret"
    assert os.listdir(tmp_path) == ["secret"]
    before = secret.stat()
    box.cell(f"import os; os.chmod({str(secret)!r}, 0o000); os.utime({str(secret)!r}, (1, 1))")
    box.cell(f"import os; os.setxattr({str(secret)!r}, 'user.x', b'x')")
    assert secret.stat() == before and os.listxattr(secret) == []


def test_processes_outside_can_not_be_seen_signalled_or_traced(box: Box) -> None:
    child = subprocess.Popen(["sleep", "60"])
    try:
        codes = [
            f"import os; os.kill({child.pid}, 9)",
            f"import os; os.killpg({os.getpgid(child.pid)}, 0)",
            f"open('/proc/{child.pid}/cmdline').read()",
            f"import os; os.pidfd_open({child.pid})\nraise OSError('no way to use it')",
            f"import os; os.sched_setaffinity({child.pid}, {{0}})",
            f"import os; os.setpriority(os.PRIO_PROCESS, {child.pid}, 19)",
            f"import resource; resource.prlimit({child.pid}, resource.RLIMIT_CPU, (1, 1))",
            "import os; os.kill(-1, 0)",
        ]
        *results, everything = box.cells(*codes)
        for code, result in zip(codes, results, strict=False):
            assert not result.ok, (code, result.text)
        assert everything.text in ("(no output)",) or not everything.ok
        assert child.poll() is None
    finally:
        child.kill()
        child.wait()


def test_two_sessions_can_not_reach_each_other(box: Box) -> None:
    async def main() -> None:
        async with box.tool.session() as one, box.tool.session() as two:
            made = await one.call(
                {
                    "code": "import os\nopen('mine', 'w').write('1'); os.chmod('mine', 0o666)\n"
                    "os.getpid(), os.path.abspath('mine')"
                },
                20,
            )
            pid, path = made.text.strip("()").split(", ")
            assert "mine" not in (await two.call({"code": "import os; os.listdir()"}, 20)).text
            if box.tier == "confined":  # elsewhere the same names are its own things
                for code in (f"open({path}).read()", f"import os; os.kill({pid}, 9)"):
                    assert not (await two.call({"code": code}, 20)).ok
            assert (await one.call({"code": "open('mine').read()"}, 20)).text == "'1'"

    box.run(main())


def test_there_is_no_network(box: Box) -> None:
    codes = [
        "socket.create_connection(('192.0.2.1', 80), 2)",
        "socket.create_connection(('169.254.169.254', 80), 2)",
        "socket.getaddrinfo('example.org', 80)",
        "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.sendto(b'x', ('192.0.2.1', 53))",
        "s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); s.sendto(b'x', ('2001:db8::', 5))",
        "socket.socket(socket.AF_INET, socket.SOCK_RAW)",
        "socket.socket(socket.AF_PACKET, socket.SOCK_RAW)",
        "socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)",
        "socket.socket(socket.AF_ALG, socket.SOCK_SEQPACKET)",
        "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 9)",
        "s = socket.socket(socket.AF_UNIX); s.connect('/run/dbus/system_bus_socket')",
        "s = socket.socket(socket.AF_UNIX); s.connect('/var/run/docker.sock')",
        "s = socket.socket(socket.AF_UNIX); s.connect('\\0interlace-test-outside')",
    ]
    with socket.socket(socket.AF_UNIX) as outside:
        outside.bind("\0interlace-test-outside")
        outside.listen()
        _, *results = box.cells("import socket", *codes)
    for code, result in zip(codes, results, strict=True):
        assert not result.ok, code
        assert "error" in result.text.splitlines()[-1].lower()


@pytest.mark.skipif(platform.machine() != "x86_64", reason="numbers of x86_64")
def test_calls_by_which_walls_are_climbed_are_refused(box: Box) -> None:
    codes = {
        "unshare": "call(272, 0x10000000)",
        "unshare mounts": "call(272, 0x20000)",
        "setns": "call(308, 0, 0)",
        "clone in a namespace": "call(56, 0x10000000 | 17, 0, 0, 0, 0)",
        "a thread with descriptors of its own": "call(56, 0x10900, 0, 0, 0, 0)",
        "descriptors of one's own": "call(436, 250, 251, 2)",
        "mount": "call(165, b'none', b'/', b'tmpfs', 0, 0)",
        "umount": "call(166, b'/proc', 2)",
        "pivot_root": "call(155, b'/', b'/')",
        "chroot": "call(161, b'/')",
        "ptrace": "call(101, 0, 0, 0, 0)",
        "process_vm_readv": "call(310, 1, 0, 0, 0, 0, 0)",
        "bpf": "call(321, 0, 0, 0)",
        "perf_event_open": "call(298, 0, 0, 0, 0, 0)",
        "io_uring_setup": "call(425, 1, 0)",
        "inotify_add_watch": "call(254, 0, b'/', 2)",
        "listmount": "call(458, 0, 0, 0, 0)",
        "userfaultfd": "call(323, 0)",
        "keyctl": "call(250, 0, 0, 0, 0, 0)",
        "add_key": "call(248, 0, 0, 0, 0, 0)",
        "open_by_handle_at": "call(304, 0, 0, 0)",
        "init_module": "call(175, 0, 0, 0)",
        "settimeofday": "call(164, 0, 0)",
        "clock_settime": "call(227, 0, ctypes.create_string_buffer(16))",
        "sethostname": "call(170, b'x', 1)",
        "personality": "call(135, 0)",
        "kexec_load": "call(246, 0, 0, 0, 0)",
        "reboot": "call(169, 0, 0, 0, 0)",
    }
    body = "".join(f"print({name!r}, {code}, sep=': ')\n" for name, code in codes.items())
    result = box.cell(CALLS + body)
    assert result.text.splitlines() == [f"{name}: Operation not permitted" for name in codes]
    others = box.cell(CALLS + "call(435, 0, 0), call(0x40000000 | 39), call(9999)")
    assert others.text.count("Function not implemented") == 3


def test_a_crash_starts_no_handler_of_core_dumps(box: Box) -> None:
    """The kernel starts one, outside, at any limit but 1, if the machine has one (core(5))."""
    kept = box.cell(
        "import resource\n"
        "for limit in ((0, 1), (0, 0)):\n"
        "    resource.setrlimit(resource.RLIMIT_CORE, limit)\n"
        "    resource.prlimit(0, resource.RLIMIT_CORE, limit)\n"
        "resource.getrlimit(resource.RLIMIT_CORE)"
    )
    assert kept.text == "(1, 1)"


def test_there_is_no_privilege(box: Box) -> None:
    result = box.cell("""
import ctypes, os, struct
data = ctypes.create_string_buffer(24)
ctypes.CDLL(None).capget(struct.pack('Ii', 0x20080522, 0), data)
ctypes.CDLL(None).prctl(39, 0, 0, 0, 0), any(data.raw)
""")
    assert result.text == "(1, False)"
    assert not box.cell("import os; os.setuid(12345)").ok


def test_programs_that_cells_start_are_inside_as_well(box: Box, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("very secret")
    result = box.cell(
        "import subprocess\n"
        f"subprocess.run(['cat', {str(tmp_path / 'secret')!r}], capture_output=True).returncode"
    )
    assert result.ok and result.text != "0"
    inside = box.cell(
        "import subprocess, sys\n"
        "subprocess.run([sys.executable, '-c', 'import sympy; print(6 * 7)'],"
        " capture_output=True, text=True).stdout"
    )
    assert inside.text == "'42\\n'"


def test_temporary_files_have_a_place_inside(box: Box) -> None:
    code = "import tempfile\nwith tempfile.NamedTemporaryFile('w') as f: print(f.write('x' * 9))"
    assert box.cell(code).text == "9"


def test_every_wall_is_tried_and_the_answer_said() -> None:
    answers = probe()
    assert {"landlock", "system-call filter", "user namespace", "mount namespace"} <= set(answers)
    assert all(answers.values())
    if sys.platform == "linux" and os.geteuid() == 0:
        assert answers["list of child processes"] == "ok"


REFUSED = """
import asyncio, json, sys
from support.denied_syscalls import refuse
from interlace.tools import PythonTool
from interlace.tools.errors import ToolUnavailable

async def main():
    said = {}
    for isolation in ("auto", "full", "confined"):
        try:
            async with PythonTool(isolation=isolation) as tool, tool.session() as session:
                result = await session.call({"code": "6 * 7"}, 30)
                said[isolation] = [result.text, result.details["isolation"]]
        except ToolUnavailable as error:
            said[isolation] = str(error)
    print(json.dumps(said))

if sys.argv[1:]: refuse(*sys.argv[1:])
asyncio.run(main())
"""


def where(*refused: str, root: bool = True) -> dict[str, object]:
    """What each isolation gives on a machine that refuses these system calls.

    `root=False`: to a user without any privilege.
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(REFUSED), *refused],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        preexec_fn=None if root else lambda: namespaces.new_user_namespace(1000),
    )
    said: dict[str, object] = json.loads(done.stdout)
    return said


def test_where_namespaces_are_refused_the_tool_is_confined() -> None:
    said = where("unshare", "mount")
    assert said["auto"] == said["confined"] == ["42", "confined"]
    assert "namespace" in str(said["full"]) and "isolation='none'" in str(said["full"])


def test_root_is_not_needed() -> None:
    try:
        said = where(root=False)
    except subprocess.SubprocessError:
        pytest.skip("users may not make namespaces here")
    assert said["auto"] == said["full"] == ["42", "full"]
    assert said["confined"] == ["42", "confined"] or "signal a process" in str(said["confined"])


def test_where_too_little_is_left_the_tool_refuses() -> None:
    said = where("unshare", "landlock")
    for isolation in ("auto", "full", "confined"):
        assert isinstance(said[isolation], str)
        assert "can't be isolated here" in str(said[isolation])
    assert "Landlock" in str(said["auto"]) and "namespace" in str(said["auto"])


TRIALS = """
import ctypes, json, os, sys
from interlace.tools.python.walls import landlock
from interlace.tools.python.walls.self_test import failure_in_child, self_test

canary, outsider = sys.argv[1], os.getpid()
def behind(*rules):
    ctypes.CDLL(None).prctl(38, 1, 0, 0, 0)
    landlock.restrict(rules)
    self_test(canary, outsider)

print(json.dumps([
    failure_in_child(lambda: self_test(canary, outsider)),
    failure_in_child(lambda: behind(("/proc", landlock.READ))),
    failure_in_child(lambda: behind(("/proc", "no rights"))),
    failure_in_child(lambda: os._exit(0)),
    failure_in_child(lambda: None),
]))
"""


def test_a_trial_names_what_code_could_do_and_what_failed(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    canary.touch()
    program = [sys.executable, "-c", TRIALS, str(canary)]
    done = subprocess.run(program, capture_output=True, text=True, check=True)
    bare, one_wall, broken, died, well = json.loads(done.stdout)
    for hole in ("read a file", "make a file", "list files", "see other", "signal", "trace"):
        assert hole in bare
    assert "file" not in one_wall and one_wall.startswith("code could see other processes")
    assert "unsupported operand" in broken and "code could" not in broken
    assert "died" in died and well == ""


@given(st.sampled_from(sorted(seccomp.MACHINES)), st.booleans())
def test_every_jump_of_the_filter_stays_inside(machine: str, same_user: bool) -> None:
    code = seccomp.program(machine, [1, 2, 10, 16], same_user)
    steps = len(code) // 8
    assert steps < 4096  # the kernel's limit
    import struct

    for place in range(steps):
        operation, yes, no, _ = struct.unpack_from("HBBI", code, 8 * place)
        if operation in (seccomp.EQUAL, seccomp.ABOVE, seccomp.ANY_BIT):
            assert place + 1 + max(yes, no) < steps


def test_both_machines_know_the_same_calls() -> None:
    old = {  # calls that newer machines were never given
        "modify_ldt", "iopl", "ioperm", "uselib", "ustat", "sysfs", "_sysctl", "create_module",
        "query_module", "chmod", "chown", "lchown", "utime", "utimes", "futimesat",
    }  # fmt: skip
    x86_64, aarch64 = (set(seccomp.MACHINES[name].numbers) for name in ("x86_64", "aarch64"))
    assert x86_64 - aarch64 == old and aarch64 <= x86_64
    assert Path("/proc/self/status").exists() or sys.platform != "linux"
