"""`megace2 export`: give a model to other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from megace2_iot.problems import Problem

app = typer.Typer(no_args_is_help=True, help="Give a model to other programs.")


@app.callback()
def _export() -> None:
    """Give a model to other programs."""


@app.command()
def onnx(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint of Mega-CE2 or an imported MulT.")],
    out: Annotated[Path, typer.Option(help="The new file.")] = Path("model.onnx"),
) -> None:
    """Write a model as ONNX: raw features and true lengths in, scores out, any batch and any time."""
    try:
        from megace2_iot.model.checkpoint import load
        from megace2_iot.model.fusion import CrossModalTransformer
        from megace2_iot.model.onnx_export import export_onnx

        model = load(checkpoint)
        if not isinstance(model, CrossModalTransformer):
            raise Problem(f"{checkpoint} is {model.kind}: only Mega-CE2 itself, or a whole MulT, is exported")
        export_onnx(model, out)
    except ImportError as error:
        raise Problem(f"the export needs {error.name}: pip install 'megace2-iot[torch,onnx]'") from None
    except OSError as error:
        raise Problem(f"cannot export {checkpoint} to {out}: {error.strerror}") from None
    except ValueError as error:
        raise Problem(f"cannot export {checkpoint}: {error}") from None
    print(f"{out}: {out.stat().st_size:,} bytes; inputs text, audio, vision and the length of each, output scores")
