"""The pages say what the product does: commands, settings, links, examples and report fields."""

from __future__ import annotations

import ast
import json
import math
import re
import shlex
import shutil
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_origin

import click
import pytest
import torch
import typer
from pydantic import BaseModel

from audit.__main__ import main as audit_main
from audit.entry import KINDS
from secure_fedmeta.cli import app
from secure_fedmeta.config import Config, load_config, parse_config
from secure_fedmeta.tasks import SOURCES

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted(
    page
    for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
    if page.name not in ("CHANGELOG.md",)
)
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`\n]+)`")
CREDIT = ROOT / "examples" / "credit.toml"
pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


@dataclass(frozen=True)
class Command:
    """One command line of a page, without prompt, comment and path of the program."""

    page: Path
    words: tuple[str, ...]


def fences(page: Path, *languages: str) -> list[str]:
    return [body for language, body in FENCE.findall(page.read_text()) if language in languages]


def commands(page: Path) -> Iterator[Command]:
    """Every line of shell blocks and every inline span that calls a program of the product."""
    text = page.read_text()
    lines = [line for body in fences(page, "console", "bash", "sh") for line in body.splitlines()]
    lines += SPAN.findall(FENCE.sub("", text))
    for line in lines:
        if not re.match(r"(\$ )?([\w./]*/)?(fedmeta|make|python3? -m)\b", line.strip()):
            continue
        words = tuple(shlex.split(line.strip().removeprefix("$ "), comments=True))
        yield Command(page, (words[0].rpartition("/")[2], *words[1:]))


def calls(program: str, *first: str) -> list[Command]:
    head = (program, *first)
    found = [c for page in PAGES for c in commands(page) if c.words[: len(head)] == head]
    return [Command(c.page, c.words[len(head) :]) for c in found]


def refusal(words: tuple[str, ...]) -> str | None:
    """Why the command line would not take these words, or None."""
    command = typer.main.get_command(app)
    left = list(words)
    while isinstance(command, click.Group):
        if not left or left == ["--help"]:
            return None
        name = left.pop(0)
        if name not in command.commands:
            return f"no command {name}"
        command = command.commands[name]
    options = {name for parameter in command.params for name in parameter.opts} | {"--help"}
    unknown = [word for word in left if word.startswith("--") and word not in options]
    if unknown:
        return f"{command.name} has no {unknown}"
    try:
        with click.Context(command) as context:
            values, rest, _ = command.make_parser(context).parse_args(left)
    except click.UsageError as error:
        return str(error)
    if rest:
        return f"{command.name} takes no {rest}"
    try:
        load_config(CREDIT, values.get("overrides") or ())
    except Exception as error:
        return str(error)
    return None


