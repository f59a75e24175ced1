"""A small streaming HTTP/1.1 client and server core on asyncio protocols and httptools."""
