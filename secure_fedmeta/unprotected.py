"""What a run shows without protection, and what nothing defends against."""

UNPROTECTED = (
    "who takes part in a round and who drops out is visible to the aggregator",
    (
        "scores and examples of held-out clients carry no noise, and an exact score can tell how "
        "many examples they have of each class; hold out only clients who agree"
    ),
    "counts of rows, tasks and exclusions in the report; shown for data declared public only",
    "on data declared public the FedAvg baseline trains once more, and is not charged",
    "architecture, initial weights, config and every global model are public to participants",
)

NOT_DEFENDED = (
    (
        "All clients of this version run in one process: that updates are hidden is shown, not "
        "enforced. Whoever runs the machine could read everything."
    ),
    "A client's or the aggregator's machine that is taken over gives away all that it holds.",
    (
        "More clients working together than the plan allows take their shares off the noise; one "
        "party under several names counts as several."
    ),
    (
        "The aggregator chooses who is counted as dropped, down to the fewest permitted, and can "
        "start further runs on the same clients unless they keep ledgers of their own."
    ),
    (
        "A client may send a vector that spoils the model. Nothing here vouches for the quality or "
        "truth of what clients put in, or for what the model does."
    ),
    (
        "Settings chosen by looking at private data, or training stopped because of a score, are "
        "outside of the claim."
    ),
    "Somebody whose data are in many tasks is protected less: see the figure for a person.",
    "How long a client takes to answer tells roughly how many tasks it has.",
    (
        "The log shows that the aggregator's account is consistent, unchanged and within budget; "
        "not that nothing else was computed. Whoever holds its key can write another."
    ),
    "The model keeps what it learned when a client later asks to be forgotten.",
    "Signatures would not withstand a quantum computer that exists while the run goes on.",
)
"""What nothing in the product defends against, in short: threat_model.md has all of it."""
