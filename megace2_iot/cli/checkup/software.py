"""Python, packages, extras, decoders: by their metadata where that will do, so that torch is not imported."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection
from importlib import metadata

from megace2_iot import __version__
from megace2_iot.cli.checkup.check import Check, Role

CORE = ("aiomqtt", "paho-mqtt", "msgpack", "zstandard", "numpy", "pydantic", "safetensors")
EXTRAS = {  # as in pyproject.toml, which a test compares
    "sense": ("av", "linuxpy", "onnxruntime"),
    "torch": ("torch",),
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "secure": ("cryptography",),
    "web": ("websockets",),
    "report": ("matplotlib",),
}
NEWEST = (3, 13)  # of the Pythons that it is tested with
CODECS = ("h264", "hevc", "vp8", "vp9", "av1", "mjpeg", "aac", "mp3", "opus", "flac", "pcm_s16le")
Version = Callable[[str], str | None]


def version_of(package: str) -> str | None:
    """The installed version; None where there is none."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def installed_roles(version: Version = version_of) -> tuple[Role, ...]:
    """The tiers that can run here: a device everywhere, the others where torch is."""
    return ("device", "edge", "cloud") if version("torch") else ("device",)


def check_software(
    roles: Collection[Role], *, senses: bool, accelerator: str = "", version: Version = version_of
) -> list[Check]:
    """`senses`: there are cameras or microphones, which a device needs the extra `sense` for."""
    needed = {"torch": not {"edge", "cloud"}.isdisjoint(roles), "sense": senses and "device" in roles}
    advised = {
        "torch": "device" in roles and "to take part in rounds",
        "sense": "device" in roles and "for cameras, microphones and media files",
        "onnx": "edge" in roles and not accelerator and "to answer faster on a CPU",
    }
    checks = [_python(), _core(version)]
    for extra, packages in EXTRAS.items():
        checks.append(_extra(extra, packages, needed.get(extra, False), advised.get(extra) or "", version))
    if "edge" in roles and accelerator and (version("torch") or "").endswith("+cpu"):
        advice = f"torch is a build for CPUs: install one with CUDA to use {accelerator.removeprefix('cuda:')}"
        checks.append(Check("software", "CUDA", "not in torch's build", advice))
    return checks


def _python() -> Check:
    found = ".".join(str(part) for part in sys.version_info[:3])
    untested = sys.version_info[:2] > NEWEST
    advice = f"it is tested with Python 3.11 to {NEWEST[0]}.{NEWEST[1]}: use one of these" if untested else ""
    return Check("software", "Python", found, advice)


def _core(version: Version) -> Check:
    found = {name: version(name) for name in CORE}
    missing = [name for name, there in found.items() if there is None]
    listed = ", ".join(f"{name} {there}" for name, there in found.items() if there)
    advice = f"{', '.join(missing)} missing: pip install --force-reinstall megace2-iot" if missing else ""
    return Check("software", "megace2-iot", f"{__version__}; {listed}", advice, needed=True)


def _extra(extra: str, packages: tuple[str, ...], needed: bool, advised: str, version: Version) -> Check:
    found = {name: version(name) for name in packages}
    listed = ", ".join(f"{name} {there or 'missing'}" for name, there in found.items())
    if all(found.values()):
        return Check("software", f"[{extra}]", listed)
    reason = f" {advised}" if advised else ""
    advice = f"pip install 'megace2-iot[{extra}]'{reason}" if needed or advised else ""
    return Check(
        "software", f"[{extra}]", listed if any(found.values()) else "not installed", advice, needed, here=False
    )


def check_decoders(*, needed: bool, version: Version = version_of) -> list[Check]:
    """What PyAV can read and hear, and what ONNX Runtime runs on; nothing of what is not installed."""
    checks = []
    if version("av"):
        checks += _decoders(needed)
    if version("onnxruntime"):
        checks.append(_onnx_runtime())
    return checks


def _decoders(needed: bool) -> list[Check]:
    try:
        import av
        from av.codec import Codec
    except (ImportError, OSError) as error:
        return [Check("media", "PyAV", "cannot be loaded", _reinstall("av", error), needed)]
    there, missing = [], []
    for name in CODECS:
        try:
            there.append(Codec(name, "r").name)
        except av.codec.codec.UnknownCodecError:
            missing.append(name)
    another = "pip install --force-reinstall --only-binary=:all: av"
    lacking = f"no decoder for {', '.join(missing)}: {another}" if missing else ""
    alsa = "alsa" in av.formats_available
    deaf = "" if alsa else f"this build of PyAV cannot record: {another}"
    return [
        Check("media", "decoders", ", ".join(there), lacking),
        Check("media", "ALSA input", "in PyAV" if alsa else "not in PyAV", deaf, needed),
    ]


def _onnx_runtime() -> Check:
    try:
        import onnxruntime
    except (ImportError, OSError) as error:
        return Check("media", "ONNX Runtime", "cannot be loaded", _reinstall("onnxruntime", error))
    names = [str(name).removesuffix("ExecutionProvider") for name in onnxruntime.get_available_providers()]
    return Check("media", "ONNX Runtime", f"{onnxruntime.__version__} on {', '.join(names)}")


def _reinstall(package: str, error: Exception) -> str:
    return f"{package} is installed but fails ({error}): pip install --force-reinstall {package}"
