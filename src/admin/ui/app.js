// Reads the admin API and draws it. What comes from requests (names of models, keys, users) is only ever set as text.
"use strict";

const REFRESH_MS = 15_000;
// Rows of the bill that are shown; all of them are in GET /usage.
const ROWS_MAX = 100;
const $ = (id) => document.getElementById(id);
const graphs = {};
let shown = null;
let timer = null;
let asked = 0;

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
    if ($("login").hidden) {
      $("login").hidden = false;
      $("token").focus();
    }
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
    const cell = element("th", undefined, texts.includes(at) ? "text" : "");
    cell.scope = "col";
    // A column that explains itself to the eye has a name all the same.
    cell.append(name.startsWith("~") ? element("span", name.slice(1), "unseen") : name);
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

const clock = (seconds) => new Date(seconds * 1000).toISOString().slice(0, 16).replace("T", " ");

// The numbers of a graph, for whom it shows nothing; made when they are asked for.
function values(id, overview, groups, what, format) {
  const details = $(`${id}-values`).closest("details");
  const fill = () => {
    if (!details.open) return;
    const rows = overview.times_s.map((at, index) => [clock(at), ...groups.map((group) => format(group[what][index]))]);
    table(`${id}-values`, ["from (UTC)", ...groups.map((group) => group.name)], rows.reverse());
  };
  details.ontoggle = fill;
  fill();
}

