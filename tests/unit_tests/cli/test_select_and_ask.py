"""`xl3m select` and `xl3m ask`: what they print, and which places of which files they cite."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from command_line import run, run_json, write
from models import QUESTION, text_of

from xl3m_integrations import BM25, XL3M

SELECT_KEYS = {
    "question", "measure", "document_tokens", "document_characters", "select_seconds", "reused", "segments", "spans",
    "certainty", "found",
}  # fmt: skip
SEGMENT_KEYS = {"file", "start", "end", "index", "score", "rank", "evidence", "text"}
SOURCE_KEYS = {"file", "start", "end", "text"}
ASK_KEYS = SELECT_KEYS | {"answer", "prompt_tokens", "sources"}


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
    assert max(re.findall(r"[a-zA-Z]+", body["answer"]), key=len) in run("ask", *arguments).stdout


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