def leaves(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every command that does something, as the words that call it."""
    if not isinstance(command, click.Group):
        yield path
        return
    for name, inner in command.commands.items():
        yield from leaves(inner, (*path, name))


def test_pages_name_commands_and_options_that_exist() -> None:
    found = calls("fedmeta")
    exist = set(leaves(typer.main.get_command(app)))
    assert {words for words in exist if not any(c.words[: len(words)] == words for c in found)} == (
        set()
    )
    wrong = [f"{c.page.name}: fedmeta {' '.join(c.words)}: {refusal(c.words)}" for c in found]
    assert [line for line in wrong if not line.endswith(": None")] == []


@pytest.mark.parametrize(
    "words",
    [
        ("tunes",),
        ("run", "--redo", "x"),
        ("ledger", "drop"),
        ("ledger", "grant", "people", "--refund", "1"),
        ("run", "--set", "privacy.epsilom=3"),
        ("run", "--set", "privacy.epsilon=-3"),
        ("run", "a", "b"),
        ("verify", "RUN", "--key"),
    ],
)
def test_a_command_that_does_not_exist_is_noticed(words: tuple[str, ...]) -> None:
    assert refusal(words) is not None


def test_pages_name_options_of_the_log_s_own_verifier(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        audit_main(["--help"])
    known = set(re.findall(r"--[\w-]+", capsys.readouterr().out))
    found = calls("python", "-m", "audit")
    named = {word for call in found for word in call.words if word.startswith("--")}
    assert named
    assert named <= known


def test_pages_name_modules_and_targets_that_exist() -> None:
    modules = {c.words[0] for c in calls("python", "-m")} - {"audit", "pytest"}
    assert modules
    for module in modules:
        path = ROOT.joinpath(*module.split("."))
        assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file(), module
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {c.words[0] for c in calls("make") if c.words and "=" not in c.words[0]}
    assert {"demo", "test"} <= named <= targets


@pages
def test_every_relative_link_resolves(page: Path) -> None:
    text = FENCE.sub("", page.read_text())
    links = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'src(?:set)?="([^"]+)"', text)
    for link in links:
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if anchor:
            titles = re.findall(r"^#+ (.+)$", target.read_text(), re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", t.lower()).replace(" ", "-") for t in titles}
            assert anchor in slugs, link


@pages
def test_every_path_in_code_spans_exists(page: Path) -> None:
    for span in SPAN.findall(FENCE.sub("", page.read_text())):
        path = span.partition("::")[0]
        if re.fullmatch(r"(tests|docs|examples|benchmarks|scripts)/[\w./-]+\w", path):
            assert (ROOT / path).exists(), span


def test_every_page_is_linked_from_the_readme_or_a_page() -> None:
    linked = {
        (page.parent / link.partition("#")[0]).resolve()
        for page in PAGES
        for link in re.findall(r"\]\(([^)\s:]+)\)", page.read_text())
    }
    assert {page for page in PAGES if page.name != "README.md"} - linked == set()


# --- settings -----------------------------------------------------------------------------------

BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
TYPES = {
    "integer": "integer",
    "number": "number",
    "string": "text",
    "boolean": "true or false",
    "object": "table",
}


def allowed(schema: Mapping[str, Any]) -> str:
    """The values that a setting takes, in the words of the page."""
    if "anyOf" in schema:
        return allowed(next(one for one in schema["anyOf"] if one != {"type": "null"}))
    if "enum" in schema:
        return " or ".join(f"`{value}`" for value in schema["enum"])
    if schema["type"] == "array":
        return f"list of {allowed(schema['items'])}"
    bounds = [f"{sign} {_number(schema[key])}" for key, sign in BOUNDS.items() if key in schema]
    name = "name" if "pattern" in schema else TYPES[schema["type"]]
    return " ".join([name, " and ".join(bounds)]).strip()


def _number(value: float) -> str:
    return "2^63" if value == 2**63 else f"{value:g}"


def default(field: Any) -> str:
    """The value that a setting has when it is left out, in TOML."""
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is None:
        return "none"
    return f"`{json.dumps(list(value) if isinstance(value, tuple) else value)}`"


def settings(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """Key, allowed values and default of every setting of a model and its sections."""
    schema = model.model_json_schema()
    for name, field in model.model_fields.items():
        section = (field.annotation, *getattr(field.annotation, "__args__", ()))
        models = [a for a in section if isinstance(a, type) and issubclass(a, BaseModel)]
        if models:
            column = "COLUMN." if get_origin(field.annotation) is dict else ""
            yield from settings(models[0], f"{prefix}{name}.{column}")
        else:
            yield f"{prefix}{name}", allowed(schema["properties"][name]), default(field)


def rows(page: Path) -> dict[str, tuple[str, str]]:
    """Key -> allowed values and default, as the tables of the page state them."""
    found: dict[str, tuple[str, str]] = {}
    for line in page.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split(" | ")]
        if len(cells) == 4 and cells[0].startswith("`"):
            assert cells[0] not in found, f"{cells[0]} has two rows"
            assert cells[3].strip(), f"{cells[0]} has no meaning"
            found[cells[0].strip("`")] = (cells[1], cells[2])
    return found


def test_every_setting_is_on_the_page_with_its_range_and_default() -> None:
    expected = {key: (values, least) for key, values, least in settings(Config)}
    for source in SOURCES.names():
        options = settings(SOURCES.get(source).Options, f"{source}: data.options.")
        expected |= {key: (values, least) for key, values, least in options}
    assert rows(ROOT / "docs" / "configuration.md") == expected


@pages
def test_every_toml_example_is_a_valid_part_of_a_config(page: Path) -> None:
    for body in fences(page, "toml"):
        tree = tomllib.loads(body)
        if "project" in tree:
            continue
        base = tomllib.loads(CREDIT.read_text())
        if "noise_multiplier" in tree.get("privacy", {}):
            del base["privacy"]["epsilon"]
        for section, values in tree.items():
            base[section] = base.get(section, {}) | values if isinstance(values, dict) else values
        parse_config(base)


# --- examples and what they leave ---------------------------------------------------------------

EXAMPLES = [page for page in PAGES if fences(page, "python")]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, dict[str, Any]]:
    """Page -> its namespace after all its Python blocks ran, in order, in a folder of their own."""
    found: dict[Path, dict[str, Any]] = {}
    for page in EXAMPLES:
        folder = tmp_path_factory.mktemp("page")
        shutil.copytree(ROOT / "examples", folder / "examples")
        found[page] = {"__name__": page.stem, "folder": folder}
        with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng(devices=[]):
            patch.chdir(folder)
            patch.setenv("FEDMETA_STATE_DIR", str(folder / "state"))
            for body in fences(page, "python"):
                exec(compile(body, str(page), "exec"), found[page])  # noqa: S102
    return found


@pytest.fixture(scope="module")
def directory(ran: dict[Path, dict[str, Any]]) -> Path:
    """The run directory that the readme's example left."""
    readme = ran[ROOT / "README.md"]
    found: Path = readme["folder"] / readme["result"].directory
    return found


def test_the_python_examples_run(ran: dict[Path, dict[str, Any]]) -> None:
    assert ran[ROOT / "README.md"]["result"].status == "completed"
    assert set(ran) == set(EXAMPLES)


def fields_of(value: object, data: frozenset[str]) -> Iterator[str]:
    """Every key at any depth; below the keys in `data` are names from the data, not fields."""
    if isinstance(value, list):
        for item in value:
            yield from fields_of(item, data)
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield key
            if key not in data:
                yield from fields_of(inner, data)


def named(page: Path, title: str) -> set[str]:
    """What stands in backticks in one section of a page."""
    sections = re.split(r"^## ", page.read_text(), flags=re.MULTILINE)
    (section,) = (s for s in sections if s.startswith(title))
    return set(SPAN.findall(section))


def test_every_field_of_a_report_is_explained(ran: dict[Path, dict[str, Any]]) -> None:
    page = ROOT / "docs" / "read-the-report.md"
    found = ran[ROOT / "README.md"]["result"].report
    data = frozenset(
        {"per_client", "per_draw", "network", "not_run", "excluded", "clipped", "missing"}
    )
    plain = {key for key, value in found.items() if not isinstance(value, dict)}
    assert plain - named(page, "The run") == set()
    for key in found.keys() - plain:
        assert set(fields_of(found[key], data)) - named(page, f"`{key}`") == set(), key


def test_the_way_through_the_report_names_its_sections(directory: Path) -> None:
    text = (ROOT / "docs" / "read-the-report.md").read_text()
    (story,) = (part for part in text.split("\n## ") if part.startswith("In five minutes"))
    told = {" ".join(name.split()) for name in re.findall(r"(?<!\*)\*([A-Z][^*]+)\*", story)}
    titles = re.findall(r"^## (.+)$", (directory / "report.md").read_text(), re.MULTILINE)
    assert len(told) == 8
    assert told <= set(titles)


def test_every_field_of_the_metrics_is_explained(directory: Path) -> None:
    page = ROOT / "docs" / "read-the-report.md"
    lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    data = frozenset({"epsilon_by_adversary", "rejected"})
    assert set(fields_of(lines, data)) - named(page, "`metrics.jsonl`") == set()


def test_every_file_of_a_run_is_named(directory: Path) -> None:
    text = (ROOT / "docs" / "first-run.md").read_text()
    files = {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}
    assert "report.json" in files
    assert {name for name in files if f"`{name}`" not in text} == set()


# --- errors that pages quote ---------------------------------------------------------------------

TROUBLE = ROOT / "docs" / "troubleshooting.md"
GAP = "\0"  # what a message fills in


def literals(node: ast.AST) -> str:
    """The text of a string expression, with a gap for every part that is filled in."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(literals(part) for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return literals(node.left) + literals(node.right)
    return GAP


def messages() -> set[str]:
    """Every string of the packages that is no docstring."""
    found = set()
    for package in ("audit", "crypto", "privacy", "secure_fedmeta"):
        for path in (ROOT / package).rglob("*.py"):
            tree = ast.parse(path.read_text())
            said = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Expr)}
            found |= {literals(node) for node in ast.walk(tree) if id(node) not in said}
    return found


def says(message: str, quote: str) -> bool:
    """Whether a message holds the parts of a quote, in order."""
    pattern = ".*?".join(re.escape(part) for part in quote.split("…"))
    return re.search(pattern, message, re.DOTALL) is not None


def quoted(page: Path) -> list[str]:
    """What stands in backticks in the first cells of the tables of errors."""
    found, inside = [], False
    for line in page.read_text().splitlines():
        begins = line.startswith(("| what it says |", "| message |"))
        inside = begins or (inside and line.startswith("|"))
        if inside:
            found += SPAN.findall(line.strip("| ").split(" | ")[0])
    return found


def test_errors_are_quoted_as_the_code_words_them() -> None:
    known = messages()
    quotes = [quote for page in PAGES for quote in quoted(page)]
    assert len(quoted(TROUBLE)) == len(set(quoted(TROUBLE))) > 60
    assert len(quotes) > len(quoted(TROUBLE))
    assert [quote for quote in quotes if not any(says(m, quote) for m in known)] == []


@pytest.mark.parametrize("quote", ["no such seting.…", "…: run chmod 600", "the ledger … upgrades"])
def test_a_quote_that_nothing_says_is_noticed(quote: str) -> None:
    said = any(says(message, quote) for message in messages())
    assert said == (quote == "…: run chmod 600")


def test_the_worked_numbers_of_epsilon_follow_from_the_definition() -> None:
    text = (ROOT / "docs" / "what-epsilon-means.md").read_text()
    found = re.findall(r"^\| ([\d.]+) \| ([\d.]+) % \| ([\d.]+) % \|$", text, re.MULTILINE)
    assert len(found) == 7
    for epsilon, sure, caught in ((float(e), s, c) for e, s, c in found):
        most = math.exp(epsilon) / (1.0 + math.exp(epsilon))
        power = min(0.01 * math.exp(epsilon) + 1e-5, 1.0 - math.exp(-epsilon) * (0.99 - 1e-5))
        for shown, exact in ((sure, most), (caught, power)):
            digits = len(shown.partition(".")[2])
            assert float(shown) == round(100.0 * exact, digits), epsilon


def test_every_kind_of_entry_is_explained() -> None:
    text = (ROOT / "docs" / "verify-the-log.md").read_text()
    assert set(KINDS) <= set(SPAN.findall(text))
