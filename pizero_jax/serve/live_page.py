"""The server's own page: one file, nothing is loaded from elsewhere. It asks `live.json` twice a second."""

import base64
import hashlib

_STYLE = """
:root { --paper: #fbfaf8; --card: #fff; --ink: #26282b; --soft: #6b7076; --line: #e4e1db; --blue: #0072b2;
  --orange: #d55e00; --warn: #b4690e; color-scheme: light dark; }
@media (prefers-color-scheme: dark) { :root { --paper: #17191c; --card: #1f2226; --ink: #e4e2de; --soft: #9aa0a6;
  --line: #33373c; --blue: #56b4e9; --orange: #f0904d; --warn: #e6a84f; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 72rem; padding: 1.25rem 1rem 3rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.45 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.4rem; margin: 0; }
h2 { font-size: 1.05rem; margin: 0 0 .6rem; display: flex; justify-content: space-between; gap: 1rem; flex-wrap: wrap; }
.soft, th, figcaption, dt { color: var(--soft); font-weight: 400; }
header { display: flex; justify-content: space-between; align-items: baseline; gap: 0 1rem; flex-wrap: wrap; }
#state { color: var(--soft); } #state.lost { color: var(--warn); font-weight: 600; }
section { background: var(--card); border: 1px solid var(--line); border-radius: .6rem; padding: .9rem 1rem;
  margin: 1rem 0; }
dl { display: grid; grid-template-columns: repeat(auto-fill, minmax(7rem, 1fr)); gap: .5rem; margin: 0 0 1rem; }
dt { font-size: .75rem; } dd { margin: 0; font-variant-numeric: tabular-nums; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; overflow-wrap: normal; }
th, td { padding: .2rem 1rem .2rem 0; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child { text-align: left; }
.prompt { font-size: 1.15rem; margin: 0 0 .75rem; }
.pictures { display: flex; gap: .6rem; flex-wrap: wrap; margin-bottom: .9rem; }
figure { margin: 0; min-width: 0; } figcaption { font-size: .75rem; }
.pictures figure { flex: 0 1 15rem; }
img { display: block; width: 100%; border-radius: .3rem; image-rendering: auto; background: var(--line); }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(15rem, 1fr)); gap: .7rem 1.2rem; }
.plots figcaption { display: flex; justify-content: space-between; }
svg { display: block; width: 100%; height: 6rem; background: var(--paper); border-radius: .25rem; }
path { fill: none; vector-effect: non-scaling-stroke; stroke-linejoin: round; }
.earlier { stroke: var(--blue); stroke-width: 1; opacity: .3; }
.chunk { stroke: var(--blue); stroke-width: 2.2; }
.executed { stroke: var(--orange); stroke-width: 2; }
.recorded { stroke: var(--orange); stroke-width: 2; stroke-dasharray: 5 4; }
.key { display: inline-block; width: 1.4em; height: .2em; vertical-align: middle; margin: 0 .4em 0 .9em; }
.key:first-child { margin-left: 0; }
.blue { background: var(--blue); } .pale { background: var(--blue); opacity: .3; }
.orange { background: var(--orange); }
.dashed { background: repeating-linear-gradient(90deg, var(--orange) 0 .35em, transparent .35em .6em); }
"""

