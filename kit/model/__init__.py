"""timm models: building them, offline weights, depth groups."""
