"""The commands on personal agents; `cli` adds them and maps errors to exit codes."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from secure_fedmeta.cli_output import Json, Show, show, visible

if TYPE_CHECKING:
    from crypto.locked_file import Lock
    from secure_fedmeta.agent import PersonalAgent

agent_app = typer.Typer(
    help="Personal agents: files that are private to their user, outside of every epsilon.",
    no_args_is_help=True,
)
Run = Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.")]
AgentFile = Annotated[Path, typer.Argument(metavar="AGENT", help="An agent file.")]
PassphraseFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="File with the passphrase on its one line; left out: it is asked for."
    ),
]
KeyFile = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="File of 32 random bytes, in place of a passphrase."),
]
ModeOption = Annotated[
    str,
    typer.Option(
        "--mode",
        help="auto chooses on the own examples; adapted, global, local or mixture fixes it.",
    ),
]
_PLAIN = "This agent file is PLAIN: whoever reads it has its user's examples."


def personalize(
    run: Run,
    data: Annotated[Path, typer.Option(metavar="FILE", help="Labelled examples of one user.")],
    out: Annotated[Path, typer.Option(metavar="AGENT", help="The agent file to write.")],
    mode: ModeOption = "auto",
    capacity: Annotated[
        int, typer.Option(help="Examples that the agent remembers: the newest.")
    ] = 1000,
    passphrase_file: PassphraseFile = None,
    key_file: KeyFile = None,
    plain: Annotated[
        bool, typer.Option("--plain", help="Write the agent in the clear. Not for private data.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Adapt a run's model to one user's examples and keep both in an encrypted file.

    The agent is PRIVATE to its user: it holds their examples. It is outside of every epsilon of the
    run; keep it with its user.
    """
    from secure_fedmeta.agent import Reader, agent_of
    from secure_fedmeta.agent.answers import NOTICE
    from secure_fedmeta.errors import AgentError

    if out.exists():
        raise AgentError(f"{out} exists: name another file, or remove it")
    if not out.parent.is_dir():
        raise AgentError(f"{out.parent} is no folder: make it, or name another file")
    if plain and (passphrase_file or key_file):
        raise AgentError("--plain takes no key")
    wanted = _mode(mode)
    with _working("reading the run and the examples", quiet=as_json):
        agent = agent_of(run, capacity=capacity)
        agent.observe(*Reader(agent.spec).read_labelled(data))
    key = None if plain else _key(passphrase_file, key_file, twice=True)
    with _working("personalising", quiet=as_json):
        agent.learn(wanted)
        _write(out, agent, key)
    if plain:
        _warn()
    _tell(_state(agent) | {"file": str(out), "plain": plain}, agent, as_json, f"Wrote {out}.")
    if not as_json:
        print(NOTICE)


def act(
    agent_file: AgentFile,
    data: Annotated[Path, typer.Option(metavar="FILE", help="Rows to predict.")],
    passphrase_file: PassphraseFile = None,
    key_file: KeyFile = None,
    as_json: Json = False,
) -> None:
    """Predict the rows of a file with an agent, and say how sure it is.

    Where the file has targets too, the run's metric on them is shown. Nothing in the agent changes.
    """
    from secure_fedmeta.agent import Reader
    from secure_fedmeta.agent.answers import answer
    from secure_fedmeta.console_agent import render_answer

    agent, key = _open(agent_file, passphrase_file, key_file, quiet=as_json)
    with _working("predicting", quiet=as_json):
        found = answer(agent, Reader(agent.spec).read(data)) | {"plain": key is None}
    if as_json:
        print(json.dumps(found, allow_nan=False))
    else:
        show(render_answer(found))


