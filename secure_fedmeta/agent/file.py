"""The file of an agent: everything that it needs, in one strict format.

Content (little-endian): magic "FMPA" | version u8 = 1 | length u32 of a canonical JSON text (RFC
8785) | that text | a safetensors file to the end. The text has what the agent is made of
(`AgentSpec`) and what it chose; the tensors are the run's model, the examples, and what was learned
from them. Nothing is pickled, no name is imported but those of installed models and learners, and
every size is checked against the network before it is believed.

The content is private to its user. It lies in a file that is locked (`crypto.locked_file`), or,
where that was asked for by name, in the clear.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
import rfc8785
import torch
from pydantic import Field, FiniteFloat, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from crypto.codec import Reader, Writer
from crypto.errors import Malformed
from crypto.keys import Rand
from crypto.locked_file import COST, Lock, is_locked, lock, unlock
from secure_fedmeta.agent.choice import FEWEST, WAYS, Choice, Mode, Way, folds_of
from secure_fedmeta.agent.confidence import COLDEST, HOTTEST, Calibration, Errors
from secure_fedmeta.agent.contents import MAX_CAPACITY, NOTICES, Contents, Learned
from secure_fedmeta.agent.drift import LONGEST
from secure_fedmeta.agent.spec import AgentSpec, Line, Network
from secure_fedmeta.config_base import Section
from secure_fedmeta.errors import AgentError
from secure_fedmeta.tasks.files import read_regular

MAGIC: Final = b"FMPA"
VERSION: Final = 1
PURPOSE: Final = "secure-fedmeta/agent"
MAX_BYTES: Final = 2**29
"""Of an agent file: 512 MiB."""
MAX_TEXT: Final = 2**24
_Note = Annotated[str, Line]
_Weight = Annotated[FiniteFloat, Field(gt=0, le=1)]


class LearnedText(Section):
    """What an agent learned, apart from tensors."""

    mode: Mode
    way: Way
    weights: dict[Way, _Weight] = Field(min_length=1, max_length=3)
    why: _Note
    examples: Annotated[int, Field(ge=0)]
    temperature: Annotated[FiniteFloat, Field(ge=COLDEST * 0.99, le=HOTTEST * 1.01)]
    note: _Note


class AgentText(Section):
    """The JSON text of an agent file."""

    spec: AgentSpec
    capacity: Annotated[int, Field(ge=1, le=MAX_CAPACITY)]
    seen: Annotated[int, Field(ge=0, lt=2**53)]
    constants: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    notices: tuple[_Note, ...] = Field(max_length=NOTICES, strict=False)
    learned: LearnedText | None


def encode(agent: Contents) -> bytes:
    """The content of an agent's file, in the clear."""
    learned = agent.learned
    text = AgentText(
        spec=agent.spec,
        capacity=agent.capacity,
        seen=agent.seen,
        constants=agent.spec.build().personal.spec.constants.hex(),
        notices=agent.notices,
        learned=None if learned is None else _text(learned),
    )
    canonical = rfc8785.dumps(text.model_dump(mode="json"))
    head = Writer().fixed(MAGIC, len(MAGIC)).u8(VERSION).sized(canonical).done()
    return head + save_tensors(_tensors(agent))


def decode(data: bytes) -> Contents:
    """The agent of a content.

    Raises:
        AgentError: it is not exactly one agent of this version.
        ConfigError: it names a model or a learner that is not installed.
    """
    if data[: len(MAGIC)] != MAGIC:
        raise AgentError("this is no agent file")
    reader = Reader(data[len(MAGIC) :])
    try:
        version = reader.u8()
        if version != VERSION:
            raise AgentError(
                f"the agent is of version {version}, this product reads {VERSION}: upgrade it"
            )
        canonical, tensors = reader.sized(), bytes(reader.rest())
    except Malformed as error:
        raise AgentError(f"the agent file is cut off ({error})") from None
    text = _parsed(canonical)
    try:
        held = load_tensors(tensors)
    except (SafetensorError, ValueError) as error:
        raise AgentError("the agent file is damaged behind its text") from error
    return _agent(text, held)


