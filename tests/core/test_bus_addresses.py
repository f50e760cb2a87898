"""Several addresses of one cluster, and a broker that keeps retained messages from whoever needs them."""

import asyncio
from collections import Counter

import pytest
from tiers import free_port, until

from broker.settings import Access
from megace2_iot.bus import BrokerSettings, Delivery, Presence, Refused, connect, retention
from megace2_iot.bus.opening import first_of
from megace2_iot.bus.retention import Retention
from megace2_iot.bus.session import ASKED


def presence(node, family=""):
    return Presence(topic=f"site/{node}/state", payload=lambda state, session: state.encode(), family=family)


async def looked(bus):
    """Whether it repeats, once it has looked."""
    await bus.wait_connected(5)
    await until(lambda: not bus._retained._retention._family)
    return bus.repeats


def test_several_addresses_are_tried_round_and_round():
    """Each node of ours begins with one of them, always the same, and all of them are spread."""
    settings = BrokerSettings(url="mqtt://127.0.0.1:1, mqtt://localhost,mqtt://[::1]:3")
    assert [settings.at(number).port for number in range(4)] == [1, 1883, 3, 1]
    assert {first_of(settings, f"cam-{number}") for number in range(30)} == {0, 1, 2}
    assert first_of(settings, "cam-1") == first_of(settings, "cam-1")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("mqtt://127.0.0.1:1,", "is no broker address"),
        ("mqtt://127.0.0.1:1,127.0.0.1:2", "is no broker address"),
        ("mqtt://127.0.0.1:1,mqtts://lab:2", "all nodes of a cluster"),
        ("mqtt://127.0.0.1:1,mqtt://lab:2", "in the clear"),
    ],
)
def test_a_list_with_a_bad_address_is_refused(url, said):
    """One address that cannot be used, or that would send in the clear, refuses the whole list."""
    with pytest.raises(ValueError, match=said):
        BrokerSettings(url=url)


async def test_the_next_address_is_tried_where_one_is_dead(run_embedded):
    """Whichever comes first, the node that lives is found within a moment."""
    async with run_embedded() as broker:
        dead = ",".join(f"mqtt://127.0.0.1:{free_port()}" for _ in range(2))
        async with connect(BrokerSettings(url=f"{dead},{broker.url}"), "cam-1") as bus:
            await bus.wait_connected(10)


async def test_what_is_retained_is_repeated_only_where_it_must_be(run_broker):
    """Both of our brokers have retained messages for wildcards, and the node finds that out."""
    async with (
        run_broker() as broker,
        connect(BrokerSettings(url=broker.url), "a", presence=presence("a", "site/a/+")) as bus,
    ):
        assert not await looked(bus)


async def test_a_broker_that_retains_nothing_is_found_out(run_embedded):
    """The node hears what it says, and not what it said before."""
    async with (
        run_embedded(max_retained_messages=0) as broker,
        connect(BrokerSettings(url=broker.url), "a", presence=presence("a", "site/a/+")) as bus,
    ):
        assert await looked(bus)


@pytest.mark.parametrize("nodes", [1, 2])
async def test_a_node_that_hears_nothing_of_itself_looks_again(run_embedded, monkeypatch, nodes):
    """Nothing is known of the broker then: most have retained messages, and of a cluster it is not counted on."""
    monkeypatch.setattr(retention, "PATIENCE", 0.1)
    monkeypatch.setattr(retention, "AT_ONCE", 0.1)
    asked = []
    mute = Access(
        may_read=lambda client_id, topic: False,
        may_subscribe=lambda client_id, topic_filter: asked.append(topic_filter) or True,
    )
    async with run_embedded(access=mute) as broker:
        settings = BrokerSettings(url=",".join([broker.url] * nodes), repeat_every=1)
        async with connect(settings, "a", presence=presence("a", "site/a/+")) as bus:
            assert await looked(bus) is (nodes > 1)
    assert asked.count("site/a/+") == retention.LOOKS


async def test_a_refused_look_does_not_end_the_node(run_embedded):
    """It goes on over the same connection, and does not repeat."""
    asked = []

    def strict(client_id, topic_filter):
        asked.append(topic_filter)
        return "+" not in topic_filter

    async with (
        run_embedded(access=Access(may_subscribe=strict)) as broker,
        connect(BrokerSettings(url=broker.url), "a", presence=presence("a", "site/a/+")) as bus,
    ):
        await until(lambda: "site/a/+" in asked)
        heard = await bus.subscribe("site/b/state")
        await bus.publish("site/b/state", b"online")
        assert (await anext(heard)).payload == b"online"
        assert (bus.connects, bus.repeats) == (1, False)


