"""Numbers and names as a report writes them."""


def shortened(text: str, letters: int) -> str:
    """Return the beginning and the end of a long text: names often differ at the end."""
    half = letters // 2
    return text if len(text) <= letters else f"{text[: letters - half - 1]}…{text[-half:]}"


def short_number(value: float) -> str:
    """Return a number to three significant digits."""
    return f"{value:.3g}".replace("e-0", "e-")


def percent(share: float) -> str:
    """Return a share as a percentage to three digits, with its sign."""
    return f"{100 * share:.3g}\N{NO-BREAK SPACE}%"


def p_value(value: float) -> str:
    """Return a p-value to three decimals."""
    return "<.001" if value < 0.001 else f"{value:.3f}"


def counted(number: int, noun: str) -> str:
    """Return `1 run` or `3 runs`, for a noun whose plural ends in s."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
