"""Plain ``torch.nn`` networks; they know nothing of Lightning, and take and give images in [0, 1]."""

from project.networks.backbone import BackboneUNet
from project.networks.normalize import Normalize, Normalized
from project.networks.patchgan import PatchGAN
from project.networks.unet import UNet
