"""Part of a vLLM worker that has no API server: run under the engine's own interpreter, which need not have dynctl.

`python -m vllm.entrypoints.openai.api_server` takes --headless and ignores it; only `vllm serve` acts on it
(vllm/entrypoints/cli/serve.py, 0.32), and that command refuses to run from wheels that are not called `vllm`.
"""

from vllm.entrypoints.cli.serve import run_headless  # type: ignore[import-not-found]
from vllm.entrypoints.launchers.cli_args import make_arg_parser  # type: ignore[import-not-found]
from vllm.utils.argparse_utils import FlexibleArgumentParser  # type: ignore[import-not-found]

if __name__ == "__main__":  # the engine's processes are spawned, and import this file again
    arguments = make_arg_parser(FlexibleArgumentParser()).parse_args()
    arguments.api_server_count = 0
    run_headless(arguments)
