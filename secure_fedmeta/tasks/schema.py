"""What a model of a source reads and predicts, for whoever has examples of their own.

Shipped sources are built to find out. Sources whose data lie elsewhere (tables and images of one's
own) declare it from their options alone: whoever personalises a model does not have the data that
it was trained on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from secure_fedmeta.tasks.own_table_options import FeatureOptions, TargetOptions
from secure_fedmeta.tasks.protocol import SourceInfo, SourceOptions


@dataclass(frozen=True)
class Columns:
    """The columns of a table as people keep it, before they become inputs.

    Attributes:
        features: column -> how the model sees it.
        target: the column that is predicted.
    """

    features: Mapping[str, FeatureOptions]
    target: TargetOptions


@dataclass(frozen=True)
class Schema:
    """Inputs and target of a model.

    Attributes:
        features: the name of each input.
        input_bounds: lowest and highest value of any input.
        output_dim: outputs of the model.
        loss: what it was trained by.
        metric: what its source reports.
        k_support: examples that a draw adapts on.
        columns: the columns behind the inputs, where people keep these; else None.
    """

    features: tuple[str, ...]
    input_bounds: tuple[float, float]
    output_dim: int
    loss: Literal["mse", "cross_entropy"]
    metric: Literal["auc", "average_precision", "mse", "accuracy"]
    k_support: int
    columns: Columns | None = None

    @classmethod
    def of(cls, info: SourceInfo) -> Schema:
        """What a source declares."""
        return cls(
            info.features,
            info.input_bounds,
            info.output_dim,
            info.loss,
            info.metric,
            info.k_support,
        )


@runtime_checkable
class Declared(Protocol):
    """A source class whose schema follows from its options; a class method."""

    def schema(self, options: SourceOptions) -> Schema:
        """What a model of this source reads and predicts; no data are read."""
