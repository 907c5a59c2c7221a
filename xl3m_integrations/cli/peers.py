"""What `xl3m bench --peers` shows and writes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from xl3m_integrations.cli.console import err, out
from xl3m_integrations.cli.evaluation import lengths_of, require_writable, write_json

if TYPE_CHECKING:
    from xl3m_integrations.engine import XL3M
    from xl3m_integrations.peers import Comparison


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
    """Compare, show, and write `peers.png` and `peers.json` where a folder is named."""
    require_writable(None, plots)
    wanted, xl3m = lengths_of(lengths), load()
    from xl3m_integrations.peers import compare, plot

    with err.status("timing") as status:
        found = compare(xl3m, wanted, seed=seed, repeats=repeats, time_limit=time_limit, progress=status.update)
    if as_json:
        print(found.to_json())  # noqa: T201
    else:
        _show(found)
    if plots is not None:
        write_json(found, plots / "peers.json")
        plot(found, plots / "peers.png")


def _show(found: Comparison) -> None:
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
