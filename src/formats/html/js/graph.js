// The picture: flame graph (callers below), icicle (callers above), inverted (each function with its callers below it).
// A canvas as large as its window is drawn again when it is scrolled, so that stacks may be of any depth.
const ROW = 18;
const graph = { shape: "icicle", zoom: null, drawn: [], mark: null, home: true };

// A box of the picture: function, time, own time, the box above, how deep it is, and its children when asked.
function rootBoxes() {
  const { boxTotal } = now;
  if (graph.shape !== "inverted") {
    const { roots } = boxes();
    return sortedBoxes(roots.filter((box) => boxTotal[box] > 0).map((box) => plainBox(box, null)));
  }
  const { functions } = boxes();
  const heads = new Map();
  now.boxOwn.forEach((ticks, box) => {
    const other = now.boxOtherOwn?.[box] ?? 0;
    if (ticks > 0 || other > 0) gather(heads, functions[box], box, ticks, other);
  });
  return sortedBoxes([...heads].map(([of, group]) => invertedBox(of, group, null)));
}

function gather(groups, of, box, ticks, other) {
  let group = groups.get(of);
  if (!group) groups.set(of, (group = { boxes: [], times: [], others: [], sum: 0, other: 0 }));
  group.boxes.push(box);
  group.times.push(ticks);
  group.others.push(other);
  group.sum += ticks;
  group.other += other;
}

const sortedBoxes = (list) => list.sort((a, b) => b.total - a.total || a.function - b.function);

function plainBox(box, above) {
  return { id: box, function: boxes().functions[box], total: now.boxTotal[box], own: now.boxOwn[box], other: now.boxOther?.[box] ?? 0, above, depth: above ? above.depth + 1 : 0, below: null };
}

function invertedBox(of, group, above) {
  return { id: (above ? above.id + "<" : "") + of, function: of, total: group.sum, own: above ? 0 : group.sum, other: group.other, above, depth: above ? above.depth + 1 : 0, below: null, group };
}

function belowOf(box) {
  if (box.below) return box.below;
  const { parents, functions, children } = boxes();
  if (!box.group) {
    const list = (children[box.id] || []).filter((child) => now.boxTotal[child] > 0);
    return (box.below = sortedBoxes(list.map((child) => plainBox(child, box))));
  }
  const callers = new Map();
  box.group.boxes.forEach((at, index) => {
    const caller = parents[at];
    if (caller >= 0) gather(callers, functions[caller], caller, box.group.times[index], box.group.others[index]);
  });
  return (box.below = sortedBoxes([...callers].map(([of, group]) => invertedBox(of, group, box))));
}

// Boxes that are at least half a pixel wide, with their places: x and width from 0 to 1.
function layout(width) {
  const least = 0.5 / Math.max(width, 1);
  const placed = [];
  const path = [];
  for (let box = graph.zoom; box; box = box.above) path.unshift(box);
  for (const box of path) placed.push({ box, x: 0, w: 1, faint: box !== graph.zoom });
  const whole = graph.zoom ? graph.zoom.total : now.all;
  const todo = [];
  const put = (list, x) => {
    for (const box of list) {
      const w = box.total / whole;
      if (w >= least) todo.push({ box, x, w, faint: false });
      x += w;
    }
  };
  put(graph.zoom ? belowOf(graph.zoom) : rootBoxes(), 0);
  while (todo.length) {
    const next = todo.pop();
    placed.push(next);
    put(belowOf(next.box), next.x);
  }
  return placed;
}

const hueOf = new Map();
function colorOf(of, lit) {
  if (lit) return "hsl(300 75% 72%)";
  let color = hueOf.get(of);
  if (color === undefined) {
    const [name, file, , kind] = data.functions[of];
    let hash = 0;
    for (const letter of name.slice(0, 200) + file.slice(-200)) hash = (hash * 31 + letter.codePointAt(0)) | 0;
    const hue = [18, 205, 130][kind] + (Math.abs(hash) % 36);
    hueOf.set(of, (color = `hsl(${hue} 70% ${66 + (Math.abs(hash >> 8) % 12)}%)`));
  }
  return color;
}

