"""One command that turns bare-metal GPU nodes into a disaggregated LLM server."""

__version__ = "0.1.0"
