"""Which filters are valid, what they match, and what the trees remember."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.message import Message
from broker.retained import RetainedStore
from broker.subscriptions import Grant, Match, Subscription, Subscriptions
from broker.topics import MAX_LEVELS, TopicTree, covers, is_valid_filter, matches, overlap, split_share

MATCHES = {
    "a/b": (["a/b"], ["a", "a/b/c", "a/", "/a/b", "A/b"]),
    "a/+": (["a/b", "a/"], ["a", "a/b/c"]),
    "+/b": (["a/b", "/b"], ["$SYS/b"]),
    "#": (["a", "a/b", "/"], ["$SYS/x"]),
    "a/#": (["a", "a/b", "a/b/c"], ["b", "ab"]),
    "+": (["a"], ["/a", "a/b"]),
    "/+": (["/a"], ["a"]),
    "+/+": (["/a", "a/b"], ["a"]),
    "a/+/c/#": (["a/b/c", "a/b/c/d"], ["a/b/d"]),
    "$SYS/#": (["$SYS", "$SYS/x"], ["SYS/x"]),
}


@pytest.mark.parametrize("topic_filter", MATCHES)
def test_a_filter_matches_what_the_standard_says(topic_filter: str) -> None:
    """Protects both walks: subscriptions of a topic, and retained topics of a filter."""
    right, wrong = MATCHES[topic_filter]
    filters: TopicTree[bool] = TopicTree()
    filters.put(topic_filter, True)
    topics: TopicTree[str] = TopicTree()
    for topic in right + wrong:
        topics.put(topic, topic)
    assert [topic for topic in right + wrong if any(filters.under_filters_of(topic))] == right
    assert sorted(topics.under_topics_of(topic_filter)) == sorted(right)


@pytest.mark.parametrize("topic_filter", ["", "a#", "#/a", "a/+b", "a/#/b", "/".join("a" * (MAX_LEVELS + 1))])
def test_an_invalid_filter_is_known(topic_filter: str) -> None:
    """Protects the tree from filters that mean nothing or cost too many nodes."""
    assert not is_valid_filter(topic_filter)


SHARED = {"$share/g/a/+": ("g", "a/+"), "a": ("", "a"), "$share": ("", "$share"), "$share/g//": ("g", "/")}


@pytest.mark.parametrize(
    "text", [*SHARED, "$share/", "$share/g", "$share//a", "$share/+/a", "$share/g/", "$share/g/a#"]
)
def test_a_shared_subscription_is_a_group_and_a_filter(text: str) -> None:
    """Protects groups: without a name, or with one that is a wildcard, there is none."""
    assert split_share(text) == SHARED.get(text)


LEVELS = st.sampled_from(["a", "b", "", "$s"])
TOPICS = st.lists(LEVELS, min_size=1, max_size=4).map("/".join)
FILTERS = st.lists(LEVELS | st.just("+"), min_size=1, max_size=4).map("/".join) | st.lists(
    LEVELS | st.just("+"), max_size=3
).map(lambda levels: "/".join([*levels, "#"]))


def _matches(topic_filter: str, topic: str) -> bool:
    """The rule by recursion, as slow and plain as it can be."""

    def step(wanted: list[str], levels: list[str]) -> bool:
        if wanted == ["#"]:
            return True
        if not wanted or not levels:
            return wanted == levels
        return wanted[0] in ("+", levels[0]) and step(wanted[1:], levels[1:])

    return not (topic[:1] == "$" and topic_filter[:1] in ("+", "#")) and step(topic_filter.split("/"), topic.split("/"))


@settings(deadline=None)
@given(st.lists(FILTERS, max_size=6), st.lists(TOPICS, max_size=6), st.lists(FILTERS, max_size=3))
def test_the_trees_agree_with_the_plain_rule(filters: list[str], topics: list[str], gone: list[str]) -> None:
    """Protects the trees, after removals too, against a rule that needs no tree."""
    subscriptions: Subscriptions[str] = Subscriptions(lambda subscriber, topic: True)
    for topic_filter in filters:
        subscriptions.add(topic_filter, Subscription(topic_filter, 1))
    kept: TopicTree[str] = TopicTree()
    for topic in topics:
        kept.put(topic, topic)
        subscriptions.of(topic)  # a remembered match must not outlive a change
    for topic_filter in gone:
        subscriptions.remove(topic_filter, Subscription(topic_filter, 1))
    left = set(filters) - set(gone)
    for topic in topics:
        assert {match.subscriber for match in subscriptions.of(topic).matches} == {
            f for f in left if _matches(f, topic)
        }
    for topic_filter in filters:
        assert sorted(kept.under_topics_of(topic_filter)) == sorted(
            {topic for topic in topics if _matches(topic_filter, topic)}
        )


def test_overlapping_subscriptions_count_once_with_the_greatest_qos() -> None:
    """Protects receivers from copies of one message."""
    subscriptions: Subscriptions[str] = Subscriptions(lambda subscriber, topic: True)
    for number, (topic_filter, qos) in enumerate((("a/#", 0), ("a/+", 1), ("a/b", 0))):
        subscriptions.add("x", Subscription(topic_filter, qos, no_local=qos == 1, identifier=number))
    (match,) = subscriptions.of("a/b").matches
    assert match == Match("x", Grant(1, False, match.grant.identifiers), Grant(0, False, match.own.identifiers))
    assert set(match.grant.identifiers) == {1, 2}
    assert match.own.identifiers == (2,)


def test_removal_leaves_no_nodes() -> None:
    """Protects memory where topics come and go."""
    tree: TopicTree[int] = TopicTree()
    for path in ("a/b/c", "a/b", "a/x"):
        tree.put(path, 1)
    for path in ("a/b", "a/b/c", "a/x", "never/there"):
        tree.remove(path)
    assert not tree._root.children


def test_the_retained_store_is_bounded_and_never_stale() -> None:
    """Protects memory, and readers from a state that was replaced by one that did not fit."""
    store = RetainedStore(max_messages=2, max_bytes=2000)
    assert store.put(Message("a", b"1"), 1)
    assert store.put(Message("b", b"1"), 1)
    assert not store.put(Message("c", b"1"), 1)
    assert not store.put(Message("a", bytes(2000)), 1)
    assert [message.topic for message, _ in store.matching("#", now=0.0)] == ["b"]
    assert store.put(Message("b", b""), 1)
    assert (store.messages, store.bytes) == (0, 0)


@settings(deadline=None)
@given(FILTERS, FILTERS, TOPICS)
def test_rules_for_one_pair_agree_with_the_plain_rule(one: str, other: str, topic: str) -> None:
    """Protects access lists: a filter that covers another matches all of it, and what both match is an overlap."""
    assert matches(one, topic) == _matches(one, topic)
    if _matches(one, topic) and _matches(other, topic):
        assert overlap(one, other)
    if covers(one, other) and _matches(other, topic):
        assert _matches(one, topic)


@pytest.mark.parametrize(
    ("one", "other"), [("a/b", "a/c"), ("a", "a/b"), ("+", "$a"), ("#", "$s/#"), ("a/+/c", "a/b/d")]
)
def test_filters_without_a_common_topic_do_not_overlap(one: str, other: str) -> None:
    """Protects a subscription from being granted where nothing of it could ever be delivered."""
    assert not overlap(one, other)
    assert not overlap(other, one)
