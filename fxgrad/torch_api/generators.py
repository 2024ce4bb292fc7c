"""torch's random generators: the CPU's, those of the devices in use, and the seeds that wait for the others.

A device that the process has not used yet has no generator to seed. `torch.manual_seed` leaves the seed for
it (and the whole stack with it, as text, which takes longer than the seeding); as the device is first used
it begins with that. Not handled: generators of backends that are not torch's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

_DEVICES: tuple[Any, ...] = (torch.cuda, torch.xpu, torch.mtia)


def _in_use() -> Iterator[Any]:
    return (device for device in _DEVICES if device.is_initialized())


def seed_generators(number: int) -> None:
    """`torch.manual_seed` of what is in use: no seed is left for a device that is not."""
    torch.default_generator.manual_seed(number)
    for device in _in_use():
        device.manual_seed_all(number)
    if torch.backends.mps.is_available():
        torch.mps.manual_seed(number)


def noted_generators() -> Callable[[], None]:
    """The act that puts every generator back, and the seeds that wait."""
    cpu = torch.get_rng_state()
    states = [(device, device.get_rng_state_all()) for device in _in_use()]
    mps = torch.mps.get_rng_state() if torch.backends.mps.is_available() else None
    waiting = [_waiting(device) for device in _DEVICES]

    def act() -> None:
        torch.set_rng_state(cpu)
        for device, state in states:
            device.set_rng_state_all(state)
        if mps is not None:
            torch.mps.set_rng_state(mps)
        for put_back in waiting:
            put_back()

    return act


def _waiting(device: Any) -> Callable[[], None]:
    """What is to be done as a device is first used; nothing is put back once it is in use."""
    seeds, calls = vars(device._lazy_seed_tracker), device._queued_calls
    before, called = dict(seeds), list(calls)

    def act() -> None:
        if device.is_initialized():
            return
        if seeds != before:
            seeds.update(before)
        if len(calls) != len(called):
            calls[:] = called

    return act
