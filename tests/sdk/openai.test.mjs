import assert from "node:assert/strict";
import { after, test } from "node:test";
import OpenAI from "openai";
import { closed, entries } from "./ledger.mjs";

const { TOLLGATE_URL } = process.env;
const model = "mock-small";
const messages = [{ role: "user", content: "Hello" }];
// Numbers that no default yields, what they come to by dimension, and at the mock's prices in pico-dollars.
const mock = { input: 1003, cached: 401, output: 307, reasoning: 101 };
const used = { input: 602, cache_read: 401, output: 206, reasoning: 101 };
const usedChat = { ...used, audio_in: 0, audio_out: 0 };
const charge = String(602 * 1_000_000 + 401 * 100_000 + 307 * 5_000_000);
const said = "The quick brown fox jumps over the lazy dog. ".repeat(3).slice(0, 8 * 12);

// Requests that were answered and whose bill nobody has looked at.
const unchecked = [];
const client = new OpenAI({
  baseURL: `${TOLLGATE_URL}/v1`,
  apiKey: "none",
  maxRetries: 0,
  timeout: 20_000,
  fetch: async (...request) => {
    const response = await fetch(...request);
    unchecked.push(response.headers.get("x-gateway-request-id"));
    return response;
  },
});

after(() => assert.deepEqual(unchecked, [], "there are requests whose bill was not checked"));

// The entry of the only request made, once it is closed.
async function entry() {
  assert.equal(unchecked.length, 1);
  const requestId = unchecked.pop();
  return closed(requestId);
}

async function paid(usage, total) {
  const { usage: bill, close } = await entry();
  assert.deepEqual([close.outcome, close.status, close.metered, bill.source], ["ok", 200, true, "reported"]);
  assert.equal(bill.lines.length, 1);
  assert.deepEqual(bill.lines[0].usage, usage);
  assert.deepEqual([bill.lines[0].charge, bill.total], [total, total]);
}

async function collect(stream, on = () => {}) {
  const items = [];
  for await (const item of stream) {
    items.push(item);
    on(item);
  }
  return items;
}

const textOf = (chunks) => chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "").join("");

test("chat", async () => {
  const answer = await client.chat.completions.create({ model, messages, mock });
  assert.equal(answer.choices[0].message.content, said);
  assert.deepEqual([answer.usage.prompt_tokens, answer.usage.completion_tokens], [1003, 307]);
  await paid(usedChat, charge);
});

test("a chat stream hides the usage that was not asked for", async () => {
  const chunks = await collect(await client.chat.completions.create({ model, messages, stream: true, mock }));
  assert.ok(chunks.every((chunk) => chunk.usage == null && chunk.choices.length === 1));
  assert.equal(textOf(chunks), said);
  assert.equal(chunks.at(-1).choices[0].finish_reason, "stop");
  await paid(usedChat, charge);
});

test("a chat stream shows the usage that was asked for", async () => {
  const asked = { model, messages, stream: true, stream_options: { include_usage: true }, mock };
  const chunks = await collect(await client.chat.completions.create(asked));
  const last = chunks.pop();
  assert.ok(chunks.every((chunk) => chunk.usage == null && chunk.choices.length === 1));
  assert.equal(textOf(chunks), said);
  assert.deepEqual([last.choices, last.usage.prompt_tokens, last.usage.completion_tokens], [[], 1003, 307]);
  await paid(usedChat, charge);
});

test("a responses stream", async () => {
  const events = await collect(await client.responses.create({ model, input: "Hello", stream: true, mock }));
  assert.equal(events[0].type, "response.created");
  const deltas = events.filter((event) => event.type === "response.output_text.delta");
  assert.equal(deltas.map((event) => event.delta).join(""), said);
  const last = events.at(-1);
  assert.equal(last.type, "response.completed");
  assert.deepEqual([last.response.usage.input_tokens, last.response.usage.output_tokens], [1003, 307]);
  await paid(used, charge);
});

test("embeddings", async () => {
  const answer = await client.embeddings.create({ model, input: ["a", "b"], mock: { input: 90 } });
  assert.deepEqual(answer.data.map((item) => Array.from(item.embedding)), Array(2).fill(Array(8).fill(0.5)));
  assert.equal(answer.usage.prompt_tokens, 90);
  await paid({ input: 90 }, String(90 * 1_000_000));
});

test("an unknown model", async () => {
  const asked = client.chat.completions.create({ model: "nobody-knows", messages });
  await assert.rejects(asked, (error) => error instanceof OpenAI.NotFoundError && error.code === "model_not_found");
  assert.deepEqual(entries(unchecked.pop()), []);
});

test("an error of the provider", async () => {
  const asked = client.chat.completions.create({ model, messages, mock: { error: 429 } });
  await assert.rejects(asked, (error) => error instanceof OpenAI.RateLimitError && error.code === "mock_error");
  const { usage, close } = await entry();
  assert.deepEqual([usage, close.outcome, close.status], [undefined, "upstream_error", 429]);
});

test("an error within a stream", async () => {
  const stream = await client.chat.completions.create({ model, messages, stream: true, mock: { error_after: 2 } });
  let seen = "";
  await assert.rejects(collect(stream, (chunk) => (seen += textOf([chunk]))), (error) => error instanceof OpenAI.APIError);
  const { usage, close } = await entry();
  assert.deepEqual([usage.source, close.outcome, close.error], ["estimated", "upstream_error", "mock_error"]);
  assert.equal(usage.lines[0].usage.output, Math.ceil(seen.length / 4));
});

test("a stream that is cut does not end well", async () => {
  const stream = await client.chat.completions.create({ model, messages, stream: true, mock: { cut_after: 3 } });
  let seen = "";
  await assert.rejects(collect(stream, (chunk) => (seen += textOf([chunk]))), TypeError);
  const { usage, close } = await entry();
  assert.deepEqual([usage.source, close.outcome], ["estimated", "truncated"]);
  assert.equal(usage.lines[0].usage.output, Math.ceil(seen.length / 4));
});