def save(path: Path, agent: Contents, key: Lock, *, rand: Rand, cost: int = COST) -> None:
    """Write an agent, locked, in place of what was there: readable by its owner alone, durably.

    Args:
        path: the file.
        agent: what is written.
        key: passphrase or key file.
        rand: source of the lock's salt, and of the draft's name.
        cost: of a passphrase; see `locked_file.lock`.

    Raises:
        AgentError: it cannot be written; what was there is as it was.
    """
    _write(path, lock(encode(agent), key, purpose=PURPOSE, rand=rand, cost=cost), rand)


def save_plain(path: Path, agent: Contents, *, rand: Rand) -> None:
    """Write an agent in the clear: whoever reads the file has its user's examples.

    Raises:
        AgentError: as `save`.
    """
    _write(path, encode(agent), rand)


def read(path: Path) -> bytes:
    """The bytes of an agent file, locked or plain.

    Raises:
        DataError: it cannot be read, is no regular file, or too large.
        AgentError: it is neither a locked file nor an agent.
    """
    data = read_regular(path, MAX_BYTES)
    if not is_locked(data) and data[: len(MAGIC)] != MAGIC:
        raise AgentError(f"{path} is no agent file")
    return data


def load(path: Path, key: Lock) -> Contents:
    """The agent of a locked file.

    Raises:
        DataError, AgentError: as `read` and `decode`.
        LockRefused: the key does not open it, or it was changed.
    """
    return decode(unlock(read(path), key, purpose=PURPOSE))


def load_plain(path: Path) -> Contents:
    """The agent of a file in the clear.

    Raises:
        DataError, AgentError: as `read` and `decode`; the file is locked.
    """
    data = read(path)
    if is_locked(data):
        raise AgentError(f"{path} is locked: give its passphrase or key file")
    return decode(data)


# --- content ------------------------------------------------------------------------------------


def _text(learned: Learned) -> LearnedText:
    return LearnedText(
        mode=learned.mode,
        way=learned.choice.way,
        weights={_way(name): weight for name, weight in learned.choice.weights.items()},
        why=learned.choice.why,
        examples=learned.examples,
        temperature=learned.calibration.temperature,
        note=learned.calibration.note,
    )


def _way(name: str) -> Way:
    return WAYS[[str(way) for way in WAYS].index(name)]


def _tensors(agent: Contents) -> dict[str, Tensor]:
    found = {
        "model": agent.model,
        "x": torch.tensor(agent.x),
        "y": torch.tensor(agent.y),
        "drift": torch.tensor(agent.losses, dtype=torch.float64),
    }
    learned = agent.learned
    if learned is None:
        return found
    found |= {f"learned/{name}": vector for name, vector in learned.vectors.items()}
    found |= {f"fold/{name}": held for name, held in learned.fold_vectors.items()}
    scores = [learned.choice.scores[way] for way in WAYS] if learned.choice.scores else []
    found["scores"] = torch.tensor(scores, dtype=torch.float64)
    errors = learned.calibration.errors
    if errors is not None:
        found["residuals"] = torch.tensor(errors.residuals)
        found["folds"] = torch.tensor(errors.folds.astype(np.int64))
    return {name: value.contiguous() for name, value in found.items()}


def _parsed(canonical: bytes) -> AgentText:
    if len(canonical) > MAX_TEXT:
        raise AgentError(f"the text of the agent file has more than {MAX_TEXT:,} bytes")
    try:
        tree: Any = json.loads(canonical)
        if rfc8785.dumps(tree) != canonical:
            raise AgentError("the text of the agent file is not canonical")
        return AgentText.model_validate(tree)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise AgentError(
            f"the agent file is not one of this version: {where}: {first['msg']}"
        ) from None
    except (ValueError, RecursionError, rfc8785.CanonicalizationError):
        raise AgentError("the text of the agent file is no JSON") from None


