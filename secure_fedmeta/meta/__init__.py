"""Meta-learning algorithms: one outer vector per unit of privacy, and adaptation to a task."""

from secure_fedmeta.meta.algorithm import Algorithm
from secure_fedmeta.meta.batch import TaskBatch
from secure_fedmeta.meta.learner import (
    LEARNERS,
    Learner,
    MetaLearner,
    build_learner,
    resolve_device,
)

__all__ = [
    "LEARNERS",
    "Algorithm",
    "Learner",
    "MetaLearner",
    "TaskBatch",
    "build_learner",
    "resolve_device",
]
