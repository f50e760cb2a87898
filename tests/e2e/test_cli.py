"""The command line as a user meets it: mistakes are told in one line that says what to do, without a traceback."""

import asyncio
import contextlib
import json
import logging
import socket
import sys

import pytest
from tiers import Lab, command, corpus, played, running, until

from megace2_iot.bus import connect
from megace2_iot.cli import main
from megace2_iot.messages import ModelPointer, State

NOBODY = "mqtt://127.0.0.1:1"
MISTAKES = {
    "a missing data file": (["replay", "nowhere.npz"], "cannot replay nowhere.npz"),
    "an unreadable data file": (["replay", "junk.npz"], "junk.npz cannot be read"),
    "a replay's unknown split": (["replay", "synthetic", "--split", "best"], "'official', 'random' or 'speaker'"),
    "a device's vectors": (["device", "--vectors", "junk.npz"], "the built-in corpus holds no text"),
    "a scale that is none": (["replay", "synthetic", "--scale-of", "typo.toml"], "no safetensors"),
    "a demo's unknown split": (["demo", "--split", "best"], "choose one of official, random, speaker"),
    "a demo's missing vectors": (["demo", "--data", "junk.npz", "--vectors", "v.txt"], "no word vectors at v.txt"),
    "an empty recording": (["device", "--replay", "empty.rec"], "holds no packet"),
    "a damaged recording": (["device", "--replay", "damaged.rec"], "damaged.rec is damaged"),
    "a demo's missing data": (["demo", "--data", "nowhere.npz"], "the demo cannot use nowhere.npz"),
    "a demo's unknown preset": (["demo", "--preset", "huge"], "choose one of nano, mult, paper"),
    "a demo's unknown rule": (["demo", "--rule", "best"], "choose one of latched"),
    "a demo's folder": (["demo", "--out", "junk.npz/runs"], "choose another --out"),
    "a demo's broker": (["demo", "--broker", "rabbit"], "choose embedded, mosquitto or mqtt://host:port"),
    "an unknown key": (["edge", "--config", "typo.toml"], "did you mean 'inference'"),
    "an unknown section": (["cloud", "--config", "section.toml"], "did you mean 'broker'"),
    "a settings file that is none": (["status", "--config", "junk.npz"], "junk.npz is not valid TOML"),
    "a missing settings file": (["status", "--config", "nowhere.toml"], "cannot read nowhere.toml"),
    "no address": (["status", "--broker", "lab"], "use mqtt://host:port"),
    "no port": (["status", "--broker", "mqtt://lab:99999"], "use mqtt://host:port"),
    "no id": (["edge", "--id", "My Edge"], "[edge] id"),
    "an edge's folder": (["edge", "--state-dir", "junk.npz", "--broker", NOBODY], "choose another state_dir"),
    "a cloud's folder": (["cloud", "--state-dir", "junk.npz/c", "--broker", NOBODY], "choose another state_dir"),
    "a device's folder": (["device", "--state-dir", "junk.npz/d", "--broker", NOBODY], "choose another state_dir"),
    "a recording that exists": (["record", "empty.rec", "--broker", NOBODY], "recordings are never overwritten"),
    "training on missing data": (["train", "--data", "nowhere.npz"], "cannot read nowhere.npz"),
    "an unknown method": (["train", "--method", "resnet"], "choose one of ef_lstm"),
    "a checkpoint that is none": (["evaluate", "junk.npz", "--data", "synthetic"], "cannot read junk.npz"),
    "rows that are none": (["evaluate", "x", "--data", "synthetic", "--rows", "some"], "choose train, valid, test"),
    "a speed below zero": (["device", "--speed", "-1"], "[replay] speed"),
}

BY_PROCESS = {name for name, (arguments, _) in MISTAKES.items() if arguments[0] in ("device", "replay")}


@pytest.fixture
def quiet_logging():
    """What a command sets up for its process is not to last."""
    root, mqtt = logging.getLogger(), logging.getLogger("mqtt")
    before = root.handlers[:], root.level, mqtt.level
    yield
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    mqtt.setLevel(before[2])


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory with files that are of no use."""
    (tmp_path / "junk.npz").write_bytes(bytes(range(128, 256)))
    (tmp_path / "empty.rec").write_bytes(b"M2REC\x00\x01\x00")
    (tmp_path / "damaged.rec").write_bytes(b"M2REC\x00\x01\x00" + b"\x04\x00\x00\x00four")
    (tmp_path / "typo.toml").write_text("[edge]\ninferance = 1\n")
    (tmp_path / "section.toml").write_text("[brokr]\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_mistake_is_told_in_one_line(folder, monkeypatch, capfd, quiet_logging):
    """Each exits with 1, says what is wrong and what to do, and shows no traceback."""
    for name in MISTAKES.keys() - BY_PROCESS:
        arguments, text = MISTAKES[name]
        monkeypatch.setattr(sys, "argv", ["megace2", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = "".join(capfd.readouterr())
        check_told(name, ended.value.code, printed, text)


async def test_a_mistake_is_told_so_by_a_process(folder):
    """A device becomes its agent by exec; and nothing follows the line when the interpreter ends."""
    for name in BY_PROCESS:
        arguments, text = MISTAKES[name]
        check_told(name, *await command(*arguments), text)


def check_told(name, status, printed, text):
    lines = [line for line in printed.splitlines() if " I megace2." not in line and "trying again" not in line]
    assert (status, len(lines)) == (1, 1), f"{name}: {printed}"
    assert text in printed, f"{name}: {printed}"


async def test_an_unknown_option_is_told_with_its_command(folder):
    """The usage, and where to read on."""
    status, printed = await command("edge", "--colour", "red")
    assert status == 2
    assert "No such option: --colour" in printed
    assert "edge -h" in printed
    assert "Traceback" not in printed


async def test_a_port_in_use_is_told(folder):
    """Another program's port, or a broker that runs already."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        status, printed = await command("broker", "--port", str(port))
    assert status == 1
    assert str(port) in printed
    assert len(printed.splitlines()) == 1, printed


