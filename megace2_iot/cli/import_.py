"""`megace2 import`: take over models that other code has trained."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from megace2_iot.problems import Problem

app = typer.Typer(no_args_is_help=True, help="Take over models that other code has trained.")


@app.callback()
def _import() -> None:
    """Take over models that other code has trained."""


@app.command()
def mult(
    file: Annotated[Path, typer.Argument(help="A state dict that torch saved.")],
    out: Annotated[Path, typer.Option(help="The new checkpoint.")] = Path("model.safetensors"),
    heads: Annotated[int | None, typer.Option(min=1, help="Heads, where the width does not tell.")] = None,
    mask: Annotated[bool, typer.Option(help="Whether it was trained with MulT's attention mask.")] = True,
) -> None:
    """Import a checkpoint of the released MulT code; the same inputs give the same outputs."""
    try:
        from megace2_iot.model import checkpoint
        from megace2_iot.model.ablation import SingleTarget
        from megace2_iot.model.mult_import import import_mult, read_mult

        model = import_mult(read_mult(file), heads=heads, causal=mask)
        checkpoint.save(out, model, {"imported": file.name})
    except ImportError as error:
        raise Problem(f"the import needs {error.name}: pip install 'megace2-iot[torch]'") from None
    except OSError as error:
        raise Problem(f"cannot import {file} to {out}: {error.strerror}") from None
    except ValueError as error:
        raise Problem(f"cannot import {file}: {error}") from None
    if isinstance(model, SingleTarget):
        kind, config = f"one target ({model.config.target})", model.config.model
    else:
        kind, config = "the whole model", model.config
    inputs = ", ".join(f"{modality} {dim}" for modality, dim in config.dims.items())
    size = sum(p.numel() for p in model.parameters() if p.requires_grad)
    print(f"{out}: {kind}, {size:,} parameters, {config.width} wide, {config.heads} heads, inputs {inputs}")
