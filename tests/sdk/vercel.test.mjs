// The Vercel AI SDK with its OpenAI provider: chat completions and Responses.
import assert from "node:assert/strict";
import { test } from "node:test";
import { createOpenAI } from "@ai-sdk/openai";
import { generateText, streamText } from "ai";
import { closed } from "./ledger.mjs";

const model = "mock-small?input=1003&cached=401&output=307&reasoning=101";
const charge = String(602 * 1_000_000 + 401 * 100_000 + 307 * 5_000_000);
const said = "The quick brown fox jumps over the lazy dog. ".repeat(3).slice(0, 8 * 12);

let requestId;
const openai = createOpenAI({
  baseURL: `${process.env.TOLLGATE_URL}/v1`,
  apiKey: "none",
  fetch: async (...request) => {
    const response = await fetch(...request);
    requestId = response.headers.get("x-gateway-request-id");
    return response;
  },
});

async function paid(usage) {
  assert.deepEqual([usage.inputTokens, usage.outputTokens], [1003, 307]);
  const entry = await closed(requestId);
  assert.deepEqual([entry.usage.total, entry.usage.source, entry.close.outcome], [charge, "reported", "ok"]);
}

for (const [name, at] of [["chat", openai.chat(model)], ["responses", openai.responses(model)]]) {
  test(`${name}, whole`, async () => {
    const { text, usage } = await generateText({ model: at, prompt: "Hello", maxRetries: 0 });
    assert.equal(text, said);
    await paid(usage);
  });

  test(`${name}, streamed`, async () => {
    const result = streamText({ model: at, prompt: "Hello", maxRetries: 0 });
    let text = "";
    for await (const part of result.textStream) text += part;
    assert.equal(text, said);
    await paid(await result.usage);
  });
}
