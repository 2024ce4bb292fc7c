"""Whether a call runs inside the `sample()` of a distribution whose `rsample()` has a derivative: what the
distribution itself says (`has_rsample`), found in torch's frames around the call."""

from __future__ import annotations

from types import FrameType

from torch.distributions import Distribution

from fxgrad.source.sites import is_own, is_torch, outside


def is_sampling(frame: FrameType | None) -> bool:
    """Of the calls within each other from `frame` outwards to the user's code, the outermost `sample()`
    counts: it is what the user called."""
    found = False
    frame = outside(frame)
    while frame is not None and (is_torch(frame.f_code) or is_own(frame.f_code)):
        if frame.f_code.co_name == "sample":
            drawn = frame.f_locals.get("self")
            found = isinstance(drawn, Distribution) and bool(drawn.has_rsample)
        frame = frame.f_back
    return found
