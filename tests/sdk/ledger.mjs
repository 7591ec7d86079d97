// Reads what the gateway wrote down of a request.
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

const { TOLLGATE_LEDGER } = process.env;

// The records of a request's attempts, by their kind.
export function entries(requestId) {
  const byId = {};
  for (const name of readdirSync(TOLLGATE_LEDGER)) {
    for (const line of readFileSync(join(TOLLGATE_LEDGER, name), "utf8").split("\n").slice(0, -1)) {
      const record = JSON.parse(line);
      (byId[record.id] ??= {})[record.record] = record;
    }
  }
  return Object.values(byId).filter((entry) => entry.open?.request_id === requestId);
}

// The one entry of a request, once it is closed.
export async function closed(requestId) {
  const until = Date.now() + 5_000;
  for (;;) {
    const found = entries(requestId);
    if (found.length > 0 && found.every((entry) => entry.close)) {
      assert.equal(found.length, 1);
      return found[0];
    }
    assert.ok(Date.now() < until, `the entry of request ${requestId} was not written`);
    await sleep(10);
  }
}
