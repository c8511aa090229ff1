"""A conditional GAN that colors images (as pix2pix, Isola et al. 2017): what is optimized, logged and predicted."""

from __future__ import annotations

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import Metric

from project.data.batch import Batch
from project.models.adversarial import AdversarialLoss, Standard
from project.models.alternation import AlternatingModel, frozen
from project.models.base import normalizations
from project.models.color_metrics import Colorfulness, ColorfulnessRatio, PixelAccuracy
from project.models.finetuning import FineTuning
from project.models.fitting import check_channels, check_settings, check_size, check_space
from project.models.metrics import PSNR, SSIM
from project.models.stages import Stage, stage_of
from project.models.weights import load_adversary, load_matching
from project.networks.space import SPACES
from workbench.errors import choose
from workbench.hyperparameters import save_plain_hyperparameters

Moments = tuple[list[float], list[float]]
"""Mean and standard deviation, one value a channel."""


class GANColorizer(AlternatingModel):
    """Teach a generator to color images, against a discriminator that tells its colors from true ones.

    Logs ``train/loss`` (the generator's, weighted), its parts unweighted: ``train/reconstruction``,
    ``train/adversarial``, ``train/feature_matching``, ``train/perceptual``; ``train/discriminator`` (its loss),
    ``train/score_real`` and ``train/score_fake`` (its mean logits), ``train/gradient_penalty`` (unweighted);
    ``val/loss`` (the reconstruction loss) and for each metric ``val/NAME`` and ``val/NAME_baseline``; likewise
    ``test/``. One batch is one step (``global_step``), whoever trained in it.

    Args:
        generator: Condition and hints in, colors out: 2 channels in space lab, 3 in rgb.
        discriminator: Sees the generator's input and its colors, such as project.networks.PatchGAN; null: none, which
            is plain regression, to compare with.
        space: lab: predict a and b and keep the true lightness, for grayscale photographs; rgb: for line art.
        adversarial: Standard, LeastSquares, Hinge or WassersteinGP of project.models.adversarial; null for Standard.
        adversarial_weight: Weight of the adversarial loss; a smaller one gives paler, safer colors.
        reconstruction: Compares the colors with the true ones, any of torch.nn or project.models; null for L1.
        reconstruction_weight: Weight of the reconstruction loss.
        feature_matching_weight: Weight of the L1 distance of the discriminator's features; 0 for none, 10 is usual.
        perceptual: Compares images by a pretrained network: project.models.VGGPerceptual; null for none.
        perceptual_weight: Weight of the perceptual loss.
        generator_optimizer: Any of torch.optim; betas [0.5, 0.999] are usual against a discriminator.
        discriminator_optimizer: Any of torch.optim; a lower rate than the generator's where the discriminator wins.
        generator_scheduler: Any of torch.optim.lr_scheduler or project.models.WarmupCosine; null: a constant rate.
        discriminator_scheduler: The same for the discriminator; it follows the run, also where only one network trains.
        schedule_every: Step schedulers after every step or epoch; auto: as they are meant (a plateau: validation).
        monitor: Logged value that ReduceLROnPlateau watches.
        generator_steps: Steps of the generator for each step of the discriminator; more where the discriminator wins.
        generator_epochs: So many epochs the generator trains alone first, without adversarial loss.
        critic_epochs: So many epochs the discriminator trains alone after that; then both.
        metrics: Name and torchmetrics metric of each; null for psnr, ssim, acc_2, acc_5, colorfulness and its ratio.
        channels_last: Keep tensors in channels_last order, which is faster for convolutions.
        init_from: Checkpoint whose weights, as far as they fit, training starts from; to resume a run use ckpt_path.
        finetune: What of the generator's encoder is frozen, until when, and how fast it learns.

    Raises:
        UserError: For an unknown name, or an impossible number or combination; all faulty ones are told at once.
    """

    tuned = "generator"
    averaged = ("generator.",)
    """What the EMA callback averages: the discriminator plays against what the generator is now."""

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
        monitor: str = "val/psnr",
        generator_steps: int = 1,
        generator_epochs: int = 0,
        critic_epochs: int = 0,
        metrics: dict[str, Metric] | None = None,
        channels_last: bool = True,
        init_from: str | None = None,
        finetune: FineTuning = FineTuning(),  # noqa: B008 it is frozen
    ) -> None:
        super().__init__(
            {"generator": generator_optimizer, "discriminator": discriminator_optimizer},
            {"generator": generator_scheduler, "discriminator": discriminator_scheduler},
            default_metrics() if metrics is None else metrics,
            schedule_every=schedule_every,
            monitor=monitor,
            channels_last=channels_last,
            init_from=init_from,
            finetune=finetune,
        )
        save_plain_hyperparameters(self, locals())
        self.space = SPACES[choose("model.space", space, SPACES)]()
        self.generator = generator.to(memory_format=self.memory_format)
        self.discriminator = None if discriminator is None else discriminator.to(memory_format=self.memory_format)
        self.adversarial = Standard() if adversarial is None else adversarial
        self.adversarial_weight = adversarial_weight
        self.reconstruction = nn.L1Loss() if reconstruction is None else reconstruction
        self.reconstruction_weight = reconstruction_weight
        self.feature_matching_weight = feature_matching_weight
        self.perceptual = perceptual
        self.perceptual_weight = perceptual_weight
        self.generator_steps = generator_steps
        self.generator_epochs = generator_epochs
        self.critic_epochs = critic_epochs
        check_settings(self)
        self.apply_freezing()

    # Before the first step

    def prepare_data(self) -> None:
        """Have pretrained weights downloaded, by one process."""
        self._load_pretrained()

    def setup(self, stage: str) -> None:
        """Look whether data and networks fit each other; before training, take the data's statistics."""
        super().setup(stage)
        data = self.trainer.datamodule
        check_space(self.space, getattr(data, "pairs", None))
        if stage != "fit":
            return
        check_size(self.discriminator, data, self.generator_epochs)
        statistics = getattr(data, "normalization", None)
        if statistics is not None:
            check_channels(self.space, self.generator, self.discriminator, statistics, getattr(data, "pairs", None))
            self._take_normalization(statistics["input"], self.space.normalization(statistics["target"]))
        self._load_pretrained()

    def _load_pretrained(self) -> None:
        if self.trainer.state.fn == "fit" and hasattr(self.perceptual, "load"):
            self.perceptual.load()

    def _take_normalization(self, condition: Moments, answer: Moments) -> None:
        """Fill every Normalize of both networks; what the discriminator sees is the condition, then the answer."""
        for _, role, part in normalizations(self.generator):
            part.set(*(condition if role == "normalize_input" else answer))
        for _, role, part in normalizations(self.discriminator or nn.Identity()):
            if role == "normalize_input":
                part.set(condition[0] + answer[0], condition[1] + answer[1])

    def load_weights(self, path: str) -> None:
        """Take the weights of a GAN, or of a network that was trained alone, from a checkpoint, as far as they fit."""
        load_matching(self.generator, path)
        if self.discriminator is not None:
            load_adversary(self.discriminator, path)

    # Answering

    def forward(self, x: Tensor) -> Tensor:
        """Condition and hints (B, C, H, W) -> RGB images (B, 3, H, W) around [0, 1]."""
        return self.space.decode(self.generator(self.to_memory_format(x)), x)

    def predict_and_loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The colored images of a batch, and the reconstruction loss of their colors."""
        colors = self.generator(self.to_memory_format(batch.input)).float()
        loss = self.reconstruction(colors, self.space.encode(batch.target))
        return self.space.decode(colors, batch.input), loss

    # Training: forward, the discriminator's step, the generator's step

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """One batch: color it, then improve who is due.

        Returns:
            ``loss`` (the generator's, or the discriminator's where that one trains alone), and whatever else there is
            to log, by its name without ``train/``, for callbacks that want it of every batch: detached, on the device.
        """
        stage = self._stage()
        condition = self.to_memory_format(batch.input)
        real = self.to_memory_format(self.space.encode(batch.target))
        with torch.set_grad_enabled(stage.generator):
            fake = self.generator(condition).float()
        logged = {}
        if self._discriminator_is_due(stage):
            logged |= self.discriminator_step(condition, real, fake.detach(), counts=not stage.generator)
        if stage.generator:
            logged |= self.generator_step(condition, real, fake, batch.target, plays=stage.discriminator)
        self.end_batch(batch_idx, logged)
        return logged if stage.generator else {"loss": logged["discriminator"], **logged}

    def discriminator_step(self, condition: Tensor, real: Tensor, fake: Tensor, counts: bool) -> dict[str, Tensor]:
        """Learn to tell true colors from the generator's, which are detached: it learns nothing from this.

        Args:
            condition: (B, C, H, W), what the generator was given.
            real: (B, c, H, W), the true colors in the model's space.
            fake: (B, c, H, W), the generator's.
            counts: Whether this is the step that counts for the batch.

        Returns:
            What to log.
        """

        def logits(colors: Tensor) -> Tensor:
            return self.discriminator(torch.cat([condition, colors], dim=1)).float()

        real_logits, fake_logits = logits(real), logits(fake)
        loss = self.adversarial.discriminator(real_logits, fake_logits)
        logged = {"score_real": real_logits.mean(), "score_fake": fake_logits.mean()}
        penalty = self.adversarial.penalty(logits, real, fake)
        if penalty is not None:
            loss = loss + self.adversarial.penalty_weight * penalty
            logged["gradient_penalty"] = penalty
        self.descend("discriminator", loss, counts)
        return {name: value.detach() for name, value in {"discriminator": loss, **logged}.items()}

    def generator_step(
        self, condition: Tensor, real: Tensor, fake: Tensor, target: Tensor, plays: bool
    ) -> dict[str, Tensor]:
        """Learn to come close to the true colors, and to look true to the discriminator, which is frozen meanwhile.

        Args:
            condition: (B, C, H, W), what the generator was given.
            real: (B, c, H, W), the true colors in the model's space.
            fake: (B, c, H, W), the generator's, with its graph.
            target: (B, 3, H, W) in [0, 1], the true image.
            plays: Whether the discriminator has a say.

        Returns:
            What to log.
        """
        losses = {"reconstruction": self.reconstruction(fake, real)}
        if self.perceptual is not None:
            losses["perceptual"] = self.perceptual(self.space.decode(fake, condition), target)
        if plays:
            with frozen(self.discriminator):
                losses |= self._adversarial_losses(condition, real, fake)
        loss = torch.stack([getattr(self, f"{name}_weight") * value for name, value in losses.items()]).sum()
        self.descend("generator", loss, counts=True)
        return {name: value.detach() for name, value in {"loss": loss, **losses}.items()}

    def _adversarial_losses(self, condition: Tensor, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        seen = torch.cat([condition, fake], dim=1)
        if self.feature_matching_weight == 0:
            return {"adversarial": self.adversarial.generator(self.discriminator(seen).float())}
        *features, logits = self.discriminator.features(seen)
        with torch.no_grad():
            *wanted, _ = self.discriminator.features(torch.cat([condition, real], dim=1))
        distances = [F.l1_loss(a.float(), b.float()) for a, b in zip(features, wanted, strict=True)]
        matching = torch.stack(distances).mean()
        return {"adversarial": self.adversarial.generator(logits.float()), "feature_matching": matching}

    def _stage(self) -> Stage:
        if self.discriminator is None:
            return Stage(generator=True, discriminator=False)
        return stage_of(self.trainer.current_epoch, self.generator_epochs, self.critic_epochs)

    def _discriminator_is_due(self, stage: Stage) -> bool:
        if not (stage.discriminator and stage.generator):
            return stage.discriminator
        # The last of so many steps, not the first: Lightning writes logs at the last of log_every_n_steps.
        return (self.trainer.global_step + 1) % self.generator_steps == 0


def default_metrics() -> dict[str, Metric]:
    """What a colored image is scored by where nothing else is said."""
    scores = {"psnr": PSNR(), "ssim": SSIM(), "acc_2": PixelAccuracy(2.0), "acc_5": PixelAccuracy(5.0)}
    return {**scores, "colorfulness": Colorfulness(), "colorfulness_ratio": ColorfulnessRatio()}
