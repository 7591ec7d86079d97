// Reads the admin API and draws it. What comes from requests (names of models, keys, users) is only ever set as text.
"use strict";

const REFRESH_MS = 15_000;
const $ = (id) => document.getElementById(id);
const graphs = {};
let shown = null;
let timer = null;

const number = new Intl.NumberFormat("en");
const short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });

// Dollars as the gateway wrote them, with as many digits as matter.
function dollars(text) {
  const value = Number(text);
  if (value === 0) return "0";
  return value >= 1 ? number.format(Math.round(value * 100) / 100) : String(Number(value.toPrecision(3)));
}

async function ask(path) {
  const token = sessionStorage.getItem("token");
  const answer = await fetch(path, { headers: token ? { authorization: `Bearer ${token}` } : {} });
  if (answer.status === 401) {
    $("login").hidden = false;
    throw new Error("an admin token is needed");
  }
  if (!answer.ok) throw new Error((await answer.text()).trim() || `status ${answer.status}`);
  return answer.json();
}

function element(name, text, kind) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

// A table: names of columns, then rows of texts or elements. Columns of `texts` hold words, those of `long` names of any length.
function table(id, columns, rows, texts = [0], long = []) {
  const head = element("thead");
  const names = element("tr");
  columns.forEach((name, at) => {
    const cell = element("th", name, texts.includes(at) ? "text" : "");
    cell.scope = "col";
    names.append(cell);
  });
  head.append(names);
  const body = element("tbody");
  for (const row of rows) {
    const line = element("tr");
    row.forEach((value, at) => {
      const cell = element(at === 0 ? "th" : "td", undefined, `${texts.includes(at) ? "text" : ""} ${long.includes(at) ? "long" : ""}`);
      if (at === 0) cell.scope = "row";
      cell.append(value instanceof Node ? value : String(value ?? "–"));
      line.append(cell);
    });
    body.append(line);
  }
  if (rows.length === 0) {
    const cell = element("td", "nothing", "text");
    cell.colSpan = columns.length;
    const line = element("tr");
    line.append(cell);
    body.append(line);
  }
  $(id).replaceChildren(head, body);
}

const color = (at) => getComputedStyle(document.documentElement).getPropertyValue(`--${at}`).trim();

// Groups upon each other: each band reaches from the sum below it to its own.
function stack(groups, what) {
  const sums = [];
  let below = groups[0] ? groups[0][what].map(() => 0) : [];
  for (const group of groups) {
    below = below.map((sum, at) => sum + group[what][at]);
    sums.push(below);
  }
  return sums;
}

function draw(id, overview, what, format) {
  const holder = $(id);
  graphs[id]?.destroy();
  holder.replaceChildren();
  const groups = overview.groups;
  holder.setAttribute("aria-description", groups.map((group) => `${group.name}: ${format(group[what].reduce((a, b) => a + b, 0))}`).join("; "));
  // The top one first, so that those below lie over it.
  const sums = stack(groups, what).reverse();
  const order = groups.map((_, at) => at).reverse();
  const axis = { stroke: color("faint"), grid: { stroke: color("line"), width: 1 }, ticks: { show: false }, font: "12px system-ui" };
  const series = order.map((at) => ({
    label: groups[at].name,
    stroke: color("surface"),
    width: 1,
    fill: color(`g${Math.min(at, 7)}`),
    points: { show: false },
    paths: uPlot.paths.bars({ size: [0.9, 40] }),
    value: (_, __, ___, index) => (index == null ? "" : format(groups[at][what][index])),
  }));
  graphs[id] = new uPlot(
    {
      width: holder.clientWidth,
      height: 240,
      scales: { x: { time: true }, y: { range: (_, __, max) => [0, max > 0 ? max * 1.05 : 1] } },
      axes: [axis, { ...axis, size: 60, values: (_, values) => values.map(format) }],
      series: [{ label: "time" }, ...series],
      cursor: { drag: { x: false, y: false } },
      legend: { live: true },
    },
    [overview.times_s, ...sums],
    holder,
  );
}

