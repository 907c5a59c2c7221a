"""What `xl3m bench` shows and writes: selection beside the bare forward pass, its peers, or what the device can do."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from xl3m_integrations.cli.console import err, out
from xl3m_integrations.cli.evaluation import lengths_of, require_writable, write_json

if TYPE_CHECKING:
    from xl3m_integrations.benchmarks.peers import Comparison
    from xl3m_integrations.benchmarks.speed import Speed
    from xl3m_integrations.benchmarks.throughput import Throughput
    from xl3m_integrations.engine import XL3M


def run_speed(load: Callable[[], XL3M], tokens: int, seed: int, repeats: int, *, as_json: bool) -> None:
    """Selection beside the model's bare forward pass on the same rows."""
    from xl3m_integrations.benchmarks.speed import measure_speed

    found = measure_speed(load(), tokens, repeats, seed)
    if as_json:
        print(json.dumps(asdict(found) | {"seed": seed}))  # noqa: T201
    else:
        _show_speed(found, seed)


def _show_speed(found: Speed, seed: int) -> None:
    from xl3m_integrations.benchmarks.speed import MANY

    table = Table(title=f"{found.tokens:,} tokens in {found.rows:,} rows of {found.row_tokens}, seed {seed}")
    table.add_column("what")
    table.add_column("tokens/s", justify="right")
    table.add_row(f"selection ({found.measure}), end to end", f"{found.selection_tokens_per_second:,.0f}")
    layers = "" if found.exit_layer is None else f", first {found.exit_layer} layers"
    table.add_row(f"bare forward pass, {found.parameters:,} parameters{layers}", f"{found.bare_tokens_per_second:,.0f}")
    table.add_row("document tokens selected from", f"{found.document_tokens_per_second:,.0f}")
    out.print(table)
    spread = f"{min(found.ratios):.2f} to {max(found.ratios):.2f} over {len(found.ratios)} repeats"
    out.print(f"selection / bare: [bold]{found.ratio:.2f}[/] ({spread})")
    kept = f", with the keys and values of {found.kept:.0%} of the segments kept" if found.kept < 1 else ""
    out.print(f"the next question of an index: [bold]{found.asked_again:.1f}[/] times faster{kept}")
    out.print(f"{MANY} questions in one pass: [bold]{found.many_cost:.1f}[/] times the time of one")


def run_peers(
    load: Callable[[], XL3M],
    lengths: str,
    seed: int,
    repeats: int,
    time_limit: float,
    plots: Path | None,
    *,
    as_json: bool,
) -> None:
    """What peers take for the same text; writes `peers.png` and `peers.json` where a folder is named."""
    require_writable(None, plots)
    wanted, xl3m = lengths_of(lengths), load()
    from xl3m_integrations.benchmarks.peers import compare, plot

    with err.status("timing") as status:
        found = compare(xl3m, wanted, seed=seed, repeats=repeats, time_limit=time_limit, progress=status.update)
    if as_json:
        print(found.to_json())  # noqa: T201
    else:
        _show_peers(found)
    if plots is not None:
        write_json(found, plots / "peers.json")
        plot(found, plots / "peers.png")


def _show_peers(found: Comparison) -> None:
    settings = found.settings
    table = Table(title=f"{settings['parameters']:,} parameters, {settings['device']}, seed {settings['seed']}")
    table.add_column("tokens", justify="right")
    table.add_column("who")
    for name in ("seconds", "tokens/s", "times XL3M"):
        table.add_column(name, justify="right")
    last = None
    for one in found.timings:
        if last not in (None, one.length):
            table.add_section()
        tokens = "" if one.length == last else f"{one.tokens:,}"
        table.add_row(tokens, one.peer, f"{one.seconds:.3f}", f"{one.tokens_per_second:,.0f}", f"{one.ratio:.2f}")
        last = one.length
    out.print(table)
    for left in found.left_out:
        out.print(
            f"Left out from {left.from_length:,} tokens on: {left.peer}. {left.reason}", markup=False, soft_wrap=True
        )
    if any(one.peer == "full context" and one.tokens > settings["window"] for one in found.timings):
        window = f"the model's window of {settings['window']:,} tokens"
        out.print(f"Full context goes beyond {window}: the cost is real, an answer would be of no use.", style="dim")


def run_shape(shape: str, tokens: int, seed: int, repeats: int, settings: Mapping[str, Any], *, as_json: bool) -> None:
    """What the device can do with a random model of a shape; `settings` are those of `measure_throughput`."""
    with err.status("timing"):
        from xl3m_integrations.benchmarks.throughput import measure_throughput

        found = measure_throughput(shape, tokens, repeats, seed, **settings)
    if as_json:
        print(json.dumps(asdict(found) | {"seed": seed}))  # noqa: T201
    else:
        _show_shape(found, seed)


def _show_shape(found: Throughput, seed: int) -> None:
    table = Table(title=f"{found.parameters:,} random parameters, {found.device_name}, {found.dtype}, seed {seed}")
    table.add_column("what")
    table.add_column("rate", justify="right")
    table.add_row("tokens that the model reads", f"{found.read_tokens_per_second:,.0f}/s")
    table.add_row("tokens of text selected from", f"{found.document_tokens_per_second:,.0f}/s")
    table.add_row("selection, end to end", f"{found.flops / 1e12:,.3f} TFLOP/s")
    table.add_row(f"product of two {found.matmul_size:,}² matrices", f"{found.matmul_flops / 1e12:,.3f} TFLOP/s")
    out.print(table)
    out.print(f"selection / matrix product: [bold]{found.ratio:.2f}[/]")
    long = timedelta(seconds=round(found.long_seconds))
    out.print(f"20 million tokens of text at this rate: [bold]{long}[/], projected from {found.tokens:,}")
