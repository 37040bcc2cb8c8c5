"use strict";
// Everything that arrives is foreign text. It is put into the page as textContent only.
const at = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";
const KEPT = 120;          // points of each small curve: two minutes
const SILENT_MS = 4000;    // without a message, of which one a second is due: the figures are old
const RETRY_MS = 5000;     // after a refusal: browsers do not retry that by themselves

function make(tag, text, name) {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  if (name) element.className = name;
  return element;
}

function length(seconds) {
  if (seconds < 100) return seconds.toFixed(seconds < 10 ? 2 : 1) + " s";
  if (seconds < 6000) return (seconds / 60).toFixed(1) + " min";
  return (seconds / 3600).toFixed(1) + " h";
}

function span(seconds) {
  if (seconds === null) return "–";
  return seconds < 1 ? Math.round(seconds * 1000) + " ms" : seconds.toFixed(2) + " s";
}

function position(seconds) {
  const whole = Math.floor(seconds / 60), hours = Math.floor(whole / 60);
  const rest = (seconds - whole * 60).toFixed(2).padStart(5, "0");
  const minutes = String(hours ? whole % 60 : whole).padStart(2, "0");
  return (hours ? hours + ":" : "") + minutes + ":" + rest;
}

const percent = (share) => Math.round(share * 100) + " %";

// Only what has changed is drawn again, so that selected text stays selected.
const drawn = new Map();
function draw(id, data, build) {
  const key = JSON.stringify(data);
  if (drawn.get(id) === key) return;
  drawn.set(id, key);
  at(id).replaceChildren(...build(data));
}

function table(heads, rows) {
  const table = make("table"), head = table.createTHead().insertRow(), body = table.createTBody();
  for (const text of heads) {
    const cell = make("th", text);
    cell.scope = "col";
    head.append(cell);
  }
  for (const cells of rows) {
    const row = body.insertRow();
    for (const [text, name, title] of cells) {
      const cell = make("td", text, name);
      if (title) cell.title = title;
      row.append(cell);
    }
  }
  return table;
}

const figures = new Map();
function figure(title, value, more, bad, height) {
  let known = figures.get(title);
  if (!known) {
    const box = make("div", undefined, "figure"), svg = document.createElementNS(SVG, "svg");
    known = { box, value: make("b"), more: make("span"), past: [] };
    for (const shape of ["polygon", "polyline"]) svg.append(known[shape] = document.createElementNS(SVG, shape));
    svg.setAttribute("viewBox", `0 0 ${KEPT - 1} 1`);
    svg.setAttribute("preserveAspectRatio", "none");
    svg.setAttribute("aria-hidden", "true");
    box.append(make("h2", title), known.value, known.more, svg);
    at("figures").append(box);
    figures.set(title, known);
  }
  known.value.textContent = value;
  known.more.textContent = more;
  known.box.classList.toggle("bad", bad);
  known.past = [...known.past, Math.min(1, Math.max(0, height || 0))].slice(-KEPT);
  const first = KEPT - known.past.length;
  // y counts down from the top of the box; some room is left for the line's width.
  const points = known.past.map((y, n) => `${first + n},${(0.96 - 0.9 * y).toFixed(3)}`).join(" ");
  known.polyline.setAttribute("points", points);
  known.polygon.setAttribute("points", `${first},1 ${points} ${KEPT - 1},1`);
}

function state(text, good, old) {
  at("state").textContent = text;
  at("state").className = good ? "good" : "bad";
  at("main").classList.toggle("old", Boolean(old));
}

let last = 0;  // when the newest message came
function listen(address, show) {
  const events = new EventSource(address);
  events.onmessage = (message) => {
    last = Date.now();
    show(JSON.parse(message.data));
  };
  events.onerror = () => {
    if (events.readyState !== EventSource.CLOSED) return state("not connected", false, true);
    state("not connected, or too many viewers", false, true);
    setTimeout(listen, RETRY_MS, address, show);
  };
}

setInterval(() => {
  if (last && Date.now() - last > SILENT_MS) state("no data for " + length((Date.now() - last) / 1000), false, true);
}, 1000);
