"""A PyTorch Lightning template for image-to-image learning.

Nothing heavy is imported here: ``python -m project --help`` has to be quick.
"""

import os

# Albumentations asks the network for its newest version at import; nothing here may use the network unasked.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
