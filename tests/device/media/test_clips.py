"""Folders of clips, and the files of one."""

from __future__ import annotations

import codecs
import itertools
from pathlib import Path

import pytest
from written_media import moving, tone, write_film, write_pictures, write_sound

from device_agent.media.chunks import Losses, MediaError, Picture, Sound, Words
from device_agent.media.clips import clip_of, clips_in, labels_of, read_clip
from device_agent.media.reading import Reading


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Film with text, sound with text, film with a better sound beside it, text alone."""
    write_film(tmp_path / "b film.mp4")
    (tmp_path / "b film.txt").write_text("what a film")
    write_sound(tmp_path / "a.wav", tone(1, 8000, 0.2, 0.6), 8000)
    (tmp_path / "a.txt").write_text("only\n  heard\n")
    write_film(tmp_path / "c.mkv")
    write_sound(tmp_path / "c.flac", tone(3, 8000, 2.0, 2.5), 8000, codec="flac")
    (tmp_path / "d.txt").write_text("five words and no more")
    (tmp_path / "notes.md").write_text("not a clip")
    (tmp_path / "sub").mkdir()
    return tmp_path


def test_files_of_one_name_are_one_clip(folder: Path) -> None:
    """Sorted by name, whatever the order of the folder."""
    clips = clips_in(folder)
    assert [clip.name for clip in clips] == ["a", "b film", "c", "d"]
    assert [(clip.sound is not None, clip.pictures is not None) for clip in clips] == [
        (True, False),
        (False, True),
        (True, True),
        (False, False),
    ]
    assert [clip.words for clip in clips] == ["only heard", "what a film", None, "five words and no more"]


def test_a_sound_beside_a_film_replaces_its_own(folder: Path) -> None:
    """The recorder on the table hears better than the camera; two voices at once would be neither."""
    chunks = list(read_clip(clips_in(folder)[2]))
    sounds = [c for c in chunks if isinstance(c, Sound)]
    assert sounds[-1].end == pytest.approx(3.0)
    assert max(abs(s.samples).max() for s in sounds if s.end < 1.9) < 0.1
    assert len([c for c in chunks if isinstance(c, Picture)]) == 30


def test_tracks_are_merged_in_time(folder: Path) -> None:
    """Whoever aligns windows sees no track run ahead of the others."""
    for clip in clips_in(folder):
        starts = [chunk.start for chunk in read_clip(clip)]
        assert all(b >= a - 0.15 for a, b in itertools.pairwise(starts))


def test_words_span_the_clip(folder: Path) -> None:
    """Up to the end of the longest track, or as long as saying them takes."""
    spans = {
        clip.name: (chunk.start, chunk.end)
        for clip in clips_in(folder)
        for chunk in read_clip(clip)
        if isinstance(chunk, Words)
    }
    assert spans["a"] == (0, pytest.approx(1.0))
    assert spans["b film"] == (0, pytest.approx(2.0, abs=0.1))
    assert spans["d"] == (0, pytest.approx(2.0))


def test_scores_come_from_the_table(folder: Path) -> None:
    """Clips that it does not name have none."""
    (folder / "labels.csv").write_text("\ufeffclip,score,by\na,1.5,me\nb film,-3,you\n")
    assert [clip.score for clip in clips_in(folder)] == [1.5, -3.0, None, None]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("name,value\na,1\n", "line 1"),
        ("", "line 1"),
        ("clip,score\na,1\nb,high\n", "line 3"),
        ("clip,score\na\n", "line 2"),
        ("clip,score\n,1\n", "line 2"),
        ("clip,score\na,nan\n", "line 2"),
        ("clip,score\na,1\na,2\n", "line 3"),
    ],
)
def test_a_bad_label_is_found_by_its_line(tmp_path: Path, text: str, complaint: str) -> None:
    """A label that is silently dropped is a worse model that nobody explains."""
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(MediaError, match=complaint):
        labels_of(tmp_path / "labels.csv")


def test_labels_in_another_encoding_are_refused(tmp_path: Path) -> None:
    """As a sentence, not as a traceback."""
    (tmp_path / "labels.csv").write_bytes("clip,score\nä,1\n".encode("utf-16"))
    with pytest.raises(MediaError, match="UTF-8"):
        labels_of(tmp_path / "labels.csv")


@pytest.mark.parametrize(
    ("data", "words", "errors"),
    [
        ("Ça va très bien".encode(), "Ça va très bien", 0),
        ("很好 我喜欢".encode(), "很好 我喜欢", 0),
        (codecs.BOM_UTF8 + "مرحبا".encode(), "مرحبا", 0),
        ("Привет".encode("utf-16"), "Привет", 0),
        ("Ça va".encode("latin-1"), "\ufffda va", 1),
        (b"one\x00two\r\nthree", "one two three", 0),
        (b"", None, 0),
        (b" \n", None, 0),
    ],
)
def test_text_of_any_script_is_read(tmp_path: Path, data: bytes, words: str | None, errors: int) -> None:
    """What does not decode is replaced and counted; an empty file is no words."""
    (tmp_path / "a.txt").write_bytes(data)
    losses = Losses()
    assert clips_in(tmp_path, losses)[0].words == words
    assert losses.counts.get("text_errors", 0) == errors


def test_a_folder_without_clips_says_so(tmp_path: Path) -> None:
    """Not an empty run that looks like success."""
    with pytest.raises(MediaError, match="holds no clips"):
        clips_in(tmp_path)
    with pytest.raises(MediaError, match="there is no folder"):
        clips_in(tmp_path / "absent")


def test_what_is_not_wanted_is_not_read(folder: Path) -> None:
    """A device without a camera takes the words and sound of the same folder, and a silent film is no error to it."""
    write_pictures(folder / "e.mp4", moving(10), [k / 25 for k in range(10)])
    deaf, blind = Reading(sound=False), Reading(pictures=False)
    kinds = {clip.name: [{type(c) for c in read_clip(clip, r)} for r in (deaf, blind)] for clip in clips_in(folder)}
    assert kinds["a"] == [{Words}, {Words, Sound}]
    assert kinds["b film"] == [{Words, Picture}, {Words, Sound}]
    assert kinds["c"] == [{Picture}, {Sound}]
    assert kinds["e"] == [{Picture}, set()]


def test_shadows_of_macos_are_no_clips(folder: Path) -> None:
    """They have the names of clips and hold none."""
    (folder / "._a.wav").write_bytes(b"shadow")
    assert len(clips_in(folder)) == 4


def test_one_file_is_a_clip_with_the_text_beside_it(folder: Path) -> None:
    """`megace2 sense film.mp4` needs no folder."""
    clip = clip_of(folder / "b film.mp4")
    assert (clip.name, clip.words, clip.sound) == ("b film", "what a film", None)
    assert clip_of(folder / "a.wav").pictures is None
    assert {type(c) for c in read_clip(clip)} == {Words, Sound, Picture}


def test_a_damaged_film_is_not_a_damaged_sound(tmp_path: Path) -> None:
    """What cannot be opened is said with its name, so that it can be taken out."""
    write_pictures(tmp_path / "a.mp4", moving(10), [k / 25 for k in range(10)])
    (tmp_path / "a.wav").write_bytes(b"not a sound")
    with pytest.raises(MediaError, match=r"a\.wav"):
        list(read_clip(clips_in(tmp_path)[0]))


def test_real_clips_are_read_with_their_text(data_folder: Path) -> None:
    """All nine, each with what it has."""
    clips = clips_in(data_folder / "clips")
    assert len(clips) == 9
    for clip in clips:
        kinds = {type(chunk) for chunk in read_clip(clip)}
        assert kinds == ({Sound, Picture} if clip.pictures else {Sound})
