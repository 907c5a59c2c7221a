"""Every command and snippet of the README runs as written."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from importlib.metadata import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
FENCES = re.findall(r"^```(\w+)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
PYTHON = [code for language, code in FENCES if language == "python"]
COMMANDS = [
    shlex.split(line, comments=True) for language, code in FENCES if language == "bash" for line in code.splitlines()
]
SMALL = {"demo": ["--tokens", "3000", "--questions", "1", "--seed", "1"]}  # the same command on a shorter text


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the files that the README's commands name."""
    rain = "It rained again, and the ferry left on time. " * 60
    (tmp_path / "report.txt").write_text(f"{rain}The access code for the north gate is 48213. {rain}")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text(f"{rain}Edith Mwangi keeps the brass lantern in the pantry. {rain}")
    (tmp_path / "notes" / "b.txt").write_text(rain)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("number", range(len(PYTHON)))
def test_python_snippets_run_and_print_what_their_comments_say(
    number: int, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = PYTHON[number]
    exec(compile(code, f"README.md, snippet {number}", "exec"), {"__name__": "readme"})
    printed = capsys.readouterr().out.splitlines()
    for expected in re.findall(r"print\(.*\)  # (.+)", code):
        assert expected in printed


def _of(program: str) -> list[list[str]]:
    return [command for command in COMMANDS if command and Path(command[0]).name == program]


@pytest.mark.parametrize("command", [*_of("xl3m"), *_of("cat")], ids=" ".join)
def test_shell_commands_run(command: list[str], folder: Path) -> None:
    pipe = command.index("|") if "|" in command else None
    given = b"" if pipe is None else (folder / command[1]).read_bytes()
    program = command if pipe is None else command[pipe + 1 :]
    run = [sys.executable, "-m", "xl3m_integrations.cli", *program[1:], *SMALL.get(program[1], [])]
    done = subprocess.run(run, input=given, capture_output=True, check=False, cwd=folder)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.strip()


def test_make_targets_exist() -> None:
    for command in _of("make"):
        done = subprocess.run(["make", "-n", *command[1:]], capture_output=True, check=False, cwd=ROOT, text=True)
        assert done.returncode == 0, done.stderr


def test_install_commands_name_what_there_is() -> None:
    extras = set(metadata("xl3m-integrations").get_all("Provides-Extra") or [])
    for command in _of("pip"):
        named = re.findall(r"\[([\w,-]+)\]", " ".join(command))
        assert named and {extra for group in named for extra in group.split(",")} <= extras
        assert all((ROOT / command[at + 1]).is_file() for at, word in enumerate(command) if word == "-c")


def test_every_command_is_of_a_kind_that_is_tested() -> None:
    known = {"xl3m", "cat", "make", "pip"}
    others = [command for command in COMMANDS if command and Path(command[0]).name not in known]
    assert {tuple(command[1:]) for command in others} <= {("-m", "venv", ".venv"), ("-m", "pytest")}
