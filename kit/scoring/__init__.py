"""F1 and decision rules, which turn probabilities into labels. No torch in here."""
