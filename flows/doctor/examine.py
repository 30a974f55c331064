"""Checks of a machine or a cluster before a run: one line each, with its remedy."""

from __future__ import annotations

from collections.abc import Iterator

from flows.doctor.checks import Check, DoctorConfig
from flows.lifecycle.environment import has_cluster


def examine(config: DoctorConfig) -> Iterator[Check]:
    """Look at everything, the cheap things first."""
    if config.archive is not None:
        from flows.doctor.nights import check_nights

        yield from check_nights(config.archive)
        if config.out is None and config.image is None and config.ray_address is None:
            return  # a clock asks for no more, and torch is loaded for none of it
    from flows.doctor.machine import check_machine
    from flows.doctor.storage import check_image, check_model, check_storage

    yield from check_machine(config)
    if config.out is not None:
        yield from check_storage(config.out)
    if config.image is not None:
        yield from check_image(config)
    elif "model" in config.model_fields_set:
        yield check_model(config.model)
    if not has_cluster():
        remedy = "pip install 'overtile[cluster]' for archives, verification and more than one process"
        yield Check.warning("cluster", "Ray and Prefect are not installed: runs are computed in one process", remedy)
        return
    from flows.doctor.cluster import check_prefect, check_ray

    yield from check_prefect()
    if config.ray_address is not None:
        yield from check_ray(config.ray_address, config.out, config.image)