function drawGraph(anew = true) {
  const view = get("scroll");
  const width = view.clientWidth;
  if (anew) {
    graph.placed = layout(width);
    graph.depth = graph.placed.reduce((most, { box }) => Math.max(most, box.depth), 0) + 1;
    graph.matches = matching();
  }
  const isFlame = graph.shape === "flame";
  const whole = graph.depth * ROW;
  const height = Math.min(whole, Math.round(window.innerHeight * 0.6));
  get("room").style.height = whole + "px";
  view.style.height = height + 2 + "px";
  // Each shape begins where its outermost callers are.
  if (graph.home) view.scrollTop = isFlame ? whole : 0;
  graph.home = false;
  const top = Math.min(view.scrollTop, Math.max(0, whole - height));
  const canvas = get("flame");
  const ratio = window.devicePixelRatio || 1;
  canvas.width = width * ratio;
  canvas.height = height * ratio;
  canvas.style.width = width + "px";
  canvas.style.height = height + "px";
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  context.font = "12px system-ui, sans-serif";
  context.textBaseline = "middle";
  context.direction = "ltr";
  graph.drawn = [];
  for (const { box, x: from, w: part, faint } of graph.placed) {
    const y = (isFlame ? graph.depth - 1 - box.depth : box.depth) * ROW - top;
    if (y < -ROW || y > height) continue;
    const [x, w] = [from * width, part * width];
    const lit = graph.matches !== null && graph.matches[box.function];
    context.globalAlpha = faint ? 0.55 : 1;
    context.fillStyle = data.difference && !lit ? diffColor(box) : colorOf(box.function, lit);
    context.fillRect(x, y, Math.max(w - 0.6, 0.4), ROW - 1);
    if (graph.mark && graph.mark.id === box.id) {
      context.strokeStyle = "#111";
      context.lineWidth = 2;
      context.strokeRect(x + 1, y + 1, Math.max(w - 2.6, 1), ROW - 3);
    }
    if (w > 24) {
      context.fillStyle = "#18181b";
      const place = Math.floor((w - 6) / 6.2);
      const name = nameOf(box.function);
      const text = name.length > place ? [...name.slice(0, place * 2)].slice(0, Math.max(place - 1, 1)).join("") + "…" : name;
      context.fillText(text, x + 3, y + ROW / 2, w - 6);
    }
    graph.drawn.push({ box, x, y, w });
  }
  get("reset").hidden = graph.zoom === null;
  const detail = get("detail");
  if (now.all === 0) detail.textContent = "no samples";
  else if (detail.textContent === "no samples") detail.textContent = "";
}

// Red for more time than before, blue for less, paler for smaller parts of the box.
function diffColor(box) {
  const part = changeOf(box.total, box.other) / Math.max(box.total, box.other, 1);
  const light = Math.round(94 - 34 * Math.min(1, Math.abs(part)));
  return Math.abs(part) < 0.005 ? "#e9e9ec" : `hsl(${part > 0 ? 5 : 215} 85% ${light}%)`;
}

function boxUnder({ offsetX: x, offsetY: y }) {
  return graph.drawn.find((at) => y >= at.y && y < at.y + ROW && x >= at.x && x < at.x + Math.max(at.w, 1))?.box ?? null;
}

function tellBox(box) {
  const detail = get("detail");
  if (!box) {
    detail.textContent = "\u00a0";
    return;
  }
  const mark = data.estimated ? "~" : "";
  const own = box.group ? "" : `, own ${mark}${timeText(seconds(box.own))}`;
  if (data.difference) {
    const change = seconds(changeOf(box.total, box.other));
    const [anew, old] = chosen.view === 0 ? [box.total, box.other] : [box.other, box.total];
    detail.textContent = `${nameOf(box.function)}  ${placeOf(box.function)}  new ${mark}${timeText(seconds(anew))}, old ${mark}${timeText(seconds(old))}, change ${mark}${signed(change)}`;
    return;
  }
  detail.textContent = `${nameOf(box.function)}  ${placeOf(box.function)}  total ${mark}${timeText(seconds(box.total))} (${percent(box.total, now.all)})${own}`;
}

function zoomTo(box) {
  graph.zoom = box;
  graph.mark = box;
  drawGraph();
  tellBox(box);
}

// What is zoomed to does not outlive the numbers that it was made of; the same place in the new ones does.
function keepZoom() {
  const path = [];
  for (let box = graph.zoom; box; box = box.above) path.unshift(box.function);
  graph.zoom = null;
  graph.mark = null;
  let list = path.length ? rootBoxes() : [];
  for (const of of path) {
    const found = list.find((box) => box.function === of);
    if (!found) break;
    graph.zoom = found;
    list = belowOf(found);
  }
}

// Arrow keys: to the caller, the first callee, the neighbours.
function moveMark(key) {
  const start = graph.mark;
  if (!start) {
    graph.mark = graph.zoom ?? rootBoxes()[0] ?? null;
  } else {
    const deeper = graph.shape === "flame" ? "ArrowUp" : "ArrowDown";
    if (key === "ArrowLeft" || key === "ArrowRight") {
      const level = start.above ? belowOf(start.above) : rootBoxes();
      const at = level.findIndex((box) => box.id === start.id) + (key === "ArrowRight" ? 1 : -1);
      if (level[at]) graph.mark = level[at];
    } else graph.mark = (key === deeper ? belowOf(start)[0] : start.above) ?? start;
  }
  const box = graph.mark;
  if (box) {
    const view = get("scroll");
    const y = (graph.shape === "flame" ? graph.depth - 1 - box.depth : box.depth) * ROW;
    if (y < view.scrollTop) view.scrollTop = y;
    if (y + ROW > view.scrollTop + view.clientHeight) view.scrollTop = y + ROW - view.clientHeight;
  }
  drawGraph(false);
  tellBox(box);
}
