"""The recurrent generator: its cell against torch's LSTM, its passes, and a tiny run by the real commands."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

from examples.recurrent_generator.convlstm import ConvLSTMCell, RecurrentGenerator
from project.__main__ import main
from workbench.errors import UserError

CONFIG = Path(__file__).parents[2] / "examples" / "recurrent_generator" / "recurrent.yaml"


def generator(**options) -> RecurrentGenerator:
    torch.manual_seed(0)
    return RecurrentGenerator(**{"in_channels": 5, "width": 8, **options})


def test_at_a_single_pixel_the_cell_is_an_lstm():
    torch.manual_seed(0)
    cell, reference = ConvLSTMCell(6, kernel_size=1), nn.LSTMCell(6, 6)
    with torch.no_grad():
        cell.gates.weight.copy_(torch.cat([reference.weight_ih, reference.weight_hh], dim=1)[..., None, None])
        cell.gates.bias.copy_(reference.bias_ih + reference.bias_hh)
    x, hidden, state = torch.randn(3, 4, 6).unbind()
    wanted = reference(x, (hidden, state))
    for one, other in zip(cell(*(t[..., None, None] for t in (x, hidden, state))), wanted, strict=True):
        torch.testing.assert_close(one[..., 0, 0], other)


@pytest.mark.parametrize(("height", "width"), [(16, 24), (13, 18), (7, 5), (1, 1)])
def test_the_output_has_the_size_of_the_input(height, width):
    assert generator()(torch.rand(2, 5, height, width)).shape == (2, 3, height, width)


def test_further_passes_refine_the_output_and_carry_a_hint_further():
    x = torch.rand(1, 5, 96, 96)
    hinted = x.clone()
    hinted[..., 46:50, 46:50] = 1.0
    reach, outputs = [], []
    for passes in (1, 3):
        network = generator(passes=passes)
        outputs.append(network(x))
        changed = (network(hinted) - outputs[-1]).abs().amax(dim=(0, 1)) > 1e-7
        reach.append(int(changed.any(dim=0).sum()))
    assert (outputs[0] - outputs[1]).abs().max() > 1e-3
    assert reach[1] > reach[0] + 2 * 8  # two further 5 x 5 kernels at a quarter of the resolution: 8 pixels either way


def test_each_pass_sees_the_output_so_far_and_adds_a_correction():
    network, seen, corrections = generator(passes=3), [], []
    network.head.register_forward_hook(lambda _, args, __: seen.append(args[0][:, -12:]))  # 2 x 2 pixels of 3 channels
    network.tail.register_forward_hook(lambda _, __, correction: corrections.append(correction))
    output = network(torch.rand(2, 5, 8, 12))
    for number in range(3):
        torch.testing.assert_close(seen[number], sum(corrections[:number], torch.zeros(2, 12, 4, 6)))
    torch.testing.assert_close(output, nn.functional.pixel_shuffle(sum(corrections), 2))


def test_every_parameter_gets_a_gradient():
    network = generator(passes=2)
    network(torch.rand(2, 5, 12, 16)).square().mean().backward()
    for name, parameter in network.named_parameters():
        assert bool(parameter.grad.abs().sum() > 0), name
    inputs = network.lstm.gates.weight.grad[:, 8:]
    assert bool(inputs.abs().sum() > 0), "the state that comes from the pass before"


@pytest.mark.parametrize("options", [{"passes": 0}, {"kernel_size": 4}])
def test_settings_that_cannot_be_built_are_short_errors(options):
    with pytest.raises(UserError, match=next(iter(options))):
        generator(**options)


def test_it_is_fitted_and_predicts(make_images):
    lines, colors = make_images(10, 22, 18, folder="lines"), make_images(10, 22, 18, folder="colors")
    for path in lines.iterdir():
        Image.open(path).convert("L").save(path)
    words = ["--data.source", "folder", "--data.root", str(lines), "--data.target_root", str(colors)]
    words += ["--data.resize", "null", "--data.fractions", "[0.6, 0.2, 0.2]", "--data.num_workers", "0"]
    words += ["--model.generator.init_args.width", "8", "--model.generator_epochs", "1", "--model.critic_epochs", "0"]
    words += ["--trainer.max_epochs", "2", "--trainer.check_val_every_n_epoch", "1", "--trainer.accelerator", "cpu"]
    words += ["--data.batch_size", "3", "--model.discriminator.init_args.layers", "1"]
    assert main(["fit", "--config", str(CONFIG), *words, "--wandb", "off"]) == 0
    checkpoint = Path("runs", "recurrent", "latest", "checkpoints", "best.ckpt")
    assert main(["predict", "--ckpt_path", str(checkpoint), "--input", str(lines), "--output", "colored"]) == 0
    colored = sorted(Path("colored").glob("*.png"))
    assert len(colored) == 10 and all(Image.open(path).size == (22, 18) for path in colored)
