"""What watches a run: a trace of its first rounds and scalars, with names and figures alone."""

from __future__ import annotations

import json
import os
import socket
import struct
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.compat.proto.event_pb2 import Event

from privacy.stages import Stage
from secure_fedmeta import profiling
from secure_fedmeta.errors import ConfigError
from secure_fedmeta.instruments import chosen
from secure_fedmeta.pipeline import assemble
from secure_fedmeta.profiling import Profile, bare
from secure_fedmeta.tensorboard import closing, scalars
from secure_fedmeta.training import RunResult, run
from secure_fedmeta.verification import verify_run
from tests.secure_fedmeta.federation import tiny


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    """A run of one round more than are profiled."""
    changes = {"training.rounds": profiling.ROUNDS + 1, "privacy.metrics": ["unclipped"]}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEDMETA_STATE_DIR", str(tmp_path_factory.mktemp("state")))
        instruments = chosen(profile=True, tensorboard=True)
        result = run(tiny(changes), out=tmp_path_factory.mktemp("runs"), instruments=instruments)
        assert verify_run(result.directory, key=None, pinned=None, unpinned=False).accepted
        assert [line.split(":")[0] for one in instruments for line in one.lines()] == [
            "Trace", "Scalars",
        ]  # fmt: skip
        return result


# --- the trace ----------------------------------------------------------------------------------


def test_the_trace_holds_every_stage_of_the_first_rounds(watched: RunResult) -> None:
    trace = json.loads((watched.directory / "trace.json").read_text())
    seen = Counter(e["name"] for e in trace["traceEvents"] if e["cat"] == "user_annotation")
    assert set(seen) == set(Stage)
    assert seen["round"] == profiling.ROUNDS == seen["server step"]
    assert seen["noise"] == 4 * profiling.ROUNDS
    # The request, and two steps of four answers and a close each.
    assert seen["open"] == (1 + 2 * (4 + 1)) * profiling.ROUNDS
    assert seen["evaluate"] == 2  # of rounds 1 and 2; the closing scores come later
    assert any(event["name"].startswith("aten::") for event in trace["traceEvents"])


def test_a_stage_lies_inside_the_round_that_it_is_of(watched: RunResult) -> None:
    events = json.loads((watched.directory / "trace.json").read_text())["traceEvents"]

    def spans(name: Stage) -> list[tuple[float, float]]:
        return [(e["ts"], e["ts"] + e["dur"]) for e in events if e["name"] == name]

    rounds = spans(Stage.ROUND)
    for name in set(Stage) - {Stage.EVALUATE, Stage.ROUND}:
        for begin, end in spans(name):
            assert any(a <= begin and end <= b + 0.01 for a, b in rounds), name


def test_the_trace_names_code_and_times_and_nothing_else(watched: RunResult) -> None:
    text = (watched.directory / "trace.json").read_text()
    trace = json.loads(text)
    assert set(trace) == {"traceEvents", "otherData"}
    assert trace["otherData"] == {"left_out": 0}
    keys = {"ph", "cat", "name", "ts", "dur", "pid", "tid"}
    assert {key for event in trace["traceEvents"] for key in event} == keys
    assert min(event["ts"] for event in trace["traceEvents"]) == 0.0
    assert {event["pid"] for event in trace["traceEvents"]} == {0}
    assert os.getpid() not in {event["tid"] for event in trace["traceEvents"]}
    names = {event["name"] for event in trace["traceEvents"]}
    assert not any("/" in name or "client" in name or ".py" in name for name in names)
    assert socket.gethostname() not in text


def event(name: str, **changes: Any) -> dict[str, Any]:
    given = {"ph": "X", "cat": "cpu_op", "name": name, "ts": 5.0, "dur": 1.0, "pid": 77, "tid": 78}
    return given | changes


def test_what_torch_knows_beside_names_and_times_is_left_out() -> None:
    found = bare(
        [
            event("aten::mm", args={"Input Dims": [[3, 4]], "Call stack": "/home/me/x.py"}),
            event("/home/me/secret.py(3): f"),
            event("somebody's own range", cat="user_annotation"),
            event("round", cat="user_annotation", ts=4.0, dur=9.0),
            event("f", cat="python_function"),
            event("process_name", ph="M"),
            event("void gemm<float, 128>(int*)", cat="kernel", pid=0, tid=7),
        ]
    )
    assert [(e["name"], e["ts"], e["pid"], e["tid"]) for e in found["traceEvents"]] == [
        ("round", 0.0, 0, 0),
        ("aten::mm", 1.0, 0, 0),
        ("void gemm<float, 128>(int*)", 1.0, 1, 1),
    ]
    assert "args" not in json.dumps(found)


def test_of_too_many_events_the_stages_and_the_longest_are_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(profiling, "MOST_EVENTS", 3)
    work = [event("aten::mm", ts=float(k), dur=float(k)) for k in range(5)]
    found = bare([*work, event("sum", cat="user_annotation", dur=0.1)])
    assert [e["dur"] for e in found["traceEvents"]] == [3.0, 4.0, 0.1]
    assert found["otherData"] == {"left_out": 3}


