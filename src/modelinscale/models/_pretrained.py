"""Which weights from elsewhere an encoder of images or of texts begins with. Without torch, so that settings can say it."""

from typing import Self

from pydantic import Field, model_validator

from modelinscale.core.elsewhere import Elsewhere
from modelinscale.core.settings import Settings


class Pretrained(Settings):
    """Weights of an encoder of images that were learned elsewhere. Training needs `pip install 'modelinscale[timm]'`, the package does not."""

    architecture: str
    """Its name in timm, such as resnet18 or convnext_tiny.fb_in1k."""
    path: str | None = None
    """A file of its weights (.safetensors or .pth), absolute or from where model.yaml lies; nothing is fetched."""
    hub: bool = False
    """Whether timm fetches them from the Hugging Face hub instead, where there is a network."""
    share: float = Field(0.1, ge=0, le=1)
    """How much of the step size its weights move by, so that what they know is not lost in the first steps; 0: they stay as they are."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.path is None) != self.hub:
            raise ValueError("give either `path` (a file of weights) or `hub: true` (they are fetched)")
        return self


class Language(Elsewhere):
    """An encoder of texts that was learned elsewhere. Training needs `pip install 'modelinscale[transformers]'`, the package needs `tokenizers` alone."""

    share: float = Field(0.01, ge=0, le=1)
    """How much of the step size its weights move by: at 0.003 a hundredth is what such encoders are usually trained further with; 0: they stay."""
