"""All settings there are, for those who say which names in `.env` are none."""

from __future__ import annotations

from pydantic_settings import BaseSettings

from fetcher.service.settings import ServiceSettings
from fetcher.settings import Settings
from fetcher.sources import registry
from fetcher.texts.settings import TextSettings


def all_settings() -> list[type[BaseSettings]]:
    """Every model of settings: of mirrors, of texts, of the service, and of each source."""
    return [Settings, TextSettings, ServiceSettings, *(kind.Options for kind in registry().values())]
