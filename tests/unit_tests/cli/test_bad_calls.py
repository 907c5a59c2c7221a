"""What goes wrong on the command line: one line that says what, the exit code, and no traceback."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from command_line import run, write
from models import QUESTION, text_of

from xl3m_integrations import XL3M


@pytest.mark.parametrize(("path", "words"), [("none/map.html", "does not exist; make it first"), (".", "is a folder")])
def test_a_page_that_cannot_be_written_is_refused_before_the_work(folder: Path, path: str, words: str):
    write(folder, a="Text.")
    result = run("ask", "a.txt", "-q", QUESTION, "--model", "no-such-model", "--html", path)
    assert result.exit_code == 2
    assert words in result.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["missing.txt"], 2, "missing.txt does not exist"),
        (["*.none"], 2, "no file matches"),
        (["sub"], 2, "sub is a folder"),
        (["[/]"], 2, "does not exist"),
        (["broken.txt"], 1, "broken.txt is not utf-8 text: byte 3 is 0xff"),
        (["a.txt", "--encoding", "utf-99"], 2, "utf-99"),
        (["broken.txt", "--encoding", "hex"], 2, "hex"),
        (["empty.txt"], 1, "document is empty"),
        (["blank.txt"], 1, "document is empty"),
        (["a.txt", "-q", ""], 1, "question is empty"),
        (["a.txt", "-q", "Why? " * 400], 1, "horten the question"),
        (["a.txt", "--measure", "vibes"], 2, "Unknown measure 'vibes'"),
        (["a.txt", "--measure", "[/]"], 2, "Unknown measure '[/]'"),
        (["a.txt", "--top-k", "0"], 2, "top_k is 0"),
        (["a.txt", "--top-k", "many"], 2, "integer"),
        (["a.txt", "--token-budget", "3"], 2, "token_budget is 3"),
        (["a.txt", "--prefilter", "0"], 2, "n is 0"),
        (["a.txt", "--top-k", "3", "--token-budget", "100"], 2, "alternatives"),
        (["a.txt", "--segment-tokens", "1"], 2, "segment_tokens is 1"),
        (["a.txt", "--model", "./no-such-model"], 1, "does not exist"),
        (["a.txt", "--model", "sub"], 1, "no config.json"),
        (["a.txt", "--device", "toaster"], 2, "toaster"),
        (["a.txt", "--dtype", "float33"], 2, "float33"),
        (["a.txt", "--backend", "opnai"], 2, "choose one of transformers, openai, ray"),
        (["a.txt", "--num-replicas", "2"], 2, "backend='transformers' does not take 'num_replicas'"),
        (["a.txt", "--base-url", "http://127.0.0.1:9/v1"], 2, "does not take 'base_url'"),
        (["a.txt", "--backend", "openai", "--device", "cpu"], 2, "backend='openai' does not take 'device'"),
        (["a.txt", "--backend", "openai", "--concurrency", "0"], 2, "concurrency 0"),
        (["a.txt", "--backend", "openai", "--measure", "blend", "--window", "200"], 2, "measure='entropy'"),
        (["a.txt", "--backend", "ray", "--num-replicas", "0"], 2, "num_replicas is 0"),
        (["a.txt", "--backend", "ray", "--address", "127.0.0.1"], 2, "No Ray cluster is found"),
        (["a.txt", "--no-such-option"], 2, "no-such-option"),
        ([], 2, "FILE"),
    ],
)
@pytest.mark.parametrize("command", ["select", "ask"])
def test_bad_calls(folder: Path, model: str, command: str, arguments: list[str], code: int, words: str):
    write(folder, a=text_of(1_500), empty="", blank=" \n")
    (folder / "broken.txt").write_bytes(b"abc\xff\xfe")
    (folder / "sub").mkdir()
    question = [] if "-q" in arguments else ["-q", QUESTION]
    named = [] if "--model" in arguments else ["--model", model]
    result = run(command, *arguments, *question, *named)
    assert result.exit_code == code, result.output
    shown = " ".join(result.stderr.replace("│", " ").split())
    assert words in shown
    assert "Traceback" not in result.output
    assert result.stdout == ""


def test_a_server_needs_the_models_name(folder: Path):
    write(folder, a="Text.")
    result = run("ask", "a.txt", "-q", QUESTION, "--backend", "openai")
    assert result.exit_code == 2
    assert "--model" in result.stderr


def test_a_question_must_be_given(folder: Path, model: str):
    write(folder, a="Text.")
    result = run("ask", "a.txt", "--model", model)
    assert result.exit_code == 2
    assert "--question" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["demo", "--tokens", "10"], "tokens is 10"),
        (["demo", "--tokens", "1000", "--questions", "0"], "questions 0"),
        (["bench", "--tokens", "10"], "tokens is 10"),
        (["bench", "--tokens", "1000", "--repeats", "0"], "repeats is 0"),
        (["bench", "--tokens", "1000", "--measure", "vibes"], "vibes"),
    ],
)
def test_bad_demonstrations(model: str, arguments: list[str], words: str):
    result = run(*arguments, "--model", model)
    assert result.exit_code == 2, result.output
    assert words in " ".join(result.stderr.split())
    assert "Traceback" not in result.output


def test_debug_shows_where(folder: Path, model: str):
    write(folder, a=text_of(500))
    result = run("select", "a.txt", "-q", QUESTION, "--model", model, "--top-k", "0", "--debug")
    assert type(result.exception).__name__ == "SettingError"  # left to the interpreter, which prints the traceback


def test_an_error_that_no_one_foresaw_is_one_line(folder: Path, model: str, monkeypatch: pytest.MonkeyPatch):
    def fail(*args: Any, **how: Any) -> Any:
        raise ZeroDivisionError("[/] division by zero")

    monkeypatch.setattr(XL3M, "select", fail)
    write(folder, a=text_of(500))
    result = run("select", "a.txt", "-q", QUESTION, "--model", model)
    assert result.exit_code == 1
    assert "ZeroDivisionError: [/] division by zero" in result.stderr
    assert "--debug" in result.stderr
    assert "Traceback" not in result.output


def test_an_interrupt(folder: Path, model: str, monkeypatch: pytest.MonkeyPatch):
    def interrupt(*args: Any, **how: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(XL3M, "select", interrupt)
    write(folder, a=text_of(500))
    result = run("select", "a.txt", "-q", QUESTION, "--model", model)
    assert result.exit_code == 130
    assert "Interrupted" in result.stderr


def test_without_a_command_there_is_help():
    result = run()
    for command in ("demo", "ask", "select", "bench"):
        assert command in result.output
    assert run("--help").exit_code == 0
    assert run("nonsense").exit_code == 2
