"""A hostile edge on a real broker: each of its updates is refused or held with the reason, and honest edges go on."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable

import numpy as np
import pytest
from edges import FakeEdge, fake_edge
from tiers import command, running, until

from megace2_iot.blobs import digest
from megace2_iot.messages import ModelPointer, Verdict

CHECKS = {"max_lag": 3, "volumes": {"honest": 10}}
Attack = Callable[[FakeEdge], Awaitable[Verdict]]


async def nan(edge: FakeEdge) -> Verdict:
    offer, body = edge.update(codec="float32")
    values = np.frombuffer(body, np.float32).copy()
    values[7] = np.nan
    bad = values.tobytes()
    return await edge.offer(offer.model_copy(update={"sha256": digest(bad)}), bad)


async def huge(edge: FakeEdge) -> Verdict:
    return await edge.offer(*edge.update(scale=1e6))


async def many_examples(edge: FakeEdge) -> Verdict:
    return await edge.offer(*edge.update(num_examples={"head": 1e9}))


async def wrong_layout(edge: FakeEdge) -> Verdict:
    return await edge.offer(*edge.update(num_examples={"tail": 10.0}))


async def wrong_size(edge: FakeEdge) -> Verdict:
    return await edge.offer(*edge.update(codec="float32", size=4))


async def ancient(edge: FakeEdge) -> Verdict:
    return await edge.offer(*edge.update(base_version=1))


async def swapped_inline(edge: FakeEdge) -> Verdict:
    offer, body = edge.update()
    return await edge.offer(offer.model_copy(update={"inline": body[:-1] + bytes([body[-1] ^ 1])}))


async def swapped_in_the_pull(edge: FakeEdge) -> Verdict:
    offer, body = edge.update(codec="float32")
    return await edge.offer(offer, body[:-1] + bytes([body[-1] ^ 1]))


async def withdrawn(edge: FakeEdge) -> Verdict:
    offer, body = edge.update(codec="float32")
    edge.holder.offer(offer.sha256, body, ["cloud"])
    edge.holder.withdraw(offer.sha256)
    return await edge.offer(offer.model_copy(update={"sha256": digest(b"never there")}))


async def same_id(edge: FakeEdge) -> Verdict:
    first = await edge.teach(scale=1e-4)
    return await edge.offer(*edge.update(id=first.id))


ATTACKS: dict[str, tuple[Attack, str, str]] = {
    "NaN": (nan, "finite: ", "refused"),
    "a huge norm": (huge, "held for inspection: norm: ", "quarantined"),
    "a thousand million examples": (many_examples, "held for inspection: examples: 1000000000 behind", "quarantined"),
    "another layout": (wrong_layout, "schema: parameter group 'tail'", "refused"),
    "another size": (wrong_size, "schema: a float32 delta of 4 bytes", "refused"),
    "an ancient base": (ancient, "held for inspection: lag: its base is ", "quarantined"),
    "another body inline": (swapped_inline, "body: the update does not have the hash", "refused"),
    "another body when pulled": (swapped_in_the_pull, "body: blob", "refused"),
    "a body that is not there": (withdrawn, "body: blob", "refused"),
    "an id of another update": (same_id, "schema: its id is that of another update", "accepted"),
}


async def test_each_attack_gets_its_reason_and_honest_edges_go_on(run_embedded, make_lab):
    """Nothing of it is in a release, everything of it is in the ledger."""
    async with run_embedded() as broker:
        lab = make_lab(broker.url)
        async with running(lab.cloud(checks=CHECKS)), fake_edge(lab, "honest") as honest:
            async with fake_edge(lab, "hostile") as hostile:
                for _ in range(4):
                    await honest.teach()
                for name, (attack, reason, _) in ATTACKS.items():
                    verdict = await attack(hostile)
                    assert (verdict.accepted, verdict.reason[: len(reason)]) == (False, reason), name
                    await hostile.released((await honest.teach()).version)
            assert honest.pointer.version == 1 + 4 + len(ATTACKS) + 1  # and the one with which it got an id
        _, printed = await command("updates", "--edge", "hostile", "--json", "--config", str(lab.settings_file()))
    found = json.loads(printed)["updates"][::-1]
    assert [update["verdict"] for update in found] == [verdict for _, _, verdict in ATTACKS.values()]


async def test_a_repeated_offer_is_answered_from_the_ledger(run_embedded, make_lab):
    """Also one that is held, and one that was refused before its body came: none is judged twice."""
    async with run_embedded() as broker:
        lab = make_lab(broker.url)
        async with running(lab.cloud(checks=CHECKS)), fake_edge(lab, "edge-1") as edge:
            offers = [edge.update(), edge.update(scale=1e6), edge.update(num_examples={"tail": 1.0})]
            first = [await edge.offer(*offer) for offer in offers]
            assert [await edge.offer(*offer) for offer in offers] == first
            assert [verdict.accepted for verdict in first] == [True, False, False]


async def test_a_held_update_is_released_by_hand(run_embedded, make_lab):
    """It is listed with its reason, folded in when a person says so, and its edge hears of it."""
    async with run_embedded() as broker:
        lab = make_lab(broker.url)
        config = ("--config", str(lab.settings_file()))
        async with running(lab.cloud()), fake_edge(lab, "edge-1") as edge:
            held = await edge.offer(*edge.update(scale=1e3))
            status, listed = await command("updates", "--quarantined", *config)
            assert status == 0
            assert max(map(len, listed.splitlines())) <= 80
            assert held.id[:8] in listed
            assert "times the norm of the model itself" in listed
            status, told = await command("updates", "release", held.id[:8], *config)
            assert (status, told.strip()) == (0, f"update {held.id[:8]} of edge-1 is folded in: release 2")
            pointer = await edge.released(2)
            assert pointer.folded == {"edge-1": held.id}
            assert edge.verdicts[-1] == Verdict(id=held.id, accepted=True, version=2)
            status, told = await command("updates", "drop", held.id[:8], *config)
            assert (status, "is not held: it was accepted" in told) == (1, True)


async def test_what_is_asked_while_no_cloud_runs_is_done_when_one_starts(run_embedded, make_lab):
    """Held updates and requests are on disk."""
    async with run_embedded() as broker:
        lab = make_lab(broker.url)
        config = ("--config", str(lab.settings_file()))
        async with running(lab.cloud()), fake_edge(lab, "edge-1") as edge:
            offers = [edge.update(scale=1e3 + n) for n in range(2)]
            kept, given_up = [await edge.offer(*offer) for offer in offers]
        for words in (("drop", given_up.id), ("release", kept.id)):
            status, told = await command("updates", *words, *config)
            assert (status, told.strip()) == (0, "no cloud runs on this ledger: it will be done when the cloud starts")
        async with running(lab.cloud()), fake_edge(lab, "edge-1") as edge:
            assert (await edge.released(2)).folded == {"edge-1": kept.id}
            assert (await edge.offer(*offers[0])).version == 2
            assert (await edge.offer(*offers[1])).reason.startswith("dropped by hand; it was held for norm: ")


async def test_a_rollback_reaches_the_edges(run_embedded, make_lab):
    """A real edge runs the old content under the new number; a late update of the bad release is refused."""
    async with run_embedded() as broker:
        lab = make_lab(broker.url)
        config = ("--config", str(lab.settings_file()))
        real = lab.edge("real", learning={"rounds": False, "adapters": False})
        async with running(lab.cloud(), real), lab.listening() as ear, fake_edge(lab, "edge-1") as edge:
            first = edge.pointer
            for _ in range(3):
                await edge.teach()
            await until(lambda: ear.of(ModelPointer, "real") and ear.of(ModelPointer, "real")[-1].version == 4)
            late = edge.update()
            status, told = await command("rollback", "1", *config)
            assert (status, told.strip()) == (0, "release 5 is what release 1 was")
            pointer = await edge.released(5)
            assert (pointer.sha256, pointer.folded) == (first.sha256, {})
            assert (await edge.offer(*late)).reason.startswith("rolled_back: release 4 was taken back")
            assert (await edge.teach()).version == 6
            await until(lambda: ear.of(ModelPointer, "real")[-1].version >= 5)
        status, listed = await command("rollback", *config)
        assert [line.split()[0] for line in listed.splitlines()[1:]] == ["6", "5", "4", "3", "2", "1"]
        assert listed.count("taken back") == 3


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("rollback", "9"), "there is no release 9: the newest is 1"),
        (("rollback", "1"), "release 1 is the newest already"),
        (("updates", "release", "abcd"), "no update has an id that begins with abcd"),
        (("updates", "drop"), "name one update, or give --all"),
    ],
)
async def test_a_mistake_is_told_at_once(make_lab, words, said):
    """Before anything is asked of a cloud."""
    lab = make_lab("mqtt://127.0.0.1:1")
    status, told = await command(*words, "--state-dir", str(lab.folder / "cloud"))
    assert status == 1
    assert said in told


async def test_a_wrong_folder_is_told(tmp_path):
    """With what to do."""
    status, told = await command("updates", "--state-dir", str(tmp_path))
    assert (status, "holds no ledger" in told) == (1, True)
