"""The comparison with peers on tiny models: who is timed, who is left out and why, what is written."""

from __future__ import annotations

import json
import math
from importlib.util import find_spec
from pathlib import Path

import pytest
from command_line import run, run_json
from models import make_backend, make_model, shared_tokenizer

from xl3m_integrations import XL3M, Entropy, SettingError
from xl3m_integrations.benchmarks import peers
from xl3m_integrations.benchmarks.peers import PEERS, Case, Comparison, Peer, compare, full_context, plain_loop
from xl3m_integrations.evaluation import rankers

INSTALLED = {peer.name for peer in PEERS if peer.needs is None or find_spec(peer.needs[0])}


@pytest.fixture
def xl3m() -> XL3M:
    return XL3M(make_backend())


def timed(found: Comparison, length: int) -> set[str]:
    return {timing.peer for timing in found.timings if timing.length == length}


def test_every_peer_is_timed_on_every_length_or_named_as_left_out(xl3m: XL3M):
    found = compare(xl3m, [2_000, 1_000], seed=3)
    assert [timing.length for timing in found.timings] == sorted(timing.length for timing in found.timings)
    for length in (1_000, 2_000):
        assert timed(found, length) == {"xl3m"} | INSTALLED
    assert {left.peer for left in found.left_out} == {peer.name for peer in PEERS} - INSTALLED
    own = {timing.length: timing for timing in found.timings if timing.peer == "xl3m"}
    for timing in found.timings:
        assert timing.tokens == own[timing.length].tokens >= timing.length
        assert timing.ratio == pytest.approx(timing.seconds / own[timing.length].seconds)
        assert timing.tokens_per_second == pytest.approx(timing.tokens / timing.seconds)


