"""The page that people look at: made by the server, kept up to date by a little JavaScript, whole without it."""

from fetcher.service.page.routes import add_page

__all__ = ["add_page"]
