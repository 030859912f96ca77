"""The sections of every report: the scores, what was trained on what, and at which cost."""

import json
from collections.abc import Mapping
from typing import Any

from jaxtune.core.units import human_bytes, human_flops, human_seconds
from jaxtune.reporting import intervals
from jaxtune.reporting.facts import Facts
from jaxtune.reporting.parts import Section, Table, number
from jaxtune.reporting.places import name_of, without_paths
from jaxtune.run.config import default_config
from jaxtune.run.predictions_folder import Kept

_SHARES = ("accuracy", "subset_accuracy", "exact_match")
"""Scores that are shares of rows."""

_OF_ROWS = (
    *("classification", "few_shot", "image_classification", "multi_label"),
    "question_answering",
)
_DIGESTS = (
    *(("model", "sha256"), ("model", "config_sha256"), ("model", "tokenizer_sha256")),
    ("data", "sha256"),
)


def scores(facts: Facts, kept: Kept | None) -> Section:
    """All scores of each split at the best step, those of the report's split with intervals."""
    results = facts.results
    splits = list(results["scores"])
    names = dict.fromkeys(name for part in results["scores"].values() for name in part)
    rows = []
    for name in names:
        row = [name]
        for split in splits:
            value = results["scores"][split].get(name)
            told = number(value)
            if (
                kept is not None
                and split == kept.split
                and _is_share(name, kept)
                and value == value
            ):
                count = len(next(iter(_of_row(kept).values())))
                told = intervals.told(value * count, count) if value is not None else told
            row.append(told)
        rows.append(row)
    steps = f"step {results.get('best_step')} of {results.get('steps')}"
    notes = [f"At {steps}, the best by {results.get('best_metric')} on validation."]
    if kept is not None:
        count = f"{len(kept.arrays['lengths']):,}"
        notes.append(f"What follows is of the {kept.split} split: {count} examples.")
        if kept.split == "validation":
            notes.append(
                "There is no test split: the best step was chosen by these same rows, so expect a"
                " little less of others."
            )
    if any(" (" in text for row in rows for text in row[1:]):
        notes.append("In brackets the 95% interval of Wilson.")
    return Section("Scores", notes, tables=[Table(("score", *splits), rows)])


def _is_share(name: str, kept: Kept) -> bool:
    return name in _SHARES and kept.task in _OF_ROWS


def _of_row(kept: Kept) -> Mapping[str, Any]:
    """An array with one value for each row."""
    return {"lengths": kept.arrays["lengths"]}


def training(facts: Facts) -> list[Section]:
    """What was trained on what, what it cost, and how to have it again."""
    config, results = facts.config, facts.results
    trained, total = results.get("trainable_parameters"), results.get("parameters")
    share = f"{trained:,} of {total:,} ({trained / total:.2%})" if trained and total else "-"
    stop = ", stopped early" if results.get("stopped_early") else ""
    rows = [
        ("task", results["task"]),
        ("base model", name_of(config["model"]["path"])),
        ("data", name_of(config["data"]["path"])),
        ("strategy", config["tuning"]["name"]),
        ("trainable parameters", share),
        ("steps", f"{results.get('steps')} ({number(results.get('epochs'), 2)} epochs){stop}"),
        ("seeds", f"{config['seed']}; of splits {config['data'].get('split_seed')}"),
        *_cost(results),
        ("device", str(results.get("device", "-"))),
    ]
    sections = [Section("Training", tables=[Table(("", ""), rows, words=2)])]
    notes = [without_paths(note, facts) for note in results.get("notes", [])]
    if notes:
        sections.append(Section("Notes on the data", notes))
    return [*sections, _again(facts)]


def _cost(results: Mapping[str, Any]) -> list[tuple[str, str]]:
    seconds, compiling = results.get("seconds"), results.get("compile_seconds")
    flops, full = results.get("step_flops"), results.get("full_step_flops")
    peak, speed = results.get("peak_memory_bytes"), results.get("examples_per_second")
    rows = []
    if seconds is not None:
        more = f", {human_seconds(compiling)} of it compiling" if compiling is not None else ""
        rows.append(("time", human_seconds(seconds) + more))
    if speed:
        rows.append(("speed in training", f"{speed:.1f} examples/s"))
    if flops and full:
        of_full = f"{flops / full:.0%} of a full one"
        rows.append(("a step costs", f"{human_flops(flops)}, {of_full}"))
    if peak:
        rows.append(("memory at the peak", human_bytes(peak)))
    return rows


def _again(facts: Facts) -> Section:
    """The command, the settings that are not the defaults, digests and versions."""
    name = facts.workdir.resolve().name
    command = f"jaxtune train --config={name}/config.json --workdir=NEW_FOLDER"
    settings = [(field, _told(facts, field, value)) for field, value in _changed(facts.config)]
    known = facts.results.get("versions", {})
    versions = [(package, str(version)) for package, version in known.items()]
    digests = [
        (f"{section}.{field}", str(facts.config[section].get(field) or "unknown"))
        for section, field in _DIGESTS
    ]
    tables = [
        Table(("setting", "value"), settings, "Settings that are not the defaults", words=2),
        Table(("files", "SHA-256"), digests, "Digests", words=2, folded=True),
        Table(("package", "version"), versions, "Versions", words=2, folded=True),
    ]
    note = f"The same run again, from the same files: {command}"
    return Section("To have it again", [note], tables=tables)


def _changed(config: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """The settings whose value is not the default, but for digests."""
    defaults, found = _flat(json.loads(default_config().to_json())), []
    for name, value in _flat(config).items():
        if value != defaults.get(name) and not name.endswith("sha256"):
            found.append((name, value))
    return found


def _told(facts: Facts, name: str, value: Any) -> str:
    if name.endswith(".path") and isinstance(value, str):
        return name_of(value)
    return without_paths(value if isinstance(value, str) else json.dumps(value), facts)


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found = {}
    for name, value in config.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found
