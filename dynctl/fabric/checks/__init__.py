"""Checks of one node: what was read from it (`observe`), and the rules that judge it (`judge`, `agree`)."""
