"""What a user of OpenTelemetry's SDK for Python does: spans as its conventions for generative AI
say, sent as protobuf, packed with gzip. The same batch is sent once more at the end, as exporters
do that heard no answer."""

import json
import os

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind


class Kept(SpanProcessor):
    """Keeps what ended, to send it again."""

    def __init__(self):
        self.spans = []

    def on_end(self, span):
        self.spans.append(span)


class Told:
    """Hands spans on to an exporter and keeps what it said."""

    def __init__(self, exporter):
        self.exporter = exporter
        self.said = []

    def export(self, spans):
        result = self.exporter.export(spans)
        self.said.append(result.name)
        return result

    def shutdown(self):
        self.exporter.shutdown()

    def force_flush(self, timeout_millis=30_000):
        return self.exporter.force_flush(timeout_millis)


def span_id(span):
    return format(span.get_span_context().span_id, "016x")


exporter = Told(
    OTLPSpanExporter(
        endpoint=f"{os.environ['LEDGER_ADDRESS']}/v1/traces", compression=Compression.Gzip
    )
)
kept = Kept()
provider = TracerProvider(resource=Resource.create({"service.name": "weather-desk"}))
provider.add_span_processor(kept)
provider.add_span_processor(BatchSpanProcessor(exporter))
trace.set_tracer_provider(provider)
tracer = trace.get_tracer("weather-desk", "1.2.3")

asked = [
    {"role": "user", "parts": [{"type": "text", "content": "the weather, says the dunlin?"}]},
]
called = [
    {
        "role": "assistant",
        "parts": [
            {"type": "text", "content": "Let me see."},
            {
                "type": "tool_call",
                "id": "c1",
                "name": "get_weather",
                "arguments": {"city": "Oslo"},
            },
        ],
        "finish_reason": "tool_call",
    }
]
tools = [
    {
        "type": "function",
        "name": "get_weather",
        "description": "Weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    }
]
system = [{"type": "text", "content": "Answer by the tool."}]
of_agent = {
    "gen_ai.operation.name": "invoke_agent",
    "gen_ai.provider.name": "openai",
    "gen_ai.agent.name": "weather-desk",
    "gen_ai.agent.id": "agent-1",
    "gen_ai.conversation.id": "session-dunlin",
}
of_chat = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "openai",
    "gen_ai.request.model": "teacher-1",
    "gen_ai.request.temperature": 0.0,
    "gen_ai.request.max_tokens": 64,
    "gen_ai.response.model": "teacher-1-2026",
    "gen_ai.response.id": "chatcmpl-dunlin",
    "gen_ai.response.finish_reasons": ["tool_call"],
    "gen_ai.usage.input_tokens": 9,
    "gen_ai.usage.output_tokens": 4,
    "gen_ai.conversation.id": "session-dunlin",
    "gen_ai.system_instructions": json.dumps(system),
    "gen_ai.input.messages": json.dumps(asked),
    "gen_ai.output.messages": json.dumps(called),
    "gen_ai.tool.definitions": json.dumps(tools),
}
of_tool = {
    "gen_ai.operation.name": "execute_tool",
    "gen_ai.tool.name": "get_weather",
    "gen_ai.tool.type": "function",
    "gen_ai.tool.call.id": "c1",
    "gen_ai.tool.call.arguments": json.dumps({"city": "Oslo"}),
    "gen_ai.tool.call.result": json.dumps({"degrees": 7, "sky": "drizzle"}),
}

begin = tracer.start_as_current_span
ids = {}
with begin("invoke_agent weather-desk", attributes=of_agent) as agent:
    ids["agent"] = span_id(agent)
    trace_id = format(agent.get_span_context().trace_id, "032x")
    with begin("chat teacher-1", kind=SpanKind.CLIENT, attributes=of_chat) as chat:
        ids["chat"] = span_id(chat)
    with begin("execute_tool get_weather", attributes=of_tool) as tool:
        ids["tool"] = span_id(tool)

flushed = provider.force_flush()
exporter.export(kept.spans)
print(
    json.dumps(
        {"trace_id": trace_id, "spans": ids, "flushed": flushed, "exported": exporter.said}
    )
)
provider.shutdown()
