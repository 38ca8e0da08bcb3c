"""Torch and timm are imported here first, so that a broken set-up is told and not met."""

from kit.core.errors import KitError


def explain_broken_imports() -> None:
    """Turn the puzzling errors of a broken set-up into advice, before anything else imports torch."""
    try:
        import timm  # noqa: F401  # imports torch and torchvision
    except (ImportError, RuntimeError, OSError) as error:
        raise KitError(
            f"torch, torchvision or timm cannot be imported ({error}); run: python -m kit doctor"
        ) from error
