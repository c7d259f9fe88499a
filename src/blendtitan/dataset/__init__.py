"""Order and storage together: the tokens of a slot."""
