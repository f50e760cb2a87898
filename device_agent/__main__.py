"""The process of `megace2 device` and `megace2 replay`, started anew without the command line's libraries.

Its one argument is JSON: the settings file, and what the command line overrides by section.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from device_agent.agent import DeviceSettings
from device_agent.fleet import ReplaySettings, device_ids, run_fleet
from megace2_iot.bus import BrokerSettings
from megace2_iot.problems import Problem
from megace2_iot.service import Settings, SiteSettings, run


def main() -> int:
    given = json.loads(sys.argv[1]) if len(sys.argv) > 1 else {}
    try:
        settings = Settings(
            Path(given["file"]) if given.get("file") else None, given.get("overrides"), given.get("defaults")
        )
        replay = settings.section("replay", ReplaySettings)
        device = settings.section("device", DeviceSettings)
        broker = settings.section("broker", BrokerSettings)
        topics = settings.section("site", SiteSettings).topics()
    except Problem as problem:
        print(f"megace2: {problem}", file=sys.stderr)
        return 1
    ids = device_ids(replay, device)
    name = ids[0] if len(ids) == 1 else f"{device.edge}/{len(ids)}"
    return run(lambda: run_fleet(replay, device, topics, broker), name)


if __name__ == "__main__":
    sys.exit(main())
