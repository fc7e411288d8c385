"""Task-level models: what `runtime.load` returns, by the manifest's word for it."""

from __future__ import annotations

from runtime.models.fuser import Fuser
from runtime.models.multimodal import Multimodal

MODELS: dict[str, type[Multimodal | Fuser]] = {"multimodal": Multimodal, "fuser": Fuser}

__all__ = ["MODELS", "Fuser", "Multimodal"]
