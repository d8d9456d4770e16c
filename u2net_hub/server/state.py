"""What all routes share, and how they get the photo of a request."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar, cast

from .problems import Problem, shortened
from .uploads import Fields, read_fields
from .visits import Visit

if TYPE_CHECKING:
    from starlette.requests import Request

    from ..inference import SaliencyResult
    from .metrics import Metrics
    from .settings import Settings
    from .urls import Fetcher
    from .work import Workshop

T = TypeVar("T")


@dataclass
class Shared:
    """What all routes share."""

    settings: Settings
    workshop: Workshop
    metrics: Metrics
    fetcher: Fetcher
    is_ready: bool = False

    @staticmethod
    def of(request: Request) -> Shared:
        """Return what the app of a request shares."""
        return cast(Shared, request.app.state.shared)


async def read(request: Request) -> Fields:
    """Read the fields and files of a request."""
    return await read_fields(request, Shared.of(request).settings, Visit.of(request))


def take_file(fields: Fields, name: str) -> bytes:
    """Take the one photo of a form.

    Raises:
        Problem: There is none, there is another file, or it is a text.
    """
    if name in fields.texts:
        raise Problem(
            400, "not_a_file", f"the field {name} is a text, expected a file; with curl: -F {name}=@photo.jpg"
        )
    if list(fields.files) != [name]:
        got = shortened(sorted(fields.files)) if fields.files else "no file"
        raise Problem(
            400,
            "wrong_file",
            f"got {got}, expected one file called {name!r}; with curl: -F {name}=@photo.jpg",
        )
    return fields.files.pop(name)


async def answer(
    request: Request,
    photo: bytes | str,
    model: str,
    render: Callable[[SaliencyResult], T],
    background: bytes | None = None,
) -> T:
    """Make the answer for a photo.

    Args:
        request: The request, whose body has been read.
        photo: The bytes of the photo, or its address.
        model: The name of a model in the request, "" for the first one.
        render: A function that makes the answer from the result. A thread calls it.
        background: Another picture that `render` reads.
    """
    shared, visit = Shared.of(request), Visit.of(request)
    model = shared.workshop.model(model)
    if isinstance(photo, str):
        shared.fetcher.check(photo)
    visit.facts["model"] = model

    async def work() -> T:
        data = photo if isinstance(photo, bytes) else await shared.fetcher.fetch(photo)
        if isinstance(photo, str):
            visit.hold_bytes(len(data))
        return await shared.workshop.answer(data, model, render, visit.facts, background)

    return await visit.work(request.receive, work)
