"""The page of results: a section a report, the paper's figures beside ours with footnotes, and how each was made.

It is made of the reports' JSON alone, so that it can hold what was run at different times, full and quick.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from megace2_iot.cli.experiments import NAMES
from megace2_iot.problems import Problem

FORMAT = 2  # of a report's JSON
READINGS = "docs/readings.md"
QUICK = "**Quick**: a small run that shows that it works, not how good anything is."
SHOWN = ("megace2", "python", "torch", "numpy")  # versions
Record = Mapping[str, Any]


def read(folder: Path) -> dict[str, Record]:
    """The reports of this format in a folder, by experiment in their order. Raises `Problem` for a broken one."""
    found = dict[str, Record]()
    for name in NAMES:
        path = folder / f"{name}.json"
        if not path.exists():
            continue
        try:
            report = json.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise Problem(f"{path} cannot be read: {error}") from None
        if isinstance(report, dict) and report.get("format") == FORMAT:
            found[name] = report
    return found


def write(path: Path, folder: Path, failed: Mapping[str, str] | None = None) -> None:
    """The page at `path` of the reports in `folder`; pictures come to a folder beside it, named as the page.

    `failed` says why an experiment did not run. Raises `Problem` where there is nothing to write, or no place.
    """
    reports, failed = read(folder), failed or {}
    beside = folder if path.parent.resolve() == folder.resolve() else path.with_suffix("")
    if not reports and not failed:
        raise Problem(f"{folder} holds no reports: run an experiment first")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if beside != folder:
            _copy([picture for report in reports.values() for picture in report["pictures"]], folder, beside)
        path.write_text(of_all(reports, path, beside, failed))
    except OSError as error:
        raise Problem(f"{path} cannot be written: {error.strerror}; choose another --page") from None


def of_all(reports: Mapping[str, Record], path: Path, pictures: Path, failed: Mapping[str, str]) -> str:
    """The whole page, for a file at `path`."""
    links = _Links(path.parent)
    lines = [
        "# Results",
        "",
        "The paper's experiments as they come out here, the paper's figures beside ours. `megace2 experiment all` "
        "runs them and writes this page; under each part stands what made it. A figure with ± is the mean and "
        f"deviation over seeds. A number in brackets is a reading of the paper in {links.readings()}.",
        "",
        "| part | runs | kind |",
        "|---|---|---|",
    ]
    for name in NAMES:
        if name in reports:
            report = reports[name]
            lines.append(f"| [{report['title']}](#{_anchor(report['title'])}) | {_runs(report)} | {_kind(report)} |")
        else:
            lines.append(f"| {name} | none | not run{': ' + failed[name] if name in failed else ' yet'} |")
    for report in reports.values():
        lines += ["", f"## {report['title']}", "", *_section(report, links, pictures)]
    return "\n".join(lines) + "\n"


def of_one(report: Record, folder: Path) -> str:
    """A page of one report."""
    return "\n".join([f"# {report['title']}", "", *_section(report, _Links(folder), folder)]) + "\n"


def show(cell: Any) -> str:
    """A figure with three digits behind the point, fewer for large ones; a pair as mean ± deviation."""
    match cell:
        case None:
            return "-"
        case str():
            return cell
        case (mean, deviation):
            return f"{_figure(mean)} ± {_figure(deviation)}"
        case _:
            return _figure(cell)


def _section(report: Record, links: _Links, pictures: Path) -> list[str]:
    lines = [QUICK, ""] if report["quick"] and report["runs_wanted"] else []
    if report["runs"] < report["runs_wanted"]:
        lines += [f"**Not complete**: {_runs(report)} runs are finished.", ""]
    lines += _table(report, links, report["readings"])
    for part in report.get("more", ()):
        lines += ["", f"{part['title']}:", "", *_table(part, links, report["readings"])]
    for picture in report["pictures"]:
        lines += ["", f"![{report['title']}]({links.to(pictures / picture)})"]
    lines += ["", *(f"- {links.linked(note)}" for note in report["notes"])]
    return [*lines, "", _how(report)]


def _table(part: Record, links: _Links, readings: Mapping[str, Sequence[int]]) -> list[str]:
    columns = part["columns"]
    heads = [links.footnoted(column, readings.get(column, ())) for column in columns]
    lines = ["| " + " | ".join(heads) + " |", "|---|" + "---:|" * (len(columns) - 1)]
    return lines + ["| " + " | ".join(show(row.get(column)) for column in columns) + " |" for row in part["rows"]]


def _how(report: Record) -> str:
    """What made it, in one paragraph."""
    data, made, code = report["data"], report["made"], report["code"]
    digests = list(dict.fromkeys(data["digests"].values()))
    shas = ", ".join(f"`{digest[:12]}`" for digest in digests) + (", seed by seed" if len(digests) > 1 else "")
    versions = ", ".join(f"{name} {number}" for name, number in report["versions"].items() if name in SHOWN)
    parts = [
        f"Made by `{shown(report['command'])}`",
        f"{' to '.join(dict.fromkeys(made['dates'][:1] + made['dates'][-1:])) or report['date']}",
    ]
    if report["runs_wanted"]:
        seeds = f"seeds 0 to {report['seeds'] - 1}" if report["seeds"] > 1 else "seed 0"
        cpu = f" ({_time(made['cpu_seconds'])} of one core)" if made["cpu_seconds"] else ""
        parts.append(f"{_runs(report)} runs, {seeds}, {_time(made['seconds'])}{cpu}")
    lines = [", ".join(parts) + "."]
    if digests:
        lines.append(f"Data: {data['name']}, sha256 {shas}.")
    lines.append(f"{report['machine']}; {versions}, results {code['results']}.")
    if len(made["sources"]) > 1 or made["sources"] not in ([], [code["source"]]):
        lines.append(f"The source changed between runs: {', '.join(made['sources'])}.")
    return f"<sub>{' '.join(lines)}</sub>"


def shown(command: str) -> str:
    """A command without the folders of the machine that it was typed on."""
    try:
        words = shlex.split(command)
    except ValueError:
        return command
    return shlex.join(re.sub(r"(^|=)[/~.][^=]*/", r"\1", word) for word in words)


class _Links:
    """Links from a page in a folder; to the readings only where they are beside it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()
        self._has_readings = (self._folder / Path(READINGS).name).exists()

    def to(self, file: Path) -> str:
        """Relative, with forward slashes."""
        return Path(os.path.relpath(file.resolve(), self._folder)).as_posix()

    def readings(self, text: str = READINGS) -> str:
        """The text, linked where it can be."""
        return f"[{text}]({Path(READINGS).name})" if self._has_readings else text

    def footnoted(self, column: str, numbers: Sequence[int]) -> str:
        """A head of a table with its footnotes."""
        return " ".join([column, *(self.readings(f"[{number}]") for number in numbers)])

    def linked(self, note: str) -> str:
        """A note with links to the readings and to nothing that is not there."""
        return note.replace(READINGS, self.readings("readings")) if self._has_readings else note


def _runs(report: Record) -> str:
    return f"{report['runs']} of {report['runs_wanted']}" if report["runs_wanted"] else "counted"


def _kind(report: Record) -> str:
    if not report["runs_wanted"]:
        return "counted, not trained"
    size = "quick" if report["quick"] else "full"
    return size if report["runs"] == report["runs_wanted"] else f"{size}, not complete"


def _anchor(heading: str) -> str:
    """What Git hosts make of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def _figure(value: float) -> str:
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.2f}"


def _copy(names: Sequence[str], source: Path, target: Path) -> None:
    if names:
        target.mkdir(exist_ok=True)
    for name in names:
        shutil.copyfile(source / name, target / name)
