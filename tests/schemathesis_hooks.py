"""What schemathesis is told about the service beyond its description."""

from __future__ import annotations

import uuid
from typing import Any

import schemathesis


@schemathesis.hook
def before_call(_context: Any, case: Any, _kwargs: Any) -> None:
    """Let no request have the Idempotency-Key of another: that is refused, though each by itself is good."""
    for name, value in dict(case.headers or {}).items():
        if name.lower() == "idempotency-key" and isinstance(value, str) and 1 <= len(value) <= 255:
            case.headers[name] = f"{value[:219]}{uuid.uuid4()}"
