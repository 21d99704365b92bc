"""Personal agents: a released model, adapted to one person's examples, where these are."""

from secure_fedmeta.agent.agent import Noticed, PersonalAgent
from secure_fedmeta.agent.answering import Answer
from secure_fedmeta.agent.choice import MODES, Choice, Mode
from secure_fedmeta.agent.explain import Explanation
from secure_fedmeta.agent.rows import Reader, Rows
from secure_fedmeta.agent.run import agent_of, write_draws
from secure_fedmeta.agent.spec import AgentSpec

__all__ = [
    "MODES",
    "AgentSpec",
    "Answer",
    "Choice",
    "Explanation",
    "Mode",
    "Noticed",
    "PersonalAgent",
    "Reader",
    "Rows",
    "agent_of",
    "write_draws",
]
