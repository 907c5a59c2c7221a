"""Segments: exact, gapless, the same however the text arrives, whatever the text is."""

from __future__ import annotations

import random
import re
import tracemalloc
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xl3m_integrations import segmentation
from xl3m_integrations.errors import InputError, SettingError
from xl3m_integrations.segmentation import BLOCK_CHARACTERS, Segmenter
from xl3m_integrations.tokens import TextTokenizer
from xl3m_integrations.types import Segment

FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466"  # one emoji of seven code points
WAVE = "\U0001f44b\U0001f3fd"  # a hand and its skin tone
PIECES = [
    "the cat sat. ",
    "word",
    " ",
    "   ",
    "\n",
    "\r\n",
    "\t",
    "0123",
    "café",
    "cafe\u0301",
    "a\u0323\u0307",
    "漢字かな",
    "Привет ",
    "हिन्दी",
    FAMILY,
    WAVE,
    "❤\ufe0f",
    "\x00",
    "\ufeff",
    "\u2028",
    "\U0010ffff",
    "<|eos|>",
    "</s>",
    "▁",
]
unicode_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
texts = st.lists(st.one_of(st.sampled_from(PIECES), unicode_text), max_size=40).map("".join)
windows = st.integers(8, 40).flatmap(lambda size: st.tuples(st.just(size), st.integers(0, size // 2)))
quick = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])


def cut(tokenizer: TextTokenizer, text: str, size: int = 32, overlap: int = 0) -> list[Segment]:
    return list(Segmenter(tokenizer, size, overlap).segments([text]))


def in_pieces(text: str, sizes: list[int]) -> Iterator[str]:
    at = turn = 0
    while at < len(text):
        size = sizes[turn % len(sizes)]
        yield text[at : at + size]
        at, turn = at + size, turn + 1


def joined_ids(segments: list[Segment]) -> list[int]:
    return [token for segment in segments for token in segment.ids]


def prose(characters: int, seed: int = 3) -> str:
    rng = random.Random(seed)
    words = ["the", "code", "of", "gate", "is", "7431,", "naïve", "漢字", "and\r\n", "a\n\n", "  then", WAVE, "café."]
    return " ".join(rng.choices(words, k=characters // 3))[:characters]


# ---------------------------------------------------------------------------------------------- any text
@quick
@given(text=texts, window=windows)
def test_segments_are_exact_and_cover_the_document_without_a_gap(tokenizer, text, window):
    segments = cut(tokenizer, text, *window)
    assert all(text[segment.start : segment.end] == segment.text for segment in segments)
    assert all(len(segment.ids) <= window[0] for segment in segments)
    assert [segment.index for segment in segments] == list(range(len(segments)))
    assert (segments[0].start if segments else 0) == 0
    assert (segments[-1].end if segments else 0) == len(text)
    for left, right in pairwise(segments):
        assert left.start < right.start <= left.end < right.end


@quick
@given(text=texts, window=windows)
def test_every_segment_holds_the_tokens_of_the_one_encoding_at_its_place(tokenizer, text, window):
    whole = tokenizer.ids(text) if text else []
    segments = cut(tokenizer, text, *window)
    assert all(list(segment.ids) == whole[segment.token : segment.token + len(segment.ids)] for segment in segments)
    assert sum(len(right.ids) for right in segments) >= len(whole)


@quick
@given(text=texts, size=st.integers(8, 40))
def test_segments_without_overlap_partition_text_and_tokens(tokenizer, text, size):
    segments = cut(tokenizer, text, size)
    assert "".join(segment.text for segment in segments) == text
    assert joined_ids(segments) == (tokenizer.ids(text) if text else [])


@quick
@given(text=texts, window=windows, sizes=st.lists(st.integers(1, 9), min_size=1, max_size=5))
def test_a_stream_in_any_pieces_gives_the_segments_of_the_whole_string(tokenizer, text, window, sizes):
    segmenter = Segmenter(tokenizer, *window)
    assert list(segmenter.segments(in_pieces(text, sizes))) == list(segmenter.segments([text]))


@quick
@given(text=st.lists(st.one_of(st.sampled_from(PIECES), unicode_text), min_size=30, max_size=120).map("".join))
def test_encoding_in_small_blocks_changes_no_token(tokenizer, text):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segmentation, "BLOCK_CHARACTERS", 120)
        patch.setattr(segmentation, "MARGIN", 40)
        segments = cut(tokenizer, text)
    assert joined_ids(segments) == tokenizer.ids(text)
    assert "".join(segment.text for segment in segments) == text


@quick
@given(text=texts.filter(lambda text: len(text) > 20), window=st.integers(16, 40))
def test_where_nothing_ends_neighbours_share_the_overlap(tokenizer, text, window):
    overlap, text = window // 4, re.sub(r"[.!?\u2026\n\u3002\uff01\uff1f]", "", text)
    for left, right in pairwise(cut(tokenizer, text, window, overlap)):
        shared = left.token + len(left.ids) - right.token
        assert 0 <= shared <= window // 2
        assert list(left.ids[len(left.ids) - shared :]) == list(right.ids[:shared])
        # Shorter ones stand before a sequence that did not fit and may have nothing to share.
        if len(left.ids) > window // 2:
            assert shared >= overlap and right.start < left.end


def test_plain_words_overlap_by_exactly_what_was_asked(byte_level_tokenizer):
    segments = cut(byte_level_tokenizer, "the cat sat on the mat " * 40, 32, 8)
    assert {left.token + len(left.ids) - right.token for left, right in pairwise(segments)} == {8}
    assert {len(segment.ids) for segment in segments[:-1]} == {32}


@quick
@given(
    lengths=st.lists(st.integers(1, 11), min_size=20, max_size=60),
    end=st.sampled_from([".\n", ". ", "! ", "\r\n", '." ', "?) "]),
    overlap=st.integers(1, 16),
)
def test_every_sentence_and_line_no_longer_than_a_segment_stands_whole_in_one(tokenizer, lengths, end, overlap):
    sentences = [" ".join(f"w{number}" for number in range(length)) + end.rstrip(" \r\n") for length in lengths]
    gap = end[len(end.rstrip(" \r\n")) :]
    text = gap.join(sentences)
    window = max(len(tokenizer.ids(gap + sentence + gap)) for sentence in sentences) + 2
    segments = cut(tokenizer, text, max(window, 2 * overlap, 8), overlap)
    start = 0
    for sentence in sentences:
        assert any(s.start <= start and start + len(sentence) <= s.end for s in segments), sentence
        start += len(sentence + gap)


def test_segments_begin_where_sentences_do(byte_level_tokenizer):
    sentences = [f"Dr. Jones of J. Street told {name} of it." for name in ("Ann", "Bob", "Cid", "Dan")] * 9
    segments = cut(byte_level_tokenizer, " ".join(sentences), 40, 10)
    assert len(segments) > 5
    assert all(segment.text.strip().startswith("Dr. Jones") for segment in segments)


def test_a_record_longer_than_the_overlap_is_whole_in_a_segment(byte_level_tokenizer):
    lines = [f'"key-{n * 7919 % 10007}-{n}": "a value of some words and the number {n}",' for n in range(60)]
    longest = max(len(byte_level_tokenizer.ids(line + "\n")) for line in lines)
    segments = cut(byte_level_tokenizer, "{" + "\n".join(lines) + "}", longest + 2, 2)
    assert all(any(line in segment.text for segment in segments) for line in lines)


# ---------------------------------------------------------------------------------------------- long texts
LONG = {
    "prose": prose(4 * BLOCK_CHARACTERS),
    "one letter": "a" * 60_000,
    "spaces": " " * 60_000,
    "newlines": "\n" * 60_000,
    "CRLF": "\r\n" * 30_000,
    "digits": "0123456789" * 6_000,
    "CJK": "漢字かな交じり文。" * 6_000,
    "emoji": (FAMILY + WAVE) * 4_000,
    "accents": "e\u0301" * 30_000,
    "one block exactly": "word " * (BLOCK_CHARACTERS // 4),
}


@pytest.mark.parametrize("name", sorted(LONG))
def test_encoding_in_blocks_changes_no_token_of_a_long_text(tokenizer, name):
    text = LONG[name]
    segments = cut(tokenizer, text, 256)
    assert joined_ids(segments) == tokenizer.ids(text)
    assert "".join(segment.text for segment in segments) == text


def test_a_long_stream_gives_the_segments_of_the_whole_string(tokenizer):
    segmenter = Segmenter(tokenizer, 200, 50)
    text = LONG["prose"]
    assert list(segmenter.segments(in_pieces(text, [1, 7000, 40_000, 3]))) == list(segmenter.segments([text]))


def test_memory_does_not_grow_with_a_streamed_text(byte_level_tokenizer):
    def peak(megabytes: int) -> int:
        piece = "the code of the northern gate is seven and the code of the other one is not. " * 640
        pieces = (piece for _ in range(20 * megabytes))
        tracemalloc.start()
        try:
            characters = max(s.end for s in Segmenter(byte_level_tokenizer, 512, 64).segments(pieces))
            assert characters == 20 * megabytes * len(piece)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak(4) < 1.5 * peak(1)


# ---------------------------------------------------------------------------------------------- where to cut
CLUSTERS = {"CRLF": "\r\n", "accent": "e\u0301", "two accents": "a\u0323\u0307", "skin tone": WAVE, "heart": "❤\ufe0f"}


@pytest.mark.parametrize("cluster", CLUSTERS.values(), ids=CLUSTERS)
@pytest.mark.parametrize("overlap", [0, 5])
@pytest.mark.parametrize("kind", ["byte_level", "sentencepiece_like"])
def test_no_cut_falls_inside_a_combined_character(pretrained, kind, cluster, overlap):
    tokenizer = TextTokenizer(pretrained[kind])
    text = "ab" + cluster * 200
    edges = {2 + len(cluster) * i for i in range(201)} | {0, 1}
    for segment in cut(tokenizer, text, 17, overlap):
        assert {segment.start, segment.end} <= edges


@pytest.mark.parametrize("overlap", [0, 16])
def test_no_cut_falls_inside_a_joined_emoji(tokenizer, overlap):
    text = "ab" + FAMILY * 60
    edges = {2 + len(FAMILY) * i for i in range(61)} | {0, 1}
    for segment in cut(tokenizer, text, 64, overlap):
        assert {segment.start, segment.end} <= edges


@pytest.mark.parametrize("overlap", [0, 1, 3, 4])
@pytest.mark.parametrize("start", ["", "a", "ab", "abc", "\U0001f468"])
def test_a_sequence_longer_than_a_segment_is_cut_between_its_code_points(tokenizer, start, overlap):
    """A segment that shrank before such a sequence once made its successor begin before it, for ever."""
    text = start + (FAMILY + "\u200d") * 4 + "e" + "\u0301" * 50
    segments = [segment for segment, _ in zip(Segmenter(tokenizer, 8, overlap).segments([text]), text, strict=False)]
    assert segments[-1].end == len(text)
    for left, right in pairwise(segments):
        assert left.start < right.start <= left.end < right.end


# ---------------------------------------------------------------------------------------------- what is refused
def test_empty_text_has_no_segments(tokenizer):
    segmenter = Segmenter(tokenizer, 8, 0)
    assert [list(segmenter.segments(pieces)) for pieces in ([], [""], ["", ""])] == [[], [], []]


def test_one_character_is_one_segment(tokenizer):
    assert [(s.start, s.end, s.text) for s in cut(tokenizer, "漢")] == [(0, 1, "漢")]


@pytest.mark.parametrize("offset", [0, 17, 5 * BLOCK_CHARACTERS + 3])
def test_a_lone_surrogate_is_refused_with_its_offset(byte_level_tokenizer, offset):
    text = "x" * offset + "\udc80" + " and more"
    with pytest.raises(InputError, match=rf"'\\udc80', at character {offset}:"):
        list(Segmenter(byte_level_tokenizer, 64, 0).segments(in_pieces(text, [1000])))


@pytest.mark.parametrize(("size", "overlap"), [(7, 0), (0, 0), (-1, 0), (16, 9), (16, -1)])
def test_windows_that_cannot_advance_are_refused(byte_level_tokenizer, size, overlap):
    with pytest.raises(SettingError, match=r"must be"):
        Segmenter(byte_level_tokenizer, size, overlap)


def test_special_tokens_spelled_in_a_document_are_plain_text(tokenizer, pretrained):
    specials = {name: t.convert_tokens_to_ids(name) for t in pretrained.values() for name in t.all_special_tokens}
    text = "".join(f"so {name} ends" for name in sorted(specials))
    [segment] = cut(tokenizer, text, 1024)
    assert segment.text == text
    assert tokenizer.decode(segment.ids).strip() == text
    own = {tokenizer.eos_id, *tokenizer.bos_ids}
    assert not own & set(segment.ids)


def test_segments_carry_the_number_of_their_document(byte_level_tokenizer):
    segments = Segmenter(byte_level_tokenizer, 8, 0).segments(["a b c d e f g h i j"], 3)
    assert {segment.document for segment in segments} == {3}