function show(overview) {
  shown = overview;
  const total = overview.total;
  const share = total.requests ? `${((100 * total.errors) / total.requests).toFixed(1)} %` : "0 %";
  const tiles = [
    ["Spend ($)", dollars(total.usd), total.usd],
    ["Requests", number.format(total.requests)],
    ["Errors", share],
    ["Input tokens", short.format(total.input), number.format(total.input)],
    ["From caches", total.input ? `${Math.round((100 * total.cached) / total.input)} %` : "0 %"],
    ["Output tokens", short.format(total.output), number.format(total.output)],
    ["Estimated", number.format(total.estimated)],
  ];
  $("total").replaceChildren(
    ...tiles.map(([name, value, title]) => {
      const tile = element("div");
      const definition = element("dd", value);
      definition.title = title ?? "";
      definition.dataset.name = name;
      tile.append(element("dt", name), definition);
      return tile;
    }),
  );
  draw("usd", overview, "usd", (value) => dollars(value));
  draw("tokens", overview, "tokens", (value) => short.format(value));
  draw("requests", overview, "requests", (value) => short.format(value));
  const latency = overview.latency;
  const times = (name, values) => [name, ...["p50", "p90", "p99"].map((rank) => (values[rank] == null ? "–" : number.format(values[rank])))];
  table("latency", ["", "p50", "p90", "p99"], [times("to the first byte", latency.first_byte_ms), times("whole", latency.duration_ms)]);
  table("outcomes", ["outcome", "requests"], Object.entries(overview.outcomes).map(([name, count]) => [name, number.format(count)]));
  const requests = (list) =>
    list.map((each) => [
      new Date(each.start_ms).toISOString().slice(0, 19).replace("T", " "),
      each.model, each.provider, each.key ?? "–", each.outcome,
      each.duration_ms == null ? "–" : number.format(each.duration_ms), number.format(each.tokens), each.usd, each.request_id,
    ]);
  const columns = ["started (UTC)", "model", "provider", "key", "outcome", "ms", "tokens", "$", "request"];
  table("dearest", columns, requests(overview.dearest), [0, 1, 2, 3, 4, 8], [1]);
  table("slowest", columns, requests(overview.slowest), [0, 1, 2, 3, 4, 8], [1]);
  table(
    "doubtful",
    ["model", "provider", "unpriced", "estimated", "without usage"],
    overview.doubtful.map((each) => [each.model, each.provider, each.unpriced, each.estimated, each.unmetered]),
    [0, 1],
    [0],
  );
}

function bill(by, rows, overview) {
  const place = new Map(overview.groups.map((group, at) => [group.name, Math.min(at, 7)]));
  const list = [...rows].sort((a, b) => Number(b.usd) - Number(a.usd) || b.requests - a.requests);
  table(
    "groups",
    [by, "requests", "input", "cached", "output", "unpriced", "estimated", "$"],
    list.map((row) => {
      const name = element("span");
      const at = place.get(row[by]) ?? 7;
      name.append(element("span", "", `dot g${at}`), row[by]);
      return [name, ...["requests", "input", "cached", "output", "unpriced", "estimated"].map((field) => number.format(row[field])), row.usd];
    }),
    [0],
    [0],
  );
}

function health(status) {
  $("version").textContent = status.version;
  const word = (good, text) => element("span", text, good ? "good" : "bad");
  const ledger = status.ledger;
  const rows = [
    ["requests being served", number.format(status.in_flight)],
    ["read on after their callers left", number.format(status.draining)],
    ["ledger", word(!ledger.failing && ledger.lost === 0, ledger.failing ? `cannot be written, ${number.format(ledger.waiting_bytes)} bytes wait` : ledger.lost ? `${ledger.lost} records lost` : "written")],
    ["configuration", word(status.config_holds, status.config_holds ? "holds" : "the last change was refused")],
    ...status.sinks.map((sink) => [`sink ${sink.name}`, word(sink.lag_bytes < 1e7, `${number.format(sink.entries)} entries, ${number.format(sink.lag_bytes)} bytes behind, ${sink.failures} failures`)]),
  ];
  table("health", ["", ""], rows);
}

async function refresh() {
  clearTimeout(timer);
  const [since, by] = [$("since").value, $("by").value];
  try {
    const asked = `since=${since}&by=${by}`;
    const [overview, rows, status] = await Promise.all([ask(`/overview?${asked}`), ask(`/usage?${asked}`), ask("/status")]);
    $("login").hidden = true;
    show(overview);
    bill(by, rows, overview);
    health(status);
    $("state").textContent = `as of ${new Date().toLocaleTimeString()}`;
    $("state").className = "";
    document.body.dataset.shown = "yes";
  } catch (error) {
    $("state").textContent = `not up to date: ${error.message}`;
    $("state").className = "bad";
  }
  timer = setTimeout(refresh, REFRESH_MS);
}

$("controls").addEventListener("change", refresh);
$("login").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("token", $("token").value);
  refresh();
});
const redraw = () => shown && show(shown);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
let resizing = null;
addEventListener("resize", () => {
  clearTimeout(resizing);
  resizing = setTimeout(redraw, 150);
});
refresh();
