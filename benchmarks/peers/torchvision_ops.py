"""Import this before anything that imports torchvision beside a CPU build of torch.

torchvision's wheels are built for CUDA; beside CPU torch their operators don't load, and importing torchvision
fails because it describes two of them that are then unknown. Their names are enough: no peer here calls them.
"""

from __future__ import annotations

import torch

LIBRARY = torch.library.Library("torchvision", "DEF")
for name in ("nms", "qnms"):
    LIBRARY.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
