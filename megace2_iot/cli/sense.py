"""`megace2 sense`: what a device would make of a clip."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from megace2_iot.cli.options import Config, Json, Vectors
from megace2_iot.problems import Problem

if TYPE_CHECKING:
    from megace2_iot.cli.sensed import Clip

WIDTH = 80  # columns


def command(
    file: Annotated[str, typer.Argument(help="A media file, a text file, or 'synthetic' (':N' for the N-th).")],
    text: Annotated[str | None, typer.Option(help="What is said in it; default the .txt beside it.")] = None,
    vectors: Vectors = None,
    vision_model: Annotated[Path | None, typer.Option(help="An ONNX model in place of the descriptor.")] = None,
    picture: Annotated[Path | None, typer.Option(help="Where to draw it; default sense.png.")] = None,
    bound: Annotated[float, typer.Option(min=0, max=0.5, help="Largest error, as an edge would set it.")] = 0.02,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Show what a device makes of a clip: features as pictures, quality, sizes and times."""
    clip = _sensed(file, text, {"vectors": vectors, "vision_model": vision_model}, bound, config)
    drawn = None if as_json and picture is None else _drawn(clip, picture or Path("sense.png"))
    if as_json:
        print(json.dumps(clip.to_json()))
        return
    _print(clip, drawn)


def _sensed(file: str, text: str | None, changed: Mapping[str, Any], bound: float, config: Path | None) -> Clip:
    try:
        from device_agent.extraction.settings import SenseSettings
        from megace2_iot.cli.sensed import sense_clip
        from megace2_iot.service import Settings
    except ModuleNotFoundError as error:
        raise Problem(f"sensing needs {error.name}: pip install 'megace2-iot[sense]'") from None
    settings = Settings(config, {"sense": dict(changed)}).section("sense", SenseSettings)
    return sense_clip(file, text, settings, bound)


def _drawn(clip: Clip, path: Path) -> Path | None:
    """Where the picture is; None without the extra that draws."""
    try:
        from megace2_iot.cli.sense_picture import draw
    except ModuleNotFoundError:
        return None
    try:
        draw(clip, path)
    except OSError as error:
        raise Problem(f"cannot draw {path}: {error.strerror}") from None
    return path


def _print(clip: Clip, drawn: Path | None) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(width=WIDTH, highlight=False)
    console.print(f"[bold]{clip.name}[/]: {clip.described()}")
    table = Table("window", "modality", "rows", "numbers", "quality", box=None, pad_edge=False)
    for window in clip.windows:
        for number, (modality, part) in enumerate(window.parts.items()):
            span = f"{window.start:.1f}-{window.end:.1f} s" if not number else ""
            quality = ", ".join(f"{name} {value:.3g}" for name, value in part.quality.items())
            masked = f"[red]masked: {part.masked}[/]" if part.masked else ""
            table.add_row(span, modality, str(part.rows), str(part.width), "\n".join(filter(None, (quality, masked))))
    console.print(table)
    if clip.tokens:
        console.print("words: " + " ".join(clip.tokens[:60]) + (" ..." if len(clip.tokens) > 60 else ""))
    sizes = Table("coded as", "bytes", "largest error", "rows", box=None, pad_edge=False)
    if clip.file_bytes:
        sizes.add_row("the file itself", f"{clip.file_bytes:,}", "", "")
    sizes.add_row("features, float32", f"{clip.float_bytes:,}", "", "")
    for rung in clip.sizes:
        averaged = f"averaged by {rung.averaged}" if rung.averaged > 1 else "all"
        sizes.add_row(f"packet, {rung.name}", f"{rung.size:,}", f"{100 * rung.error:.2g} % of a range", averaged)
    console.print(sizes)
    stages = ", ".join(f"{name} {1000 * seconds:.0f}" for name, seconds in clip.seconds.items())
    console.print(f"ms by stage: {stages}")
    total = sum(clip.seconds.values())
    console.print(
        f"{clip.duration:.1f} s of media in {total:.3f} s: {clip.duration / max(total, 1e-9):.0f} times real time"
    )
    for name, count in clip.lost.items():
        console.print(f"[red]lost:[/] {name.replace('_', ' ')} {count}")
    console.print(f"drawn: {drawn}" if drawn else "no picture: pip install 'megace2-iot[report]'")
