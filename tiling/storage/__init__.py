"""Files on disks and in object stores: places, locks, whole writes."""
