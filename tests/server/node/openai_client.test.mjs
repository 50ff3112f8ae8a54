// OpenAI's client for Node against a server of the demo, and one whose chat template takes tools.
import assert from "node:assert/strict";
import { test } from "node:test";

import OpenAI, { APIUserAbortError, AuthenticationError, BadRequestError, NotFoundError } from "openai";

const { DEMO_URL, TOOLS_URL, TOOLS_KEY } = process.env;
const client = new OpenAI({ baseURL: DEMO_URL, apiKey: "any", maxRetries: 0 });
const guarded = new OpenAI({ baseURL: TOOLS_URL, apiKey: TOOLS_KEY, maxRetries: 0 });
const prompt = "An increasing sequence: six,";
const messages = [{ role: "user", content: "An increasing sequence: one," }];

test("models are the base model and its adapters", async () => {
  const found = [];
  for await (const model of client.models.list()) found.push(model);
  assert.equal(found[0].id, "demo");
  for (const name of ["A1", "A2", "A3"]) {
    const listed = found.find((model) => model.id === name);
    assert.equal(listed.parent, "demo");
    assert.deepEqual(await client.models.retrieve(name), listed);
  }
});

test("a completion, of the base model and of an adapter", async () => {
  const base = await client.completions.create({ model: "demo", prompt, max_tokens: 8 });
  const adapter = await client.completions.create({ model: "A1", prompt, max_tokens: 8 });
  assert.match(base.choices[0].text, /seven/);
  assert.match(adapter.choices[0].text, /七/);
  assert.equal(adapter.model, "A1");
  assert.equal(adapter.usage.total_tokens, adapter.usage.prompt_tokens + 8);
});

test("a stream of a completion is the whole one", async () => {
  const asked = { model: "A1", prompt, max_tokens: 12, logprobs: 2 };
  const whole = await client.completions.create(asked);
  const stream = await client.completions.create({ ...asked, stream: true, stream_options: { include_usage: true } });
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  const usage = chunks.pop().usage;
  const joined = (take) => chunks.flatMap((chunk) => take(chunk.choices[0]));
  assert.equal(joined((choice) => choice.text).join(""), whole.choices[0].text);
  for (const name of ["tokens", "token_logprobs", "top_logprobs", "text_offset"]) {
    assert.deepEqual(joined((choice) => choice.logprobs?.[name] ?? []), whole.choices[0].logprobs[name]);
  }
  assert.equal(usage.total_tokens, whole.usage.total_tokens);
});

test("a chat, whole and as the helper for streams gathers it", async () => {
  const asked = { model: "A3", messages, max_tokens: 8 };
  const whole = await client.chat.completions.create(asked);
  assert.match(whole.choices[0].message.content, /II/);
  let deltas = "";
  const stream = client.chat.completions.stream(asked).on("content", (delta) => (deltas += delta));
  const gathered = await stream.finalChatCompletion();
  assert.equal(deltas, whole.choices[0].message.content);
  assert.deepEqual(gathered.choices[0].message.content, whole.choices[0].message.content);
  assert.equal(gathered.choices[0].finish_reason, "length");
});

test("JSON follows its schema", async () => {
  const schema = {
    type: "object",
    properties: { number: { type: "integer" } },
    required: ["number"],
    additionalProperties: false,
  };
  const answer = await client.chat.completions.parse({
    model: "demo",
    messages,
    max_tokens: 40,
    response_format: { type: "json_schema", json_schema: { name: "count", schema, strict: true } },
  });
  assert.ok(Number.isInteger(answer.choices[0].message.parsed.number));
});

test("a function is called, and its result goes into the next message", async () => {
  const asked = [];
  const weather = {
    type: "function",
    function: {
      name: "weather",
      parse: JSON.parse,
      parameters: {
        type: "object",
        properties: { city: { enum: ["Berlin", "Paris"] } },
        required: ["city"],
        additionalProperties: false,
      },
      function: ({ city }) => {
        asked.push(city);
        return `sun in ${city}`;
      },
    },
  };
  const runner = guarded.chat.completions.runTools({
    model: "demo",
    messages: [{ role: "user", content: "Berlin is" }],
    tools: [weather],
    tool_choice: { type: "function", function: { name: "weather" } },
    max_tokens: 60,
  });
  await runner.done();
  assert.deepEqual(asked.length, 1);
  assert.ok(["Berlin", "Paris"].includes(asked[0]));
  assert.equal(runner.messages.at(-1).content, `sun in ${asked[0]}`);
});

test("errors have their classes", async () => {
  const good = { model: "demo", prompt, max_tokens: 1 };
  await assert.rejects(client.completions.create({ ...good, model: "demos" }), (error) => {
    assert.ok(error instanceof NotFoundError);
    assert.deepEqual([error.status, error.code], [404, "model_not_found"]);
    return true;
  });
  await assert.rejects(client.models.retrieve("nobody"), NotFoundError);
  await assert.rejects(client.completions.create({ ...good, temperature: -1, stream: true }), (error) => {
    assert.ok(error instanceof BadRequestError);
    assert.deepEqual([error.param, error.type], ["temperature", "invalid_request_error"]);
    return true;
  });
  await assert.rejects(client.completions.create({ ...good, max_tokens: 5000 }), { code: "context_length_exceeded" });
  const stranger = new OpenAI({ baseURL: TOOLS_URL, apiKey: "wrong", maxRetries: 0 });
  await assert.rejects(stranger.models.list(), (error) => {
    assert.ok(error instanceof AuthenticationError);
    assert.equal(error.code, "invalid_api_key");
    return true;
  });
});

test("a stream that is left ends quietly, and one that is aborted as asked", async () => {
  const asked = { model: "A1", prompt, max_tokens: 400, stream: true, ignore_eos: true };
  for await (const chunk of await client.completions.create(asked)) {
    assert.equal(chunk.object, "text_completion");
    break;
  }
  const controller = new AbortController();
  controller.abort();
  await assert.rejects(client.completions.create(asked, { signal: controller.signal }), APIUserAbortError);
});
