// The AWS SDK for JavaScript, against Converse and InvokeModel.
import assert from "node:assert/strict";
import { test } from "node:test";
import {
  BedrockRuntimeClient,
  ConverseCommand,
  ConverseStreamCommand,
  InvokeModelCommand,
  InvokeModelWithResponseStreamCommand,
} from "@aws-sdk/client-bedrock-runtime";
import { closed } from "./ledger.mjs";

const modelId = "mock-small?input=1003&cached=401&output=307&reasoning=101";
const messages = [{ role: "user", content: [{ text: "Hello" }] }];
const used = { input: 602, cache_read: 401, cache_write_5m: 0, output: 307 };
const charge = String(602 * 1_000_000 + 401 * 100_000 + 307 * 5_000_000);
const said = "The quick brown fox jumps over the lazy dog. ".repeat(3).slice(0, 8 * 12);

const client = new BedrockRuntimeClient({
  endpoint: process.env.TOLLGATE_URL,
  region: "us-east-1",
  credentials: { accessKeyId: "AKIDEXAMPLE", secretAccessKey: "none" },
  maxAttempts: 1,
});
// The SDK's own handlers hide the headers of an answer.
let requestId;
client.middlewareStack.add(
  (next) => async (request) => {
    const result = await next(request);
    requestId = result.response.headers["x-gateway-request-id"];
    return result;
  },
  { step: "deserialize", priority: "low" },
);

async function paid(usage = used) {
  const entry = await closed(requestId);
  const [line] = entry.usage.lines;
  assert.deepEqual([line.usage, line.charge, entry.close.outcome], [usage, charge, "ok"]);
}

test("converse", async () => {
  const answer = await client.send(new ConverseCommand({ modelId, messages }));
  assert.equal(answer.output.message.content[0].text, said);
  assert.equal(answer.usage.outputTokens, 307);
  await paid();
});

test("converse stream", async () => {
  const { stream } = await client.send(new ConverseStreamCommand({ modelId: `${modelId}&split=7`, messages }));
  let text = "";
  let usage;
  for await (const event of stream) {
    text += event.contentBlockDelta?.delta.text ?? "";
    usage = event.metadata?.usage ?? usage;
  }
  assert.deepEqual([text, usage.outputTokens], [said, 307]);
  await paid();
});

test("invoke", async () => {
  const body = JSON.stringify({ messages: [], max_tokens: 9 });
  const answer = await client.send(new InvokeModelCommand({ modelId, body }));
  const message = JSON.parse(new TextDecoder().decode(answer.body));
  assert.equal(message.content[0].text, said);
  await paid({ input: 602, cache_read: 401, cache_write_5m: 0, cache_write_1h: 0, output: 206, reasoning: 101 });
});

test("invoke stream", async () => {
  const body = JSON.stringify({ messages: [], max_tokens: 9 });
  const answer = await client.send(new InvokeModelWithResponseStreamCommand({ modelId, body }));
  let text = "";
  for await (const event of answer.body) {
    text += JSON.parse(new TextDecoder().decode(event.chunk.bytes)).delta?.text ?? "";
  }
  assert.equal(text, said);
  await paid({ input: 602, cache_read: 401, cache_write_5m: 0, cache_write_1h: 0, output: 206, reasoning: 101 });
});

test("errors and exceptions are AWS's own", async () => {
  await assert.rejects(client.send(new ConverseCommand({ modelId: "mock-small?error=429", messages })), {
    name: "ThrottlingException",
  });
  const { stream } = await client.send(new ConverseStreamCommand({ modelId: "mock-small?error_after=1", messages }));
  await assert.rejects(
    async () => {
      for await (const event of stream) assert.ok(event);
    },
    { name: "ModelStreamErrorException" },
  );
  assert.equal((await closed(requestId)).close.error, "modelStreamErrorException");
});
