"""A data set by name or path, chosen by what the file holds."""

from __future__ import annotations

from pathlib import Path

from megace2_iot.datasets.leak import mark_leak, probe_leak
from megace2_iot.datasets.mosi import load_mosi
from megace2_iot.datasets.sample import Dataset
from megace2_iot.datasets.synthetic import synthetic

UNDERSTOOD = (
    "'synthetic', the built-in corpus, or an .npz table of utterances "
    "(text, audio, vision, score, video, segment, start, split)"
)


def load(name_or_path: str | Path, seed: int = 0, sites: int = 2) -> Dataset:
    """The data set of that name, or in that file or in the one .npz of that folder, probed for a leak.

    `seed` and `sites` shape the built-in corpus only. Raises FileNotFoundError or ValueError, saying what is
    understood.
    """
    if str(name_or_path) == "synthetic":
        return synthetic(seed, sites=sites)
    path = Path(name_or_path).expanduser()
    if path.is_dir():
        path = _only_table(path)
    if not path.exists():
        raise FileNotFoundError(f"no data set {str(name_or_path)!r}: understood is {UNDERSTOOD}")
    if path.suffix != ".npz":
        raise ValueError(f"{path} is not understood: give {UNDERSTOOD}")
    dataset = load_mosi(path)
    return mark_leak(dataset, probe_leak(dataset))


def _only_table(folder: Path) -> Path:
    named = folder / "mosi_utterances.npz"
    if named.is_file():
        return named
    tables = sorted(folder.glob("*.npz"))
    if len(tables) != 1:
        names = ", ".join(table.name for table in tables) or "none"
        raise ValueError(f"{folder} must hold one .npz table, and holds {names}; understood is {UNDERSTOOD}")
    return tables[0]
