"""How errors are told to visitors."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import gradio as gr

from .visitors import VisitorLeftError

P = ParamSpec("P")
R = TypeVar("R")


def polite(event: Callable[P, R]) -> Callable[P, R]:
    """Show the expected errors of an event to the visitor in one line. Other errors reveal nothing."""

    @functools.wraps(event)
    def answered(*args: P.args, **kwargs: P.kwargs) -> R:
        from ..hub import HubError, NotCachedError

        try:
            return event(*args, **kwargs)
        except NotCachedError:
            message = "this demo cannot reach the Hub"
        except HubError as e:
            # the remedy after the semicolon is for owners of a token, not for visitors
            message = str(e).partition("; ")[0]
        except ImportError:
            message = "photos of this format cannot be read here; save it as JPEG or PNG"
        except ValueError as e:
            message = str(e)
        except VisitorLeftError:
            message = "nobody waited for the result"
        except OSError as e:
            message = f"the file cannot be used ({e.strerror or type(e).__name__}); send it again"
        raise gr.Error(message, duration=15, print_exception=False)

    return answered
