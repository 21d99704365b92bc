"""Double masking on a ring: sums, refusals, and attacks that the complete graph does not know."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

import crypto.masking_client
from crypto.envelope import Heading
from crypto.errors import SumAborted
from crypto.keys import Roster
from crypto.masking_client import MaskingClient
from crypto.masking_graph import Graph
from crypto.masking_messages import (
    Neighbourhood,
    Opening,
    OpeningRequest,
    decode_bundle,
    decode_delivery,
    encode_bundle,
    encode_delivery,
)
from crypto.secure_sum import Outgoing, Terms
from crypto.sharing import broken_condition
from crypto.terms import Sharing
from tests.crypto.adversary import OTHER_INTENT, Adversary, closure
from tests.crypto.harness import (
    EVIDENCE,
    INTENT,
    Run,
    graph_of,
    make_terms,
    make_vectors,
    payload_of,
    resign,
    shown,
    total,
)
from tests.crypto.masking_runs import (
    ADVERTISE,
    CONSISTENCY,
    MASKED,
    SHARE,
    UNMASK,
    refuses,
    requests_of,
)
from tests.crypto.restarts import restarting

# Of a neighbourhood of 7, 5 make a secret; 2 in common are sure to two sets of 5 beside a colluder.
CLIENTS, DEGREE, THRESHOLD = 12, 6, 5


def ring_terms(clients: int = CLIENTS, **changes: int) -> Terms:
    given = {"degree": DEGREE, "threshold": THRESHOLD, "min_survivors": clients - 3, **changes}
    return make_terms(clients, **given)


def ring(clients: int = CLIENTS, seed: object = 0, **changes: int) -> Run:
    terms = ring_terms(clients, **changes)
    return Run("ring", terms, make_vectors(terms), seed)


def graph(run: Run, client: int = 1) -> Graph:
    found = run.clients[client]._graph  # type: ignore[attr-defined]
    assert found is not None
    return found


# --- sums ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("clients", "degree", "threshold"), [(8, 2, 3), (9, 6, 5), (12, 6, 4), (20, 10, 8), (40, 12, 9)]
)
def test_sum_is_exact(clients: int, degree: int, threshold: int) -> None:
    run = ring(clients, degree=degree, threshold=threshold)
    done = run.drive()
    assert done.contributors == run.terms.cohort
    np.testing.assert_array_equal(done.total, total(run.terms, run.vectors, done.contributors))
    for k in run.clients:
        assert len(shown(run.requests[SHARE][k])) == degree
        assert graph(run, k) == graph(run)


@settings(max_examples=60)
@given(data=st.data())
def test_any_drops_give_the_sum_over_the_survivors_or_an_abort(data: st.DataObject) -> None:
    """The sum where everybody keeps a threshold nearby at every step; never a wrong one."""
    run = ring(14, seed=data.draw(st.integers(0, 5)), min_survivors=10)
    silent = data.draw(st.dictionaries(st.sampled_from(run.terms.cohort), st.integers(0, 4)))
    inputs = tuple(k for k in run.terms.cohort if silent.get(k, 5) > MASKED)
    try:
        done = run.drive(silent)
    except SumAborted:
        done = None
    event(f"sum: {done is not None}, drops: {min(len(silent), 4)}")
    if done is not None:
        assert set(done.contributors) <= set(inputs)
        np.testing.assert_array_equal(done.total, total(run.terms, run.vectors, done.contributors))
    if len(silent) <= 2:
        # Of 7 nearby 5 are left, whoever they are.
        assert done is not None
        assert done.contributors == inputs


def test_too_few_near_one_client_is_an_abort_though_enough_answer() -> None:
    run = ring(14, min_survivors=10)
    requests_of(run, UNMASK)
    silent = set(graph(run).ring[1:4])
    # The same randomness again, and so the same ring.
    run = ring(14, min_survivors=10)
    with pytest.raises(SumAborted, match="4 clients answered, 5 needed"):
        run.drive(dict.fromkeys(silent, UNMASK))
    assert len(run.answers[UNMASK]) == 11


def test_too_few_signatures_of_the_committee_are_an_abort_though_enough_answer() -> None:
    run = ring(14, min_survivors=10)
    requests_of(run, CONSISTENCY)
    silent = graph(run).committee[:3]
    run = ring(14, min_survivors=10)
    with pytest.raises(SumAborted, match=r"consistency: .* 4 clients answered, 5 needed"):
        run.drive(dict.fromkeys(silent, CONSISTENCY))
    assert len(run.answers[CONSISTENCY]) == 11


@pytest.mark.parametrize("silent", [{}, {2: SHARE}, {3: MASKED, 9: CONSISTENCY}])
def test_everybody_can_restart_at_every_step(silent: dict[int, int]) -> None:
    run = restarting(ring())
    done = run.drive(silent)
    np.testing.assert_array_equal(done.total, total(run.terms, run.vectors, done.contributors))
    assert run.refused == []


def test_few_that_advertised_make_a_complete_graph() -> None:
    run = ring(9, min_survivors=5)
    done = run.drive(dict.fromkeys((2, 5), ADVERTISE))
    assert graph(run).closed(1) == graph(run).committee == (1, 3, 4, 6, 7, 8, 9)
    assert done.contributors == (1, 3, 4, 6, 7, 8, 9)
    np.testing.assert_array_equal(done.total, total(run.terms, run.vectors, done.contributors))


# --- what a client refuses ----------------------------------------------------------------------


def test_adverts_must_be_those_of_the_neighbours_under_one_root() -> None:
    run = ring()
    requests = requests_of(run, SHARE)
    request = requests[1]
    told = Neighbourhood.decode(payload_of(request))
    everybody = {k: advert for each in requests.values() for k, advert in shown(each).items()}
    near = next(iter(told.adverts))
    far = next(k for k in told.members if k != 1 and k not in told.adverts)

    def changed(**fields: object) -> bytes:
        return resign(request, Neighbourhood(**{**vars(told), **fields}).encode())  # type: ignore[arg-type]

    fewer = {k: advert for k, advert in told.adverts.items() if k != near}
    refuses(run, 1, changed(adverts=fewer), "hashes of adverts|client's neighbours")
    refuses(run, 1, changed(missing=[*told.missing, bytes(32)]), "more hashes of adverts than")
    refuses(run, 1, changed(missing=told.missing[:-1]), "hashes of adverts are missing")
    # Another hash is another root, and so another ring, in which others are neighbours.
    for missing in ([bytes(32), *told.missing[1:]], told.missing[::-1]):
        refuses(run, 1, changed(missing=missing), "not those of this client's neighbours")
    tree, _ = graph_of(run.terms, everybody)
    places = [told.members.index(k) for k in sorted({1, far, *told.adverts})]
    more = {**told.adverts, far: everybody[far]}
    widened = changed(adverts=more, missing=tree.proof(places))
    refuses(run, 1, widened, "more adverts than this client has neighbours")
    # One for another: as many as there should be, and each under the same root.
    del more[near]
    places.remove(told.members.index(near))
    moved = changed(adverts=more, missing=tree.proof(places))
    refuses(run, 1, moved, "not those of this client's neighbours")
    without = tuple(k for k in told.members if k != near)
    refuses(run, 1, changed(members=without), "members are not those of the adverts")
    run.clients[1].step(request)


def test_adverts_are_counted_before_their_signatures_are_checked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An aggregator that shows a client all of many adverts does not keep it busy with them."""
    run = ring()
    requests = requests_of(run, SHARE)
    request, told = requests[1], Neighbourhood.decode(payload_of(requests[1]))
    everybody = {k: advert for each in requests.values() for k, advert in shown(each).items()}
    del everybody[1]
    checked: list[int] = []
    real = crypto.masking_client.unseal

    def counting(message: bytes, heading: Heading, keys: Roster) -> memoryview:
        checked.append(heading.sender)
        return real(message, heading, keys)

    monkeypatch.setattr(crypto.masking_client, "unseal", counting)
    many = Neighbourhood(told.members, told.missing, everybody)
    refuses(run, 1, resign(request, many.encode()), "more adverts than this client has neighbours")
    assert checked == [0]
    run.clients[1].step(request)
    assert checked == [0, 0, *sorted(told.adverts)]


