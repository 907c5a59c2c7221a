"""Facts whose questions need not share their words: only the name asked about and the kind of value tell.

Statements and questions are put together from parts, so that hardly any wording comes twice.
"""

from __future__ import annotations

from xl3m_integrations.bundled import words as w
from xl3m_integrations.bundled.corpus.facts import ASIDES, PAIR_KEYS, Fact, make_fact
from xl3m_integrations.bundled.corpus.values import VALUES, Key, Rng, coined, entity, first_upper, make_key

# What a question asks with, for each kind of value.
ASKS: dict[str, tuple[str, ...]] = {
    "digits": ("which number", "which digits", "what", "which figure", "how many", "which code"),
    "alnum": ("which code", "what", "which mark", "which id"),
    "person": ("who", "which person", "whom", "to whom", "by whom", "whose", "what is the name of the person that"),
    "place": ("where", "in which place", "which room"),
    "city": ("where", "in which city", "which city", "what", "in what town"),
    "time": ("when", "at what time", "at which hour"),
    "date": ("when", "on which date", "by when"),
    "day": ("when", "on which day"),
    "colour": ("in which colour", "which shade", "what colour", "what"),
    "phrase": ("what", "which words", "which phrase"),
    "word": ("what", "which word", "which one"),
    "price": ("how much", "for how much", "what"),
    "thing": ("what", "which object"),
    "measure": ("how much", "how far", "what"),
}
_BEFORE = (
    "", "", "", "", "", "in the {n}, ", "by {n}, ", "after the {n}, ", "{t}, ", "during the {m}, ", "on the {n} of the {m}, ",
    "whoever {u}s the {n} ", "you will {u} that ", "they say that ", "since the {n}, ", "at the {a} {n}, ", "not far from the {m}, ",
    "as the {n} {u}s it, ", "the {n} tells us: ", "we {u}ed it: ", "{r} {v} that ", "for the {a} {m}, ", "in {c}, ",
)  # fmt: skip
_AFTER = (
    "", "", "", "", "", "", " {t}", " in the {n}", " only", " and nothing else", " for the {m}", ", {t}", " to {u} the {n}",
    " and {u}s it", ", so the {n} {u}s", " by the {a} {m}", " since the {n}", " with {r}", ", said {r}", " in {c}",
)  # fmt: skip
_BETWEEN = (
    "{v}", "{v} {p}", "{v} {p}", "{v} the {n} {p}", "was {u}ed {p}", "is {u}ed {p}", "must {u}", "shall be", "{v} its {n} {p}",
    "has been {u}ed {p}", "may {u}", "can be {u}ed {p}", "{v} {t} {p}", "will {u} {p}", "{v} and {u}s", "had {u}ed", "with",
    "and", ", the {n} that {u}s", "{v} the {a} {n}", "gets", "comes {p}", "{v} no {n} but", "goes by", "answers to", "took",
    "likes", "is known {p}", "stays {p}", "has", "{v} only {p}", "{v}, {t},", "'s {n} {v}", "does not {u} without",
)  # fmt: skip
_SENTENCES = (
    "{<}{E} {=} {V}{>}.", "{<}{E} {=} {V}{>}.", "{<}{E} {=} {V}{>}.", "{<}{E} {=} {V}{>}.", "{<}the {n} {p} {E} {=} {V}{>}.",
    "{<}the {n} of {E} {=} {V}{>}.", "{<}{V} {=} {E}{>}.", "{<}{V} {=} the {n} of {E}{>}.", "{<}it is {V} that {v} {E}{>}.",
    "if they {u} {E}, they {u} {V}{>}.", "to {u} {E}, {u} {V}{>}.", "{<}{E} {=} \"{V}\"{>}.", "{<}{E} {=}: {V}{>}.",
    "{<}nothing but {V} {v} {E}{>}.", "{<}when asked, {E} {v} {V}{>}.", "{<}near {E} one {n} {v} {V}{>}.", "{E} ({V}) {v}{>}.",
    "{<}those who {u} {E} {u} {V}{>}.", "{<}what {v} {E} is {V}{>}.", "{<}{r} {v} {E} {p} {V}{>}.", "{<}the {n} {=} {E} and {V}{>}.",
)  # fmt: skip
_LINE_STARTS = ("", "", "", "", "{n} ", "{n}.", "#", "@", "* ", "- ", "> ", "{n}: ", "{N} ", "1. ", "  ", "{n}/", "$")
_LINE_JOINS = (
    ": ", ": ", " = ", "=", " => ", " :: ", " ~ ", " / ", "\n", " >> ", "|", " .... ", " <- ", " -> ", " has ", " is ", " contains ",
    " is set to ", " & ", "\t", " - ", ", ", " {v} ", " {v} the {n} ", " | {n} | ", " gives ", " -- ", " | ", ":", "; ", " + ", " {n} ",
)  # fmt: skip
_WRAPS = (
    "{V}",
    "{V}",
    "{V}",
    "{V}",
    '"{V}"',
    "'{V}'",
    "({V})",
    "[{V}]",
    "<{V}>",
    "{{{V}}}",
    "`{V}`",
    "{V};",
    "{V}.",
    "*{V}*",
)
_QUESTIONS = (
    "{w} {v} {E}?", "{w} does {E} {u}?", "{w} did {E} {u} {p}?", "{w} {v} the {n} {p} {E}?", "{w} is it with {E}?",
    "{w} should they {u} for {E}?", "{E}: {w}?", "what about {E}?", "what stands at {E}?", "the {n} of {E}",
    "do you know {w} {E} {v}?", "the {n} {v} to {E}?", "{w} is {v} {p} {E}?", "{w} can we {u} {p} {E}?",
    "tell me {w} {E} {v}.", "I want to know {w} {v} {E}.", "{w} does the {n} of {E} {u}?", "what is there for {E}?",
    "{w} belongs with {E}?", "{w} {v} the {m} of {E}?", "for {E}, {w}?", "{w} goes with {E}?", "{w} has {E}?",
    "{w} {=} {E}?", "{w} is {E} {u}ed {p}?", "{w} was {E} {u}ed?", "{w} would {r} {u} {E}?", "{u} the {n} of {E}.",
    "name the {n} of {E}.", "{E} {=} {w}?", "{w} do they {u} {p} {E}?", "does {E} {u} {w}?", "{w} will {E} {u} {p}?",
    "{w} {v} {p} {E}?", "{u} {E}.", "please {u} {w} {E} {v}.", "{w} has been {u}ed {p} {E}?", "{w} must {E} {u}?",
)  # fmt: skip