def examples(
    run: Run,
    client: Annotated[str, typer.Option(help="A client that the run held out.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder to write files to.")],
    folder: Annotated[
        Path, typer.Option(help="Folder that the paths of the run's config start from.")
    ] = Path(),
    draws: Annotated[int, typer.Option(min=1, help="Draws to write, from the first.")] = 1000,
    as_json: Json = False,
) -> None:
    """Write the draws on which a run scored a held-out client, as files for an agent.

    It works only where the data of the run are at hand. The files hold raw examples: they are as
    private as the data.
    """
    from secure_fedmeta.agent import write_draws
    from secure_fedmeta.tasks import Site

    with _working("reading data", quiet=as_json):
        written = write_draws(run, client, out, site=Site(folder), most=draws)
    if as_json:
        files = [{"support": str(one.support), "test": str(one.test)} for one in written]
        print(json.dumps({"client": client, "draws": files}))
        return
    print(f"Wrote {len(written)} draws of {client} to {out}: the examples to adapt on, such as")
    print(
        f"{written[0].support.name}, and those that the run was scored on, {written[0].test.name}."
    )
    print("They are raw examples, as private as the data that they are from.")


@agent_app.command("show")
def show_agent(
    agent_file: AgentFile,
    passphrase_file: PassphraseFile = None,
    key_file: KeyFile = None,
    as_json: Json = False,
) -> None:
    """Show what an agent is made of, and what it expects of a file of rows."""
    from secure_fedmeta.agent import Reader

    agent, key = _open(agent_file, passphrase_file, key_file, quiet=as_json)
    reader = Reader(agent.spec)
    found = _state(agent) | {
        "plain": key is None,
        "source": agent.spec.source,
        "algorithm": agent.spec.rule.algorithm,
        "metric": agent.spec.metric,
        "columns": list(reader.columns),
        "target": reader.target,
        "classes": None if reader.labels is None else list(reader.labels),
    }
    if as_json:
        print(json.dumps(found, allow_nan=False))
        return
    for name, value in found.items():
        print(visible(f"{name.replace('_', ' ')}: {_words(value)}"))


@agent_app.command("explain")
def explain(
    agent_file: AgentFile,
    passphrase_file: PassphraseFile = None,
    key_file: KeyFile = None,
    as_json: Json = False,
) -> None:
    """Say what adaptation changed: the choice, the parameters, the inputs, the predictions."""
    agent, _ = _open(agent_file, passphrase_file, key_file, quiet=as_json)
    found = agent.explain()
    if as_json:
        print(json.dumps(found.to_json(), allow_nan=False))
        return
    for line in found.lines():
        print(visible(line))


@agent_app.command("observe")
def observe(
    agent_file: AgentFile,
    data: Annotated[Path, typer.Option(metavar="FILE", help="Labelled feedback, in order.")],
    passphrase_file: PassphraseFile = None,
    key_file: KeyFile = None,
    as_json: Json = False,
) -> None:
    """Give feedback: examples with their targets. Where they no longer look alike, it re-adapts."""
    from dataclasses import asdict

    from secure_fedmeta.agent import Reader

    agent, key = _open(agent_file, passphrase_file, key_file, quiet=as_json)
    with _working("taking feedback", quiet=as_json):
        noticed = agent.observe(*Reader(agent.spec).read_labelled(data))
        _write(agent_file, agent, key)
    if as_json:
        losses = [value if math.isfinite(value) else None for value in noticed.losses]
        print(json.dumps(asdict(noticed) | {"losses": losses}, allow_nan=False))
        return
    print(f"Took {noticed.examples} examples; {noticed.remembered} are remembered.")
    for change in noticed.changes:
        print(f"Noticed at {change}.")
    if not noticed.changes:
        print(
            "No change was noticed: what was learned stays as it is until fedmeta agent learn AGENT"
        )


@agent_app.command("learn")
def learn(
    agent_file: AgentFile,
    mode: ModeOption = "auto",
    passphrase_file: PassphraseFile = None,
    key_file: KeyFile = None,
    as_json: Json = False,
) -> None:
    """Learn anew from all remembered examples."""
    wanted = _mode(mode)
    agent, key = _open(agent_file, passphrase_file, key_file, quiet=as_json)
    with _working("learning", quiet=as_json):
        agent.learn(wanted)
        _write(agent_file, agent, key)
    _tell(_state(agent) | {"plain": key is None}, agent, as_json, f"Wrote {agent_file}.")