@pytest.mark.parametrize(("how", "lacking"), [("yes", True), ("no", False)])
async def test_a_setting_decides_without_a_look(run_embedded, how, lacking):
    """No subscription is made for it."""
    asked = []
    hook = Access(may_subscribe=lambda client_id, topic_filter: not asked.append(topic_filter))
    async with run_embedded(access=hook, max_retained_messages=0) as broker:
        settings = BrokerSettings(url=broker.url, repeat_retained=how)
        async with connect(settings, "a", presence=presence("a", "site/a/+")) as bus:
            await bus.wait_connected(5)
            await asyncio.sleep(0.1)
            assert (bus.repeats, asked) == (lacking, [])


@pytest.mark.parametrize(("addresses", "how", "twice"), [(1, "auto", False), (2, "auto", True), (2, "no", False)])
def test_only_a_cluster_is_told_twice(addresses, how, twice):
    """And not where its owner says that it needs nothing of the kind."""
    url = ",".join(["mqtt://127.0.0.1"] * addresses)
    assert Retention(BrokerSettings(url=url, repeat_retained=how), None).twice is twice


def test_an_enrolled_node_does_not_look(tmp_path):
    """Its access list would not let it read its own words."""
    settings = BrokerSettings(identity=tmp_path)
    enrolled = Retention(settings, presence("a", "site/a/+"))
    enrolled.saw(Delivery("site/a/state", b"online", True, 0, 0))
    asyncio.run(enrolled.look(None, {}))
    assert not enrolled.lacking


async def test_a_late_subscriber_hears_what_is_repeated(run_embedded):
    """On a broker that gave it nothing it hears all that the node keeps, without asking."""
    async with run_embedded() as broker:
        settings = BrokerSettings(url=broker.url, repeat_retained="yes", repeat_every=1.0)
        async with connect(settings, "a", presence=presence("a")) as bus, connect(settings, "b") as other:
            await bus.keep("site/a/profile", b"profile")
            heard = await other.subscribe("site/#")
            await bus.wait_connected(5)
            assert bus.repeats
            live = []
            async with asyncio.timeout(10):
                while {delivery.topic for delivery in live} != {"site/a/state", "site/a/profile"}:
                    delivery = await anext(heard)
                    live += [] if delivery.retained else [delivery]


async def test_a_cluster_is_told_once_more(run_embedded):
    """Whoever subscribed in the moment in which something was said may have missed it; said twice is enough."""
    async with run_embedded() as broker:
        settings = BrokerSettings(url=f"{broker.url},{broker.url}", repeat_every=1.0)
        async with connect(settings, "a", presence=presence("a")) as bus, connect(settings, "b") as other:
            heard = await other.subscribe("site/#")
            await bus.wait_connected(5)
            await bus.keep("site/a/profile", b"profile")
            await asyncio.sleep(3.2)
            said = Counter(heard._inbox.get_nowait()[1].topic for _ in range(len(heard)))
    assert said == {"site/a/state": 2, "site/a/profile": 2}


@pytest.mark.parametrize("refusals", [ASKED - 1, ASKED])
async def test_a_cluster_that_refuses_a_subscription_is_asked_again(run_embedded, refusals):
    """First over the same connection, then over one to the next node; a single broker's word is final."""
    left = [refusals]

    def moody(client_id, topic_filter):
        left[0] -= topic_filter == "site/news"
        return topic_filter != "site/news" or left[0] < 0

    async with run_embedded(access=Access(may_subscribe=moody)) as broker:
        async with connect(BrokerSettings(url=f"{broker.url},{broker.url}"), "a") as bus:
            await bus.wait_connected(5)
            heard = await bus.subscribe("site/news")
            await bus.reconnected(int(refusals == ASKED))
            await bus.publish("site/news", b"new")
            assert (await anext(heard)).payload == b"new"
            assert bus.connects == 1 + int(refusals == ASKED)
        left[0] = 1
        async with connect(BrokerSettings(url=broker.url), "a") as bus:
            await bus.wait_connected(5)
            with pytest.raises(Refused):
                await bus.subscribe("site/news")
