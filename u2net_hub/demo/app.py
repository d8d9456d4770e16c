"""The Gradio app: the page, its API, and the server that both run on."""

from __future__ import annotations

import logging
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from .models import SOURCES_VARIABLE, Models  # isort: skip  # imports spaces, before gradio

from huggingface_hub import constants
from starlette.middleware import Middleware

try:
    import gradio as gr
except ImportError as e:
    raise ImportError("the demo needs gradio; install it with: pip install 'u2net-hub[space]'") from e

from ..hub import list_bundled
from . import theme
from .contract import Contract
from .middleware import Guard
from .page import Page
from .results import Results
from .storage import Storage
from .sweeping import swept
from .visitors import ALL_JOBS, Turns
from .words import LIMITS

if TYPE_CHECKING:
    from ..engines import EngineName, Precision


logger = logging.getLogger(__name__)

MAX_FILE_BYTES = 20_000_000
WAITING = 64
"""Largest number of requests that Gradio has not started yet. It refuses the next one."""
SESSIONS = 16
"""Largest number of sessions whose components Gradio keeps, each .3 MiB. The page needs none of them."""
UNREAD = WAITING + ALL_JOBS
"""Largest number of sessions whose results wait to be read, each of a megabyte or more."""
_CREDIT = (
    "Photos: NASA (Eileen Collins, public domain), Stéfan van der Walt (cat, CC0), Rachel Michetti (coffee, "
    "CC0), SpaceX (rocket, public domain), linolafett (grass, CC0); by way of scikit-image."
)


def sources_from_environment() -> list[str]:
    """Read the models from U2NET_MODELS, separated by commas; by default the bundled ones."""
    named = os.environ.get(SOURCES_VARIABLE, "").split(",")
    return [name.strip() for name in named if name.strip()] or [model.name for model in list_bundled()]


def snippet(address: str | None = None) -> str:
    """Write Python code that calls the API.

    Args:
        address: Address of the app. By default the Space that it runs on, or else this machine.
    """
    where = address or os.environ.get("SPACE_ID") or "http://127.0.0.1:7860"
    return f'''from gradio_client import Client, handle_file

client = Client("{where}")
png, facts, *_ = client.predict(handle_file("cat.jpg"), api_name="/cutout")
print(png, facts["confidence"], facts["milliseconds"])
'''


def build(
    models: Models,
    folder: str | Path,
    turns: Turns | None = None,
    storage: Storage | None = None,
    *,
    online: bool = True,
) -> tuple[gr.Blocks, Page]:
    """Build the page, with its events and its API.

    Args:
        models: The models that visitors can choose from.
        folder: The folder in which Gradio keeps its files, GRADIO_TEMP_DIR.
        turns: The turns of the visitors.
        storage: It bounds what visitors store.
        online: Whether models can be loaded from the Hub.
    """
    turns = turns or Turns()
    page = Page(models, Path(folder), turns, storage)
    blocks: gr.Blocks
    with gr.Blocks(title="U²-Net", analytics_enabled=False) as blocks:
        device = models.get(models.names[0]).engine.device
        gr.HTML(theme.masthead([*models.names, f"on {device}"]))
        page.lay_out(online=online)
        with gr.Accordion("Use it from code", open=False):
            gr.Markdown(
                f"```python\n{snippet()}```\nAll calls: see the API page, linked below. Files are uploaded; "
                "this page fetches no addresses."
            )
        gr.HTML(f'<p class="credit">{LIMITS}</p><p class="credit">{_CREDIT}</p>')
    # every event starts at once and waits for its turn in `Tabs`
    blocks.queue(max_size=WAITING, default_concurrency_limit=None, api_open=False)
    return blocks, page


@contextmanager
def serve(
    sources: Sequence[str] | None = None,
    *,
    device: str = "auto",
    engine: EngineName = "auto",
    precision: Precision = "exact",
    host: str | None = None,
    port: int | None = None,
) -> Iterator[gr.Blocks]:
    """Run the app while the context lasts. The attribute `local_url` of the yielded app is its address.

    The files of visitors lie in a temporary folder, which is deleted afterwards.

    Args:
        sources: Sources of the models. By default those in U2NET_MODELS, or the bundled U²-Net†.
        device: Device to run on, as for `SaliencyPipeline`.
        engine: Engine that runs the network, as for `SaliencyPipeline`.
        precision: Precision of the engine, as for `SaliencyPipeline`.
        host: Address to listen on. By default GRADIO_SERVER_NAME, or this machine only.
        port: Port to listen on. By default the first free port from 7860.

    Raises:
        ValueError: The models cannot be used together; see `Models`.
        OSError: A model cannot be loaded, or the port is in use.
    """
    with tempfile.TemporaryDirectory(prefix="u2net-demo-") as folder:
        before = os.environ.get("GRADIO_TEMP_DIR")
        os.environ["GRADIO_TEMP_DIR"] = folder
        models = Models(
            sources or sources_from_environment(), device=device, engine=engine, precision=precision
        )
        turns, storage = Turns(), Storage(Path(folder))
        blocks, page = build(models, folder, turns, storage, online=not constants.HF_HUB_OFFLINE)
        guard = Middleware(
            Guard,
            contract=Contract(blocks, Path(folder)),
            presence=turns.presence,
            results=Results(blocks, turns.presence, UNREAD),
            storage=storage,
        )
        try:
            blocks.launch(
                server_name=host,
                server_port=port,
                prevent_thread_lock=True,
                quiet=True,
                share=False,
                ssr_mode=False,
                show_error=False,
                max_file_size=MAX_FILE_BYTES,
                enable_monitoring=False,
                run_history=False,
                mcp_server=False,
                pwa=False,
                state_session_capacity=SESSIONS,
                max_threads=ALL_JOBS + 8,
                app_kwargs={"middleware": [guard]},
                theme=theme.theme(),
                css=theme.CSS,
                head=theme.HEAD,
                footer_links=["api"],
            )
            page.runs_at(str(blocks.local_url))
            with swept(Path(folder)) as storage.kept:
                yield blocks
        finally:
            blocks.close(verbose=False)
            if before is None:
                del os.environ["GRADIO_TEMP_DIR"]
            else:
                os.environ["GRADIO_TEMP_DIR"] = before


def launch(
    sources: Sequence[str] | None = None,
    *,
    device: str = "auto",
    engine: EngineName = "auto",
    precision: Precision = "exact",
    host: str | None = None,
    port: int | None = None,
    on_ready: Callable[[str], object] = logger.info,
) -> None:
    """Serve the app until the process is interrupted or terminated. The arguments are those of `serve`.

    Args:
        sources: Sources of the models.
        device: Device to run on.
        engine: Engine that runs the network.
        precision: Precision of the engine.
        host: Address to listen on.
        port: Port to listen on.
        on_ready: Function that is called with the address when the app is ready.
    """
    # stop as at Ctrl-C, so that the files of visitors are deleted
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    with serve(sources, device=device, engine=engine, precision=precision, host=host, port=port) as blocks:
        on_ready(str(blocks.local_url))
        blocks.block_thread()
