"""Pure functions of tensors: the formulas, without objects around them."""
