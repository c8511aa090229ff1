"""Classification networks of timm, which has many that torchvision has not."""

from __future__ import annotations

import difflib
from pathlib import Path

from torch import nn

from project.networks.pretrained import TIMM, Pretrained, pretrained_download_skipped
from project.networks.weights_file import is_file, load_file
from workbench.errors import UserError, choose


def load_timm(name: str, weights: str | None) -> Pretrained:
    """Build one of timm's classification networks.

    Args:
        name: timm's own name, such as resnet26d.
        weights: "DEFAULT" or another of the network's tags, such as bt_in1k, which timm downloads into the cache of
            Hugging Face; "none" or None for random ones; or a file, as of torchvision's networks, or ``.safetensors``.

    Raises:
        UserError: timm is not there, or for an unknown name or tag, a failed download, a file that does not fit.
    """
    try:
        import timm
    except ImportError as error:
        raise UserError(
            f"backbone {TIMM}{name} needs a package that is not there ({error.name}): pip install '.[timm]'"
        ) from error
    known = timm.list_models()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=4)
        hint = f" Did you mean {', '.join(TIMM + other for other in near)}?" if near else ""
        raise UserError(
            f"backbone: timm has no network called {name!r}.{hint}\n"
            f"Its {len(known)} names: python -c \"import timm; print(*timm.list_models(), sep='\\n')\""
        )
    random, follow = weights is None or weights.lower() == "none", pretrained_download_skipped()
    if random or follow or is_file(weights):
        network = timm.create_model(name, pretrained=False)
        if not random and not follow:
            load_file(network, Path(weights).expanduser(), name, "timm")
    else:
        network = _download(name, weights)
    told = network.pretrained_cfg
    return Pretrained(network.eval(), list(told["mean"]), list(told["std"]), trained=not random)


def _download(name: str, weights: str) -> nn.Module:
    import timm

    tags = {entry.partition(".")[2]: entry for entry in timm.list_pretrained(f"{name}.*")}
    if not tags and not timm.models.is_model_pretrained(name):
        raise UserError(f"weights: timm has none for {name}; weights: none trains from scratch.")
    tag = choose("weights", weights, ["DEFAULT", *tags])
    entry = name if tag == "DEFAULT" else tags[tag]
    found = timm.get_pretrained_cfg(entry)
    try:
        return timm.create_model(entry, pretrained=True)
    except Exception as error:  # Hugging Face's client has a tree of errors of its own, and so have those below it
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        place = f"https://huggingface.co/{found.hf_hub_id}" if found.hf_hub_id else found.url
        raise UserError(
            f"The weights of timm's {entry} cannot be had: {reason}\n"
            f"They are at {place}: fetch the file on a machine with a network and give it as weights: FILE;\n"
            "weights: none trains from scratch."
        ) from error
