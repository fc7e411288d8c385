"""Task-level models: what `runtime.load` returns, by the manifest's word for it."""

from __future__ import annotations

from runtime.models.multimodal import Multimodal

MODELS = {"multimodal": Multimodal}

__all__ = ["MODELS", "Multimodal"]
