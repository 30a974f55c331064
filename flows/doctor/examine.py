"""What a machine or a cluster lacks for a run: one line each, with its remedy."""

from __future__ import annotations

from collections.abc import Iterator

from flows.doctor.checks import Check, DoctorConfig


def examine(config: DoctorConfig) -> Iterator[Check]:
    """Look at everything, the cheap things first."""
    from flows.doctor.cluster import look_at_prefect, look_at_ray
    from flows.doctor.machine import look_at_machine
    from flows.doctor.storage import look_at_image, look_at_storage

    yield from look_at_machine(config)
    if config.out is not None:
        yield from look_at_storage(config.out)
    if config.image is not None:
        yield from look_at_image(config)
    yield from look_at_prefect()
    if config.ray_address is not None:
        yield from look_at_ray(config.ray_address, config.out, config.image)
