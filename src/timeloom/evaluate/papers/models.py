"""Which models are compared: those of the zoo, and those in folders of runs."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from timeloom import zoo
from timeloom.errors import TimeloomError
from timeloom.evaluate.model import hash_model
from timeloom.generate.model_folder import find_model
from timeloom.model_files import INDEX, read_json

IMAGE_MODEL = "image model"
DEPTH = 3
"""Folders below a given one that are searched for models."""
ROLES = {
    "none": "plain addition",
    "spatial": "spatial asks",
    "temporal": "temporal asks",
    "spatial_first": "swap",
    "temporal_first": "swap, temporal asks first",
}
"""Who asks in Swap-CA, in the words of VideoFactory's Table 2."""
MANNER = ("output", "seed", "workers", "trackers", "preview", "evaluation")
"""Options of a recipe that may differ between runs of one training."""


@dataclass(frozen=True)
class Model:
    """A model that takes part."""

    name: str
    folder: Path
    sha256: str
    mechanism: str
    """`temporal` of its U-Net; the image model's is "none"."""
    options: dict[str, Any]
    """Of the mechanism."""
    defaults: dict[str, Any]
    """num_frames, fps, height and width, as its index has them."""
    recipe: dict[str, Any] | None = None
    """What trained it, where that is known."""
    held_out_loss: float | None = None
    label: str = ""
    """What stands for it in tables; training runs that differ in the seed alone have one label."""

    @property
    def seed(self) -> int:
        """Of its training, where that is known."""
        return self.recipe["seed"] if self.recipe else 0


@dataclass(frozen=True)
class Group:
    """Models that are compared with each other."""

    runs: dict[str, list[Model]]
    """{label: its training runs}."""
    left_out: list[str] = field(default_factory=list)
    """Runs without a model, and why."""

    def first_of(self, mechanism: str) -> str | None:
        """The label that stands for a mechanism where it meets others."""
        labels = [label for label, models in self.runs.items() if models[0].mechanism == mechanism]
        swapping = [label for label in labels if "first" in str(self.runs[label][0].options.get("queries"))]
        return next(iter([*swapping, *labels]), None)


def find_group(sources: Sequence[str]) -> Group:
    """The models of the zoo where nothing is named; else the models, and those in the folders of runs, that are.

    Raises:
        TimeloomError: no model there, or one training cannot be told from another.
    """
    models, left_out = [], []
    for source in sources or zoo.generators():
        found, incomplete = _find(source)
        models += found
        left_out += incomplete
    if not models:
        raise TimeloomError(f"There is no model in {', '.join(sources)}.")
    runs: dict[str, list[Model]] = {}
    for model in _labelled(models):
        runs.setdefault(model.label, []).append(model)
    for label, same in runs.items():
        if any(_training(model) != _training(same[0]) for model in same):
            names = ", ".join(model.name for model in same)
            raise TimeloomError(
                f"{names} are all of the kind {label!r}, but not by one recipe with several seeds. Compare them with "
                "--models, one of each kind at a time."
            )
    return Group(runs, left_out)


def _find(source: str) -> tuple[list[Model], list[str]]:
    """The models of a name or a folder, and the runs in it that have none."""
    folder = Path(source).expanduser()
    if source in zoo.generators() or (folder / INDEX).is_file() or not folder.is_dir():
        return [_read(find_model(source), source)], []
    places = sorted(
        path.parent for depth in range(1, DEPTH + 1) for path in folder.glob("*/" * depth + INDEX) if path.is_file()
    )
    whole = [_read(place, _name(place, folder)) for place in places]
    recipes = sorted(path.parent for depth in range(1, DEPTH) for path in folder.glob("*/" * depth + "recipe.json"))
    lacking = [f"{run}: no model yet" for run in recipes if not (run / "model" / INDEX).is_file()]
    return whole, lacking


def _name(place: Path, folder: Path) -> str:
    """A run's folder within `folder`, or the latter's own name where it is the run."""
    within = place.relative_to(folder)
    return folder.name if within == Path("model") else within.as_posix().removesuffix("/model")


def _read(folder: Path, name: str) -> Model:
    index = read_json(folder / INDEX)
    config = read_json(folder / "unet" / "config.json")
    mechanism = config.get("temporal", "none")
    own = config.get(mechanism)
    options = own if isinstance(own, dict) else {k: v for k, v in config.items() if k.startswith(f"{mechanism}_")}
    run = folder.parent
    recipe = read_json(run / "recipe.json") if (run / "recipe.json").is_file() else None
    defaults = {key: index.get(key) for key in ("num_frames", "fps", "height", "width")}
    loss = _held_out_loss(run / "stats.jsonl") if recipe else None
    return Model(name, folder, hash_model(folder), mechanism, options, defaults, recipe, loss)


def _held_out_loss(path: Path) -> float | None:
    """The last one that a run has logged."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    losses = [entry["validation/loss"] for entry in map(json.loads, lines) if "validation/loss" in entry]
    return losses[-1] if losses else None


def _labelled(models: list[Model]) -> list[Model]:
    """Each with its mechanism as label, and those options of it that most of the models at hand have otherwise."""
    labelled = []
    for model in models:
        alike = [other for other in models if other.mechanism == model.mechanism]
        words = [IMAGE_MODEL if model.mechanism == "none" else model.mechanism]
        if len({other.options.get("queries") for other in alike}) > 1:
            words = [ROLES.get(str(model.options.get("queries")), model.mechanism)]
        for name, value in model.options.items():
            values = [other.options.get(name) for other in alike]
            if name != "queries" and value != max(values, key=values.count):
                words.append(_option(name, value))
        labelled.append(replace(model, label=", ".join(words)))
    return labelled


def _option(name: str, value: Any) -> str:
    """In words, for a table."""
    if name == "skips":
        return "with skips" if value else "without skips"
    if name == "window":
        return "x".join(map(str, value)) + " windows" if any(value) else "global"
    return f"{name} {value}"


def _training(model: Model) -> Any:
    """What decides a model beside chance; for one without a recipe, it stands for itself.

    A second phase goes on from a first one of its own seed: runs whose folders end in the seed count as one. Folders
    that these lie in do not matter.
    """
    if model.recipe is None:
        return model.sha256
    decides = {name: value for name, value in model.recipe.items() if name not in MANNER}
    return re.sub(rf'-{model.seed}(?=(/model)?")', "-SEED", json.dumps(decides, sort_keys=True))
