"""A conditional GAN that colors images (as pix2pix, Isola et al. 2017): what is optimized, logged and predicted."""

from __future__ import annotations

import warnings
from typing import Any, ClassVar

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torchmetrics import Metric

from project import color
from project.data.batch import Batch
from project.models.base import ImageToImageModule
from project.models.finetune import FineTuning
from project.models.losses import AdversarialLoss, Standard, WassersteinGP
from project.models.metrics import PSNR, SSIM, Colorfulness, ColorfulnessRatio, PixelAccuracy
from project.models.schedules import configure_optimizer
from project.networks.layers import require
from project.networks.normalize import Statistics, set_normalization
from workbench.callbacks.progress import NEVER
from workbench.checkpoint import save_plain_hyperparameters
from workbench.distributed import allow_unused_parameters, is_sharded
from workbench.errors import UserError, choose

AB_SCALE = 110.0  # a and b of sRGB colors lie between -108 and 99, so y = ab / 110 lies in [-1, 1]
AB_STD = 0.15  # of y: a and b of photographs vary by some 15 units around the neutral 0


class RGB:
    """Red, green and blue: y is the image itself."""

    channels = 3
    keeps_lightness = False

    def encode(self, rgb: Tensor) -> Tensor:
        """Image (B, 3, H, W) in [0, 1] -> y (B, channels, H, W), float32."""
        return rgb.float()

    def decode(self, y: Tensor, condition: Tensor) -> Tensor:
        """y, and what the generator was given -> image (B, 3, H, W), float32, around [0, 1]."""
        return y.float()

    def normalization(self, target: Statistics) -> Statistics:
        """Mean and standard deviation of y's channels, from those of the target images."""
        return target


class Lab:
    """CIELAB: y is (a, b) / 110; the lightness is that of the input, whose first channel is L / 100."""

    channels = 2
    keeps_lightness = True

    def encode(self, rgb: Tensor) -> Tensor:
        return color.rgb_to_lab(rgb)[:, 1:] / AB_SCALE

    def decode(self, y: Tensor, condition: Tensor) -> Tensor:
        return color.lab_to_rgb(torch.cat([condition[:, :1].float() * 100, y.float() * AB_SCALE], dim=1))

    def normalization(self, target: Statistics) -> Statistics:
        # Not measured: faint colors would blow up the generator's first outputs, and weights fit all data sets.
        return [0.0] * self.channels, [AB_STD] * self.channels