def test_two_views_of_who_advertised_have_two_contexts() -> None:
    """Another member far away, or another advert of one, is another root for everybody."""
    contexts = set()
    for drops in ({}, {12: 0}):
        run = ring()
        run.drive(drops)
        contexts.add(run.clients[1]._context)  # type: ignore[attr-defined]
    assert len(contexts) == 2


def test_one_root_under_another_list_of_members_is_another_ring() -> None:
    """A leaf far away is a hash to a client: only the list says whose it is."""
    for silent in range(3, 14):
        run = ring(13, min_survivors=9)
        request = first_requests_without(run, silent, SHARE)[1]
        told = Neighbourhood.decode(payload_of(request))
        if silent - 1 not in told.adverts:
            break
    # The one before it in the list is said not to be there, and it in its place.
    members = tuple(silent if k == silent - 1 else k for k in told.members)
    assert members != told.members
    lied = Neighbourhood(members, told.missing, told.adverts)
    refuses(run, 1, resign(request, lied.encode()), "not those of this client's neighbours")
    run.clients[1].step(request)


def first_requests_without(run: Run, silent: int, step: int) -> dict[int, bytes]:
    """Drive until the requests of a step are out, with a client that never advertises."""
    out = run.aggregator.begin()
    for _ in range(step):
        for k, request in out.messages.items():
            if k != silent:
                run.aggregator.receive(k, run.clients[k].step(request))
        advanced = run.aggregator.advance()
        assert isinstance(advanced, Outgoing)
        out = advanced
    return dict(out.messages)


