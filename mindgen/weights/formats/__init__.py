"""File formats of tensors: mapped and checked, never executed."""
