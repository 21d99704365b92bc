"""The page and its Markdown: right figures, inert text, bounded size, whatever a run left."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from secure_fedmeta.cli import app
from secure_fedmeta.errors import RunDirectoryError
from secure_fedmeta.reporting import HTML, MARKDOWN, render, render_again
from secure_fedmeta.reporting.files import read_records
from secure_fedmeta.reporting.text import ARMS
from secure_fedmeta.results import write_assessment
from secure_fedmeta.spread import harm, spread
from secure_fedmeta.training import RunResult
from tests.secure_fedmeta.pages import Page, Records, Report, finished, page

LIMIT = 2_000_000


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    return finished(tmp_path_factory.mktemp("report"))


@pytest.fixture
def left(result: RunResult) -> tuple[Report, Records]:
    """What the run left, to be changed."""
    report = json.loads((result.directory / "report.json").read_text())
    return report, read_records(result.directory)


# --- what a run leaves ---------------------------------------------------------------------------


def test_a_run_leaves_the_page_that_its_files_give(result: RunResult) -> None:
    """From JSON as from memory, and the same bytes each time."""
    records = read_records(result.directory)
    for report in (result.report, json.loads((result.directory / "report.json").read_text())):
        for name, text in render(report, records).items():
            assert (result.directory / name).read_text(encoding="utf-8") == text


def test_both_forms_hold_the_figures(result: RunResult) -> None:
    report = result.report
    shown = render(report, result.records)
    unescaped = re.sub(r"\\(.)", r"\1", shown[MARKDOWN])
    for text in (Page(shown[HTML]).text, unescaped):
        for arm, label in ARMS.items():
            assert label in text
            found = report["held_out"][arm]
            assert f"{found['mean']:.3f}" in text
            assert f"{found['worst_decile']['mean']:.3f}" in text
        for row in report["adversaries"].values():
            assert f"{row['epsilon'][row['claim']]:.3f}" in text
            assert f"{row['record']:.3f}" in text
        found = report["held_out"]["meta"]["harm"]["local_all"]
        assert f"{found['harmed']} of {found['compared']}" in text
        last = result.records[-1]["protected"]["query_loss"]
        assert f"{last['value']:.3f}" in text
        for key in ("vkey", "root"):
            assert report["audit"][key] in text
        for digest in ("config_digest", "code_digest", "lock_digest"):
            assert report["environment"][digest] in text
        for sentence in report["privacy"]["unprotected"]:
            assert sentence[1:] in text


def test_the_page_asks_for_nothing_and_runs_nothing(result: RunResult) -> None:
    html = (result.directory / HTML).read_text()
    found = Page(html)
    tags = {tag for tag, _ in found.tags}
    assert not tags & {"script", "link", "img", "iframe", "object", "embed", "form", "base", "a:"}
    for tag, attributes in found.tags:
        assert not any(name.startswith("on") or name == "style" for name in attributes), tag
        for name in ("href", "src", "xlink:href"):
            assert (attributes.get(name) or "#").startswith("#"), tag
    assert not re.search(r"url\((?!#)", html)
    assert "://" not in re.sub(r'xmlns="[^"]+"', "", html)
    policy = next(a["content"] for t, a in found.tags if a.get("http-equiv"))
    (style,) = re.findall(r"<style>(.*?)</style>", html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy == (
        f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )


def test_the_page_can_be_walked_without_seeing_it(result: RunResult) -> None:
    tags = page(result.report, list(result.records)).tags
    names = [tag for tag, _ in tags]
    levels = [int(tag[1]) for tag in names if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert {"header", "nav", "main", "footer"} <= set(names)
    assert names.count("table") == names.count("caption") > 5
    assert all("scope" in attributes for tag, attributes in tags if tag == "th")
    ids = [attributes["id"] for _, attributes in tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in tags:
        named = (attributes.get("aria-labelledby") or "").split()
        target = attributes.get("href")
        assert set(named) | ({target[1:]} if target else set()) <= set(ids)
    drawings = [attributes for tag, attributes in tags if tag == "svg"]
    assert len(drawings) == 4  # clients, score, protected loss, epsilon
    assert all(a["role"] == "img" and a["aria-labelledby"] for a in drawings)
    assert names.count("details") == names.count("figure") == len(drawings)


def test_the_colours_of_drawings_are_the_page_s(result: RunResult) -> None:
    html = (result.directory / HTML).read_text()
    drawings = "".join(re.findall(r"<svg.*?</svg>", html, re.DOTALL))
    colours = set(re.findall(r'(?:fill|stroke)="([^"]*)"', drawings))
    assert {"var(--ink)", "var(--accent)", "var(--muted)"} <= colours
    assert not {one for one in colours if one.startswith(("#", "rgb")) or one in ("black", "white")}


# --- whatever a run left -------------------------------------------------------------------------


def test_nobody_was_held_out(left: tuple[Report, Records]) -> None:
    report, records = left
    report["held_out"] |= dict.fromkeys(ARMS) | {"clients": []}
    report["held_out"]["not_run"] = {"meta": "nobody is held out"}
    for record in records:
        record.pop("adapted", None)
    text = page(report, records).text
    assert "Nobody is held out." in text
    assert "No client was scored" in text
    assert "Clients held outnone" in text
    assert "No round was scored" in text
    assert "harmed" not in text


def test_an_arm_that_was_not_run_says_why(left: tuple[Report, Records]) -> None:
    report, records = left
    report["held_out"]["fedavg_ft"] = None
    report["held_out"]["not_run"] = {"fedavg_ft": "not run: it would need a second budget"}
    shown = render(report, records)
    for text in (Page(shown[HTML]).text, shown[MARKDOWN]):
        assert "would need a second budget" in text


def test_a_model_that_diverged(left: tuple[Report, Records]) -> None:
    report, records = left
    scores = dict.fromkeys(report["held_out"]["meta"]["per_client"], float("inf"))
    arm = {"mean": None, "ci95": None, "per_client": dict.fromkeys(scores), **spread("mse", scores)}
    alone = report["held_out"]["local_k"]["per_client"]
    arm["harm"] = dict.fromkeys(("local_k", "local_all"), harm("mse", scores, alone))
    report["held_out"]["meta"] = arm
    for record in records:
        record |= {"adapted": None}
    text = page(report, records).text
    assert "diverged" in text
    assert f"{len(scores)} of {len(scores)}" in text


def test_a_run_that_aborted_at_once(left: tuple[Report, Records]) -> None:
    report, _ = left
    report["status"] = "aborted"
    report["rounds"] |= {"completed": 0, "aborted": 1, "abort_reasons": ["too few answered"]}
    report["clip"] = {"quantile": None, "first": None, "last": None}
    report["protected"] = {}
    gone = {"round": 1, "seconds": 0.1, "status": "aborted", "reason": "x", "charged": False}
    text = page(report, [gone]).text
    assert "Aborted." in text
    assert "Too few answered. (1 round)" in text
    assert "No round was released." in text


def test_who_signs_sees_what_one_record_and_one_person_cost(left: tuple[Report, Records]) -> None:
    report, records = left
    for number, row in enumerate(report["adversaries"].values()):
        row |= {"record": 5.0 + number, "person": 7.0 + number}  # the last, broken sum, is no claim
    worst = len(report["adversaries"]) - 2
    told = (
        f"For one record replaced: {5 + worst:.3f}; for a person of "
        f"{report['privacy']['person_units']} such units: {7 + worst:.3f}"
    )
    assert page(report, records).text.count(told) == 2  # at a glance, and where it is decided
    report["adversaries"]["recipients"]["record"] = None
    assert "For one record replaced: infinite;" in page(report, records).text


@pytest.mark.parametrize(
    ("change", "title"),
    [
        (lambda r: r.update(not_private=True), "Not private."),
        (
            lambda r: r["secure_sum"]["capabilities"].update(hides_updates=False),
            "Insecure protocol.",
        ),
        (lambda r: r.update(status="budget"), "Ended by the budget."),
        (lambda r: r.update(status="aborted"), "Aborted."),
        (lambda r: r["privacy"].update(within_grant=False), "Budget exceeded."),
    ],
)
def test_banners(
    left: tuple[Report, Records], change: Callable[[Report], None], title: str
) -> None:
    report, records = left
    assert title not in page(report, records).text
    change(report)
    shown = render(report, records)
    found = Page(shown[HTML])
    assert title in found.text
    assert found.text.index(title) < found.text.index("Epsilon spent")
    assert f"> **{title}**" in shown[MARKDOWN]
    bare = report["not_private"] or not report["secure_sum"]["capabilities"]["hides_updates"]
    assert ("no bound" in found.text) is bare


def test_a_crowd_is_shown_by_its_ends(left: tuple[Report, Records]) -> None:
    """10,000 clients, 2,000 rounds, long names, many reasons: below the limit, worst and best."""
    report, records = left
    names = [f"client-{number:05d}" + "\u202e" * 90 for number in range(10_000)]
    rising = {name: number / 10_000 for number, name in enumerate(names)}
    level = dict.fromkeys(names, 0.3)
    found = report["held_out"]
    found |= {"metric": "auc", "clients": names}
    for arm in ARMS:
        own = rising if arm == "meta" else level
        found[arm] |= {"per_client": own, **spread("auc", own)}
        if "harm" in found[arm]:
            gone = harm("auc", own, level)
            found[arm]["harm"] = {"local_k": gone, "local_all": gone}
    report["data"]["training_clients"] = names
    report["notes"] = report["rounds"]["abort_reasons"] = [f"{n} " + "<&" * 900 for n in names]
    report["privacy"]["caveats"] = report["notes"]
    report["secure_sum"]["capabilities"]["notes"] = report["notes"]
    many = [{**records[0], "round": index, "rejected": {f"r{index}": 1}} for index in range(2_000)]
    shown = render(report, many)
    assert all(len(text.encode()) <= LIMIT for text in shown.values())
    text = Page(shown[HTML]).text
    assert "client-00000" in text
    assert "client-09999" in text
    assert "client-05000" not in text
    assert "3,000 of 10,000" in text


def test_what_is_said_of_a_sum_that_hides_nothing(left: tuple[Report, Records]) -> None:
    """No figure is drawn or told of an adversary against whom none is claimed."""
    report, records = left
    figure = f"aggregator {records[-1]['epsilon_by_adversary']['aggregator']:.3f};"
    before = page(report, records).text
    assert "the secure sum hides it" in before
    assert figure in before
    report["secure_sum"]["capabilities"]["hides_updates"] = False
    row = report["adversaries"]["aggregator"]
    row["epsilon"] = dict.fromkeys(row["epsilon"])
    text = page(report, records).text
    assert "the secure sum hides it" not in text
    assert figure not in text
    assert "saw the vector of every single client" in text
    assert "saw every single update as well" in text


def test_what_is_said_is_true_of_unit_noise_and_seed(left: tuple[Report, Records]) -> None:
    report, records = left
    text = page(report, records).text
    assert "with the unit as without it" in text
    assert "if it were Gaussian" in text
    for relation, words in (
        ("replace_one", "with one unit as with another in its place"),
        ("zero_out", "with what the unit sent as with zero in its place"),
    ):
        report["privacy"]["relation"] = relation
        text = page(report, records).text
        assert words in text
        assert "with the unit as without it" not in text
    for row in report["adversaries"].values():
        row |= {"claim": "prv", "epsilon": {"prv": 1.0, "pld": 0.9}}  # as with noise local
    text = page(report, records).text
    assert "if it were Gaussian" not in text
    assert "No statement about this run" not in text
    assert "The noise of this run is Gaussian." in text
    report["not_private"] = True
    text = page(report, records).text
    assert "the secure sum hides it" not in text
    assert "None of it holds against whoever knows the seed." in text


def test_one_client(left: tuple[Report, Records]) -> None:
    report, records = left
    (first, *_) = report["held_out"]["clients"]
    report["held_out"]["clients"] = [first]
    for arm in ARMS:
        found = report["held_out"][arm]
        own = {first: found["per_client"][first]}
        found |= {"mean": own[first], "ci95": None, "per_client": own, **spread("mse", own)}
    assert "one client" in page(report, records).text


def test_where_data_are_not_public_nothing_is_said_of_them(left: tuple[Report, Records]) -> None:
    report, records = left
    public = page(report, records).text
    report["data"] = {"source": "own_table", "training_clients": ["a"], "public": False}
    report["trained"] |= {"provenance": None, "licence": None}
    text = page(report, records).text
    assert "no counts of training clients' data leave them" in text
    assert "held-out clients must have agreed" in text
    assert "declared public" in public
    assert "held-out clients must have agreed" not in public


# --- rendering again -----------------------------------------------------------------------------


def test_a_later_assessment_is_shown(result: RunResult, tmp_path: Path) -> None:
    run_directory = tmp_path / "run"
    run_directory.mkdir()
    for name in ("report.json", "metrics.jsonl", "config.toml", HTML, MARKDOWN):
        (run_directory / name).write_bytes((result.directory / name).read_bytes())
    render_again(run_directory, {HTML: run_directory / HTML})  # the same bytes are no harm
    check = {
        "name": "noise", "passed": True, "found": "1.0", "catches": "half", "power": 0.99999,
    }  # fmt: skip
    assessed = {
        "config_digest": result.report["environment"]["config_digest"], "passed": True,
        "planted": None, "false_alarm": 1e-6, "checks": [check],
    }  # fmt: skip
    write_assessment(run_directory, assessed)
    target = tmp_path / "again.html"
    render_again(run_directory, {HTML: target, MARKDOWN: tmp_path / "again.md"})
    text = Page(target.read_text()).text
    assert "Everything passed." in text
    assert "No log vouches for it" in text
    assert "0.9999" in text
    before = (run_directory / HTML).read_bytes()
    for form, name in ((HTML, HTML), (MARKDOWN, MARKDOWN)):
        with pytest.raises(RunDirectoryError, match="was left by the run"):
            render_again(run_directory, {form: run_directory / name})
    (tmp_path / "link").symlink_to(run_directory / HTML)
    with pytest.raises(RunDirectoryError, match="was left by the run"):
        render_again(run_directory, {HTML: tmp_path / "link"})
    assert (run_directory / HTML).read_bytes() == before
    with pytest.raises(RunDirectoryError, match="was left by the run"):
        render_again(run_directory, {HTML: run_directory / "config.toml"})
    with pytest.raises(RunDirectoryError, match="a file of its own for each"):
        render_again(run_directory, {HTML: target, MARKDOWN: target})
    for _ in range(2):  # what was rendered again may be rendered once more
        render_again(run_directory, {HTML: run_directory / "again.html"})


def test_what_cannot_be_shown_is_refused_in_words(result: RunResult, tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match="cannot be written"):
        render_again(result.directory, {HTML: tmp_path / "none" / "a.html"})
    (tmp_path / "report.json").write_text('{"held_out": {}, "product_version": "0.0.9"}')
    (tmp_path / "metrics.jsonl").write_text("")
    with pytest.raises(RunDirectoryError, match=r"show it with secure-fedmeta 0\.0\.9"):
        render_again(tmp_path, {HTML: tmp_path / "a.html"})
    (tmp_path / "metrics.jsonl").write_bytes((result.directory / "metrics.jsonl").read_bytes())
    for where, value in (("delta", "0.1"), ("granted_epsilon", "\x1b[2J")):
        report = json.loads((result.directory / "report.json").read_text())
        report["privacy"][where] = value
        (tmp_path / "report.json").write_text(json.dumps(report))
        with pytest.raises(RunDirectoryError, match="cannot show"):
            render_again(tmp_path, {HTML: tmp_path / "a.html"})
    (tmp_path / "metrics.jsonl").write_text("{")
    (tmp_path / "report.json").write_bytes((result.directory / "report.json").read_bytes())
    with pytest.raises(RunDirectoryError, match="JSON lines"):
        render_again(tmp_path, {HTML: tmp_path / "a.html"})


def test_the_command_names_the_page(
    result: RunResult, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "a.html"
    with pytest.raises(SystemExit) as ended:
        app(["report", str(result.directory), "--html", str(target)])
    assert ended.value.code == 0
    out = capsys.readouterr().out.replace("\n", "")
    assert f"Report: {result.directory / HTML} (" in out
    assert f"Rendered: {target} (" in out
    assert target.read_bytes() == (result.directory / HTML).read_bytes()