def test_who_did_not_advertise_does_not_count_in_u2() -> None:
    """It would count as a survivor too: a sum of fewer than min_survivors could be opened."""
    run = ring()
    request = first_requests_without(run, 12, MASKED)[1]
    members, dealings = decode_delivery(payload_of(request))
    assert 12 in run.terms.cohort
    assert 12 not in members
    more = resign(request, encode_delivery((*members, 12), dealings))
    refuses(run, 1, more, "did not advertise")
    run.clients[1].step(request)


def test_a_delivery_must_hold_a_threshold_of_neighbours() -> None:
    """Members of U2 far away do not count: no stream is shared with them."""
    run = ring()
    request = requests_of(run, MASKED)[1]
    members, dealings = decode_delivery(payload_of(request))
    kept = dict(list(dealings.items())[: THRESHOLD - 2])
    lost = dealings.keys() - kept.keys()
    few = tuple(k for k in members if k not in lost)
    assert len(few) >= run.terms.quorum
    message = resign(request, encode_delivery(few, kept))
    refuses(run, 1, message, "4 members of U2 nearby; allowed: 5 or more")
    message = resign(request, encode_delivery(members, kept))
    refuses(run, 1, message, "are missing, or of others are there")
    run.clients[1].step(request)


def test_an_opening_must_hold_a_threshold_of_neighbours() -> None:
    run = ring()
    request = requests_of(run, CONSISTENCY)[1]
    opening = OpeningRequest.decode(payload_of(request)).opening
    gone = graph(run).neighbours(1)[:3]
    left = tuple(k for k in opening.survivors if k not in gone)
    assert len(left) >= run.terms.quorum
    wrong = OpeningRequest(Opening(INTENT, left, gone), EVIDENCE).encode()
    refuses(run, 1, resign(request, wrong), "4 survivors nearby; allowed: 5 or more")
    run.clients[1].step(request)


def test_signatures_count_from_the_committee_alone() -> None:
    run = ring()
    requests = requests_of(run, CONSISTENCY)
    committee = graph(run).committee
    signed = {k: run.clients[k].step(request) for k, request in requests.items()}
    for k, answer in signed.items():
        run.aggregator.receive(k, answer)
    request = run.aggregator.advance().messages[1]  # type: ignore[union-attr]
    assert decode_bundle(payload_of(request)).keys() == set(committee[:THRESHOLD])
    outsider = next(k for k in signed if k not in committee)
    listed = {k: signed[k] for k in (*committee[: THRESHOLD - 1], outsider)}
    refuses(run, 1, resign(request, encode_bundle(listed)), "survivors of the committee")
    run.clients[1].step(request)


