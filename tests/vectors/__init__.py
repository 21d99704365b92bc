"""Frozen vectors of the product's formats; see README.md."""

from tests.vectors import he, log, masking, messages, primitives, proofs, threshold

FORMATS = (
    *primitives.FORMATS,
    *messages.FORMATS,
    *masking.FORMATS,
    *he.FORMATS,
    *threshold.FORMATS,
    *log.FORMATS,
    *proofs.FORMATS,
)
