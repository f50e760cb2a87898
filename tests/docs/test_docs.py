"""The documentation names what exists: links, paths, commands, options, settings, messages, examples."""

import importlib.util
import re
import tomllib
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
import typer.main

from device_agent.settings import DeviceSettings
from megace2_iot.bus import BrokerSettings
from megace2_iot.cli.app import app
from megace2_iot.messages import FeaturePacket, Feedback, Message
from megace2_iot.quantize import Quantized, dequantize
from megace2_iot.service import SECTIONS, Settings

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("docs/**/*.md"), ROOT / "README.md", ROOT / "CHANGELOG.md"])
CODE_FOLDERS = ("megace2_iot", "device_agent", "edge_gateway", "cloud_aggregator", "broker", "tests", "benchmarks")
OTHER_FOLDERS = ("docs", "examples", "deploy", ".importlinter")
COMMANDS = typer.main.get_command(app).commands
FORBIDDEN = (  # each with a class of one letter, so that this page does not name it either
    *(
        r"/w[o]rk\b",
        r"\.\./sh[a]red",
        r"\bsh[a]red/",
        r"p[y]pi\.",
        r"p[y]thonhosted",
        r"\bhelper ag[e]nt",
        r"\bpr[o]mpt\b",
    ),
    *(r"\bse[a]mless", r"\bblaz[i]ng", r"\bcutting[- ]ed[g]e", r"\bstate[- ]of[- ]the[- ]a[r]t", r"\bp[o]werful\b"),
)

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def prose(page):
    """The text outside of code blocks."""
    return re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def anchors(page):
    """What GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def shell_lines(page):
    """Lines of the shell blocks and code spans that begin with our command or with make."""
    blocks = re.findall(r"^```sh\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    lines = [line.split("#")[0].strip() for block in blocks for line in block.splitlines()]
    lines += re.findall(r"`([^`\n]+)`", prose(page))
    return [line.removeprefix(".venv/bin/") for line in lines]


@each_page
def test_links_lead_somewhere(page):
    """A reader who follows a link finds a file, and its heading."""
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        target, _, anchor = unquote(link).partition("#")
        if "://" in target:
            continue
        file = (page.parent / target).resolve() if target else page
        assert file.exists(), link
        assert not anchor or anchor in anchors(file), link


@each_page
def test_paths_exist(page):
    """A path in backticks below a folder of this project is there."""
    for path in re.findall(r"`([\w.-]+(?:/[\w.-]+)*/?)`", prose(page)):
        if path.split("/")[0] in (*CODE_FOLDERS, *OTHER_FOLDERS) and "/" in path:
            assert (ROOT / path).exists(), path


@each_page
def test_commands_and_options_exist(page):
    """Every `megace2 NAME --option` can be typed."""
    for line in shell_lines(page):
        words = line.split()
        if words[:1] != ["megace2"] or len(words) < 2 or not re.fullmatch(r"[a-z]+", words[1]):
            continue
        assert words[1] in COMMANDS, line
        asked = COMMANDS[words[1]]
        if hasattr(asked, "commands") and len(words) > 2 and words[2][0] != "-":  # a group: its command follows
            assert words[2] in asked.commands, line
            asked = asked.commands[words[2]]
        known = {name for p in asked.params for name in (*p.opts, *p.secondary_opts)}
        unknown = {word for word in words[2:] if word.startswith("--")} - known - {"--help"}
        assert not unknown, line


@each_page
def test_options_of_make_demo_exist(page):
    """`make demo ARGS="..."` passes options that the demo knows; other targets are in the Makefile."""
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    known = {name for p in COMMANDS["demo"].params for name in p.opts}
    for line in shell_lines(page):
        if found := re.fullmatch(r'make (\w+)(?: ARGS="?(.*?)"?)?', line):
            assert found[1] in targets, line
            if found[1] == "demo":
                assert set(re.findall(r"--\w+", found[2] or "")) <= known, line


@each_page
def test_no_page_names_what_is_none_of_its_readers_business(page):
    """Pages are for users: no places of the build, no advertising."""
    for number, line in enumerate(page.read_text().splitlines(), 1):
        found = [pattern for pattern in FORBIDDEN if re.search(pattern, line, re.IGNORECASE)]
        assert not found, f"{page.name}:{number}: {line}"


# -- settings -------------------------------------------------------------------------
def make_settings():
    path = ROOT / "docs" / "make_settings.py"
    spec = importlib.util.spec_from_file_location("make_settings", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_setting_is_explained():
    """A new setting needs a line in docs/make_settings.py; then `python docs/make_settings.py` writes the page."""
    module = make_settings()
    assert set(module.SECTIONS) == set(SECTIONS)
    assert set(module.everything()) == set(module.MEANING)
    assert module.PAGE.read_text() == module.page(), "run python docs/make_settings.py"


def test_the_settings_file_of_the_readme_is_valid(tmp_path):
    """It is copied by everybody."""
    (block,) = re.findall(r"^```toml\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    file = tmp_path / "lab.toml"
    file.write_text(block)
    settings, models = Settings(file), make_settings().SECTIONS
    for section in tomllib.loads(block):
        settings.section(section, models[section])
    assert settings.section("device", DeviceSettings).share_labels == 0.2
    assert settings.section("broker", BrokerSettings).identity == Path("/etc/megace2/identity")


# -- the wire -------------------------------------------------------------------------
def protocol():
    return (ROOT / "docs" / "protocol.md").read_text()


def hex_block(name):
    """The bytes of one ```hex block, offsets and readable columns left out."""
    (block,) = re.findall(rf"^```hex {name}\n(.*?)^```", protocol(), re.MULTILINE | re.DOTALL)
    lines = [re.sub(r"^[0-9a-f]{4}  ", "", line).split("  ")[0] for line in block.splitlines()]
    return bytes.fromhex(" ".join(lines))


def test_the_worked_example_decodes():
    """The bytes on the page are a packet, and mean what the page says."""
    packet = FeaturePacket.decode(hex_block("packet"))
    assert (packet.device, packet.epoch, packet.stage) == ("cam-01", 7, "features")
    (window,) = packet.windows
    values = dequantize(Quantized.from_fields(window.sequences["audio"]))
    np.testing.assert_array_equal(values[:, 0], np.array([-1.0546875, 0, 1.0546875, 1.9921875], np.float32))
    assert (values[:, 1] == 0.5).all()
    assert Feedback.decode(hex_block("feedback")) == Feedback(epoch=7, seq=1, score=2.5)


def test_every_message_and_field_is_on_the_page():
    """A new field needs a row, for those who write their own node."""
    sections = re.split(r"^### ", protocol(), flags=re.MULTILINE)
    for message in Message.__subclasses__():
        if message.__module__ != "megace2_iot.messages":
            continue
        section = next(text for text in sections if re.search(rf"\b{message.__name__}\b", text.splitlines()[0]))
        missing = [name for name in message.model_fields if f"`{name}`" not in section]
        assert not missing, f"{message.__name__}: {missing}"


def test_every_kind_of_topic_is_on_the_page():
    """Each message's kind is a level of some topic in the table."""
    topics = re.findall(r"^\| `([^`]+)` \|", protocol(), re.MULTILINE)
    levels = {level for topic in topics for level in topic.split("/")}
    aliases = {"update": "updates"}  # an edge's, on the cloud's topic
    for message in Message.__subclasses__():
        if message.__module__ == "megace2_iot.messages":
            assert {message.kind, aliases.get(message.kind, message.kind)} & levels, message.kind


# -- the paper ------------------------------------------------------------------------
def test_the_map_of_the_paper_is_complete():
    """Five equations, three figures and five tables have rows of their own."""
    text = (ROOT / "docs" / "paper.md").read_text()
    parts = {part.split("\n")[0]: part for part in text.split("\n## ")}
    for part, rows in (("Equations", 5), ("Figures", 3), ("Tables", 5)):
        assert {int(n) for n in re.findall(r"^\| \(?(\d)", parts[part], re.MULTILINE)} == set(range(1, rows + 1))


def test_decisions_are_listed():
    """Each page of docs/decisions is in its index."""
    folder = ROOT / "docs" / "decisions"
    listed = re.findall(r"\((\d{4}-[\w-]+\.md)\)", (folder / "README.md").read_text())
    assert sorted(listed) == sorted(path.name for path in folder.glob("[0-9]*.md"))
