"""The registry of transports: one file and one line for each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from secure_fedmeta.config import TransportConfig
from secure_fedmeta.randomness import Generators
from secure_fedmeta.registry import Registry
from secure_fedmeta.transport import Endpoint, Transport
from secure_fedmeta.transport.memory import MemoryTransport, RandomFaults


class TransportBuilder(Protocol):
    """Makes a transport for the clients of one run."""

    def __call__(
        self,
        endpoints: Mapping[int, Endpoint],
        settings: TransportConfig,
        *,
        faults: Generators,
    ) -> Transport:
        """A transport that reaches `endpoints`; `faults` gives the draws of each round's faults."""
        ...


def memory(
    endpoints: Mapping[int, Endpoint], settings: TransportConfig, *, faults: Generators
) -> Transport:
    """All parties in this process, with the configured faults."""
    injected = RandomFaults(
        drop=settings.drop,
        delay=settings.delay,
        duplicate=settings.duplicate,
        tamper=settings.tamper,
        random=faults,
    )
    return MemoryTransport(endpoints, faults=injected)


TRANSPORTS: Registry[TransportBuilder] = Registry(
    "transport", "transport.name", "secure_fedmeta.transports", {"memory": memory}
)
