"""What stops an export."""

from __future__ import annotations

from runtime.errors import InputError


class ExportError(InputError):
    """A graph cannot be frozen as it should be. No bundle is written; what was there before stays."""
