"""Ingestion as a service: ids are submitted, and worked off by priority; a restart loses none."""

from fetcher.service.service import HIGHEST_ID, MOST_IDS, Service
from fetcher.service.settings import ServiceSettings
from fetcher.stores.jobs import IdempotencyConflict, Job, JobBatch, JobFailure, Retrying

__all__ = [
    "HIGHEST_ID",
    "MOST_IDS",
    "IdempotencyConflict",
    "Job",
    "JobBatch",
    "JobFailure",
    "Retrying",
    "Service",
    "ServiceSettings",
]
