"""Moving runs to blendtitan, and models from it. Imported only when used."""
