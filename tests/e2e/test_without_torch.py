"""A streaming device runs where torch cannot be imported, and carries no command line libraries."""

import pytest
from tiers import process, running, until

from megace2_iot.messages import DeviceProfile, Prediction

HEAVY = ("torch", "typer", "rich", "click", "prometheus_client", "edge_gateway", "cloud_aggregator")
SITE = """
import atexit, os, sys
def dump():
    if "device_agent" in " ".join(sys.orig_argv):
        with open(os.environ["MODULES_FILE"], "w") as file:
            file.write("\\n".join(sorted(sys.modules)))
atexit.register(dump)
"""


@pytest.mark.parametrize("train", ["true", "false"])
async def test_a_streaming_device_needs_no_torch(run_embedded, make_lab, train):
    """With `train` too: where torch cannot be imported the device only streams, and its answers arrive."""
    async with run_embedded() as broker:
        lab = make_lab(broker.url)
        shims = lab.folder / "shims"
        shims.mkdir()
        (shims / "torch.py").write_text("raise ImportError('torch is not for this device')\n")
        (shims / "sitecustomize.py").write_text(SITE)
        environment = {
            "PYTHONPATH": str(shims),
            "MODULES_FILE": str(lab.folder / "modules"),
            "MEGACE2_DEVICE__TRAIN": train,
        }
        arguments = ("device", "--id", "cam-1", "--speed", "200", "--stay", "--config", str(lab.settings_file()))
        edge = lab.edge(learning={"rounds": train == "true", "adapters": False})
        async with lab.listening() as ear, running(lab.cloud(), edge), process(*arguments, **environment) as device:
            await until(lambda: len(ear.of(Prediction, "cam-1")) >= 20)
            device.terminate()
            assert await device.wait() == 0, "".join(device.said)
        loaded = (lab.folder / "modules").read_text().split()
        assert "device_agent.agent" in loaded
        assert not [name for name in loaded if name.split(".")[0] in HEAVY]
        if train == "false":
            assert not ear.of(DeviceProfile, "cam-1")[0].can_train
