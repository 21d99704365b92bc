"""One federated round, from the global model to the next one, on one screen."""

from __future__ import annotations

from crypto.errors import SumAborted
from crypto.secure_sum import Done, Ready
from privacy.errors import BudgetExceeded, LedgerError
from privacy.stages import Stage, stage
from secure_fedmeta.aggregator import Aggregator
from secure_fedmeta.outcome import Abort, Release
from secure_fedmeta.transport import Transport


def run_round(
    aggregator: Aggregator, transport: Transport, *, round_index: int, attempt: int
) -> Release | Abort:
    """Run the protocol once.

    Model out, adverts, shares and masked updates in; then budget and intent; only then the unmask
    request, and with its answers the sum, which is the release. Where clients add noise to their
    own steps, the budget comes first of all.

    Args:
        aggregator: holds the model, the budget and the log.
        transport: carries the messages to the clients of the roster and back.
        round_index: from 1, strictly increasing.
        attempt: from 1; (round, attempt) is never used twice.

    Returns:
        The release, or the abort with its reason where thresholds did not hold or the ledger
        failed; nothing is opened that was not charged.

    Raises:
        BudgetExceeded: the grant no longer allows this round; nothing was opened.
    """
    transport.begin(round_index)
    exchange = aggregator.open_round(round_index, attempt)
    try:
        with stage(Stage.CHARGE):
            aggregator.charge_computing(exchange)
        outgoing = exchange.begin()
        while True:
            transport.send(outgoing)
            for sender, reply in transport.collect(exchange.expecting):
                exchange.receive(sender, reply)
            step = exchange.advance()
            if isinstance(step, Done):
                with stage(Stage.CHARGE):
                    return aggregator.release(exchange, step)
            if isinstance(step, Ready):
                with stage(Stage.CHARGE):
                    intent = aggregator.record_intent(exchange, step)
                outgoing = exchange.authorise(intent)
            else:
                outgoing = step
    except (SumAborted, LedgerError) as error:
        return aggregator.abort(exchange, error)
    except BudgetExceeded as error:
        aggregator.refuse(exchange, error)
        raise
    except BaseException as error:
        aggregator.cut_off(exchange, error)
        raise