# --- attacks ------------------------------------------------------------------------------------


@settings(max_examples=100)
@given(data=st.data())
def test_whatever_the_aggregator_does_on_a_ring_it_learns_one_sum_or_nothing(
    data: st.DataObject,
) -> None:
    """Split views of U1, U2, survivors and intent, dropped arcs, bought signatures.

    With one colluder the conditions of a ring of 12 are certain, not only likely.
    """
    colluders = data.draw(st.integers(0, 1), label="colluders")
    terms = ring_terms(min_survivors=9, max_colluders=colluders)
    run = Run("ring", terms, make_vectors(terms), data.draw(st.integers(0, 9)))
    everybody = set(terms.cohort)
    corrupt = frozenset(data.draw(st.permutations(terms.cohort))[:colluders])
    adversary = Adversary(run, corrupt)

    def some(of: set[int], often: int, label: str) -> set[int]:
        """All of them, or all but an arc or any three."""
        if data.draw(st.integers(0, often)):
            return of
        return of - set(data.draw(st.lists(st.sampled_from(places), max_size=3), label=label))

    adversary.begin()
    places = list(graph_of(terms, adversary.adverts)[1].ring)
    for k in terms.cohort:
        view = everybody if k in corrupt else some(everybody, 60, f"U1 shown to {k}") | {k}
        adversary.show_adverts(k, view)
    common = some(set(adversary.dealt), 2, "U2")
    for k in sorted(adversary.dealt.keys() - corrupt):
        members = some(common, 12, f"U2 shown to {k}") | {k}
        adversary.deliver(k, members & set(adversary.graph(k).members), frozenset())
    survivors = some(common, 2, "survivors")
    for k, _ in sorted(adversary.uploads.items()):
        members = set(run.clients[k]._delivered)  # type: ignore[attr-defined]
        alive = (some(survivors, 14, f"survivors shown to {k}") | {k}) & members
        intent = data.draw(st.sampled_from([INTENT] * 30 + [OTHER_INTENT]))
        opening = Opening(intent, tuple(sorted(alive)), tuple(sorted(members - alive)))
        adversary.ask_to_sign(k, opening)
    for k in sorted(adversary.signed):
        adversary.ask_to_open(k, adversary.signatures(k))
    closure(adversary)


@dataclass
class Told:
    """What an adversary tells the clients of one ring."""

    adversary: Adversary
    order: tuple[int, ...]

    @classmethod
    def on(cls, run: Run, corrupt: Callable[[tuple[int, ...]], set[int]]) -> Told:
        """Show everybody the same adverts; colluders are named by their places on the ring."""
        adversary = Adversary(run)
        adversary.begin()
        order = graph_of(run.terms, adversary.adverts)[1].ring
        adversary.corrupt = frozenset(corrupt(order))
        for k in run.terms.cohort:
            adversary.show_adverts(k, set(run.terms.cohort))
        return cls(adversary, order)

    def story(self, client: int, members: set[int], survivors: set[int], intent: bytes) -> None:
        """Deliver to a client as if U2 were these, and ask it to sign."""
        self.adversary.deliver(client, members, frozenset())
        if client in self.adversary.uploads:
            opening = Opening(intent, tuple(sorted(survivors)), tuple(sorted(members - survivors)))
            self.adversary.ask_to_sign(client, opening)

    def open_all(self) -> None:
        """Show every signature that anybody would accept."""
        for k in sorted(self.adversary.signed):
            self.adversary.ask_to_open(k, self.adversary.signatures(k))

    def opens(self, group: set[int]) -> bool:
        """Whether the sum over just these honest clients follows from all that was given."""
        basis = self.adversary.open_sums()
        wanted = np.array([float(k in group) for k in sorted(self.adversary.uploads)])
        assert wanted.sum() == len(group)
        return bool(np.allclose(basis.T @ (basis @ wanted), wanted, atol=1e-9))