function draw(id, overview, groups, what, format) {
  const holder = $(id);
  graphs[id]?.destroy();
  holder.replaceChildren();
  values(id, overview, groups, what, format);
  holder.setAttribute("aria-description", groups.map((group) => `${group.name}: ${format(group[what].reduce((a, b) => a + b, 0))}`).join("; "));
  // The top one first, so that those below lie over it.
  const sums = stack(groups, what).reverse();
  const order = groups.map((_, at) => at).reverse();
  const axis = { stroke: color("faint"), grid: { stroke: color("line"), width: 1 }, ticks: { show: false }, font: "12px system-ui" };
  // Between bars of a few pixels a line would hide them.
  const apart = holder.clientWidth / overview.times_s.length >= 6;
  const series = order.map((at) => ({
    label: groups[at].name,
    stroke: color("surface"),
    width: apart ? 1 : 0,
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
  // It follows the mouse; the table below has it all.
  holder.querySelector(".u-legend").setAttribute("aria-hidden", "true");
}

const percent = (part, whole) => (whole ? `${((100 * part) / whole).toFixed(1)} %` : "0 %");

function show(overview) {
  shown = overview;
  const total = overview.total;
  const tiles = [
    ["Spend ($)", dollars(total.usd), total.usd],
    ["Attempts", number.format(total.requests)],
    ["Errors", percent(total.errors, total.requests)],
    ["Retries", percent(total.retries, total.requests)],
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
  draw("usd", overview, overview.groups, "usd", (value) => dollars(value));
  draw("tokens", overview, overview.groups, "tokens", (value) => short.format(value));
  draw("requests", overview, overview.groups, "requests", (value) => short.format(value));
  const troubles = ["errors", "retries"].map((name) => ({ name, count: overview[name] }));
  draw("troubles", overview, troubles, "count", (value) => short.format(value));
  const latency = overview.latency;
  const times = (name, values) => [name, ...["p50", "p90", "p99"].map((rank) => (values[rank] == null ? "–" : number.format(values[rank])))];
  table("latency", ["~what", "p50", "p90", "p99"], [times("to the first byte", latency.first_byte_ms), times("whole", latency.duration_ms)]);
  table("outcomes", ["outcome", "attempts"], Object.entries(overview.outcomes).map(([name, count]) => [name, number.format(count)]));
  const requests = (list) =>
    list.map((each) => [
      new Date(each.start_ms).toISOString().slice(0, 19).replace("T", " "),
      each.model, each.provider, each.key ?? "–", each.outcome,
      each.duration_ms == null ? "–" : number.format(each.duration_ms), number.format(each.tokens), each.usd, button(each.request_id, () => open(each.request_id)),
    ]);
  const columns = ["started (UTC)", "model", "provider", "key", "outcome", "ms", "tokens", "$", "request"];
  table("dearest", columns, requests(overview.dearest), [0, 1, 2, 3, 4, 8], [1]);
  table("slowest", columns, requests(overview.slowest), [0, 1, 2, 3, 4, 8], [1]);
  table(
    "doubtful",
    ["model", "provider", "unpriced", "estimated", "without usage", "marked"],
    overview.doubtful.map((each) => [each.model, each.provider, each.unpriced, each.estimated, each.unmetered, each.marked]),
    [0, 1],
    [0],
  );
}

function button(text, act) {
  const made = element("button", text, "link");
  made.type = "button";
  made.addEventListener("click", act);
  return made;
}

// What one request came to, as the API tells it.
async function open(id) {
  $("h-request").textContent = `Request ${id}`;
  try {
    $("entries").textContent = JSON.stringify((await ask(`/usage/requests/${id}`)).entries, null, 2);
  } catch (error) {
    $("entries").textContent = error.message;
  }
  $("request").showModal();
}

// What to look at next within a group.
const INSIDE = { org: "project", project: "user", provider: "model", key: "model", user: "model", tag: "model", model: "key" };

function bill(by, rows, overview) {
  const place = new Map(overview.groups.map((group, at) => [group.name, Math.min(at, 7)]));
  const list = [...rows].sort((a, b) => Number(b.usd) - Number(a.usd) || b.requests - a.requests);
  const counts = ["requests", "input", "cached", "output", "unpriced", "unmetered", "estimated", "incomplete"];
  const lines = list.slice(0, ROWS_MAX).map((row) => {
    const name = element("span");
    const at = place.get(row[by]) ?? 7;
    // What nobody named is no group to be asked for.
    const inside = row[by] === "-" ? row[by] : button(row[by], () => look({ ...view(), by: INSIDE[by], [by]: row[by] }));
    name.append(element("span", "", `dot g${at}`), inside);
    return [name, ...counts.map((field) => number.format(row[field])), row.usd];
  });
  if (list.length > ROWS_MAX) lines.push([`and others: GET /usage?by=${by}`]);
  table("groups", [by, "attempts", "input", "cached", "output", "unpriced", "without usage", "estimated", "not exact", "$"], lines, [0], [0]);
}

function health(status) {
  $("version").textContent = status.version;
  const word = (good, text) => element("span", text, good ? "good" : "bad");
  const ledger = status.ledger;
  const rows = [
    ["requests being served", number.format(status.in_flight)],
    ["of them streams", number.format(status.streams)],
    ["WebSockets open", number.format(status.websockets)],
    ["left out for failing", word(status.ejected.length === 0, status.ejected.join(", ") || "nobody")],
    ["read on after their callers left", number.format(status.draining)],
    ["ledger", word(!ledger.failing && ledger.lost === 0, ledger.failing ? `cannot be written, ${number.format(ledger.waiting_bytes)} bytes wait` : ledger.lost ? `${ledger.lost} records lost` : "written")],
    ["configuration", word(status.config_holds, status.config_holds ? "holds" : "the last change was refused")],
    ...status.sinks.map((sink) => [`sink ${sink.name}`, word(sink.lag_bytes < 1e7, `${number.format(sink.entries)} entries, ${number.format(sink.lag_bytes)} bytes behind, ${sink.failures} failures`)]),
  ];
  table("health", ["~what", "~how it is"], rows);
}

// What is looked at stands in the address, so that it can be shared and gone back to.
function view() {
  const hash = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
  return { since: "24h", by: "model", ...hash };
}

function look(at) {
  location.hash = new URLSearchParams(at);
}

async function refresh() {
  clearTimeout(timer);
  const turn = ++asked;
  const at = view();
  for (const name of ["since", "by"]) $(name).value = at[name];
  const { since, by, ...only } = at;
  $("only").replaceChildren(
    ...Object.entries(only).map(([name, value]) => {
      const { [name]: _, ...rest } = at;
      const made = button(`${name} ${value} ×`, () => look({ ...rest, by: name }));
      made.setAttribute("aria-label", `only ${name} ${value}: show all`);
      return made;
    }),
  );
  try {
    const query = new URLSearchParams(at);
    // One more than is shown tells that there are more.
    const [overview, rows, status] = await Promise.all([ask(`/overview?${query}`), ask(`/usage?${query}&limit=${ROWS_MAX + 1}`), ask("/status")]);
    // Something else is asked for by now.
    if (turn !== asked) return;
    $("login").hidden = true;
    show(overview);
    bill(by, rows, overview);
    health(status);
    $("state").textContent = `as of ${new Date().toLocaleTimeString()}`;
    $("trouble").textContent = "";
    document.body.dataset.shown = `${performance.now()}`;
  } catch (error) {
    if (turn !== asked) return;
    $("trouble").textContent = `not up to date: ${error.message}`;
  }
  timer = setTimeout(refresh, REFRESH_MS);
}

$("controls").addEventListener("change", () => look({ ...view(), since: $("since").value, by: $("by").value }));
addEventListener("hashchange", refresh);
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
