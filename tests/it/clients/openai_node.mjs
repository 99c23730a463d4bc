// What a user of OpenAI's client for Node does, with nothing changed but the address.
import OpenAI from "openai";

const client = new OpenAI({
  baseURL: `${process.env.LEDGER_ADDRESS}/v1`,
  apiKey: "sk-of-the-caller",
});
const tools = [
  {
    type: "function",
    function: {
      name: "get_weather",
      description: "Weather of a city",
      parameters: {
        type: "object",
        properties: { city: { type: "string", description: "Name of the city" } },
        required: ["city"],
        additionalProperties: false,
      },
      strict: true,
    },
  },
];
const asked = {
  model: "teacher-1",
  messages: [
    { role: "system", content: "Answer by the tool." },
    { role: "user", content: "the weather, says the bittern?" },
  ],
  tools,
  tool_choice: "auto",
};

const models = [];
for await (const model of client.models.list()) models.push(model.id);

const whole = await client.chat.completions.create(asked);
const message = whole.choices[0].message;
const plain = {
  id: whole.id,
  finish_reason: whole.choices[0].finish_reason,
  calls: (message.tool_calls ?? []).map((call) => ({
    id: call.id,
    name: call.function.name,
    arguments: call.function.arguments,
  })),
  usage: whole.usage,
};

const streamed = { id: null, text: "", finish_reason: null, calls: [], usage: null, chunks: 0 };
const stream = await client.chat.completions.create({
  ...asked,
  stream: true,
  stream_options: { include_usage: true },
});
for await (const chunk of stream) {
  streamed.id = chunk.id;
  streamed.chunks += 1;
  if (chunk.usage) streamed.usage = chunk.usage;
  for (const choice of chunk.choices) {
    streamed.text += choice.delta.content ?? "";
    streamed.finish_reason = choice.finish_reason ?? streamed.finish_reason;
    for (const delta of choice.delta.tool_calls ?? []) {
      // Only the first piece of a call has its id and name; arguments come in turns.
      const call = (streamed.calls[delta.index] ??= { id: null, name: null, arguments: "" });
      call.id ??= delta.id ?? null;
      call.name ??= delta.function?.name ?? null;
      call.arguments += delta.function?.arguments ?? "";
    }
  }
}
console.log(JSON.stringify({ models, plain, streamed }));