def cut_the_ring(threshold: int) -> Told:
    """Two gaps of six places with a colluder at each side of each: an arc of seven is alone.

    The gaps never dealt, the aggregator says; everybody else survives. The ends of an arc count the
    colluder beside them to reach their threshold.
    """
    run = ring(28, threshold=threshold, min_survivors=20)
    gaps = (*range(7, 13), *range(22, 28))
    bought = (7, 12, 22, 27)
    told = Told.on(run, lambda order: {order[k] for k in bought})
    order = told.order
    away = {order[k] for k in gaps if k not in bought}
    members = set(run.terms.cohort) - away
    for k in range(28):
        if order[k] in members and k not in bought:
            told.story(order[k], members, members, INTENT)
    told.open_all()
    return told


def test_colluders_at_both_ends_cut_an_arc_out_where_the_threshold_is_too_low() -> None:
    """Half of a neighbourhood and one colluder make a threshold of 5: condition (ii) refuses it.

    With 6 the ends of the arc find too few nearby, and nothing of the arc is opened.
    """
    told = cut_the_ring(threshold=5)
    arc = {told.order[k] for k in range(7)}
    assert told.opens(arc)
    assert len(arc) < told.adversary.run.terms.min_survivors
    strong = cut_the_ring(threshold=6)
    ends = {strong.order[k] for k in (0, 6)}
    assert not ends & strong.adversary.uploads.keys()
    assert not len(strong.adversary.open_sums())
    refused = broken_condition(28, 4, 20, Sharing(6, 5), security_bits=20)
    assert refused is not None


def lonely() -> Told:
    """A client is told that one colluder alone dealt near it; the others, that it dealt too."""
    run = ring(16, threshold=4, min_survivors=8)
    told = Told.on(run, lambda order: {order[1]})
    order, everybody = told.order, set(run.terms.cohort)
    victim = order[0]
    near = {order[k % 16] for k in (-3, -2, -1, 2, 3)}
    told.story(victim, everybody - near, everybody - near, INTENT)
    for k in sorted(everybody - {victim, order[1]}):
        told.story(k, everybody, everybody, INTENT)
    told.open_all()
    return told


def test_a_client_told_that_it_has_no_neighbours_sends_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its mask would be its own seed and a colluder's stream; enough members far away hide that."""
    with monkeypatch.context() as weakened:
        weakened.setattr(MaskingClient, "_check_threshold", lambda *_: None)
        told = lonely()
        assert told.opens({told.order[0]})
    told = lonely()
    assert told.order[0] not in told.adversary.uploads


def two_stories() -> Told:
    """One half of the ring is told one intent, the other half another."""
    run = ring(24, threshold=5, min_survivors=8)
    told = Told.on(run, lambda _: set())
    everybody = set(run.terms.cohort)
    for place, k in enumerate(told.order):
        told.story(k, everybody, everybody, INTENT if place < 12 else OTHER_INTENT)
    told.open_all()
    return told


def test_two_regions_of_the_ring_never_accept_two_openings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They would, were the signatures of one's own neighbours enough."""
    with monkeypatch.context() as weakened:
        real = MaskingClient._check_agreement

        def by_neighbours(self: MaskingClient, opening: Opening, given: dict[int, bytes]) -> None:
            own = self._own_graph()
            near = Graph(own.members, own.degree, own.seed)
            near.__dict__["committee"] = own.closed(self._index)
            self._graph = near
            try:
                real(self, opening, given)
            finally:
                self._graph = own

        weakened.setattr(MaskingClient, "_check_agreement", by_neighbours)
        weakened.setattr(Adversary, "signatures", _signatures_nearby)
        told = two_stories()
        assert {opening.intent for _, opening in told.adversary.opened.values()} == {
            INTENT,
            OTHER_INTENT,
        }
    told = two_stories()
    assert len({opening.intent for _, opening in told.adversary.opened.values()}) <= 1


def _signatures_nearby(self: Adversary, client: int) -> dict[int, bytes]:
    opening = self.signed[client][0]
    near = self.graph(client).closed(client)
    return {k: m for k, (o, m) in self.signed.items() if k in near and o.digest == opening.digest}