def _agent(text: AgentText, held: Mapping[str, Tensor]) -> Contents:
    """The agent of a text and its tensors, each of exactly the shape that the text asks for."""
    taken, network = _Tensors(held), text.spec.build()
    if network.personal.spec.constants.hex() != text.constants:
        raise AgentError(
            "the network's constants come out otherwise here than where the agent was made: open "
            "it with the version of torch that made it"
        )
    model = taken.take("model", (network.personal.spec.size,), torch.float32)
    rows, lost = taken.length("y"), taken.length("drift")
    if lost > LONGEST:
        raise AgentError(f"a test of {lost} losses; allowed: up to {LONGEST}")
    found = Contents(
        spec=text.spec,
        model=model,
        capacity=text.capacity,
        x=taken.take("x", (rows, text.spec.model.inputs), torch.float32).numpy(),
        y=taken.take("y", (rows,), torch.float32).numpy(),
        seen=text.seen,
        learned=None if text.learned is None else _learned(text.learned, network, taken),
        losses=tuple(taken.take("drift", (lost,), torch.float64, finite=False).tolist()),
        notices=text.notices,
    )
    taken.end()
    return found


def _learned(text: LearnedText, network: Network, taken: _Tensors) -> Learned:
    sizes = {"adapted": network.personal.spec.size, "local": network.local.spec.size}
    _check_weights(text)
    used = [name for name in sizes if name in text.weights]
    count = taken.length("scores")
    if count not in (0, len(WAYS)):
        raise AgentError(f"{count} scores for {len(WAYS)} candidates")
    scores = taken.take("scores", (count,), torch.float64, finite=False).tolist()
    errors = _errors(text, taken)
    held = 0 if errors is None else int(errors.folds.max()) + 1
    return Learned(
        mode=text.mode,
        choice=Choice(
            text.way,
            {str(n): w for n, w in text.weights.items()},
            dict(zip(WAYS, scores, strict=False)),
            text.why,
        ),
        examples=text.examples,
        vectors={n: taken.take(f"learned/{n}", (sizes[n],), torch.float32) for n in used},
        calibration=Calibration(text.temperature, errors, text.note),
        fold_vectors={
            n: taken.take(f"fold/{n}", (held, sizes[n]), torch.float32) for n in used if held
        },
    )


def _errors(text: LearnedText, taken: _Tensors) -> Errors | None:
    """Residuals and folds of the examples, where there are any."""
    if not taken.holds("residuals"):
        return None
    count = taken.length("residuals")
    if count != text.examples or count < FEWEST:
        raise AgentError(f"{count} residuals for {text.examples} examples")
    residuals = taken.take("residuals", (count, 1), torch.float64).numpy()
    folds = taken.take("folds", (count,), torch.int64).numpy()
    if not np.array_equal(folds, folds_of(count)):
        raise AgentError("the folds are not those of so many examples")
    return Errors(residuals, folds)


def _check_weights(text: LearnedText) -> None:
    names = set(text.weights)
    alone = text.way != "mixture"
    if "mixture" in names or (alone and names != {text.way}) or sum(text.weights.values()) != 1:
        raise AgentError(f"weights of {', '.join(sorted(names))} for the way {text.way}")


class _Tensors:
    """Tensors by name, each taken once."""

    def __init__(self, held: Mapping[str, Tensor]) -> None:
        self._left = dict(held)

    def holds(self, name: str) -> bool:
        return name in self._left

    def length(self, name: str) -> int:
        if name not in self._left or self._left[name].ndim == 0:
            raise AgentError(f"the agent file has no {name!r}")
        return int(self._left[name].shape[0])

    def take(
        self, name: str, shape: tuple[int, ...], dtype: torch.dtype, *, finite: bool = True
    ) -> Tensor:
        if name not in self._left:
            raise AgentError(f"the agent file has no {name!r}")
        value = self._left.pop(name)
        if tuple(value.shape) != shape or value.dtype != dtype:
            raise AgentError(
                f"{name!r} in the agent file is {value.dtype} {list(value.shape)}, must be {dtype} "
                f"{list(shape)}"
            )
        if finite and not bool(torch.isfinite(value).all()):
            raise AgentError(f"{name!r} in the agent file holds a value that is not finite")
        return value.clone()

    def end(self) -> None:
        if self._left:
            raise AgentError(f"the agent file holds {min(self._left)!r}, which it has no use for")


# --- files --------------------------------------------------------------------------------------


def _write(path: Path, data: bytes, rand: Rand) -> None:
    draft = path.with_name(f".{path.name}.{rand(8).hex()}")
    try:
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise AgentError(f"{path} cannot be written ({error.strerror})") from error