@pytest.mark.parametrize("name", ["status", "record", "label"])
async def test_an_absent_broker_is_told_within_seconds(folder, name):
    """Commands that need a broker now do not wait for ever; tiers do."""
    more = {
        "status": [],
        "record": ["new.rec"],
        "label": ["1.0", "--device", "a", "--edge", "b", "--epoch", "1", "--seq", "1"],
    }[name]
    (folder / "quick.toml").write_text("[broker]\ntimeout = 0.5\n")
    status, printed = await command(name, *more, "--broker", NOBODY, "--config", "quick.toml", seconds=15)
    assert status == 1
    assert "start one with 'megace2 broker'" in printed
    assert "Traceback" not in printed
    assert not (folder / "new.rec").exists()


async def test_a_broker_that_refuses_is_told(folder):
    """A wrong password is no reason to try again for ever."""
    async with refusing_broker() as port:
        status, printed = await command("status", "--broker", f"mqtt://127.0.0.1:{port}")
    assert status == 1
    assert "check [broker] username and password" in printed
    assert "Traceback" not in printed


@contextlib.asynccontextmanager
async def refusing_broker():
    """A broker that answers every CONNECT with `not authorised`, in the words of MQTT 5; yields its port."""

    async def answer(reader, writer):
        await reader.read(4096)
        writer.write(bytes([0x20, 3, 0, 0x87, 0]))
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


async def test_a_password_of_digits_is_a_password(folder):
    """The environment's words are read by whom they belong to, not guessed at."""
    status, printed = await command(
        "status", "--broker", NOBODY, MEGACE2_BROKER__PASSWORD="0123", MEGACE2_BROKER__TIMEOUT="0.2"
    )
    assert status == 1
    assert "no MQTT broker answers" in printed


async def test_status_shows_who_is_online_in_which_version(run_embedded, make_lab):
    """Cloud, edge and device with their versions; afterwards that they stopped."""
    async with run_embedded() as broker:
        lab = make_lab(broker.url)
        config = str(lab.settings_file())
        stream = lab.device().run(played(corpus(5)), stay=True)
        async with lab.listening() as ear, running(lab.cloud(), lab.edge(learning={"rounds": False}), stream):
            await until(
                lambda: ear.of(ModelPointer, "edge-1") and ear.figures("cam-1").counters["windows_answered"] == 5
            )
            status, printed = await command("status", "--json", "--config", config)
        nodes = {node["id"]: node for node in json.loads(printed.splitlines()[-1])["nodes"]}
        assert status == 0
        assert {id: (node["tier"], node["state"]) for id, node in nodes.items()} == {
            "cloud": ("cloud", "online"),
            "edge-1": ("edge", "online"),
            "cam-1": ("device", "online"),
        }
        assert (nodes["cloud"]["version"], nodes["edge-1"]["version"], nodes["cam-1"]["windows"]) == (1, 1, 5)
        _, printed = await command("status", "--config", config)
        assert printed.count("stopped") == 3, printed


@pytest.mark.parametrize(("retained", "hint"), [(0, True), (100, False)])
async def test_status_tells_where_it_cannot_have_seen_everybody(run_embedded, tmp_path, retained, hint):
    """A broker that gives nothing retained under wildcards looks as if nobody were there."""
    async with run_embedded(max_retained_messages=retained) as broker:
        lab = Lab(broker.url, tmp_path)
        async with connect(lab.broker, "someone") as bus:
            await bus.keep(lab.topics.cloud_all("state"), State(state="online", session=1, role="cloud").encode())
            await bus.wait_connected(5)
            status, printed = await command("status", "--config", str(lab.settings_file()))
    assert status == 0
    assert ("--wait 20" in printed) is hint


async def test_two_may_look_at_once(run_broker, make_lab):
    """An observer does not throw another one out."""
    async with run_broker() as broker:
        config = str(make_lab(broker.url).settings_file())
        both = await asyncio.gather(*(command("status", "--json", "--wait", "2", "--config", config) for _ in "ab"))
    assert [status for status, _ in both] == [0, 0], both
    assert all("lost" not in printed for _, printed in both)