@agent_app.command("reset")
def reset(
    agent_file: AgentFile,
    passphrase_file: PassphraseFile = None,
    key_file: KeyFile = None,
    as_json: Json = False,
) -> None:
    """Forget all examples and what was learned from them; the run's model stays."""
    agent, key = _open(agent_file, passphrase_file, key_file, quiet=as_json)
    agent.reset()
    _write(agent_file, agent, key)
    _tell(_state(agent) | {"plain": key is None}, agent, as_json, f"{agent_file} is as new.")


def _state(agent: PersonalAgent) -> dict[str, Any]:
    found = agent.explain()
    return {
        "run": agent.spec.run,
        "mode": found.mode,
        "way": found.way,
        "why": found.why,
        "weights": found.weights,
        "scores": found.scores,
        "confidence": found.confidence,
        "remembered": found.remembered,
        "forgotten": found.forgotten,
        "capacity": agent.capacity,
        "notices": list(found.notices),
    }


def _words(value: object) -> str:
    """A value of `show` for people; "-" where there is none."""
    if isinstance(value, dict):
        value = [f"{name} {_words(one)}" for name, one in value.items()]
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    return "-" if value is None else str(value)


def _tell(found: dict[str, Any], agent: PersonalAgent, as_json: bool, last: str) -> None:
    from secure_fedmeta.agent.answers import NOTICE

    if as_json:
        print(json.dumps(found | {"notice": NOTICE}, allow_nan=False))
        return
    print(f"Answers by {found['way']}: {found['why']}.")
    print(
        f"Own examples: {found['remembered']} remembered, {found['forgotten']} forgotten "
        f"(it keeps the newest {agent.capacity})."
    )
    print(f"Confidence: {found['confidence']}.")
    print(last)


def _mode(name: str) -> Any:
    from secure_fedmeta.agent import MODES
    from secure_fedmeta.errors import unknown_name

    if name not in MODES:
        raise unknown_name("mode", name, MODES, key="--mode")
    return name


def _open(
    path: Path, passphrase_file: Path | None, key_file: Path | None, *, quiet: bool
) -> tuple[PersonalAgent, Lock | None]:
    """The agent of a file, and what it is locked by; None, with a warning, where it is plain."""
    from crypto.locked_file import Method, is_locked, method_of
    from secure_fedmeta.agent import PersonalAgent
    from secure_fedmeta.agent.file import read
    from secure_fedmeta.errors import AgentError

    data = read(path)
    if not is_locked(data):
        if passphrase_file or key_file:
            raise AgentError(f"{path} is plain, no key opens it: leave the key out")
        _warn()
        return PersonalAgent.load_plain(path), None
    if method_of(data) is Method.KEY_FILE and key_file is None:
        raise AgentError(f"{path} is locked by a key file: name it with --key-file")
    key = _key(passphrase_file, key_file, twice=False)
    with _working("opening the agent", quiet=quiet):
        return PersonalAgent.load(path, key), key


def _write(path: Path, agent: PersonalAgent, key: Lock | None) -> None:
    if key is None:
        agent.save_plain(path, rand=os.urandom)
    else:
        agent.save(path, key, rand=os.urandom)


def _key(passphrase_file: Path | None, key_file: Path | None, *, twice: bool) -> Lock:
    from crypto.locked_file import Passphrase
    from secure_fedmeta.agent.keys import key_in, passphrase_in
    from secure_fedmeta.errors import AgentError

    if passphrase_file is not None and key_file is not None:
        raise AgentError("name a passphrase file or a key file, not both")
    if key_file is not None:
        return key_in(key_file)
    if passphrase_file is not None:
        return passphrase_in(passphrase_file)
    if not sys.stdin.isatty():
        raise AgentError(
            "there is no terminal to ask for a passphrase on: name --passphrase-file or --key-file"
        )
    words: str = typer.prompt(
        "Passphrase of the agent", hide_input=True, confirmation_prompt=twice, err=True
    )
    return Passphrase(words)


@contextmanager
def _working(text: str, *, quiet: bool) -> Iterator[None]:
    from secure_fedmeta.console_progress import display

    with display(Show.AUTO, as_json=quiet) as shown:
        shown.stage(text)
        yield


def _warn() -> None:
    print(f"fedmeta: warning: {_PLAIN}", file=sys.stderr)
