"""What a user of Langfuse's SDK for Python does, with nothing changed but the address."""

import json
import os

os.environ["LANGFUSE_BASE_URL"] = os.environ["LEDGER_ADDRESS"]
os.environ["LANGFUSE_PUBLIC_KEY"] = "pk-lf-test"
os.environ["LANGFUSE_SECRET_KEY"] = "sk-lf-test"

from langfuse import get_client, propagate_attributes  # noqa: E402 (reads the environment)

langfuse = get_client()
tools = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Weather of a city",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}},
                "required": ["city"],
            },
        },
    }
]
messages = [
    {"role": "system", "content": "Answer by the tool."},
    {"role": "user", "content": "the weather in Oslo, says the plover?"},
]
call = {
    "id": "c1",
    "type": "function",
    "function": {"name": "get_weather", "arguments": json.dumps({"city": "Oslo"})},
}
found = {"degrees": 7, "sky": "drizzle"}
ids = {}

with langfuse.start_as_current_observation(name="weather-desk", as_type="span") as root:
    ids["root"] = root.id
    with propagate_attributes(
        user_id="ann@example.org",
        session_id="session-plover",
        tags=["sdk"],
        metadata={"desk": "north"},
    ):
        with langfuse.start_as_current_observation(
            name="first-answer",
            as_type="generation",
            model="teacher-1",
            model_parameters={"temperature": 0.0, "max_tokens": 64},
            input={"messages": messages, "tools": tools},
        ) as generation:
            ids["first"] = generation.id
            asked = {"role": "assistant", "content": None, "tool_calls": [call]}
            generation.update(
                output=asked,
                usage_details={"input": 9, "output": 4, "total": 13},
                cost_details={"input": 0.0009, "output": 0.0008},
            )
        with langfuse.start_as_current_observation(
            name="get_weather", as_type="tool", input={"city": "Oslo"}
        ) as tool:
            ids["tool"] = tool.id
            tool.update(output=found)
        result = {"role": "tool", "tool_call_id": "c1", "content": json.dumps(found)}
        with langfuse.start_as_current_observation(
            name="second-answer",
            as_type="generation",
            model="teacher-1",
            input=[*messages, asked, result],
        ) as generation:
            ids["second"] = generation.id
            generation.update(
                output={"role": "assistant", "content": "Seven degrees and drizzle."},
                usage_details={"input": 21, "output": 6, "total": 27},
            )
    root.update(output="Seven degrees and drizzle.")
    trace_id = root.trace_id

langfuse.flush()
langfuse.shutdown()
print(json.dumps({"trace_id": trace_id, "spans": ids}))
