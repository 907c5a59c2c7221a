"""The command line on a tiny saved model: what it prints, with which exit code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from models import make_model, make_tokenizer, text_of
from typer.testing import CliRunner

from xl3m_integrations import BM25, XL3M, cli, demo
from xl3m_integrations.cli import app
from xl3m_integrations.demo import Asked, Haystack, longest_end, make_haystack, same_answer
from xl3m_integrations.types import Answer, KeyContext, ScoredSegment

QUESTION = "What is the special magic number?"
DEMO_KEYS = {"document_tokens", "seed", "select_seconds", "tokens_per_second", "peak_rss_mb", "questions"}
ASKED_KEYS = {
    "question", "expected", "answer", "correct", "needle_found", "truncated_answer", "truncated_correct", "depth",
}  # fmt: skip
SELECT_KEYS = {
    "found", "certainty", 
    "question", "measure", "document_tokens", "document_characters", "select_seconds", "reused", "segments", "spans",
}  # fmt: skip
SEGMENT_KEYS = {"file", "start", "end", "index", "score", "rank", "evidence", "text"}
SOURCE_KEYS = {"file", "start", "end", "text"}
ASK_KEYS = SELECT_KEYS | {"answer", "prompt_tokens", "sources"}
BENCH_KEYS = {
    "tokens", "rows", "row_tokens", "read_tokens", "parameters", "measure", "selection_tokens_per_second",
    "bare_tokens_per_second", "document_tokens_per_second", "ratio", "ratios",
    "asked_again",
    "many_cost", "seed",
}  # fmt: skip
MARKUP = "[bold]not bold[/bold] [/] [/red] \\[/] [link=x] :warning: [[ ]] \\"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a saved tiny model."""
    path = tmp_path_factory.mktemp("model")
    make_model().save_pretrained(path)
    make_tokenizer().save_pretrained(path)
    return str(path)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the command runs in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(folder: Path, **texts: str) -> dict[str, str]:
    named = {f"{name}.txt": text for name, text in texts.items()}
    for name, text in named.items():
        (folder / name).write_bytes(text.encode("utf-8"))
    return named


