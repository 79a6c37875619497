"use strict";
// Names come from the profiled program: they are only ever set as text, never as HTML.
const data = JSON.parse(document.getElementById("data").textContent);
const get = (id) => document.getElementById(id);
const { functions, rows, nodes, groups } = data;
const ROW = 18;
let group = 0;
let wanted = "";
let zoomed = -1;
let boxes = [];

get("title").textContent = data.title;
document.title = data.title + " - biopsy";
get("note").textContent = data.note;
const seconds = (ns) => (ns >= 1e6 || !ns ? (ns / 1e9).toFixed(3) + " s" : (ns / 1e3).toFixed(1) + " µs");
const place = (f) => (f[2] ? f[1] + ":" + f[2] : f[1]);
const matches = (f) => wanted !== "" && (f[0] + " " + place(f)).toLowerCase().includes(wanted);

// Flame graph. Parents stand before their children in `nodes`, so one pass lays everything out.
function layout() {
  const [parents, , groupOf, totals] = nodes;
  const count = parents.length;
  const left = new Float64Array(count);
  const next = new Float64Array(count);
  const depth = new Int32Array(count);
  const shown = new Uint8Array(count);
  const onPath = new Set();
  for (let at = zoomed; at >= 0; at = parents[at]) onPath.add(at);
  let all = 0;
  let deepest = 0;
  if (zoomed >= 0) all = totals[zoomed];
  else for (let at = 0; at < count; at++) if (parents[at] < 0 && groupOf[at] === group) all += totals[at];
  let root = 0;
  for (let at = 0; at < count; at++) {
    if (groupOf[at] !== group) continue;
    const parent = parents[at];
    depth[at] = parent < 0 ? 0 : depth[parent] + 1;
    if (zoomed >= 0 && onPath.has(at)) {
      shown[at] = 2;
    } else if (parent < 0) {
      if (zoomed >= 0) continue;
      left[at] = root;
      root += totals[at];
      shown[at] = 1;
    } else if (shown[parent] === 1 || parent === zoomed) {
      left[at] = left[parent] + next[parent];
      next[parent] += totals[at];
      shown[at] = 1;
    }
    if (shown[at]) deepest = Math.max(deepest, depth[at]);
  }
  return { left, depth, shown, all, deepest };
}

function color(f, lit) {
  let hash = 0;
  for (const c of f[0] + f[1]) hash = (hash * 31 + c.codePointAt(0)) | 0;
  const hue = [18, 205, 130][f[3]] + (Math.abs(hash) % 36);
  return lit ? "hsl(300 75% 72%)" : `hsl(${hue} 70% ${66 + (Math.abs(hash >> 8) % 12)}%)`;
}

function draw() {
  const canvas = get("flame");
  const width = get("scroll").clientWidth;
  const { left, depth, shown, all, deepest } = layout();
  // Browsers refuse canvases of more than 32,767 pixels.
  const limit = Math.min(deepest + 1, 1500);
  const ratio = limit > 800 ? 1 : window.devicePixelRatio || 1;
  canvas.width = width * ratio;
  canvas.height = limit * ROW * ratio;
  canvas.style.width = width + "px";
  canvas.style.height = limit * ROW + "px";
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  context.font = "12px system-ui, sans-serif";
  context.textBaseline = "middle";
  boxes = [];
  for (let at = 0; at < shown.length; at++) {
    if (!shown[at] || depth[at] >= limit) continue;
    const whole = shown[at] === 2;
    const x = whole ? 0 : (left[at] / all) * width;
    const w = whole ? width : (nodes[3][at] / all) * width;
    if (!(w >= 0.4)) continue;
    const f = functions[nodes[1][at]];
    const y = depth[at] * ROW;
    context.globalAlpha = whole && at !== zoomed ? 0.55 : 1;
    context.fillStyle = color(f, matches(f));
    context.fillRect(x, y, Math.max(w - 0.6, 0.4), ROW - 1);
    if (w > 24) {
      context.fillStyle = "#18181b";
      const room = Math.floor((w - 6) / 6.2);
      const text = f[0].length > room ? f[0].slice(0, Math.max(room - 1, 1)) + "…" : f[0];
      context.fillText(text, x + 3, y + ROW / 2, w - 6);
    }
    boxes.push([x, y, w, at]);
  }
  get("reset").hidden = zoomed < 0;
}

