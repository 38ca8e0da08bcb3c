"""Names of files that come from elsewhere."""

import re

UNPRINTABLE = r"\x00-\x1f\x7f-\x9f\ud800-\udfff"
DEVICES = r"(?i:con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9\u00b9\u00b2\u00b3])"  # Windows', in every folder


def is_safe(name: str) -> bool:
    """Whether a name from elsewhere is that of a file below a folder, on every system."""
    if re.search(rf'[\\:<>"|?*{UNPRINTABLE}]', name) or len(name.encode()) > 1000:
        return False
    return all(
        part not in ("", ".", "..")
        and part == part.strip()
        and not part.endswith(".")
        and len(part.encode()) <= 255
        and not re.fullmatch(rf"{DEVICES}\s*(\..*)?", part)
        for part in name.split("/")
    )
