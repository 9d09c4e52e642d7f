"""Asks the public validator of STAC APIs (stac-api-validator) about the simulated one, in each dialect it can follow.

Run it from anywhere: .venv/bin/python scripts/validate_stac.py

It needs the extra `stac-validator` (130 MB, so that no other extra has it), and no network: the JSON schemas of STAC
come with pystac. Those of extensions do not; it says which they were. Exit code 1 when the validator found an error, 2
when it is not there.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fetcher.simulator import Dialect, Simulator, StacWorld

CLASSES = ("core", "collections", "features", "item-search", "item-search#filter", "features#filter")
NOT_FOLLOWED = {
    "get-token": "it wants a POST to be followed by a POST",
    "get-headers": "it sends no headers of links",
}
STYLES = ("post-body", "post-token", "post-merge", "offset", "skip")
EVERYWHERE = {"type": "Polygon", "coordinates": [[[-180, -90], [180, -90], [180, 90], [-180, 90], [-180, -90]]]}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--next", choices=STYLES, action="append", help="only this style of next links")
    options = parser.parse_args()
    try:
        import stac_api_validator.validations as validator
    except ImportError:
        print("The validator is not installed: .venv/bin/python -m pip install -e '.[stac-validator]'", file=sys.stderr)
        return 2
    logging.disable(logging.WARNING)
    missing = keep_off_the_network()
    failed = False
    for style in options.next or STYLES:
        world = StacWorld(items=600)
        with Simulator(world, dialect=Dialect(next=style)) as api:
            warnings, errors = validator.validate_api(
                root_url=api.url,
                ccs_to_validate=list(CLASSES),
                collection=world.collections[0],
                geometry=json.dumps(EVERYWHERE),
                auth_bearer_token=None,
                auth_query_parameter=None,
                fields_nested_property=None,
                validate_pagination=True,
                query_config=validator.QueryConfig(*[None] * 13),
                transaction_collection=None,
                headers=None,
                open_assets_urls=False,
            )
            found = list(errors)
            print(f"{style}: {len(found)} errors after {api.requests.total()} requests about {', '.join(CLASSES)}")
            for each in found:
                print(f"  {each}")
            for each in dict.fromkeys(warnings):
                print(f"  warning: {each}")
            failed = failed or bool(found)
    for style, why in NOT_FOLLOWED.items():
        print(f"{style}: not asked about, {why}")
    print(f"Schemas that nothing was checked by, since they are on the network: {', '.join(sorted(missing)) or 'none'}")
    return 1 if failed else 0


def keep_off_the_network() -> set[str]:
    """Let the validators read the schemas that came with pystac; the set fills with those that did not."""
    import stac_validator.fast_validator
    import stac_validator.utilities
    from pystac.validation.local_validator import get_local_schema_cache

    known: Mapping[str, Any] = get_local_schema_cache()
    missing: set[str] = set()

    def read(uri: str, *_: Any) -> Any:
        address = str(uri).partition("#")[0]
        if address not in known:
            missing.add(address)
        return known.get(address, {})

    stac_validator.utilities.fetch_and_parse_schema = read
    stac_validator.fast_validator.fetch_schema = read
    return missing


if __name__ == "__main__":
    sys.exit(main())
