"""Variational autoencoders of text whose latent variables stay alive."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from uncollapse.text_vae import TextVAE

__version__ = "0.1.0"
__all__ = ["TextVAE", "__version__"]


def __getattr__(name: str) -> Any:
    # torch takes more than a second to import; it waits until somebody needs it
    if name == "TextVAE":
        from uncollapse.text_vae import TextVAE

        return TextVAE
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
