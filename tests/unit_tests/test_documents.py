"""A document gives back exactly the text it was made of, whole or streamed."""

from __future__ import annotations

import gc
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xl3m_integrations import documents
from xl3m_integrations.documents import Document
from xl3m_integrations.errors import InputError

quick = settings(deadline=None, max_examples=100)
unicode_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


@quick
@given(pieces=st.lists(unicode_text, max_size=12), data=st.data())
def test_a_slice_is_exact_for_any_unicode(pieces, data):
    """Streamed through memory or a file, and given whole."""
    text = "." + "".join(pieces)
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, len(text)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(documents, "_SPOOL_BYTES", 16)
        streamed = Document([".", *pieces])
        assert "".join(streamed.pieces()) == text
        assert streamed.slice(start, end) == text[start:end]
        assert streamed.characters == len(text)
    whole = Document(text)
    assert list(whole.pieces()) == [text]
    assert whole.slice(start, end) == text[start:end]


def test_slices_are_exact_beyond_what_stays_in_memory():
    rng = random.Random(1)
    pieces = ["".join(rng.choices("aé漢\U0001f600\r\n", k=rng.randrange(1, 5000))) for _ in range(600)]
    text = "".join(pieces)
    assert len(text.encode()) > 2 * documents._SPOOL_BYTES
    document = Document(iter(pieces))
    assert sum(map(len, document.pieces())) == len(text)
    for _ in range(100):
        start = rng.randrange(len(text))
        end = min(len(text), start + rng.randrange(12_000))
        assert document.slice(start, end) == text[start:end]


def test_what_was_read_can_be_cut_while_the_rest_still_streams():
    document = Document(iter(["漢字 one", " two", " three"]))
    pieces = document.pieces()
    assert [next(pieces), next(pieces)] == ["漢字 one", " two"]
    assert document.slice(1, 10) == "字 one two"
    assert list(pieces) == [" three"]
    assert document.slice(10, 16) == " three"


def test_the_temporary_file_is_closed_with_its_document():
    """Unclosed files warn, which the tests' settings make an error."""
    document = Document(iter(["text"]))
    list(document.pieces())
    spool = document._spool
    assert spool is not None and not spool.closed
    del document
    gc.collect()
    assert spool.closed


def test_the_length_of_a_stream_is_known_at_its_end():
    document = Document(iter(["ab", "漢"]))
    assert document.characters is None
    assert list(document.pieces()) == ["ab", "漢"]
    assert document.characters == 3
    assert Document("ab漢").characters == 3


def test_a_document_stays_what_it_is():
    document = Document("text")
    assert Document.of(document) is document
    assert list(Document.of("text").pieces()) == ["text"]


# ---------------------------------------------------------------------------------------------- beginning
@pytest.mark.parametrize("text", ["four", ["fo", "", "ur"]], ids=["whole", "streamed"])
def test_beginning_gives_the_whole_text_where_it_is_short_enough(text):
    document = Document(text)
    assert document.beginning(4) == "four"
    assert "".join(document.pieces()) == "four"
    assert document.slice(1, 3) == "ou"


@pytest.mark.parametrize("text", ["four", ["fo", "", "ur"]], ids=["whole", "streamed"])
def test_beginning_gives_none_for_a_longer_text_and_loses_nothing_of_it(text):
    document = Document(text)
    assert document.beginning(3) is None
    assert "".join(document.pieces()) == "four"
    assert document.slice(0, 4) == "four"


def test_beginning_reads_no_more_of_a_stream_than_it_must():
    read = []
    document = Document(read.append(i) or "ten chars " for i in range(1000))
    assert document.beginning(25) is None
    assert len(read) == 3


