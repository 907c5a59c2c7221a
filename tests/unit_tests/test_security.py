"""What the package must never do: run what it reads, unpickle, call a shell, or log what a document says."""

from __future__ import annotations

import ast
import logging
import re
from pathlib import Path

import pytest
from models import shared_model, shared_tokenizer

import xl3m_integrations
from xl3m_integrations import XL3M

PACKAGE = Path(xl3m_integrations.__file__).parent
TESTS = Path(__file__).parents[1]
PICKLES = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
SHELLS = {"subprocess", "pty", "commands"}
RUNS_TEXT = {"eval", "exec", "compile", "__import__"}
ATTRIBUTES = {("os", "system"), ("os", "popen"), ("torch", "load"), ("numpy", "load"), ("np", "load")}


def offences(source: str) -> list[str]:
    """What a module imports or calls that it must not."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names = {str(node.module)} | {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            names = {node.func.id} & RUNS_TEXT
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            names = {f"{node.value.id}.{node.attr}"}
        elif isinstance(node, ast.keyword) and node.arg in ("shell", "allow_pickle"):
            names = {node.arg}
        else:
            continue
        forbidden = RUNS_TEXT | {"shell", "allow_pickle"} | {".".join(pair) for pair in ATTRIBUTES}
        found += [name for name in names if name in forbidden or name.partition(".")[0] in PICKLES | SHELLS]
    return found


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_module_unpickles_runs_text_or_calls_a_shell(path: Path):
    assert offences(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import loads",
        "import subprocess as s",
        "from os import system",
        "import os\nos.system('x')",
        "eval('1')",
        "run('x', shell=True)",
        "import torch\ntorch.load('x')",
    ],
)
def test_the_walk_sees_what_it_forbids(source: str):
    assert offences(source)


def test_servers_of_the_tests_listen_on_loopback_alone():
    listening = re.compile(r"(?:bind|HTTPServer|Quiet)\(\(([^,]+),|\"--host\", ([^,\]]+)")
    hosts = [
        host.strip("\"'")
        for path in sorted(TESTS.rglob("*.py"))
        if path != Path(__file__)
        for found in listening.findall(path.read_text(encoding="utf-8"))
        for host in found
        if host
    ]
    assert len(hosts) >= 3
    assert set(hosts) == {"127.0.0.1"}


def test_neither_logs_nor_the_journal_hold_what_a_document_says(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    text = "The passphrase is zanzibar-quokka. " * 40
    xl3m = XL3M.from_pretrained(model=shared_model(), tokenizer=shared_tokenizer(), segment_tokens=24)
    with caplog.at_level(logging.INFO):
        xl3m.answer(text, "What is the passphrase?", top_k=2, journal=tmp_path / "run.db")
    assert "zanzibar" not in caplog.text
    kept = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"What is the passphrase?" in kept  # what it does hold can be seen this way
    assert b"zanzibar" not in kept
