"""A controllable engine that speaks vLLM's wire protocol, for tests without vLLM.

It computes nothing, but its tokens follow from the KV cache it holds: a decode worker that was handed the wrong KV
answers with the wrong tokens. `control.py` lists what a test can make it do.
"""
