"""A folder of one site serves no other: windows, adapters and ledgers of two sites never mix."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from cloud_aggregator.cloud import CloudSettings, run_cloud
from device_agent.agent import Device
from device_agent.settings import DeviceSettings
from edge_gateway.gateway import run_edge
from edge_gateway.settings import EdgeSettings
from megace2_iot.blobs import BlobStore
from megace2_iot.bus import BrokerSettings
from megace2_iot.ownership import claim
from megace2_iot.problems import Problem
from megace2_iot.topics import Topics

OTHER, OURS = "megace2/v1/hospital", Topics(site="school")
NOWHERE = BrokerSettings(url="mqtt://127.0.0.1:9")


def test_a_folder_stays_with_its_first_site(tmp_path: Path) -> None:
    """The same site finds it again, another one is told what to do."""
    mark = tmp_path / "new" / "site"
    claim(mark, OTHER)
    claim(mark, OTHER)
    with pytest.raises(Problem, match=r"holds what is of the site 'megace2/v1/hospital'.*choose another state_dir"):
        claim(mark, OURS.root)
    assert [path.name for path in mark.parent.iterdir()] == ["site"]


def test_of_many_at_once_one_site_gets_it(tmp_path: Path) -> None:
    """Processes that start together do not overwrite each other's mark."""
    refused: list[str] = []

    def one(site: str) -> None:
        try:
            claim(tmp_path / "site", site)
        except Problem:
            refused.append(site)

    threads = [threading.Thread(target=one, args=(f"site-{number}",)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == 15
    assert (tmp_path / "site").read_text().strip() not in refused


def test_a_folder_that_cannot_be_used_says_so(tmp_path: Path) -> None:
    """A file where the folder belongs."""
    (tmp_path / "file").touch()
    with pytest.raises(Problem, match="choose another state_dir"):
        claim(tmp_path / "file" / "site", OTHER)


async def test_the_cloud_refuses_another_site_s_ledger(tmp_path: Path) -> None:
    """Before it opens it or speaks to a broker."""
    claim(tmp_path / "site", OTHER)
    with pytest.raises(Problem, match="hospital"):
        await run_cloud(CloudSettings(state_dir=tmp_path), OURS, NOWHERE)
    assert not (tmp_path / "ledger.sqlite").exists()


async def test_an_edge_refuses_another_site_s_adapters(tmp_path: Path) -> None:
    """They were learned from what another site's devices sent."""
    claim(tmp_path / "edge-1" / "site", OTHER)
    with pytest.raises(Problem, match="hospital"):
        await run_edge(EdgeSettings(id="edge-1", state_dir=tmp_path), OURS, NOWHERE)


async def test_a_device_refuses_windows_of_another_site(tmp_path: Path) -> None:
    """What waits was meant for the other site's edge."""
    claim(tmp_path / "cam-1.site", OTHER)
    settings = DeviceSettings(id="cam-1", edge="edge-1", state_dir=tmp_path)
    device = Device(settings, OURS, NOWHERE, {"text": 4}, BlobStore(tmp_path / "blobs", "cam-1"), None)
    with pytest.raises(Problem, match="hospital"):
        await device.run(None)  # type: ignore[arg-type]
    assert not (tmp_path / "cam-1.outbox").exists()
