"""Features of a frozen body, computed once, and heads over them in the place of trainings."""
