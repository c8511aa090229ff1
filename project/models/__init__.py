"""LightningModules: what is optimized, logged and predicted; with their losses, metrics and schedules."""

from project.models.finetune import FineTuning
from project.models.gan import GANColorizer
from project.models.losses import Charbonnier, Hinge, LeastSquares, PSNRLoss, Standard, VGGPerceptual, WassersteinGP
from project.models.restoration import ImageRestorer
from project.models.schedules import WarmupCosine
