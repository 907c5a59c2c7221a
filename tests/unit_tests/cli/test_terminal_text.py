"""What looks like markup or controls the terminal, in documents, file names and answers: it is shown as text."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import run, write
from models import QUESTION, text_of

from xl3m_integrations import XL3M, cli, demo
from xl3m_integrations.demo import Asked
from xl3m_integrations.types import Answer, KeyContext, ScoredSegment

MARKUP = "[bold]not bold[/bold] [/] [/red] \\[/] [link=x] :warning: [[ ]] \\"


@pytest.mark.parametrize("command", ["select", "ask"])
def test_markup_in_a_document_is_text(folder: Path, model: str, command: str):
    write(folder, a=f"{MARKUP} {text_of(30)} {MARKUP}")
    result = run(command, "a.txt", "-q", f"{MARKUP}?", "--model", model, "--top-k", "99")
    assert result.exit_code == 0, result.output
    assert result.stdout.count(MARKUP) == 2


@pytest.mark.parametrize("name", ["[bold]a.txt", "[red]\\[b]a.txt", "a\\[bold].txt", "back\\"])
def test_markup_in_a_files_name_is_text(folder: Path, model: str, name: str):
    (folder / name).write_text(text_of(300), encoding="utf-8")
    result = run("select", name, "-q", QUESTION, "--model", model)
    assert result.exit_code == 0, result.output
    assert f"{name}, characters" in result.stdout


@pytest.mark.parametrize("said", [MARKUP, "[/]", "\\[/]", "[bold]", "back\\", "a[0]\\", "\\\\[/]"])
def test_markup_in_an_answer_is_text(folder: Path, model: str, said: str, monkeypatch: pytest.MonkeyPatch):
    write(folder, a=text_of(300))
    context = KeyContext("text", ((0, 4),))
    monkeypatch.setattr(XL3M, "answer", lambda *args, **how: Answer(said, QUESTION, context))
    result = run("ask", "a.txt", "-q", QUESTION, "--model", model)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith(f"{said}\n")


@pytest.mark.parametrize("said", [MARKUP, "[/]", "\\[/]", "[bold]", "back\\", "a[0]\\", "\\\\[/]"])
def test_markup_in_a_demonstration_is_text(model: str, said: str, monkeypatch: pytest.MonkeyPatch):
    segment = ScoredSegment(0, 0, 10, f"{said} here", 1.0, 1, {"entropy": 0.5})
    full = Answer(said, f"{said}?", KeyContext(said, ((0, 10),), (segment,)))
    asked = [Asked(f"{said}?", said, said, True, True, said, False, 0.5, full)]
    monkeypatch.setattr(demo, "ask", lambda *args: asked)
    monkeypatch.setattr(cli.out, "width", 200)
    result = run("demo", "--tokens", "1000", "--questions", "1", "--seed", "1", "--model", model)
    assert result.exit_code == 0, result.output
    shown = " ".join(result.stdout.split())
    assert f"{said}? " in shown
    assert f"XL3M says {said}: right; the text says {said} at 50.00%." in shown
    assert f"the same model says {said}: wrong" in shown
    assert f"{said} here"[:60] in shown  # excerpts are cut


def test_a_documents_control_characters_do_not_reach_the_terminal(tmp_path: Path, model: str) -> None:
    file = tmp_path / "a\x1b[31m.txt"
    file.write_text("red \x1b[31m alert \x07 and \x9b31m or \u202e turned " * 20, encoding="utf-8")
    result = run("select", str(file), "-q", "What?", "--model", model)
    assert result.exit_code == 0
    assert not any(control in result.output for control in "\x1b\x07\x9b\u202e") and "␛[31m" in result.output
    result = run("select", str(file) + "x", "-q", "What?", "--model", model)
    assert result.exit_code != 0 and "\x1b" not in result.output
