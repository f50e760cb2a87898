"""A data set by name or path; the loader is chosen by what the file holds."""

from __future__ import annotations

from pathlib import Path

from megace2_iot.datasets.arrays import is_sequences, load_sequences
from megace2_iot.datasets.csd import MAGIC as HDF5
from megace2_iot.datasets.csd import load_csd
from megace2_iot.datasets.leak import mark_leak, probe_leak, without_leaks
from megace2_iot.datasets.mmsa import is_mmsa, load_mmsa
from megace2_iot.datasets.mosi import samples_of_table, sentences_of_table
from megace2_iot.datasets.mult import is_mult, load_mult
from megace2_iot.datasets.npz import read_npz
from megace2_iot.datasets.sample import Dataset
from megace2_iot.datasets.splits import check_split, resplit
from megace2_iot.datasets.synthetic import synthetic
from megace2_iot.datasets.transcripts import load_transcripts
from megace2_iot.datasets.unpickle import read_pickle

ZIP = b"PK\x03\x04"
PICKLES = (".pkl", ".pickle", ".p")
UNDERSTOOD = (
    "'synthetic', an .npz table of utterances or of sequences, a pickle of MulT's or MMSA's, "
    "a folder of the CMU SDK's .csd files, or a .csv of text and label (docs/data.md)"
)


def load(
    name_or_path: str | Path,
    seed: int = 0,
    sites: int = 2,
    *,
    split: str = "official",
    vectors: str | Path | None = None,
) -> Dataset:
    """The data set of that name, or in that file or folder, probed for a leak, then split.

    `seed` shapes the built-in corpus and the splits `random` and `speaker`, `sites` the corpus only. `vectors` is a
    file of word vectors, for a .csv or a table with sentences; of the latter it leaves out what leaks. Raises
    FileNotFoundError or ValueError, saying what is understood.
    """
    check_split(split)
    if str(name_or_path) == "synthetic":
        if vectors is not None:
            raise ValueError("the built-in corpus holds no text: word vectors are of no use to it")
        return resplit(synthetic(seed, sites=sites), split, seed)
    path = Path(name_or_path).expanduser()
    if not path.exists():
        raise FileNotFoundError(f"no data set {str(name_or_path)!r}: understood is {UNDERSTOOD}")
    words = None if vectors is None else Path(vectors).expanduser()
    if words is not None and not words.is_file():
        raise FileNotFoundError(f"no word vectors at {vectors}")
    dataset = _read(_only_file(path) if path.is_dir() else path, words)
    probes = probe_leak(dataset)
    if words is not None:
        dataset = without_leaks(dataset, probes)
        probes = {m: probe for m, probe in probes.items() if m in dataset.dims}
    return resplit(mark_leak(dataset, probes), split, seed)


def _read(path: Path, vectors: Path | None) -> Dataset:
    with_words = path.suffix == ".csv" or _begins(path, ZIP)
    if vectors is not None and not with_words:
        raise ValueError(f"{path} holds no text: word vectors are of no use to it")
    if path.is_dir():
        return load_csd(path)
    if _begins(path, HDF5):
        raise ValueError(f"{path} is one computational sequence: give the folder that holds it and its labels")
    if path.suffix == ".csv":
        return load_transcripts(path, vectors)
    if _begins(path, ZIP) or path.suffix == ".npz":
        return _read_npz(path, vectors)
    if _begins(path, b"\x80") or path.suffix in PICKLES:
        return _read_pickle(path)
    raise ValueError(f"{path} is not understood: give {UNDERSTOOD}")


def _read_npz(path: Path, vectors: Path | None) -> Dataset:
    table = read_npz(path)
    try:
        if vectors is not None:
            return sentences_of_table(table, path, vectors)
        return load_sequences(table, path.stem) if is_sequences(table) else samples_of_table(table, path)
    except TypeError as error:  # text in the place of numbers
        raise ValueError(f"{path}: {error}") from None


def _read_pickle(path: Path) -> Dataset:
    data = read_pickle(path)
    try:
        if is_mmsa(data):
            return load_mmsa(data, path.stem)
        if is_mult(data):
            return load_mult(data, path.stem)
    except (ValueError, TypeError) as error:  # a stranger's arrays, in whatever shape
        raise ValueError(f"{path}: {error}") from None
    holds = ", ".join(map(str, list(data)[:8])) if isinstance(data, dict) else type(data).__name__
    raise ValueError(f"{path} is a pickle of {holds}, neither MulT's nor MMSA's: understood is {UNDERSTOOD}")


def _begins(path: Path, magic: bytes) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(magic)) == magic


def _only_file(folder: Path) -> Path:
    """The folder itself where it holds .csd files, else its one table."""
    if any(folder.glob("*.csd")):
        return folder
    named = folder / "mosi_utterances.npz"
    if named.is_file():
        return named
    tables = sorted(folder.glob("*.npz"))
    if len(tables) != 1:
        names = ", ".join(table.name for table in tables) or "none"
        raise ValueError(f"{folder} must hold one .npz table, and holds {names}; understood is {UNDERSTOOD}")
    return tables[0]
