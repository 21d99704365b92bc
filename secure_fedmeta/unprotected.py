"""What a run shows without protection: printed in the report and written into the log's genesis."""

UNPROTECTED = (
    "who takes part in a round and who drops out is visible to the aggregator",
    "scores and examples of held-out clients carry no noise; hold out only clients who agree",
    "counts of rows, tasks and exclusions in the report; shown for data declared public only",
    "on data declared public the FedAvg baseline trains once more, and is not charged",
    "architecture, initial weights, config and every global model are public to participants",
)