def run(*arguments: str, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(app, list(arguments), input=stdin)


def run_json(*arguments: str, stdin: bytes | None = None) -> dict[str, Any]:
    result = run(*arguments, "--json", stdin=stdin)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


# ---------------------------------------------------------------------------------------------- select and ask
def test_select_as_json(folder: Path, model: str):
    texts = write(folder, a=text_of(1_500))
    body = run_json("select", "a.txt", "-q", QUESTION, "--model", model, "--dtype", "float32", "--top-k", "3")
    assert body.keys() == SELECT_KEYS
    assert [segment.keys() for segment in body["segments"]] == [SEGMENT_KEYS] * 3
    assert all(span.keys() == SOURCE_KEYS for span in body["spans"])
    assert (body["question"], body["measure"]) == (QUESTION, "blend")
    assert body["document_characters"] == 1_500
    assert body["found"] == (body["certainty"] >= 0.5)
    expected = XL3M.from_pretrained(model, dtype="float32").select(texts["a.txt"], QUESTION, top_k=3)
    assert [(s["start"], s["end"], s["rank"]) for s in body["segments"]] == [
        (s.start, s.end, s.rank) for s in expected.segments
    ]
    assert [(span["start"], span["end"]) for span in body["spans"]] == list(expected.key_context.spans)


@pytest.mark.parametrize("command", ["select", "ask"])
def test_the_model_reads_only_what_the_prefilter_keeps(folder: Path, model: str, command: str):
    pytest.importorskip("bm25s")
    texts = write(folder, a=text_of(1_500))
    how = ("--dtype", "float32", "--top-k", "4", "--prefilter", "2")
    body = run_json(command, "a.txt", "-q", QUESTION, "--model", model, *how)
    expected = XL3M.from_pretrained(model, dtype="float32").select(texts["a.txt"], QUESTION, prefilter=BM25(2), top_k=4)
    assert [segment["start"] for segment in body["segments"]] == [segment.start for segment in expected.segments]
    assert len(body["segments"]) == 2


@pytest.mark.parametrize("command", ["select", "ask"])
def test_the_model_scores_from_the_exit_layer(folder: Path, model: str, command: str):
    texts = write(folder, a=text_of(1_500))
    how = ("--dtype", "float32", "--top-k", "4", "--exit-layer", "1")
    body = run_json(command, "a.txt", "-q", QUESTION, "--model", model, *how)
    expected = XL3M.from_pretrained(model, dtype="float32", exit_layer=1).select(texts["a.txt"], QUESTION, top_k=4)
    assert [segment["score"] for segment in body["segments"]] == [segment.score for segment in expected.segments]
    refused = run(command, "a.txt", "-q", QUESTION, "--model", model, "--exit-layer", "3")
    assert refused.exit_code == 2
    assert "exit_layer is 3; choose 1 to 2" in " ".join(refused.stderr.split())


def test_ask_as_json(folder: Path, model: str):
    texts = write(folder, a=text_of(1_500))
    how = ("--dtype", "float32", "--top-k", "2", "--measure", "entropy", "--max-new-tokens", "9")
    body = run_json("ask", "a.txt", "-q", QUESTION, "--model", model, *how)
    assert body.keys() == ASK_KEYS
    answer = XL3M.from_pretrained(model, dtype="float32").answer(
        texts["a.txt"], QUESTION, top_k=2, measure="entropy", max_new_tokens=9
    )
    assert (body["answer"], body["prompt_tokens"]) == (answer.text, answer.prompt_tokens)
    assert [(s["start"], s["end"]) for s in body["sources"]] == list(answer.key_context.spans)
    assert body["measure"] == "entropy"


def test_ask_of_a_text_that_fits_cites_it_whole(folder: Path, model: str):
    texts = write(folder, short="The number is 7.")
    body = run_json("ask", "short.txt", "-q", QUESTION, "--model", model)
    assert body["segments"] == []
    assert body["sources"] == [{"file": "short.txt", "start": 0, "end": 16, "text": texts["short.txt"]}]


@pytest.mark.parametrize("command", ["select", "ask"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_cited_offsets_are_offsets_of_the_named_file(folder: Path, model: str, command: str, newline: str):
    """Line ends of two characters and emoji must not shift what is cited, in any of the files."""
    texts = write(
        folder,
        a=text_of(500, seed=1).replace("\n", newline),
        b="“Grüße” 👩‍👩‍👧 " + text_of(500, seed=2).replace("\n", newline),
        c=text_of(400, seed=3).replace("\n", newline),
    )
    files = ("a.txt", "b.txt", "c.txt")
    body = run_json(command, *files, "-q", QUESTION, "--model", model, "--token-budget", "140")
    cited = body["spans"] + body.get("sources", [])
    assert cited
    for source in cited:
        assert source["text"] == texts[source["file"]][source["start"] : source["end"]] != ""
    everything = run_json("select", *files, "-q", QUESTION, "--model", model, "--top-k", "1000")["spans"]
    assert [(s["file"], s["text"]) for s in everything] == list(texts.items())


def test_segments_that_lie_in_one_file_carry_its_offsets(folder: Path, model: str):
    texts = write(folder, a=text_of(600, seed=1), b=text_of(600, seed=2))
    segments = run_json("select", "a.txt", "b.txt", "-q", QUESTION, "--model", model, "--top-k", "1000")["segments"]
    inside = [s for s in segments if s["text"] in texts[s["file"]]]
    assert {s["file"] for s in inside} == {"a.txt", "b.txt"}
    assert all(texts[s["file"]][s["start"] : s["end"]] == s["text"] for s in inside)


def test_a_segment_across_two_files_is_placed_in_one_of_them(folder: Path, model: str):
    """An offset of the second file beside the name of the first would cite the wrong passage."""
    texts = write(folder, a=text_of(600, seed=1), b=text_of(600, seed=2))
    segments = run_json("select", "a.txt", "b.txt", "-q", QUESTION, "--model", model, "--top-k", "1000")["segments"]
    across = [s for s in segments if not any(s["text"] in text for text in texts.values())]
    assert across
    for segment in across:
        part = texts[segment["file"]][segment["start"] : segment["end"]]
        assert part
        assert part in segment["text"]
        assert 2 * len(part) >= len(segment["text"]) - len("\n\n")


def test_globs_and_several_files(folder: Path, model: str):
    (folder / "deep" / "er").mkdir(parents=True)
    write(folder, b="Bees hum. " * 9, a="Ants walk. " * 9)
    (folder / "deep" / "er" / "c.txt").write_text("Cats sleep. " * 9, encoding="utf-8")
    (folder / "notes.md").write_text("Not asked for.", encoding="utf-8")
    body = run_json("select", "*.txt", "deep/**/*.txt", "-q", QUESTION, "--model", model, "--top-k", "1000")
    assert [span["file"] for span in body["spans"]] == ["a.txt", "b.txt", "deep/er/c.txt"]


def test_a_file_whose_name_looks_like_a_glob(folder: Path, model: str):
    (folder / "report [1].txt").write_text("Read me. " * 9, encoding="utf-8")
    body = run_json("select", "report [1].txt", "-q", QUESTION, "--model", model)
    assert {span["file"] for span in body["spans"]} == {"report [1].txt"}


def test_standard_input(folder: Path, model: str):
    text = "“Ünïcode” from a pipe. " * 9
    body = run_json("select", "-", "-q", QUESTION, "--model", model, "--top-k", "1000", stdin=text.encode())
    assert body["spans"] == [{"file": "-", "start": 0, "end": len(text), "text": text}]


def test_another_encoding(folder: Path, model: str):
    (folder / "old.txt").write_bytes("Grüße aus Köln. ".encode("latin-1") * 9)
    body = run_json("select", "old.txt", "-q", QUESTION, "--model", model, "--encoding", "latin-1", "--top-k", "99")
    assert body["spans"][0]["text"] == "Grüße aus Köln. " * 9


def test_segment_tokens_are_honoured(folder: Path, model: str):
    write(folder, a=text_of(1_500))
    short, long = (
        run_json("select", "a.txt", "-q", QUESTION, "--model", model, "--segment-tokens", n, "--top-k", "999")
        for n in ("16", "64")
    )
    assert len(short["segments"]) > 3 * len(long["segments"])


def test_what_a_reader_sees(folder: Path, model: str):
    texts = write(folder, a=text_of(1_500))
    arguments = ("a.txt", "-q", QUESTION, "--model", model, "--top-k", "2")
    body = run_json("ask", *arguments)
    for command in ("ask", "select"):
        result = run(command, *arguments)
        assert result.exit_code == 0
        assert "a.txt, characters" in result.stdout
        assert "scores, best first" in result.stdout
        for span in body["spans"]:
            assert texts["a.txt"][span["start"] : span["end"]].strip() in result.stdout
    assert body["answer"].split()[0] in run("ask", *arguments).stdout


@pytest.mark.parametrize("command", ["ask", "select"])
def test_how_much_a_journal_saved_is_shown(folder: Path, model: str, command: str):
    write(folder, a=text_of(1_500))
    arguments = (command, "a.txt", "-q", QUESTION, "--model", model, "--top-k", "2", "--journal", "run.db")
    first, again = run_json(*arguments), run_json(*arguments)
    assert first["segments"] == again["segments"]
    assert first["reused"] == 0 < again["reused"]
    shown = " ".join(run(*arguments).stderr.split())
    assert f"{again['reused']} of {again['reused']} segments taken from run.db" in shown


@pytest.mark.parametrize("command", ["ask", "select"])
def test_a_journal_that_is_something_else_is_left_alone(folder: Path, model: str, command: str):
    write(folder, a=text_of(1_500))
    result = run(command, "a.txt", "-q", QUESTION, "--model", model, "--top-k", "2", "--journal", "a.txt")
    assert result.exit_code == 1
    assert "a.txt is no journal of this program" in " ".join(result.stderr.split())
    assert (folder / "a.txt").read_text() == text_of(1_500)


@pytest.mark.parametrize("command", ["ask", "select"])
def test_the_page_is_written_beside_what_is_printed(folder: Path, model: str, command: str):
    write(folder, a=text_of(900, seed=1), b=text_of(900, seed=2))
    (folder / "map.html").write_text("old")
    arguments = (command, "a.txt", "b.txt", "-q", QUESTION, "--model", model, "--top-k", "3")
    body = run_json(*arguments, "--html", "map.html")
    page = (folder / "map.html").read_text(encoding="utf-8")
    for span in body["spans"]:
        assert f"{span['file']}, characters {span['start']:,} to {span['end']:,}" in page
    assert f"{body['document_characters']:,} characters" in page
    assert ("Answer</p>" in page) == (command == "ask")


@pytest.mark.parametrize(("path", "words"), [("none/map.html", "does not exist; make it first"), (".", "is a folder")])
def test_a_page_that_cannot_be_written_is_refused_before_the_work(folder: Path, path: str, words: str):
    write(folder, a="Text.")
    result = run("ask", "a.txt", "-q", QUESTION, "--model", "no-such-model", "--html", path)
    assert result.exit_code == 2
    assert words in result.stderr


# ---------------------------------------------------------------------------------------------- exit codes
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
    assert run("ask", "a.txt", "--model", model).exit_code == 2


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


# ---------------------------------------------------------------------------------------------- markup
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


# ---------------------------------------------------------------------------------------------- demo and bench
def steady(body: dict[str, Any]) -> dict[str, Any]:
    """What of a demonstration does not depend on the machine."""
    return {key: body[key] for key in ("document_tokens", "seed", "questions")}


def test_demo_as_json(model: str):
    arguments = ("demo", "--tokens", "1500", "--questions", "3", "--model", model)
    body = run_json(*arguments, "--seed", "5")
    assert body.keys() == DEMO_KEYS
    assert len(body["questions"]) == 3
    assert all(asked.keys() == ASKED_KEYS for asked in body["questions"])
    assert body["seed"] == 5
    assert body["document_tokens"] >= 1_500
    assert body["select_seconds"] > 0
    assert body["tokens_per_second"] > 0
    assert body["peak_rss_mb"] > 10
    for asked in body["questions"]:
        assert 0 <= asked["depth"] <= 1
        assert asked["correct"] is same_answer(asked["answer"], asked["expected"])
        assert asked["truncated_correct"] is same_answer(asked["truncated_answer"], asked["expected"])
    assert len({asked["question"] for asked in body["questions"]}) == 3
    again, other = run_json(*arguments, "--seed", "5"), run_json(*arguments, "--seed", "6")
    assert steady(again) == steady(body)
    assert [a["question"] for a in other["questions"]] != [a["question"] for a in body["questions"]]


def test_a_demo_without_seed_draws_one_and_tells_it(model: str):
    arguments = ("demo", "--tokens", "1000", "--questions", "1", "--model", model)
    drawn = run_json(*arguments)
    assert steady(run_json(*arguments, "--seed", str(drawn["seed"]))) == steady(drawn)


def test_a_demo_for_people(model: str):
    result = run("demo", "--tokens", "1000", "--questions", "2", "--seed", "5", "--model", model)
    assert result.exit_code == 0, result.output
    assert result.stdout.count("XL3M says") == 2
    assert "of 2 right through XL3M" in " ".join(result.stdout.split())
    assert "seed 5" in " ".join(result.stdout.split())


def test_the_needles_stand_where_the_haystack_says(model: str):
    xl3m = XL3M.from_pretrained(model)
    haystack = make_haystack(xl3m, 2_000, 4, seed=9)
    assert isinstance(haystack, Haystack)
    assert xl3m.scorer.tokenizer.count(haystack.text) >= 2_000
    for at, fact in haystack.needles:
        assert haystack.text[at : at + len(fact.statement)] == fact.statement
        assert haystack.text.count(fact.statement) == 1
        value = at + fact.value_at
        assert haystack.text[value : value + len(fact.value)] == fact.value


def test_a_needle_counts_as_found_where_its_value_was_read(model: str):
    xl3m = XL3M.from_pretrained(model, dtype="float32")
    haystack = make_haystack(xl3m, 1_000, 2, seed=3)
    for asked, (at, fact) in zip(demo.ask(xl3m, haystack), haystack.needles, strict=True):
        end = at + fact.value_at + len(fact.value)
        inside = haystack.text[at:end] in asked.full.key_context.text
        assert asked.needle_found is inside
        assert asked.depth == pytest.approx(at / len(haystack.text))


@pytest.mark.parametrize(
    ("answer", "expected", "same"),
    [
        (" 4711.", "4711", True),
        ('"Blue Harbour"', "blue harbour", True),
        ("4711 is it", "4711", False),
        ("", "4711", False),
        ("47 11", "4711", False),
    ],
)
def test_same_answer(answer: str, expected: str, same: bool):
    assert same_answer(answer, expected) is same


@pytest.mark.parametrize("room", [1, 2, 5, 40])
def test_the_longest_end(room: int):
    words = [f"w{number}" for number in range(200)]
    assert longest_end(" ".join(words), room, lambda text: len(text.split())) == " ".join(words[-room:])


@pytest.mark.parametrize("room", [0, 2])
def test_the_longest_end_of_a_text_of_which_nothing_fits(room: int):
    assert longest_end("unbreakable", room, lambda text: 3 * len(text)) == ""


def test_bench_as_json(model: str):
    body = run_json("bench", "--tokens", "1000", "--repeats", "2", "--seed", "4", "--model", model)
    assert body.keys() == BENCH_KEYS
    assert len(body["ratios"]) == 2
    assert min(body["ratios"]) <= body["ratio"] <= max(body["ratios"])
    assert body["asked_again"] > 0 and body["many_cost"] > 0
    assert (body["seed"], body["measure"]) == (4, "blend")
    xl3m = XL3M.from_pretrained(model)
    haystack = make_haystack(xl3m, 1_000, 1, seed=4)
    question = haystack.needles[0][1].question
    segments = list(xl3m.segmenter.segments([haystack.text]))
    overhead = xl3m.scorer.overhead(question)
    assert body["tokens"] == xl3m.scorer.tokenizer.count(haystack.text)
    assert body["rows"] == len(segments)
    assert body["row_tokens"] == max(len(segment.ids) for segment in segments) + overhead
    assert body["read_tokens"] == sum(len(segment.ids) + overhead for segment in segments)
    assert body["parameters"] == sum(parameter.numel() for parameter in make_model().parameters())


def test_bench_for_people(model: str):
    result = run("bench", "--tokens", "1000", "--repeats", "1", "--measure", "entropy", "--model", model)
    assert result.exit_code == 0, result.output
    assert "selection (entropy)" in result.stdout
    assert "selection / bare" in result.stdout
    assert "the next question of an index" in result.stdout and "16 questions in one pass" in result.stdout


def test_a_documents_control_characters_do_not_reach_the_terminal(tmp_path: Path, model: str) -> None:
    file = tmp_path / "a.txt"
    file.write_text("red \x1b[31m alert \x07 " * 20, encoding="utf-8")
    result = run("select", str(file), "-q", "What?", "--model", model)
    assert result.exit_code == 0
    assert "\x1b[31m" not in result.output and "\x07" not in result.output and "␛[31m" in result.output
