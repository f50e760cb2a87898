"""The example that uses no package of ours, against real tiers."""

import asyncio
import re
import subprocess
import sys
from pathlib import Path

from tiers import running

EXAMPLE = Path(__file__).parents[2] / "examples" / "plain_paho.py"


async def run_example(port, site):
    """Its output and exit status, as a process that sees only its own libraries."""
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, str(EXAMPLE), "127.0.0.1", str(port), site),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(90):
            printed, _ = await child.communicate()
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    return child.returncode, printed.decode()


async def test_a_stranger_is_answered(run_embedded, make_lab):
    """Protects docs/protocol.md: who follows it is registered and answered."""
    async with run_embedded() as broker:
        lab = make_lab(broker.url)
        async with running(lab.cloud(), lab.edge(learning={"rounds": False})):
            first = await run_example(broker.port, lab.topics.site)
            again = await run_example(broker.port, lab.topics.site)
    for status, printed in (first, again):
        assert status == 0, printed
        found = re.fullmatch(r"answered: score (\S+), (negative|non-negative) \(model 1 of edge-1\)\n", printed)
        assert found, printed
        assert (float(found[1]) >= 0) == (found[2] == "non-negative")


async def test_a_stranger_that_cannot_be_served_is_told_why(run_embedded, make_lab):
    """A cloud whose model takes other widths: the example prints both lists and fails."""
    async with run_embedded() as broker:
        lab = make_lab(broker.url)
        model = {"dims": {"text": 24, "audio": 12, "vision": 11}, "preset": "nano"}
        cloud = lab.cloud(state_dir=lab.folder / "other", model=model)
        async with running(cloud, lab.edge(learning={"rounds": False})):
            status, printed = await run_example(broker.port, lab.topics.site)
    assert status == 1
    assert "it sends text 24, audio 12, vision 10, the model takes" in printed
    assert "vision 11" in printed


def test_it_imports_none_of_our_packages():
    """It documents the wire, so it must not lean on the code that it documents."""
    imported = re.findall(r"^(?:import|from) (\w+)", EXAMPLE.read_text(), re.MULTILINE)
    assert not {"megace2_iot", "device_agent", "edge_gateway", "cloud_aggregator", "broker"} & set(imported)