def _words(rng: Rng) -> dict[str, str]:
    verb = rng.choice(w.MORE_VERBS) if rng.random() < 0.85 else coined(rng)
    return {
        "u": verb,
        "v": rng.choice((f"{verb}s", f"{verb}s", f"{verb}ed", f"was {verb}ed", verb, rng.choice(w.VERBS))),
        "n": rng.choice(w.MORE_NOUNS) if rng.random() < 0.85 else coined(rng),
        "N": rng.choice(w.MORE_NOUNS).title(),
        "m": rng.choice(w.NOUNS),
        "a": rng.choice(w.ADJECTIVES),
        "c": rng.choice(w.CITIES),
        "r": rng.choice(w.FIRST_NAMES),
        "p": rng.choice(["in", "to", "by", "at", "with", "from", "under", "for", "as", "on", "into", "of", "through", "over"]),
        "t": rng.choice(w.ADVERBS + list(ASIDES)),
    }  # fmt: skip


def _sentence(rng: Rng) -> str:
    form = rng.choice(_SENTENCES)
    for mark, parts in (("{<}", _BEFORE), ("{>}", _AFTER), ("{=}", _BETWEEN)):
        form = form.replace(mark, rng.choice(parts))
    return form.replace(" '", "'").replace(" ,", ",")


def _line(rng: Rng) -> str:
    return f"{rng.choice(_LINE_STARTS)}{{E}}{rng.choice(_LINE_JOINS)}{rng.choice(_WRAPS)}"


def loose_fact(
    rng: Rng, key: Key | None = None, form: str | None = None, kind: str | None = None, line: bool | None = None
) -> Fact:
    """Something stands near a name, in words that the question need not share."""
    line = rng.random() < 0.3 if line is None else line
    form = form or (_line(rng) if line else _sentence(rng))
    key = key or (make_key(rng, *rng.choice(PAIR_KEYS)[1:]) if line and rng.random() < 0.7 else entity(rng))
    kind = kind or rng.choice(list(ASKS))
    said = _words(rng) | {"E": str(key), "V": "{V}"}
    questions = []
    for template in rng.sample(_QUESTIONS, 4):
        other = _words(rng)
        asked = {name: word if rng.random() < 0.6 else other.get(name, word) for name, word in said.items()}
        asked |= {"E": str(key), "w": rng.choice(ASKS[kind])}
        questions.append(first_upper(template.replace("{=}", rng.choice(_BETWEEN)).format(**asked)))

    def like(rng: Rng) -> Fact:
        return loose_fact(rng, key.vary(rng), form, kind if rng.random() < 0.8 else None, line)

    value = VALUES[kind](rng)
    return make_fact("loose", str(key).lower(), form.format(**said), questions, value, like, line=line)
