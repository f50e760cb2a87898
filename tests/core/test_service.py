"""Settings and processes: precedence, helpful refusals, exit statuses."""

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict

from megace2_iot.bus import BrokerSettings
from megace2_iot.problems import Problem
from megace2_iot.service import Settings, run


class Example(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    batch_size: int = 1
    name: str = "x"


@pytest.fixture(autouse=True)
def _keep_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "megace2.toml"
    path.write_text("[edge]\nbatch_size = 2\nname = 'file'\n")
    return path


def test_command_line_beats_environment_beats_file(file: Path, monkeypatch: pytest.MonkeyPatch):
    """Defaults < file < MEGACE2_SECTION__KEY < command line."""
    monkeypatch.setenv("MEGACE2_EDGE__BATCH_SIZE", "3")
    assert Settings(file).section("edge", Example) == Example(batch_size=3, name="file")
    assert Settings(file, {"edge": {"batch_size": 4, "name": None}}).section("edge", Example).batch_size == 4


def test_an_unknown_key_gets_a_suggestion(file: Path):
    """A typo is told before anything runs."""
    file.write_text("[edge]\nbatchsize = 2\n")
    with pytest.raises(Problem, match="did you mean 'batch_size'"):
        Settings(file).section("edge", Example)


def test_an_unknown_section_gets_a_suggestion(file: Path):
    """So is a section that belongs to nobody."""
    file.write_text("[edgee]\n")
    with pytest.raises(Problem, match="did you mean 'edge'"):
        Settings(file)


def test_a_wrong_value_names_its_key(file: Path):
    """The key and what it got."""
    file.write_text("[edge]\nbatch_size = 'many'\n")
    with pytest.raises(Problem, match=r"\[edge\] batch_size = 'many'"):
        Settings(file).section("edge", Example)


def test_an_unknown_variable_is_refused(monkeypatch: pytest.MonkeyPatch):
    """MEGACE2_ with a typo must not be ignored."""
    monkeypatch.setenv("MEGACE2_EGDE__ID", "x")
    with pytest.raises(Problem, match="did you mean 'edge'"):
        Settings()


@pytest.mark.parametrize("content", ["[edge", "edge = 1", "\xff"])
def test_a_file_that_is_no_settings_is_refused(file: Path, content: str):
    """Whatever is in the file, the refusal is one line."""
    file.write_bytes(content.encode("latin-1"))
    with pytest.raises(Problem, match=r"megace2\.toml|section"):
        Settings(file)


def test_a_missing_file_is_refused(tmp_path: Path):
    """--config with a wrong path."""
    with pytest.raises(Problem, match="cannot read"):
        Settings(tmp_path / "none.toml")


def test_a_broker_address_without_scheme_is_refused():
    """`--broker localhost` is the likeliest mistake."""
    with pytest.raises(Problem, match="mqtt://host:port"):
        Settings(None, {"broker": {"url": "localhost"}}).section("broker", BrokerSettings)


def _run_in_new_loop(main: object) -> int:
    import concurrent.futures

    with concurrent.futures.ThreadPoolExecutor(1) as thread:  # `run` makes its own loop
        return thread.submit(asyncio.run, main).result()  # type: ignore[arg-type]


def test_exit_statuses(capsys: pytest.CaptureFixture[str]):
    """0 done, 1 a problem in one line, 2 a bug."""

    async def problem() -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_raise(Problem("the disk is full: make room")))

    async def _raise(error: Exception) -> None:
        raise error

    assert run(lambda: asyncio.sleep(0), "x") == 0
    assert run(problem, "edge-1") == 1
    assert "edge-1: the disk is full: make room\n" in capsys.readouterr().err
    assert run(lambda: _raise(KeyError("bug")), "x") == 2


def test_a_table_keeps_the_keys_that_a_later_source_does_not_name(file: Path):
    """`--preset mult` over a file that gives the dims must not forget the dims."""

    class Nested(BaseModel):
        model_config = ConfigDict(extra="forbid")
        model: dict[str, int] = {}

    file.write_text("[cloud]\nmodel = { a = 1, b = 2 }\n")
    assert Settings(file, {"cloud": {"model": {"b": 3}}}).section("cloud", Nested).model == {"a": 1, "b": 3}