function under(event) {
  const { offsetX: x, offsetY: y } = event;
  for (const [left, top, width, at] of boxes) {
    if (y >= top && y < top + ROW && x >= left && x < left + width) return at;
  }
  return -1;
}

function tell(event) {
  const at = under(event);
  if (at < 0) {
    get("detail").textContent = " ";
    return;
  }
  const f = functions[nodes[1][at]];
  const total = nodes[3][at];
  get("detail").textContent =
    `${f[0]}  ${place(f)}  total ${seconds(total)}` +
    ` (${((100 * total) / Math.max(data.total[group], 1)).toFixed(1)} %), own ${seconds(nodes[4][at])}`;
}

// Table.
const calls = (r) => (r[6] ? "≥" : "") + (r[2] === r[3] ? r[2] : r[2] + "/" + r[3]);
const columns = [
  ["ncalls", (r) => r[2], calls],
  ["tottime", (r) => r[4], (r) => r[4].toFixed(3)],
  ["cumtime", (r) => r[5], (r) => r[5].toFixed(3)],
  ["function", (r) => functions[r[0]][0], (r) => functions[r[0]][0]],
  ["file", (r) => place(functions[r[0]]), (r) => place(functions[r[0]])],
];
let sorted = 2;
let falling = true;
let shownRows = 200;

function fill() {
  const list = rows.filter((r) => r[1] === group && (wanted === "" || matches(functions[r[0]])));
  const key = columns[sorted][1];
  list.sort((a, b) => {
    const [x, y] = falling ? [key(b), key(a)] : [key(a), key(b)];
    return x < y ? -1 : x > y ? 1 : 0;
  });
  const body = get("rows");
  body.replaceChildren();
  for (const row of list.slice(0, shownRows)) {
    const line = document.createElement("tr");
    for (const [, , text] of columns) line.insertCell().textContent = text(row);
    line.addEventListener("click", () => {
      get("search").value = functions[row[0]][0];
      search();
    });
    body.append(line);
  }
  get("more").hidden = list.length <= shownRows;
  get("found").textContent = wanted === "" ? "" : list.length + " found";
  [...get("head").children].forEach((cell, at) => {
    cell.ariaSort = at !== sorted ? "none" : falling ? "descending" : "ascending";
    cell.firstChild.textContent = columns[at][0] + (at !== sorted ? "" : falling ? " ▾" : " ▴");
  });
}

columns.forEach(([name], at) => {
  const cell = document.createElement("th");
  const button = document.createElement("button");
  button.textContent = name;
  button.addEventListener("click", () => {
    falling = sorted === at ? !falling : at < 3;
    sorted = at;
    fill();
  });
  cell.append(button);
  get("head").append(cell);
});

function search() {
  wanted = get("search").value.toLowerCase();
  shownRows = 200;
  fill();
  draw();
}

groups.forEach((label, at) => get("group").add(new Option(label || "all", at)));
get("group").hidden = groups.length < 2;
get("group").addEventListener("change", (event) => {
  group = Number(event.target.value);
  zoomed = -1;
  fill();
  draw();
});
get("search").addEventListener("input", search);
get("more").addEventListener("click", () => {
  shownRows *= 4;
  fill();
});
get("reset").addEventListener("click", () => {
  zoomed = -1;
  draw();
});
get("flame").addEventListener("mousemove", tell);
get("flame").addEventListener("click", (event) => {
  const at = under(event);
  if (at >= 0) {
    zoomed = at === zoomed ? -1 : at;
    draw();
  }
});
window.addEventListener("resize", draw);
fill();
draw();
