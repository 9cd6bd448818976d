"""The contract of a verifier as JSON Schema: `python -m chorus.deploy.tools.verifier_schema` writes it into docs/."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict
from pydantic.json_schema import models_json_schema

from chorus.protocol.messages import Grade
from chorus.reward_server.api.schemas import BatchRequest

FILE = Path(__file__).resolve().parents[2] / "docs" / "verifier.schema.json"


class BatchAnswer(BaseModel):
    """What the generators read of an answer; further fields are passed over."""

    model_config = ConfigDict(extra="allow")

    results: list[Grade]


def schema() -> dict[str, Any]:
    """Request and answer of POST /v1/grade/batch, under `$defs`."""
    _, whole = models_json_schema([(BatchRequest, "validation"), (BatchAnswer, "validation")])
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "POST /v1/grade/batch", **whole}


def main() -> None:
    FILE.write_text(json.dumps(schema(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