def test_the_profiler_itself_writes_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Beneath Python, into the middle of a panel or of plain lines."""
    with Profile().watching(tmp_path):
        torch.ones(2).sum()
    assert capfd.readouterr() == ("", "")


def test_private_data_are_not_profiled() -> None:
    info = assemble(tiny()).source.info
    Profile().check(info)
    with pytest.raises(ConfigError, match="public data of the same size") as caught:
        Profile().check(replace(info, public=False))
    assert caught.value.key == "--profile"


def test_an_instrument_that_refuses_stops_the_run_before_it_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Profile, info: object) -> None:
        raise ConfigError("not these data")

    monkeypatch.setattr(Profile, "check", refuse)
    with pytest.raises(ConfigError, match="not these data"):
        run(tiny(), out=tmp_path / "runs", instruments=[Profile()])
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("gpu", [True, False])
def test_stages_are_nvtx_ranges_where_there_is_a_gpu(
    gpu: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(torch.cuda.nvtx, "range_push", lambda name: calls.append(name))
    monkeypatch.setattr(torch.cuda.nvtx, "range_pop", lambda: calls.append("pop"))
    with (
        pytest.raises(ValueError, match="inside"),
        profiling._marked("round"),
        profiling._marked("sum"),
    ):
        raise ValueError("inside")
    assert calls == (["round", "sum", "pop", "pop"] if gpu else [])


# --- scalars ------------------------------------------------------------------------------------


def written(folder: Path) -> Iterator[tuple[str, int, float]]:
    """Tag, step and value of every scalar: records of length, checksum, event, checksum."""
    (path,) = folder.iterdir()
    data, at = path.read_bytes(), 0
    while at < len(data):
        (size,) = struct.unpack_from("<Q", data, at)
        event = Event.FromString(data[at + 12 : at + 12 + size])
        at += 16 + size
        for value in event.summary.value:
            yield value.tag, event.step, struct.unpack("<f", struct.pack("<f", _number(value)))[0]


def _number(value: Any) -> float:
    return float(value.tensor.float_val[0] if value.HasField("tensor") else value.simple_value)


def test_the_scalars_are_figures_of_metrics_and_report(watched: RunResult) -> None:
    lines = (watched.directory / "metrics.jsonl").read_text().splitlines()
    records = {record["round"]: record for record in map(json.loads, lines)}
    found = list(written(watched.directory / "tensorboard"))
    assert {tag.split("/")[0] for tag, _, _ in found} == {
        "epsilon", "round", "protected", "held_out", "closing",
    }  # fmt: skip
    own = {"worst": "epsilon", "clip": "clip", "adapted": "adapted", "survivors": "survivors"}
    for tag, step, value in found:
        group, _, name = tag.partition("/")
        if group == "closing":
            assert step == max(records)
            assert value == pytest.approx(watched.report["held_out"][name]["mean"])
        elif name in own:
            assert value == pytest.approx(records[step][own[name]])
    at = Counter(step for tag, step, _ in found if tag == "epsilon/participants")
    assert at == dict.fromkeys(records, 1)
    assert ("protected/unclipped", 2) in {(tag, step) for tag, step, _ in found}


def test_the_file_of_scalars_names_no_machine(watched: RunResult) -> None:
    (path,) = (watched.directory / "tensorboard").iterdir()
    assert path.name == "events.out.tfevents.run"
    assert socket.gethostname().encode() not in path.read_bytes()


def test_a_resumed_run_writes_the_earlier_rounds_again(tmp_path: Path) -> None:
    """What the process before left under the machine's name goes."""
    folder = tmp_path / "tensorboard"
    folder.mkdir()
    (folder / "events.out.tfevents.1.machine").write_bytes(b"cut off")
    board = chosen(profile=False, tensorboard=True)[0]
    board.resumed([{"round": 1, "epsilon": 1.0}])
    with board.watching(tmp_path):
        board.round_done({"round": 2, "epsilon": 2.0})
    assert [one for one in written(folder) if one[0] == "epsilon/worst"] == [
        ("epsilon/worst", 1, 1.0),
        ("epsilon/worst", 2, 2.0),
    ]


def test_a_figure_that_is_not_listed_is_not_shown() -> None:
    record = {"round": 1, "epsilon": 1.0, "training_loss": 0.3, "losses": {"client-1": 2.0}}
    assert dict(scalars(record)) == {"epsilon/worst": 1.0}


def test_what_has_no_value_is_left_out() -> None:
    aborted = {"round": 1, "status": "aborted", "seconds": 2.0, "adapted": None}
    assert dict(scalars(aborted)) == {"round/seconds": 2.0}
    arms = dict.fromkeys(("no_adaptation", "local_k", "local_all", "fedavg_ft"))
    report = {"held_out": {**arms, "meta": {"mean": None}}}
    assert dict(closing(report)) == {}


def test_without_the_package_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ConfigError, match=r"pip install 'secure-fedmeta\[tensorboard\]'") as caught:
        chosen(profile=False, tensorboard=True)
    assert caught.value.key == "--tensorboard"