_SCRIPT = """
"use strict";
const WIDTH = 300, HEIGHT = 100, SHOWN = 60;  // of a plot; executed actions in it
const one = id => document.getElementById(id);
function made(tag, text, name) {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  if (name) element.className = name;
  return element;
}
function drawn(tag, attributes) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}
const ms = value => value.toFixed(value < 10 ? 1 : 0);
const seconds = value =>
  value < 1 ? "now" : value < 90 ? `${value.toFixed(0)} s ago` : `${(value / 60).toFixed(0)} min ago`;

function tiles(live) {
  const solvers = live.num_steps.map((steps, i) => `${steps} ${live.solver[i]}`);
  const shown = {policy: live.policy, checkpoint: `step ${live.step}`, "actions in a chunk": live.chunk,
    "solver steps": solvers.join(", ") || "none", connections: live.connections, waiting: live.queue};
  one("tiles").replaceChildren(...Object.entries(shown).map(([name, value]) => {
    const tile = made("div");
    tile.append(made("dt", name), made("dd", value));
    return tile;
  }));
}

const STAGES = {read: "read and prepare", queue: "wait", act: "policy", finish: "un-normalise", total: "all"};
function latencies(live) {
  const rows = Object.keys(STAGES).filter(stage => live.percentiles[stage]).map(stage => {
    const row = made("tr");
    row.append(made("th", STAGES[stage]), ...live.percentiles[stage].map(value => made("td", ms(value))));
    return row;
  });
  one("latencies").replaceChildren(...rows);
  one("latency").hidden = !rows.length;
}

function plot(client, dimension) {
  const first = client.steps - client.executed.length;
  const lines = client.chunks.map(([start, actions]) => ["earlier", start, actions.map(a => a[dimension])]);
  if (lines.length) lines[lines.length - 1][0] = "chunk";
  lines.push(["executed", first, client.executed.map(a => a[dimension])]);
  if (client.recorded.length) lines.push(["recorded", client.steps, client.recorded.map(a => a[dimension])]);
  const last = client.chunks.length ? client.chunks[client.chunks.length - 1] : [0, []];
  const to = last[0] + Math.max(last[1].length - 1, 1), from = Math.max(0, Math.min(client.steps, to) - SHOWN);
  const inside = lines.flatMap(([, start, values]) => values.filter((_, i) => start + i >= from));
  const low = Math.min(...inside), high = Math.max(...inside), span = high - low || 1;
  const svg = drawn("svg", {viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img",
    "aria-label": `action ${dimension}`});
  for (const [name, start, values] of lines) {
    const x = step => (WIDTH * (step - from) / (to - from || 1)).toFixed(1);
    const y = value => (HEIGHT * (.95 - .9 * (value - low) / span)).toFixed(1);
    const shown = values.map((value, i) => [start + i, value]).filter(([step]) => step >= from);
    const points = shown.map(([step, value]) => `${x(step)},${y(value)}`);
    if (points.length) svg.append(drawn("path", {class: name, d: `M${points.join(" ")}`}));
  }
  const figure = made("figure"), caption = made("figcaption");
  caption.append(made("span", `action ${dimension}`), made("span", `${low.toPrecision(3)} … ${high.toPrecision(3)}`));
  figure.append(caption, svg);
  return figure;
}

function card(client) {
  const section = made("section"), title = made("h2"), pictures = made("div", undefined, "pictures");
  const asked = client.open ? `${client.looks} requests, the last ${seconds(client.age)}`
    : `gone, ${seconds(client.age)}`;
  title.append(made("span", client.peer), made("span", asked, "soft"));
  for (const [camera, source] of Object.entries(client.pictures)) {
    const figure = made("figure"), image = made("img");
    image.src = source;
    image.alt = camera;
    figure.append(image, made("figcaption", camera));
    pictures.append(figure);
  }
  const plots = made("div", undefined, "plots");
  const width = client.chunks.length ? client.chunks[0][1][0].length : 0;
  for (let dimension = 0; dimension < width; dimension++) plots.append(plot(client, dimension));
  section.append(title, made("p", client.prompt, "prompt"), pictures, plots);
  return section;
}

async function update() {
  try {
    const answer = await fetch("live.json");
    if (!answer.ok) throw new Error(answer.status);
    const live = await answer.json();
    tiles(live);
    latencies(live);
    one("clients").replaceChildren(...live.clients.map(card));
    one("none").hidden = live.clients.length > 0;
    one("legend").hidden = !live.clients.length;
    one("state").textContent = "live";
    one("state").className = "";
  } catch (error) {
    one("state").textContent = "the server does not answer";
    one("state").className = "lost";
  }
  setTimeout(update, document.hidden ? 5000 : 500);
}
update();
"""


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


POLICY = (
    f"default-src 'none'; connect-src 'self'; img-src data:; style-src {_hash(_STYLE)}; script-src {_hash(_SCRIPT)}; "
    "frame-ancestors 'none'"
)
"""Content security policy: this script and no other, data from this server and no other."""

HTML = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>pizero_jax: what the policy sees</title>
<link rel="icon" href="data:,">
<style>{_STYLE}</style>
</head>
<body>
<header><h1>What the policy sees</h1><span id="state">…</span></header>
<p id="none" class="soft" hidden>No request has come yet.</p>
<p id="legend" class="soft" hidden>
<span class="key blue"></span>the last chunk<span class="key pale"></span>earlier ones
<span class="key orange"></span>executed, where the client says so
<span class="key dashed"></span>recorded, of an episode that is replayed</p>
<div id="clients"></div>
<section><h2>Server</h2><dl id="tiles"></dl>
<div id="latency" class="scroll" hidden><table><thead><tr><th>ms, last 1,000 requests</th><th>50%</th><th>95%</th>
<th>99%</th></tr></thead><tbody id="latencies"></tbody></table></div></section>
<script>{_SCRIPT}</script>
</body>
</html>
"""
