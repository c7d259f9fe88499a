"""A run as one HTML file: facts are gathered, made into figures and tables, and then a page."""
