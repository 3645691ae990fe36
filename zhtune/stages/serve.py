"""Serve a model on this machine: the OpenAI-compatible endpoint and the web page. Writes nothing."""

from __future__ import annotations

import os
import socket
import threading
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zhtune import references
from zhtune.config import Checked
from zhtune.errors import ConfigError, require
from zhtune.references import Source

_GRACE = 2                                                  # seconds that running answers get when the server is told to stop


@dataclass(frozen=True, kw_only=True)
class ServeConfig(Checked):
    """Serve a model, adapter, quantized artifact or .gguf file at http://127.0.0.1:PORT, with a chat page."""

    model: str
    """What answers"""
    host: str = "127.0.0.1"
    """Address to listen on; loopback only, because there is no login"""
    port: int = 8000
    """Port to listen on; 0 takes any free one"""
    max_tokens: int = 512
    """Most tokens of an answer, where the request names no limit"""
    threads: int = 2
    """CPU threads of the engine"""
    notice: str = ""
    """One line shown under the page's chat, such as what the model must not be used for"""
    template: str = ""
    """Chat template for a model that has none, such as chatml"""
    apart: bool = False
    """Do not merge a LoRA, so that a request with "adapter": false can leave it out (slower; other adapters always can be)"""
    seconds: float = 0
    """Stop after so many seconds; 0 means never"""

    def check(self) -> None:
        from zhtune.serving.api import is_loopback
        if not is_loopback(self.host):
            raise ConfigError(f"--host {self.host} is not a loopback address; this server has no login, so give 127.0.0.1 "
                              f"and reach it from elsewhere through ssh -L {self.port}:127.0.0.1:{self.port}")
        if not 0 <= self.port < 1 << 16:
            raise ConfigError(f"--port is a number from 0 to 65535, not {self.port}")
        if self.max_tokens < 1 or self.threads < 1 or self.seconds < 0:
            raise ConfigError("--max_tokens and --threads must be at least 1, --seconds at least 0")


def serve(config: ServeConfig) -> None:
    """Serve until Ctrl-C; prints the address once requests are taken.

    Raises:
        ConfigError: the port is taken, or the reference names nothing that answers.
    """
    require("fastapi", "serve")
    require("uvicorn", "serve")
    from zhtune.models.open import open_engine
    from zhtune.serving.api import create_app
    source = references.resolve(config.model)
    with closing(bind(config.host, config.port)) as listener:    # before the model is loaded, which takes long
        os.environ.setdefault("OMP_NUM_THREADS", str(config.threads))
        with closing(open_engine(source, config.threads, config.template, apart=config.apart)) as engine:
            app = create_app(engine, served_name(source), licences=source.licences, notice=config.notice,
                             max_tokens=config.max_tokens)
            with suppress(KeyboardInterrupt):               # uvicorn raises it again once everything has ended
                listen(app, listener, config.seconds)


def served_name(source: Source) -> str:
    """A model's name for clients: its folder's or file's, or the reference of a base."""
    return source.path.resolve().name if source.path is not None and Path(source.reference) == source.path else source.reference


def bind(host: str, port: int) -> socket.socket:
    """A socket bound to the address, not yet listening.

    Raises:
        ConfigError: the port is taken or must not be used.
    """
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise ConfigError(_no_port(host, port, error)) from error
    return listener


def listen(app: Any, listener: socket.socket, seconds: float = 0) -> None:
    """Run an application on a bound socket until it is told to stop, and print its address.

    Args:
        app: what `create_app` made.
        listener: what `bind` gave.
        seconds: stop by itself after so many; 0 means never.
    """
    import uvicorn
    host, port = listener.getsockname()[:2]
    try:
        listener.listen(128)
    except OSError as error:
        raise ConfigError(_no_port(host, port, error)) from error
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, server_header=False,
                                           timeout_graceful_shutdown=_GRACE))
    print(f"http://{f'[{host}]' if ':' in host else host}:{port}", flush=True)
    timer = threading.Timer(seconds, setattr, (server, "should_exit", True))
    if seconds:
        timer.daemon = True
        timer.start()
    try:
        server.run(sockets=[listener])
    finally:
        timer.cancel()


def _no_port(host: str, port: int, error: OSError) -> str:
    reason = (error.strerror or str(error)).lower()
    return f"cannot listen on {host} port {port}: {reason}; give another --port, or --port 0 for any free one"
