"""What the commands print: tables for people."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from timeloom.model.convert import Report


def print_report(report: Report) -> None:
    """What was taken, added, initialised and left out."""
    console = Console()
    table = Table(title=f"{report.source} → {report.destination}, temporal: {report.temporal}")
    for heading in ("part", "network", "stored as"):
        table.add_column(heading)
    for heading in ("parameters", "tensors taken", "added", "initialised: zero", "at random", "left out"):
        table.add_column(heading, justify="right")
    for part in report.parts:
        table.add_row(
            part.part,
            part.network,
            ", ".join(part.dtypes),
            f"{part.parameters:,}",
            str(part.taken),
            str(part.added),
            str(part.initialised_to_zero),
            str(part.initialised_at_random),
            str(sum(map(len, part.left_out.values()))),
        )
    console.print(table)
    added = sum(part.added_parameters for part in report.parts)
    console.print(f"The temporal mechanism adds {added:,} parameters.", highlight=False)
    for name, left_out in [(part.part, part.left_out) for part in report.parts] + [("beside them", report.left_out)]:
        for reason, keys in left_out.items():
            if keys:
                more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
                console.print(f"left out, {name}: {reason}: {min(keys)}{more}", highlight=False, markup=False)


def print_description(description: dict[str, Any]) -> None:
    """Parameters, operations and memory."""
    console = Console()
    clip, flops, memory = description["clip"], description["flops"], description["memory"]
    guided = "with guidance: two predictions a step" if clip["guidance_scale"] > 1 else "without guidance"
    console.print(
        f"{description['model']}, temporal: {description['temporal']}; a clip is {clip['num_frames']} frames of "
        f"{clip['width']}x{clip['height']}, {clip['num_inference_steps']} steps, {guided}; {description['precision']}",
        soft_wrap=True,
        highlight=False,
        markup=False,
    )
    console.print(_parameter_table(description))
    table = Table("floating-point operations", "")
    table.columns[1].justify = "right"
    for name, value in (
        ("a denoising step", flops["per_step"]),
        ("  of which temporal mechanism", flops["temporal_mechanism_per_step"]),
        (f"a clip: {clip['num_inference_steps']} steps", flops["denoising"]),
        ("  text encoder", flops["text"]),
        ("  decoder", flops["decoding"]),
        ("  in all", flops["per_clip"]),
        ("training on a clip, forward and backward", flops["training_per_clip"]),
    ):
        table.add_row(name, _flops(value))
    console.print(table)
    table = Table("memory", "")
    table.columns[1].justify = "right"
    for name, key in (
        ("inference: weights", "inference_weights"),
        ("  and the most that lives beside them", "inference_activations"),
        ("  in all", "inference"),
        ("training: weights, gradients, optimizer, average", "training_state"),
        ("  and for each clip", "training_activations_per_clip"),
        ("  or with gradient checkpointing", "training_activations_per_clip_checkpointed"),
        ("  in all, one clip", "training_one_clip"),
        ("  in all, one clip with checkpointing", "training_one_clip_checkpointed"),
    ):
        table.add_row(name, _bytes(memory[key]))
    console.print(table)


def _parameter_table(description: dict[str, Any]) -> Table:
    parameters, networks = description["parameters"], description["networks"]
    table = Table("part", "network", "parameters", "")
    table.columns[2].justify = "right"
    for part in ("unet", "temporal_mechanism", "vae", "text_encoder"):
        network = description["temporal"] if part == "temporal_mechanism" else networks[part]
        share = f"{parameters[part] / parameters['total']:.1%}"
        table.add_row(part.replace("_", " "), network, f"{parameters[part]:,}", share)
        if part == "temporal_mechanism" and len(description["temporal_mechanism"]) > 1:
            for name, own in description["temporal_mechanism"].items():
                table.add_row(f"  of which {name}", "", f"{own:,}", f"{own / parameters['total']:.1%}")
    table.add_row("in all", "", f"{parameters['total']:,}", f"{parameters['total'] / 1e9:.3f} B")
    return table


def _flops(count: int) -> str:
    for scale, unit in ((1e15, "PFLOP"), (1e12, "TFLOP"), (1e9, "GFLOP"), (1e6, "MFLOP")):
        if count >= scale:
            return f"{count / scale:.2f} {unit}"
    return f"{count} FLOP"


def _bytes(size: int) -> str:
    return f"{size / 2**30:.2f} GiB" if size >= 2**30 else f"{size / 2**20:.1f} MiB"
