"""LightningModules: what is optimised, logged and predicted; with their losses, metrics and schedules."""

from project.models.losses import Charbonnier, PSNRLoss
from project.models.metrics import PSNR, SSIM, PictureMean
from project.models.restoration import ImageRestorer
from project.models.schedules import WarmupCosine

__all__ = ["PSNR", "SSIM", "Charbonnier", "ImageRestorer", "PSNRLoss", "PictureMean", "WarmupCosine"]
