"""A text of rain in which one fact hides, which the bundled model finds."""

from __future__ import annotations

QUERY = "What is the pin of the blue locker?"
FACT = "The pin of the blue locker is 7781."
RAIN = "It rained again, and the ferry left on time. "


def rain_around_the_fact(before: int, after: int | None = None) -> str:
    """The fact, with so many sentences of rain `before` and `after` it; None means as many as before."""
    return f"{RAIN * before}{FACT} {RAIN * (before if after is None else after)}"
