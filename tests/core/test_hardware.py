"""The machine's profile from files as Linux has them, and empty where they are not there."""

from pathlib import Path

import pytest

from megace2_iot.codec import encode
from megace2_iot.hardware import accelerator, cameras, clock_id, free_disk, hardware, machine, microphones
from megace2_iot.messages import DeviceProfile, Hardware


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def camera(number: int, name: str, index: int = 0) -> dict[str, str]:
    node = f"sys/class/video4linux/video{number}"
    return {f"{node}/name": f"{name}\n", f"{node}/index": f"{index}\n", f"{node}/dev": f"81:{number}\n"}


def test_nothing_is_known_where_nothing_is_told(tmp_path: Path):
    """A container, a phone, macOS: empty values, and no error."""
    found = hardware(tmp_path)
    assert (found.accelerator, found.cameras, found.microphones, found.temperature) == ("", (), (), None)
    assert found.machine and found.cores > 0 and found.memory > 0 and found.clock == clock_id()


def test_a_raspberry_pi(tmp_path: Path):
    """Its decoders and image processors are V4L2 nodes, too, and no cameras."""
    root = write(
        tmp_path,
        {
            "proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\x00",
            "proc/device-tree/compatible": "raspberrypi,5-model-b\x00brcm,bcm2712\x00",
            "proc/asound/pcm": (
                "00-00: MAI PCM i2s-hifi-0 : MAI PCM i2s-hifi-0 : playback 1\n"
                "01-00: USB Audio : USB Audio : capture 1\n"
            ),
            "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
            "sys/class/thermal/thermal_zone0/temp": "48312\n",
            **camera(0, "HD Pro Webcam C920"),
            **camera(1, "HD Pro Webcam C920", index=1),
            **camera(10, "bcm2835-codec-decode"),
            **camera(19, "rpi-hevc-dec"),
            **camera(20, "pispbe-input"),
        },
    )
    found = hardware(root)
    assert found.machine == "Raspberry Pi 5 Model B Rev 1.0"
    assert found.cameras == ("video0: HD Pro Webcam C920",)
    assert found.microphones == ("hw:1,0: USB Audio",)
    assert (found.temperature, found.accelerator) == (48.312, "")


def test_udev_knows_which_nodes_capture(tmp_path: Path):
    """Its word counts more than the number of a node."""
    files = {**camera(0, "Odd Camera", index=0), **camera(1, "Odd Camera", index=1)}
    files["run/udev/data/c81:0"] = "E:ID_V4L_VERSION=2\nE:ID_V4L_CAPABILITIES=:\n"
    files["run/udev/data/c81:1"] = "E:ID_V4L_VERSION=2\nE:ID_V4L_CAPABILITIES=:capture:\n"
    assert cameras(write(tmp_path, files)) == ("video1: Odd Camera",)


def test_cameras_come_in_the_order_of_their_numbers(tmp_path: Path):
    """video2 before video10, and no more than a profile should carry."""
    for number in range(30):
        write(tmp_path, camera(number, "x" * 200))
    found = cameras(tmp_path)
    assert [name.split(":")[0] for name in found] == [f"video{number}" for number in range(16)]
    assert len(found[0]) == 80


def test_a_container_sees_microphones_without_names(tmp_path: Path):
    """/proc/asound is hidden there, the device files are given to it."""
    root = write(tmp_path, {"dev/snd/pcmC0D0p": "", "dev/snd/pcmC1D0c": "", "dev/snd/controlC1": ""})
    assert microphones(root) == ("hw:1,0",)


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({"proc/driver/nvidia/gpus/0000:01:00.0/information": "Model: \t\t NVIDIA H100\nIRQ: 5\n"}, "cuda:NVIDIA H100"),
        ({"proc/device-tree/compatible": "nvidia,p3768-0000+p3767-0005\x00nvidia,tegra234\x00"}, "cuda:tegra234"),
        ({"etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 38968081\n"}, "cuda:tegra, L4T 36"),
        ({"proc/driver/nvidia/gpus/0000:01:00.0/information": ""}, ""),
    ],
)
def test_accelerators(tmp_path: Path, files: dict[str, str], found: str):
    """A graphics card by its driver, a Jetson by its device tree or its release; torch is not asked."""
    assert accelerator(write(tmp_path, files)) == found


def test_free_disk_of_a_folder_that_will_be_made(tmp_path: Path):
    """A tier asks before it makes its state_dir."""
    assert free_disk(tmp_path / "state" / "device") > 0


def test_the_model_of_a_computer_without_device_tree_is_its_architecture(tmp_path: Path):
    """As it was always told."""
    assert machine(tmp_path) in ("x86_64", "aarch64", "arm64")


def test_a_profile_of_an_older_device_decodes():
    """It says nothing of sensors and temperature."""
    old = encode({"dims": {"text": 3}, "hardware": {"machine": "x86_64", "cores": 2, "memory": 1, "accelerator": ""}})
    told = DeviceProfile.decode(old).hardware
    assert (told.cameras, told.microphones, told.temperature) == ((), (), None)


def test_a_profile_with_sensors_comes_back():
    """Lists of text and a number on the wire."""
    told = Hardware(cameras=("video0: C920",), microphones=("hw:1,0: USB",), temperature=48.3)
    assert DeviceProfile.decode(DeviceProfile(dims={"text": 3}, hardware=told).encode()).hardware == told
