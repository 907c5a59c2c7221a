"""What the package exports, what importing it loads, and which way its modules depend on one another."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import xl3m_integrations

ROOT = Path(xl3m_integrations.__file__).parent
PACKAGE = "xl3m_integrations"
STAGES = {  # module -> the package's modules that it may import
    "errors": set(),
    "types": {"report", "report.page", "report.plot"},  # opened where a picture is asked for
    "certainty": {"errors", "types"},
    "selection": {"errors"},
    "prompts": {"errors"},
    "tokens": {"errors", "prompts"},
    "documents": {"errors", "tokens", "types"},
    "segmentation": {"errors", "tokens", "types"},
    "assembly": {"errors", "types"},
    "prefilter": {"errors", "types"},
}
TOPS = {"engine", "index", "cli", "adapting", "demo", "benchmarks", "langchain", "llama_index", "evaluation"}
TOPS |= {"report"}


def own_imports(path: Path) -> set[str]:
    """The package's modules that a file imports anywhere, functions and type checks included: `backends.base`, …"""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            module = node.module or ""
            names = {f"{module}.{alias.name}" for alias in node.names}
            found |= {name for name in names if _is_module(name)} or {module}
    return {name.removeprefix(f"{PACKAGE}.") for name in found if name.startswith(f"{PACKAGE}.")}


def _is_module(name: str) -> bool:
    path = ROOT.parent.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


def modules(folder: str = "") -> dict[str, Path]:
    files = sorted((ROOT / folder).rglob("*.py"))
    return {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in files}


def test_the_public_names_are_these():
    assert sorted(xl3m_integrations.__all__) == [
        "AdaptiveGap",
        "Answer",
        "AnswerEntropy",
        "BM25",
        "Blend",
        "Budget",
        "CacheError",
        "Entropy",
        "InputError",
        "JournalError",
        "KeyContext",
        "Measure",
        "MissingExtraError",
        "ModelLoadError",
        "Progress",
        "QuestionLikelihood",
        "ScoredSegment",
        "ScoringError",
        "Segment",
        "Selection",
        "SettingError",
        "TopK",
        "TunedLens",
        "XL3M",
        "XL3MError",
        "__version__",
        "fit_lens",
    ]


def test_every_public_name_is_there_and_documented():
    assert set(dir(xl3m_integrations)) == set(xl3m_integrations.__all__)
    for name in set(xl3m_integrations.__all__) - {"__version__"}:
        assert getattr(xl3m_integrations, name).__doc__


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Xl3m'"):
        xl3m_integrations.Xl3m  # noqa: B018


def test_importing_the_package_loads_neither_a_model_library_nor_a_framework():
    heavy = ["torch", "transformers", "tokenizers", "langchain_core", "llama_index", "typer", "rich", "ray", "openai"]
    heavy += ["jinja2", "matplotlib"]
    code = f"import sys, {PACKAGE}; {PACKAGE}.SettingError; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("stage", sorted(STAGES))
def test_a_stage_imports_only_what_stands_below_it(stage):
    assert own_imports(ROOT / f"{stage}.py") <= STAGES[stage]


def test_the_walk_sees_the_imports_it_judges():
    """Otherwise the tests around this one would hold whatever the modules did."""
    assert own_imports(ROOT / "tokens.py") == {"errors", "prompts"}
    assert "assembly" in own_imports(ROOT / "engine.py")
    assert "backends.base" in own_imports(ROOT / "scoring.py")
    assert {"engine", "backends.base", "langchain.compressor"} <= set(modules())


def test_scoring_knows_no_backend_but_the_protocols():
    imported = own_imports(ROOT / "scoring.py")
    assert {name for name in imported if name.startswith("backends")} == {"backends.base"}
    assert not {name.partition(".")[0] for name in imported} & TOPS


@pytest.mark.parametrize("name", sorted(modules("backends")))
def test_backends_import_no_engine_adapter_or_command_line(name):
    imported = {own.partition(".")[0] for own in own_imports(modules()[name])}
    assert not imported & TOPS


@pytest.mark.parametrize(
    "name", sorted(name for name in modules() if name.partition(".")[0] not in ("cli", "__main__"))
)
def test_nothing_imports_the_command_line(name):
    assert "cli" not in {own.partition(".")[0] for own in own_imports(modules()[name])}


def test_the_engine_imports_no_adapter():
    assert not {own.partition(".")[0] for own in own_imports(ROOT / "engine.py")} & (TOPS - {"engine", "index"})