@quick
@given(
    text=st.text(st.characters(exclude_categories=["Cs"]), min_size=1).map(lambda text: text + "x"),
    size=st.integers(1, 9),
)
def test_a_file_is_its_text_wherever_its_bytes_are_parted(tmp_path_factory, text, size):
    path = tmp_path_factory.getbasetemp() / "text.txt"
    path.write_bytes(text.encode("utf-8"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(documents, "_READ_BYTES", size)
        document = Document(path)
        pieces = list(document.pieces())
    assert "".join(pieces) == text and max(map(len, pieces)) <= size
    assert document.slice(0, len(text)) == text


def test_a_file_is_read_no_further_than_it_must(tmp_path, monkeypatch):
    monkeypatch.setattr(documents, "_READ_BYTES", 10)
    path = tmp_path / "long.txt"
    path.write_bytes(b"ten chars " * 50 + b"\xff")
    document = Document(path)
    assert document.beginning(25) is None
    with pytest.raises(InputError, match="byte 500 is 0xff"):
        list(document.pieces())


# ---------------------------------------------------------------------------------------------- what is refused
@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("é".encode("latin-1") + b"t\xe9", "byte 0 is 0xe9"),
        (b"abc\xc3", "byte 3 is 0xc3"),
        (b"ab\xc3\xa9\xe2\x82x", "byte 4 is 0xe2"),
    ],
)
@pytest.mark.parametrize("size", [1, 2, 3, 64])
def test_a_file_that_is_not_utf8_is_refused_with_the_byte(tmp_path, monkeypatch, content, words, size):
    monkeypatch.setattr(documents, "_READ_BYTES", size)
    (tmp_path / "old.txt").write_bytes(content)
    with pytest.raises(InputError, match=f"old.txt is not UTF-8 text: {words}"):
        list(Document(tmp_path / "old.txt").pieces())


@pytest.mark.parametrize(("name", "words"), [("missing.txt", "No such file"), (".", "directory")])
def test_a_path_that_cannot_be_read_is_refused(tmp_path: Path, name, words):
    with pytest.raises(InputError, match=f"cannot be read: .*{words}"):
        list(Document(tmp_path / name).pieces())


def test_an_empty_file_is_refused(tmp_path):
    (tmp_path / "empty.txt").touch()
    with pytest.raises(InputError, match="document is empty"):
        list(Document(tmp_path / "empty.txt").pieces())


@pytest.mark.parametrize("text", ["", " \n\t\u3000", [], [""], [" ", "\n"]])
def test_a_document_without_visible_text_is_refused(text):
    with pytest.raises(InputError, match=r"The document is empty: it has [0-9]+ characters, none of them visible"):
        list(Document(text).pieces())


def test_whitespace_pieces_are_fine_where_another_holds_text():
    assert list(Document([" ", "x", "\n"]).pieces()) == [" ", "x", "\n"]


@pytest.mark.parametrize("text", [None, 7, b"x", bytearray(b"x")])
def test_what_is_no_text_is_refused_by_its_type(text):
    with pytest.raises(InputError, match=f"The document is a {type(text).__name__};"):
        Document(text)


@pytest.mark.parametrize("read", [lambda d: list(d.pieces()), lambda d: d.beginning(99)], ids=["pieces", "beginning"])
def test_pieces_that_are_no_strings_are_refused(read):
    with pytest.raises(InputError, match="pieces must be str, but one is a bytes; decode it first"):
        read(Document(["text", b"bytes"]))


def test_a_lone_surrogate_in_a_stream_is_refused_with_its_offset():
    with pytest.raises(InputError, match="at character 5:"):
        list(Document(["four", "x\ud800"]).pieces())


def test_excerpts_of_one_giant_piece_are_exact():
    """They are read back in blocks, whose edges must not show."""
    text = "".join(chr(0x41 + i % 26) + "é👩" * (i % 3) for i in range(30_000))
    document = Document(iter([text[:7], text[7:]]))
    assert "".join(document.pieces()) == text
    for start in (0, 6, 7, 16_383, 16_384, 16_391, 32_774, len(text) - 5):
        for length in (0, 1, 20_000):
            assert document.slice(start, start + length) == text[start : start + length]
