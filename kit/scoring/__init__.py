"""F1 and what belongs to it. No torch in here."""
