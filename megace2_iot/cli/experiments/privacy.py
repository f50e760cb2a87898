"""`megace2 experiment privacy`: what can be recovered of what devices send, and what hiding it costs in accuracy."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from itertools import chain

from megace2_iot.cli.experiments.corpus import digest_of, few, read_dataset
from megace2_iot.cli.experiments.exposure import accuracy, pictures, sound, strangers, summary, takes, updates, words
from megace2_iot.cli.experiments.exposure.finding import Finding
from megace2_iot.cli.experiments.exposure.sentences import Speech, speech_of
from megace2_iot.cli.experiments.finished import Finished, Result, Tell, run_all
from megace2_iot.cli.experiments.report import Part, Report
from megace2_iot.cli.experiments.request import Request
from megace2_iot.datasets import Dataset, load
from megace2_iot.model.runs import use_threads
from megace2_iot.problems import Problem

TITLE = "Privacy: what can be recovered, and what hiding it costs"
ARMS = ("words", "strangers", "sound", "pictures", "updates", "accuracy")
QUICK_EPOCHS, QUICK_CLIPS = 2, 8
NOTES = (
    "Each figure is a part of 1 where nothing else is said, mean ± deviation over seeds: of stems, sentences, splits "
    "and generated clips. `guessing` is what somebody reaches who has seen nothing: the commonest words, another clip.",
    "Codings: the rungs of the ladder (finest a quarter of the edge's bound, fine half of it, bound 2 % of a channel's "
    "range; half and quarter average 2 and 4 rows of sound and pictures, never words), and coarser bounds.",
    "docs/privacy.md tells what is tried, and what was not.",
)


class Material:
    """What all arms look at; read once, where an arm needs it."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self._speech: Speech | None = None
        self._recorded: list[takes.Take] | None = None
        self._datasets: dict[int, Dataset] = {}

    @property
    def speech(self) -> Speech:
        if self._speech is None:
            try:
                self._speech = speech_of(self.request.data, self.request.vectors)
            except (OSError, ValueError, KeyError) as error:
                raise Problem(f"no sentences can be read from {self.request.data}: {error}") from None
        return self._speech

    def dataset(self, seed: int) -> Dataset:
        """Of the seed's own split. Raises `Problem` where it cannot be read, or has nothing to learn from or test."""
        if seed not in self._datasets:
            request = self.request
            try:
                if request.data == "synthetic" or request.split == "time":
                    dataset = read_dataset(request, seed)
                else:
                    dataset = load(request.data, seed, split=request.split, vectors=request.vectors)
            except (OSError, ValueError) as error:
                raise Problem(f"the experiment cannot use {request.data}: {error}") from None
            for split in ("train", "test"):
                if not any(sample.score is not None for sample in dataset.split(split)):
                    raise Problem(f"{dataset.name} has no labelled {split} rows: --split random or speaker makes some")
            self._datasets = {seed: few(dataset) if request.quick else dataset}
        return self._datasets[seed]

    def clips(self, seed: int) -> tuple[list[takes.Take], str]:
        """Real ones where there are some, else generated ones, and what to call them."""
        if self._recorded is None:
            folder = self.request.link.clips or takes.folder_of_clips()
            self._recorded = takes.recorded(folder) if folder is not None else []
        if self._recorded:
            return self._recorded, "recorded clips"
        return takes.generated(seed, QUICK_CLIPS if self.request.quick else takes.GENERATED), "generated clips"


def run(request: Request) -> Report:
    """Every arm with every seed; raises `Problem` where the data do not fit."""
    use_threads(1)
    finished, material = Finished(request.out / "privacy", show=request.show), Material(request)
    digests: dict[int, str] = {}

    def one(arm: str, seed: int, tell: Tell) -> Result:
        tell("reading")
        digests[seed] = digest_of(material.dataset(seed))
        settings = {"arm": arm, "data": digests[seed], "clips": _digest(material, seed), "quick": request.quick}
        settings |= {"preset": request.preset, "split": request.split, "words": material.speech.name}

        def make() -> Result:
            tell("attacking")
            return {"findings": [each.to_json() for each in _findings(arm, material, seed)]}

        return finished.of(arm, seed, settings, make)

    results, interrupted = run_all(finished, "privacy", ARMS, request.seeds, one)
    found = summary.merged(results)
    tables = summary.tables(found)
    first = tables[0] if tables else Part("words", summary.FIXED, ())
    return Report(
        name="privacy",
        title=TITLE,
        request=request,
        columns=first.columns,
        rows=first.rows,
        more=tables[1:],
        results=results,
        data={"name": material.speech.name if digests else "none", "digests": digests},
        notes=NOTES,
        interrupted=interrupted,
        details=summary.picture(found),
    )


def _findings(arm: str, material: Material, seed: int) -> Iterator[Finding]:
    quick = material.request.quick
    found: dict[str, Callable[[], Iterable[Finding]]] = {
        "words": lambda: chain(
            words.of_embedded(material.speech, seed, few=quick), words.of_features(material.speech, seed)
        ),
        "strangers": lambda: chain(
            strangers.with_known_sentences(material.speech, seed, few=quick),
            strangers.with_nothing(material.speech, seed),
            strangers.by_seed(material.speech, seed),
        ),
        "sound": lambda: _of_sound(material, seed),
        "pictures": lambda: _of_pictures(material, seed),
        "updates": lambda: updates.of_rounds(seed),
        "accuracy": lambda: _of_accuracy(material, seed),
    }
    yield from found[arm]()


def _of_sound(material: Material, seed: int) -> Iterator[Finding]:
    clips, whose = material.clips(seed)
    yield from sound.of_features(clips[: takes.GENERATED // 3], whose)
    yield from sound.of_embedded(clips, seed, whose)
    yield from sound.of_voices(clips, seed, whose)
    if whose == "recorded clips":  # one clip each: only the generator's speakers speak several times
        yield from sound.of_voices(takes.generated(seed, takes.GENERATED), seed, "generated clips")


def _of_pictures(material: Material, seed: int) -> Iterator[Finding]:
    clips, whose = material.clips(seed)
    yield from pictures.of_features(clips, whose)
    yield from pictures.of_embedded(clips, seed, whose)
    yield from pictures.of_persons(clips, seed, whose)


def _of_accuracy(material: Material, seed: int) -> Iterator[Finding]:
    request, dataset, speech = material.request, material.dataset(seed), material.speech
    bench = accuracy.Bench(dataset, seed, request.preset, QUICK_EPOCHS if request.quick else None)
    if dataset.dims.get("text") == speech.vectors.shape[1]:
        yield from words.of_stem(speech, bench.stem, seed, f"{request.preset}, trained,", words.MOST["nano"])
    yield from accuracy.of_options(bench, seed)
    stop = accuracy.stop_rows(request.vectors, dataset.dims["text"]) if "text" in dataset.dims else frozenset()
    yield from accuracy.of_less(bench, dataset.dims, stop)


def _digest(material: Material, seed: int) -> str:
    seen = hashlib.sha256()
    for take in material.clips(seed)[0]:
        seen.update(take.audio.tobytes() + take.vision.tobytes())
    return seen.hexdigest()