class GANColorizer(ImageToImageModule):
    """Trains a generator to color images, against a discriminator that learns to tell its colors from true ones.

    Logs ``train/loss`` (the generator's), its parts unweighted: ``train/reconstruction``, ``train/adversarial``,
    ``train/feature_matching``, ``train/perceptual``; ``train/discriminator`` (its loss), ``train/score_real`` and
    ``train/score_fake`` (its mean logits), ``train/gradient_penalty``; ``val/loss`` (the reconstruction loss) and the
    metrics. One batch is one step (``global_step``), whichever network is trained in it.

    Args:
        generator: Condition and hints in, colors out: 2 channels in space lab, 3 in rgb.
        discriminator: Sees the generator's input and its colors, such as PatchGAN; null: plain regression.
        space: lab: predict a and b and keep the true lightness, for grayscale photographs; rgb: for line art.
        adversarial: Standard, LeastSquares, Hinge or WassersteinGP of project.models; null for Standard.
        adversarial_weight: A smaller one gives paler, safer colors.
        reconstruction: Compares the colors with the true ones, any of torch.nn or project.models; null for L1.
        feature_matching_weight: Weight of the L1 distance of the discriminator's features; 0 for none, 10 is usual.
        perceptual: Compares images by a pretrained network: project.models.VGGPerceptual; null for none.
        generator_optimizer: Betas of [0.5, 0.999] are usual against a discriminator.
        discriminator_optimizer: A lower rate than the generator's where the discriminator wins.
        discriminator_scheduler: It follows the run, also where only the generator trains.
        generator_steps: Steps of the generator for each step of the discriminator; more where the discriminator wins.
        generator_epochs: Number of epochs that the generator first trains alone, without adversarial loss.
        critic_epochs: Number of epochs that the discriminator trains alone after that; then both.
        metrics: Name and torchmetrics metric of each; null for psnr, ssim, acc_2, acc_5, colorfulness and its ratio.
        finetune: What of the generator's encoder is frozen, until when, and how fast it trains.

    The others are those of :class:`ImageRestorer`.
    """

    discriminators: ClassVar[frozenset[str]] = frozenset({"discriminator"})
    averaged = ("generator.",)  # by EMA: the discriminator competes with the generator as it is now

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module | None = None,
        space: str = "lab",
        adversarial: AdversarialLoss | None = None,
        adversarial_weight: float = 1.0,
        reconstruction: nn.Module | None = None,
        reconstruction_weight: float = 100.0,
        feature_matching_weight: float = 0.0,
        perceptual: nn.Module | None = None,
        perceptual_weight: float = 10.0,
        generator_optimizer: OptimizerCallable = lambda p: torch.optim.Adam(p, lr=2e-4),
        discriminator_optimizer: OptimizerCallable = lambda p: torch.optim.Adam(p, lr=2e-4),
        generator_scheduler: LRSchedulerCallable | None = None,
        discriminator_scheduler: LRSchedulerCallable | None = None,
        schedule_every: str = "auto",
        generator_steps: int = 1,
        generator_epochs: int = 0,
        critic_epochs: int = 0,
        metrics: dict[str, Metric] | None = None,
        channels_last: bool = True,
        init_from: str | None = None,
        finetune: FineTuning = FineTuning(),  # noqa: B008 it is frozen
    ) -> None:
        if metrics is None:
            metrics = {"psnr": PSNR(), "ssim": SSIM(), "acc_2": PixelAccuracy(2.0), "acc_5": PixelAccuracy(5.0)}
            metrics |= {"colorfulness": Colorfulness(), "colorfulness_ratio": ColorfulnessRatio()}
        super().__init__(metrics, schedule_every, channels_last, init_from, finetune)
        save_plain_hyperparameters(self, locals())
        self.automatic_optimization = False
        self.space = Lab() if choose("model.space", space, ("lab", "rgb")) == "lab" else RGB()
        self.generator = generator.to(memory_format=self.memory_format)
        self.discriminator = None if discriminator is None else discriminator.to(memory_format=self.memory_format)
        self.adversarial = Standard() if adversarial is None else adversarial
        self.adversarial_weight = adversarial_weight
        self.reconstruction = nn.L1Loss() if reconstruction is None else reconstruction
        self.reconstruction_weight = reconstruction_weight
        self.feature_matching_weight = feature_matching_weight
        self.perceptual = perceptual
        self.perceptual_weight = perceptual_weight
        self.make_optimizers = {"generator": generator_optimizer, "discriminator": discriminator_optimizer}
        self.make_schedulers = {"generator": generator_scheduler, "discriminator": discriminator_scheduler}
        self.generator_steps = generator_steps
        self.generator_epochs = generator_epochs
        self.critic_epochs = critic_epochs
        self._check_settings()
        self.apply_freezing()

    def networks(self) -> dict[str, nn.Module]:
        found = {"generator": self.generator, "discriminator": self.discriminator}
        return {name: network for name, network in found.items() if network is not None}

    # Training: forward, the discriminator's step, the generator's step

    def forward(self, x: Tensor) -> Tensor:
        """Condition and hints (B, C, H, W) -> RGB images (B, 3, H, W) around [0, 1]."""
        return self.space.decode(self.generator(self.to_memory_format(x)), x)

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Color one batch, then train the networks whose turn it is; what is logged, for callbacks, detached."""
        train_generator, train_discriminator = self.phase()
        condition = self.to_memory_format(batch.input)
        real = self.to_memory_format(self.space.encode(batch.target))
        with torch.set_grad_enabled(train_generator):
            fake = self.generator(condition).float()
        logged = {}
        # The last of generator_steps, not the first: Lightning writes logs at the last of log_every_n_steps.
        due = not train_generator or (self.trainer.global_step + 1) % self.generator_steps == 0
        if train_discriminator and due:
            logged |= self.discriminator_step(condition, real, fake.detach(), counts=not train_generator)
        if train_generator:
            logged |= self.generator_step(condition, real, fake, batch.target, adversarial=train_discriminator)
        self.end_batch(batch_idx, logged)
        return logged if train_generator else {"loss": logged["discriminator"], **logged}

    def phase(self) -> tuple[bool, bool]:
        """Whether generator and discriminator train in this epoch: as DeOldify, one, then the other, then both."""
        if self.discriminator is None:
            return True, False
        epoch, alone = self.trainer.current_epoch, self.generator_epochs
        return not alone <= epoch < alone + self.critic_epochs, epoch >= alone

    def discriminator_step(self, condition: Tensor, real: Tensor, fake: Tensor, counts: bool) -> dict[str, Tensor]:
        """Train the discriminator to tell the true colors, (B, c, H, W), from the generator's, which are detached."""

        def logits(colors: Tensor) -> Tensor:
            return self.discriminator(torch.cat([condition, colors], dim=1)).float()

        real_logits, fake_logits = logits(real), logits(fake)
        loss = self.adversarial.discriminator(real_logits, fake_logits)
        logged = {"score_real": real_logits.mean(), "score_fake": fake_logits.mean()}
        penalty = self.adversarial.penalty(logits, real, fake)
        if penalty is not None:
            loss = loss + self.adversarial.penalty_weight * penalty
            logged["gradient_penalty"] = penalty
        self.optimize("discriminator", loss, counts)
        return {name: value.detach() for name, value in {"discriminator": loss, **logged}.items()}

    def generator_step(
        self, condition: Tensor, real: Tensor, fake: Tensor, target: Tensor, adversarial: bool
    ) -> dict[str, Tensor]:
        """Train the generator to come close to the true colors, and, if ``adversarial``, to look true."""
        losses = {"reconstruction": self.reconstruction(fake, real)}
        if self.perceptual is not None:
            losses["perceptual"] = self.perceptual(self.space.decode(fake, condition), target)
        if adversarial:
            with self.toggled_optimizer(self._optimizer("generator")):  # no gradients for the discriminator's weights
                losses |= self.adversarial_losses(condition, real, fake)
        loss = torch.stack([getattr(self, f"{name}_weight") * value for name, value in losses.items()]).sum()
        self.optimize("generator", loss, counts=True)
        return {name: value.detach() for name, value in {"loss": loss, **losses}.items()}

    def adversarial_losses(self, condition: Tensor, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        """What the discriminator says of the colors, and how far they are from the true ones in its features."""
        given = torch.cat([condition, fake], dim=1)
        if self.feature_matching_weight == 0:
            return {"adversarial": self.adversarial.generator(self.discriminator(given).float())}
        *features, logits = self.discriminator.features(given)
        with torch.no_grad():
            *wanted, _ = self.discriminator.features(torch.cat([condition, real], dim=1))
        distances = [F.l1_loss(a.float(), b.float()) for a, b in zip(features, wanted, strict=True)]
        matching = torch.stack(distances).mean()
        return {"adversarial": self.adversarial.generator(logits.float()), "feature_matching": matching}

    def optimize(self, name: str, loss: Tensor, counts: bool) -> None:
        """Backward and step for one network; one step per batch counts for all that goes by ``global_step``."""
        optimizer = self._optimizer(name)
        optimizer.zero_grad()
        self.manual_backward(loss)
        if counts:
            optimizer.step()
        else:
            # What LightningOptimizer.step does, scaling and hooks included, but for the counting.
            self.trainer.strategy.optimizer_step(optimizer.optimizer, lambda: None)

    def _optimizer(self, name: str) -> LightningOptimizer:
        found = self.optimizers()
        return found[list(self.networks()).index(name)] if isinstance(found, list) else found

    def end_batch(self, batch_idx: int, values: dict[str, Tensor]) -> None:
        """Log, and step the schedulers that are due: Lightning steps none under manual optimization."""
        trainer = self.trainer
        step = trainer.global_step
        ends = trainer.is_last_batch or batch_idx + 1 == trainer.num_training_batches
        # Not in every batch: logging six values was a fifth of the time of a very small step.
        if ends or step == trainer.max_steps or (trainer.log_every_n_steps and step % trainer.log_every_n_steps == 0):
            self.log_dict({f"train/{name}": value for name, value in values.items()})
        for config in trainer.lr_scheduler_configs:
            if config.frequency != NEVER and (ends or config.interval == "step"):
                config.scheduler.step()

    def configure_optimizers(self) -> list[dict[str, Any]]:
        # Schedulers follow the run, so that one may step before its network does.
        warnings.filterwarnings("ignore", message=r"Detected call of `lr_scheduler.step\(\)` before")
        configured = []
        for name, network in self.networks().items():
            tuning = self.finetune if name == "generator" else FineTuning()
            makers = self.make_optimizers[name], self.make_schedulers[name]
            configured.append(configure_optimizer(self, network, *makers, tuning, prefix=f"{name}_"))
            if "lr_scheduler" in configured[-1]:
                configured[-1]["lr_scheduler"]["name"] = f"lr-{name}"  # what the rate is logged as
        return configured

    def predict_and_loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The colored images of a batch, and the reconstruction loss of their colors."""
        colors = self.generator(self.to_memory_format(batch.input)).float()
        loss = self.reconstruction(colors, self.space.encode(batch.target))
        return self.space.decode(colors, batch.input), loss

    # Before the first step: what does not fit together is reported with the key to change

    def _check_settings(self) -> None:
        critic = self.discriminator
        penalized = critic is not None and isinstance(self.adversarial, WassersteinGP)
        require(
            "GANColorizer cannot be built",
            {
                "generator_steps must be at least 1": self.generator_steps >= 1,
                "critic_epochs needs a discriminator": self.critic_epochs == 0 or critic is not None,
                "feature_matching_weight needs a discriminator with features(x), such as PatchGAN": (
                    self.feature_matching_weight == 0 or hasattr(critic, "features")
                ),
                "WassersteinGP takes each image's own gradient, which a batch norm mixes: set norm: instance": (
                    not (penalized and any(isinstance(part, _BatchNorm) for part in critic.modules()))
                ),
            },
        )

    def prepare_data(self) -> None:
        if self.trainer.state.fn == "fit" and hasattr(self.perceptual, "load"):
            self.perceptual.load()

    def setup(self, stage: str) -> None:
        super().setup(stage)
        data = self.trainer.datamodule
        pairs = getattr(data, "pairs", None)
        if pairs is not None and self.space.keeps_lightness and not getattr(pairs, "keeps_lightness", False):
            raise UserError(
                f"model.space lab copies the lightness from the input: {type(pairs).__name__} has none.\n"
                "Set model.init_args.space: rgb, or data.pairs.class_path: project.data.pairs.GrayToColor."
            )
        if stage != "fit":
            return
        if is_sharded(self.trainer):
            raise UserError(
                f"A GAN steps several optimizers, which {type(self.trainer.strategy).__name__} cannot.\n"
                "Train it with configs/trainer/ddp.yaml: --trainer.strategy ddp"
            )
        if self.discriminator is not None:
            allow_unused_parameters(self.trainer, "Each step of a GAN leaves one of its networks out")
        if getattr(data, "normalization", None) is None:
            return
        condition, target = data.normalization["input"], data.normalization["target"]
        if len(target[0]) != 3:
            raise UserError("GANColorizer makes color images, but the target images are gray. Set data.channels: 3.")
        given, made = len(condition[0]), self.space.channels
        self.check_channels(
            ("generator", "in", given), ("generator", "out", made), ("discriminator", "in", given + made)
        )
        colors = self.space.normalization(target)
        set_normalization(self.generator, condition, colors)
        if self.discriminator is not None:
            both = tuple([*a, *b] for a, b in zip(condition, colors, strict=True))
            set_normalization(self.discriminator, both)

    # For the command check

    def network_examples(self, batch: Batch) -> dict[str, tuple[Tensor, Tensor | None]]:
        """What each network is given, and what it should give; None for the discriminator."""
        condition = self.to_memory_format(batch.input)
        real = self.to_memory_format(self.space.encode(batch.target))
        critic = {} if self.discriminator is None else {"discriminator": (torch.cat([condition, real], dim=1), None)}
        return {"generator": (condition, real), **critic}

    def discriminator_scores(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The logits of true and of generated images."""
        condition, real = self.network_examples(batch)["generator"]
        fake = self.to_memory_format(self.generator(condition).float())
        real, fake = (self.discriminator(torch.cat([condition, colors], dim=1)) for colors in (real, fake))
        return real, fake

    def prepare_trial(self, network: str) -> None:
        """Have one network train alone."""
        self.init_from, forever = None, 10**9
        self.generator_epochs = 0 if network == "discriminator" else forever
        self.critic_epochs = forever
