"""The nodes of one run: who they are, how they find and trust each other, and what they tell each other."""
