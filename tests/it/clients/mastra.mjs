// What a user of Mastra does: an agent whose model is at an address, a tool, and spans sent to a
// collector. Nothing is ours but the two addresses.
import { Agent } from "@mastra/core/agent";
import { Mastra } from "@mastra/core/mastra";
import { createTool } from "@mastra/core/tools";
import { Observability } from "@mastra/observability";
import { OtelExporter } from "@mastra/otel-exporter";
import { z } from "zod";

const address = process.env.LEDGER_ADDRESS;
const ran = [];
const weather = createTool({
  id: "get_weather",
  description: "Weather of a city",
  inputSchema: z.object({ city: z.string().describe("Name of the city") }),
  outputSchema: z.object({ degrees: z.number(), sky: z.string() }),
  execute: async ({ city }) => {
    ran.push(city);
    return { degrees: 7, sky: "drizzle" };
  },
});
const agent = new Agent({
  id: "weather-desk",
  name: "weather-desk",
  instructions: "Answer by the tool.",
  model: { id: "custom/teacher-1", url: `${address}/v1`, apiKey: "sk-of-the-caller" },
  tools: { get_weather: weather },
});
const exporter = new OtelExporter({
  provider: {
    custom: { endpoint: `${address}/v1/traces`, protocol: "http/protobuf", headers: {} },
  },
  signals: { logs: false },
});
const mastra = new Mastra({
  agents: { desk: agent },
  observability: new Observability({
    configs: { otel: { serviceName: "weather-desk", exporters: [exporter] } },
  }),
  logger: false,
});

const desk = mastra.getAgent("desk");
const options = { maxSteps: 3 };
const whole = await desk.generate("the weather in Oslo, says the curlew?", options);
const stream = await desk.stream("and once more, says the curlew?", options);
let streamed = "";
for await (const piece of stream.textStream) streamed += piece;
const report = {
  text: whole.text,
  streamed,
  ran,
  usage: whole.totalUsage ?? whole.usage,
  trace_id: whole.traceId,
  streamed_trace_id: stream.traceId,
};
// Spans leave in batches: the last must be out before the process ends.
await mastra.shutdown();
console.log(JSON.stringify(report));