def test_what_is_not_installed_is_named_with_its_install_command(xl3m: XL3M, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(rankers, "find_spec", lambda module: None)
    found = compare(xl3m, [1_000], seed=3)
    assert timed(found, 1_000) == {"xl3m", "plain loop", "full context"}
    reasons = {left.peer: left.reason for left in found.left_out}
    assert 'pip install "xl3m-integrations[llmlingua]"' in reasons["llmlingua"]
    assert 'pip install "xl3m-integrations[eval]"' in reasons["bm25"]
    assert 'pip install "xl3m-integrations[bm25]"' in reasons["xl3m after bm25"]


def test_a_model_without_rotary_positions_reads_no_more_than_its_window():
    xl3m = XL3M(make_backend("gpt2"))
    left = compare(xl3m, [1_000], seed=3).left_out
    assert ["256 positions" in one.reason for one in left if one.peer == "full context"] == [True]


def test_full_context_is_left_out_where_memory_does_not_suffice(xl3m: XL3M, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(peers, "_bytes_there", lambda device: 1_000)
    left = compare(xl3m, [1_000], seed=3).left_out
    assert ["memory" in one.reason for one in left if one.peer == "full context"] == [True]


def test_the_plain_loop_finds_the_entropies_that_the_engine_finds(xl3m: XL3M):
    case = Case.of(xl3m, 1_000, seed=3)
    selected = xl3m.select(case.text, case.question, measure=Entropy())
    assert [-entropy for entropy in plain_loop(case)] == pytest.approx(list(selected.scores), abs=1e-4)


def test_where_selection_leaves_early_the_peers_still_run_all_layers():
    model, runs = make_model(), []
    xl3m = XL3M.from_pretrained(model=model, tokenizer=shared_tokenizer(), exit_layer=1)
    model.model.layers[-1].register_forward_hook(lambda *given: runs.append(1))
    case = Case.of(xl3m, 1_000, seed=3)
    for read in (full_context, plain_loop):
        runs.clear()
        read(case)
        assert runs
    assert compare(xl3m, [1_000], seed=3).settings["exit_layer"] == 1


@pytest.mark.skipif("xl3m after bm25" not in INSTALLED, reason="needs the extra bm25")
def test_after_bm25_the_model_reads_no_more_segments_however_long_the_text(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(peers, "PREFILTERED", 4)
    xl3m = XL3M(make_backend(), measure=Entropy())
    (peer,) = [peer for peer in PEERS if peer.name == "xl3m after bm25"]
    for tokens in (1_000, 4_000):
        case = Case.of(xl3m, tokens, seed=3)
        read = [score for score in peer.read(case).scores if score > -math.inf]
        assert len(read) == 4 < len(case.segments)


def test_longer_lengths_are_left_out_by_the_way_a_cost_grows(xl3m: XL3M, monkeypatch: pytest.MonkeyPatch):
    """1 ms at 1,000 tokens: at 8,000 about 8 ms where the cost is linear, 64 ms where it is of the square."""
    monkeypatch.setattr(peers, "PEERS", (Peer("linear", len), Peer("square", len, growth=2)))
    monkeypatch.setattr(peers, "_seconds", lambda peer, case: 1e-3 * (case.tokens / 1_000) ** peer.growth)
    found = compare(xl3m, [2_000, 8_000], seed=3, time_limit=0.03)
    assert timed(found, 2_000) == {"xl3m", "linear", "square"}
    assert timed(found, 8_000) == {"xl3m", "linear"}
    (left,) = found.left_out
    assert (left.peer, left.from_length) == ("square", 8_000)
    assert "time limit of 0.03 s" in left.reason


def test_xl3m_is_timed_whatever_the_limit(xl3m: XL3M):
    found = compare(xl3m, [1_000], seed=3, time_limit=1e-9)
    assert timed(found, 1_000) == {"xl3m"}
    assert {left.peer for left in found.left_out} == {peer.name for peer in PEERS}


def test_a_peer_that_fails_on_a_length_stops_nobody_else(xl3m: XL3M, monkeypatch: pytest.MonkeyPatch):
    def fail(case: Case) -> None:
        if case.tokens > 1_900:
            raise RuntimeError("out of memory")

    monkeypatch.setattr(peers, "PEERS", (Peer("failing", fail), Peer("plain loop", plain_loop)))
    found = compare(xl3m, [1_000, 2_000, 3_000], seed=3, repeats=2)
    assert timed(found, 1_000) == {"xl3m", "failing", "plain loop"}
    assert timed(found, 2_000) == timed(found, 3_000) == {"xl3m", "plain loop"}
    assert [(left.peer, left.from_length, left.reason) for left in found.left_out] == [
        ("failing", 2_000, "RuntimeError: out of memory")
    ]


@pytest.mark.parametrize("wrong", [{"lengths": []}, {"lengths": [999]}, {"repeats": 0}, {"time_limit": 0}])
def test_numbers_out_of_range_are_refused(xl3m: XL3M, wrong: dict):
    name = next(iter(wrong))
    with pytest.raises(SettingError, match=name):
        compare(xl3m, **{"lengths": [1_000], "seed": 1, **wrong})


# ---------------------------------------------------------------------------------------------- the command
def test_the_command_prints_one_object_and_writes_it_beside_the_plot(model: str, tmp_path: Path):
    how = ["bench", "--peers", "--lengths", "1k,2k", "--repeats", "1", "--seed", "4", "--model", model]
    body = run_json(*how, "--plots", str(tmp_path / "plots"))
    assert body.keys() == {"settings", "timings", "left_out"}
    assert body["settings"]["seed"] == 4
    assert body["settings"]["parameters"] == sum(parameter.numel() for parameter in make_model().parameters())
    assert {timing["length"] for timing in body["timings"]} == {1_000, 2_000}
    assert {file.name for file in (tmp_path / "plots").iterdir()} == {"peers.json", "peers.png"}
    assert json.loads((tmp_path / "plots" / "peers.json").read_text()) == body
    assert (tmp_path / "plots" / "peers.png").read_bytes().startswith(b"\x89PNG")


def test_the_command_shows_a_table(model: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(rankers, "find_spec", lambda module: None)
    how = ["bench", "--peers", "--tokens", "1000", "--repeats", "1", "--seed", "4", "--model", model]
    result = run(*how)
    assert result.exit_code == 0, result.output
    for said in (
        "times XL3M",
        "plain loop",
        "Left out from 1,000 tokens on: bm25.",
        "window of 256 tokens",
    ):
        assert said in result.stdout


@pytest.mark.parametrize("option", [("--lengths", "10k"), ("--time-limit", "5"), ("--plots", "plots")])
def test_options_of_the_comparison_without_it_are_refused(option: tuple[str, str]):
    result = run("bench", *option)
    assert result.exit_code == 2
    assert "--peers" in result.stderr
