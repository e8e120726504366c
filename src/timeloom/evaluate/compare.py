"""`timeloom evaluate compare`: results of one protocol in one table; of different ones, an error.

timeloom evaluate compare out-a/ out-b/result.json
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from timeloom.errors import TimeloomError
from timeloom.options import parse

if TYPE_CHECKING:
    from rich.console import Console

    from timeloom.evaluate.protocol import Published

MODELS_OWN = frozenset(
    ["weights_sha256", "num_inference_steps", "guidance_scale", "sampler", "precision", "timeloom", "torch"]
)
"""Of the judge's protocol: what belongs to the model and not to the measuring."""


@dataclass(frozen=True)
class CompareOptions:
    """Put the results of evaluations by one protocol into one table."""

    results: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Folders of evaluations, or their result.json."""
    json: bool = False
    """Print the numbers as JSON in place of the table."""


def main(args: list[str]) -> int:
    """Run `timeloom evaluate compare` and return its exit code."""
    options = parse(CompareOptions, args, prog="timeloom evaluate compare")
    results = [read_result(path) for path in options.results]
    require_comparable(results, [str(path) for path in options.results])
    if options.json:
        print(json.dumps([{"name": result["name"], **_numbers(result)} for result in results], ensure_ascii=False))
    else:
        from rich.console import Console

        print_table(results, Console())
    return 0


def read_result(path: Path) -> dict[str, Any]:
    """A result. Raises TimeloomError where there is none, naming the file."""
    file = path / "result.json" if path.is_dir() else path
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if "model_right" in content:
            content = _of_judge(content)
        for key in ("name", "protocol", "protocol_sha256", "results", "generated", "departures"):
            content[key]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TimeloomError(f"{file} is no result of `timeloom evaluate` ({error}).") from error
    return content


def _of_judge(content: Mapping[str, Any]) -> dict[str, Any]:
    """A result of the judge of digits in the form of the others: a share right is a metric."""
    protocol = {name: value for name, value in content["protocol"].items() if name not in MODELS_OWN}
    results = [
        {
            "metric": f"{metric} right",
            "value": groups["all"]["value"],
            "interval": groups["all"]["interval"],
            "count": groups["all"]["n"],
            "missing": 0,
            "reference_count": None,
            "better": "higher",
            "protocol": {"num_prompts": content["num_prompts"]},
            "features": {"features": "judge"},
        }
        for metric, groups in content["model_right"].items()
    ]
    count = content["num_prompts"]
    return {
        "name": Path(content["model"]).name,
        "protocol": protocol,
        "protocol_sha256": hashlib.sha256(json.dumps(protocol, sort_keys=True).encode()).hexdigest(),
        "results": [*results, *content.get("results", [])],
        "generated": {"asked": count, "count": count},
        "departures": [],
    }


def require_comparable(results: Sequence[Mapping[str, Any]], names: Sequence[str]) -> None:
    """Raise TimeloomError unless all were measured alike: by one protocol, through the same weights, on the same N real
    videos and prompts. What a video or two are missing of the generated ones is shown in the table."""
    first = results[0]
    for result, name in zip(results[1:], names[1:], strict=True):
        differ = _differences(first, result)
        if differ:
            raise TimeloomError(
                f"{names[0]} and {name} cannot stand in one table; they differ in {', '.join(differ[:8])}. "
                "Numbers of different protocols say nothing about each other."
            )


def _differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    differ = []
    if first["protocol_sha256"] != second["protocol_sha256"]:
        paths = _flat(first["protocol"]), _flat(second["protocol"])
        differ += [f"protocol {key}" for key in {**paths[0], **paths[1]} if paths[0].get(key) != paths[1].get(key)]
        differ = differ or ["protocol_sha256"]
    if first["generated"]["asked"] != second["generated"]["asked"]:
        differ.append("generated videos asked for")
    if (first.get("prompts") or {}).get("sha256") != (second.get("prompts") or {}).get("sha256"):
        differ.append("prompts")
    others = {result["metric"]: result for result in second["results"]}
    for result in first["results"]:
        other = others.get(result["metric"])
        if other is None:
            continue
        for key in ("features", "protocol", "reference_count"):
            if result[key] != other[key]:
                differ.append(f"{key.replace('_', ' ')} of {result['metric']}")
    return differ


def _flat(content: Any, path: str = "") -> dict[str, Any]:
    """{dotted path: value} of nested mappings."""
    if not isinstance(content, Mapping) or not content:
        return {path: content}
    return {
        inner: value
        for key, own in content.items()
        for inner, value in _flat(own, f"{path}.{key}" if path else str(key)).items()
    }


def _numbers(result: Mapping[str, Any]) -> dict[str, Any]:
    kept = ("value", "interval", "count", "missing", "reference_count")
    return {one["metric"]: {key: one[key] for key in kept} for one in result["results"]}


def print_table(results: Sequence[Mapping[str, Any]], console: Console, published: Sequence[Published] = ()) -> None:
    """A block of rows for each metric: every result, and below them what papers report."""
    from rich.table import Table

    protocol = results[0]["protocol"]
    table = Table(title=f"{protocol['name']} ({results[0]['protocol_sha256'][:12]})")
    for heading in ("metric", "", "value", "95 % interval", "videos"):
        table.add_column(heading, justify="left" if heading in ("metric", "") else "right")
    metrics = dict.fromkeys(one["metric"] for result in results for one in result["results"])
    for metric in metrics:
        for result in results:
            for one in result["results"]:
                if one["metric"] == metric:
                    low_high = "" if one["interval"] is None else f"{one['interval'][0]:.4g} – {one['interval'][1]:.4g}"
                    told = f"{metric}, {one['better']} is better"
                    counts = f"{one['count']} of {one['count'] + one['missing']}"
                    table.add_row(told, result["name"], f"{one['value']:.4g}", low_high, counts)
        for figure in published:
            if metric in figure.values:
                table.add_row("", rf"{figure.model} \[{figure.mark}]", f"{figure.values[metric]:g}", "", "")
        table.add_section()
    console.print(table)
    for result in results:
        for departure in result["departures"]:
            console.print(f"{result['name']}: not as the protocol says: {departure}")


def cell(result: Mapping[str, Any]) -> str:
    """A value with its interval."""
    if result["interval"] is None:
        return f"{result['value']:.4g}"
    low, high = result["interval"]
    return f"{result['value']:.4g} ({low:.4g} – {high:.4g})"
