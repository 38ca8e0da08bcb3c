"""The old place of `show_blend`; it goes when main.py imports it from `kit.cli.show`."""

from kit.cli.show import show_blend

__all__ = ["show_blend"]
