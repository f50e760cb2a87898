"""Topics: the levels, the limits, and reading them back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from megace2_iot.topics import MAX_SLASHES, Topics, check_id, is_upward, matches

T = Topics("lab/v1", "roof")
ids = st.from_regex(r"[a-z0-9][a-z0-9_-]{0,31}", fullmatch=True)


def test_every_topic_stays_within_seven_slashes():
    """Narrow brokers refuse deeper topics."""
    topics = [
        T.device_up("cam-1", "packet", "edge-1"),
        T.device_down("cam-1", "prediction", "edge-1"),
        T.edge_all("edge-1", "chunk", "0123456789abcdef"),
        T.edge_up("edge-1", "chunk"),
        T.cloud_all("chunk", "0123456789abcdef"),
        T.update("edge-1"),
    ]
    assert max(topic.count("/") for topic in topics) <= MAX_SLASHES


@given(ids, ids)
def test_what_a_device_says_reads_back(device: str, edge: str):
    """The reader finds who spoke, about what, and to whom."""
    address = T.parse(T.device_up(device, "packet", edge))
    assert (address.tier, address.node, address.direction, address.kind, address.peer) == (
        "device", device, "up", "packet", edge,
    )  # fmt: skip


@pytest.mark.parametrize("topic", ["lab/v1/other/cloud/all/model", "lab/v1/roof/device/a/up", "x", "lab/v1/roof"])
def test_a_strange_topic_is_refused(topic: str):
    """A message of another site or program never looks like ours."""
    with pytest.raises(ValueError, match="no topic of"):
        T.parse(topic)


@pytest.mark.parametrize("bad", ["", "Cam", "a.b", "a/b", "-a", "a" * 33, "a b"])
def test_ids_that_some_broker_would_mangle_are_refused(bad: str):
    """Dots, spaces and slashes mean something to one broker or another."""
    with pytest.raises(ValueError, match="no node id"):
        check_id(bad)


@pytest.mark.parametrize("base", ["a/b/c", "", "a//b", "a#", "/a"])
def test_a_base_topic_has_at_most_one_slash(base: str):
    """A longer base would push device topics over the limit."""
    with pytest.raises(ValueError, match="base topic"):
        Topics(base)


@pytest.mark.parametrize(
    ("topic_filter", "topic", "expected"),
    [
        ("a/+/c", "a/b/c", True),
        ("a/+/c", "a/b/d", False),
        ("a/#", "a", True),
        ("a/#", "a/b/c", True),
        ("+", "a/b", False),
        ("#", "$SYS/x", False),
        ("+/x", "$SYS/x", False),
        ("$SYS/#", "$SYS/x", True),
        ("a/b", "a/b/c", False),
    ],
)
def test_filters_match_as_the_specification_says(topic_filter: str, topic: str, expected: bool):
    """MQTT 3.1.1, section 4.7."""
    assert matches(topic_filter, topic) is expected


def test_updates_and_up_go_up():
    """The report's bytes up and down rest on this."""
    assert is_upward(T.update("edge-1"))
    assert is_upward(T.device_up("a", "packet", "e"))
    assert not is_upward(T.cloud_all("model"))
