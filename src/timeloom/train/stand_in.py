"""Model folders that are not there yet: a run is planned by the configs of the well-known model that they will hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from timeloom import zoo
from timeloom.errors import TimeloomError
from timeloom.model_files import INDEX, quiet_libraries
from timeloom.models.families import FAMILIES, scheduler_config
from timeloom.models.text_encoders import TEXT_ENCODERS
from timeloom.train.recipe import Recipe

PARTS = ("text_encoder", "vae", "unet")


def with_stand_ins(recipe: Recipe, folder: Path) -> tuple[Recipe, list[str]]:
    """The recipe, with `folder` for every model folder that does not exist, and the names of those.

    `folder` is then written: the configs of `model.family`, without weights, as a plan reads them.

    Raises:
        TimeloomError: a folder does not exist and the recipe names no family.
    """
    missing: dict[str, str] = {}
    for part in PARTS:
        source = getattr(recipe.model, part)
        if not isinstance(source, str):
            continue
        try:
            zoo.resolve(source)
        except TimeloomError as error:
            if recipe.model.family is None:
                raise TimeloomError(
                    f"{error} To plan without it, name the model that it will hold with model.family: "
                    f"{', '.join(FAMILIES)}."
                ) from error
            missing[part] = source
    if not missing:
        return recipe, []
    _write_configs(str(recipe.model.family), folder)
    model = recipe.model.model_copy(update={part: str(folder) for part in missing})
    return recipe.model_copy(update={"model": model}), list(dict.fromkeys(missing.values()))


@quiet_libraries()
def _write_configs(family: str, folder: Path) -> None:
    """A model folder without weights. Its tokenizer knows no words: of captions, only their padded length costs."""
    options = FAMILIES[family]
    text_class, text_config = options["text_encoder"]
    kind = TEXT_ENCODERS[text_class]
    _write_json(folder / "unet" / "config.json", options["unet"])
    _write_json(folder / "vae" / "config.json", options["vae"])
    _write_json(
        folder / "scheduler" / "scheduler_config.json", scheduler_config(options.get("prediction_type", "epsilon"))
    )
    _write_json(folder / INDEX, {"text_encoder": [kind.library, text_class]})
    config = kind.network.config_class(**text_config)
    config.save_pretrained(folder / "text_encoder")
    kind.tokenizer(model_max_length=config.max_position_embeddings).save_pretrained(folder / "tokenizer")


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
