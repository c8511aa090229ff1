"""The formats: each writes a file, and reads it again as a function to compare with."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from project.inference.export.answer import Answer
from project.networks.layers import padding_needed
from workbench.errors import UserError

OPSET = 18
TRACED = 64
"""Pixels along the image that a network is traced with, and a little more."""
Function = Callable[[Tensor], Tensor]


def write_onnx(answer: Answer, x: Tensor, path: Path) -> Function:
    """ONNX, with free height, width and batch, in one file.

    Args:
        answer: In evaluation mode, on the CPU.
        x: (B, C, H, W), such as it takes.
        path: Written.

    Returns:
        The file in ONNX Runtime, on the CPU.

    Raises:
        UserError: The packages are not there, or the network cannot be exported.
    """
    try:
        import onnxruntime
        import onnxscript  # noqa: F401 torch.onnx needs it
    except ImportError as error:
        raise UserError(
            f"--format onnx needs packages that are not there ({error.name}): pip install '.[export]'\n"
            "Without them: --format torchscript, or state_dict."
        ) from error
    sizes = dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC)  # batch, height, width
    with _told(answer, "onnx"), _silence():
        torch.onnx.export(
            answer,
            (x,),
            str(path),
            dynamo=True,
            opset_version=OPSET,
            input_names=["input"],
            output_names=["output"],
            dynamic_shapes=(sizes,),
            external_data=False,
        )
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda given: torch.from_numpy(session.run(None, {session.get_inputs()[0].name: given.numpy()})[0])


class Fitted(nn.Module):
    """Pads images to what a network was traced for, and cuts its answer: tracing would keep the first one's size.

    Args:
        core: Traced, for images whose sides are multiples of ``multiple`` and at least ``smallest``.
        multiple: In pixels.
        smallest: In pixels.
    """

    def __init__(self, core: torch.jit.ScriptModule, multiple: int, smallest: int) -> None:
        super().__init__()
        self.core = core
        self.multiple = multiple
        self.smallest = smallest

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H, W)."""
        height, width = x.shape[2], x.shape[3]
        below = padding_needed(height, self.multiple, self.smallest)
        right = padding_needed(width, self.multiple, self.smallest)
        padded = F.pad(x, [0, right, 0, below], mode="replicate")
        return self.core(padded)[:, :, :height, :width]


def write_torchscript(answer: Answer, x: Tensor, path: Path) -> Function:
    """TorchScript, for libtorch and programs without Python; any height, width and batch.

    Raises:
        UserError: The network cannot be traced.
    """
    network = answer.network
    multiple = int(getattr(network, "multiple", 1))
    smallest = int(getattr(network, "smallest", multiple))
    side = max(smallest, TRACED)
    side += -side % multiple
    with _told(answer, "torchscript"), _silence(), torch.no_grad():
        core = torch.jit.trace(answer, torch.rand(2, x.shape[1], side + multiple, side), check_trace=False)
        written = io.BytesIO()
        torch.jit.save(torch.jit.script(Fitted(core, multiple, smallest).eval()), written)
    path.write_bytes(written.getvalue())  # torch's own writing does not say that a disk is full
    with _silence():
        return torch.jit.load(str(path)).eval()


def write_state_dict(answer: Answer, description: dict[str, Any], path: Path) -> None:
    """The network's weights, normalization included, and what it is built from: read without running code.

    Args:
        answer: With the network.
        description: ``class_path`` and ``init_args`` of the network.
        path: Written.
    """
    written = io.BytesIO()
    torch.save({"state_dict": answer.network.state_dict(), "network": description}, written)
    path.write_bytes(written.getvalue())


def read_state_dict(answer: Answer, path: Path) -> Function:
    """The weights of a file in a copy of the network."""
    twin = copy.deepcopy(answer)
    with torch.no_grad():
        for value in twin.network.state_dict().values():
            value.zero_()
    twin.network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True)["state_dict"])
    return twin


@contextmanager
def _told(answer: Answer, format: str) -> Iterator[None]:
    try:
        yield
    except (UserError, OSError):
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise UserError(
            f"{type(answer.network).__name__} cannot be written as {format}: {reason}\n"
            "Networks whose course depends on the values of an image cannot. --format state_dict always works; "
            "--debug shows the trace."
        ) from error


@contextmanager
def _silence() -> Iterator[None]:
    """What the exporters say of their own inner life."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
