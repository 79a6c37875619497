// Who holds how much: a treemap (each box as large as what it keeps alive) and the same as a tree to unfold.
const map = { zoom: -1, boxes: [], mark: -1 };

// Squarified (Bruls, Huizing, van Wijk 2000): rows of boxes along the shorter side, as square as they can be.
function squares(items, x, y, w, h, put) {
  let sum = items.reduce((sum, item) => sum + item.size, 0);
  let at = 0;
  while (at < items.length && sum > 0 && w > 0 && h > 0) {
    const side = Math.min(w, h);
    const scale = (w * h) / sum;
    let row = 0;
    let end = at;
    let worst = Infinity;
    while (end < items.length) {
      const next = row + items[end].size;
      const [most, least] = [items[at].size * scale, items[end].size * scale];
      const area = next * scale;
      const ratio = Math.max((side * side * most) / (area * area), (area * area) / (side * side * least));
      if (end > at && ratio > worst) break;
      worst = ratio;
      row = next;
      end++;
    }
    const depth = (row * scale) / side;
    let along = 0;
    for (; at < end; at++) {
      const length = (items[at].size * scale) / depth;
      if (w >= h) put(items[at], x, y + along, depth, length);
      else put(items[at], x + along, y, length, depth);
      along += length;
    }
    if (w >= h) [x, w] = [x + depth, w - depth];
    else [y, h] = [y + depth, h - depth];
    sum -= row;
  }
}

function placeBoxes(width, height) {
  const placed = [];
  const todo = [{ at: map.zoom, x: 0, y: 0, w: width, h: height, depth: -1 }];
  while (todo.length) {
    const box = todo.pop();
    if (box.at !== map.zoom) placed.push(box);
    const inner = box.at === map.zoom ? box : { ...box, x: box.x + 2, y: box.y + 15, w: box.w - 4, h: box.h - 17 };
    if (inner.w < 12 || inner.h < 12 || box.depth > 5) continue;
    const items = childrenOf(box.at).map((at) => ({ at, size: heap.rows.retained[at] }));
    if (box.at >= 0 && heap.rows.shallow[box.at] > 0) items.push({ at: -1, size: heap.rows.shallow[box.at] });
    items.sort((a, b) => b.size - a.size);
    squares(items.filter((item) => item.size > 0), inner.x, inner.y, inner.w, inner.h, (item, x, y, w, h) => {
      if (item.at >= 0 && w >= 2 && h >= 2) todo.push({ at: item.at, x, y, w, h, depth: box.depth + 1 });
    });
  }
  return placed.sort((a, b) => a.depth - b.depth);
}

function drawMap() {
  const canvas = get("map");
  if (heap.whole === null) return;
  const { clientWidth: width, clientHeight: height } = canvas;
  const scale = devicePixelRatio || 1;
  canvas.width = width * scale;
  canvas.height = height * scale;
  const pen = canvas.getContext("2d");
  pen.scale(scale, scale);
  const style = getComputedStyle(document.documentElement);
  const isDark = style.colorScheme === "dark";
  map.boxes = placeBoxes(width, height);
  pen.font = "12px ui-monospace, monospace";
  for (const { at, x, y, w, h, depth } of map.boxes) {
    const name = heap.rows.kind[at] ? heap.kinds[heap.rows.kind[at] - 1] : "";
    const light = isDark ? 24 + 5 * depth : 86 - 5 * depth;
    pen.fillStyle = `hsl(${hue(name)} ${name ? 45 : 0}% ${light}%)`;
    pen.fillRect(x, y, w, h);
    pen.strokeStyle = at === map.mark ? style.getPropertyValue("--mark") : style.getPropertyValue("--back");
    pen.lineWidth = at === map.mark ? 3 : 1;
    pen.strokeRect(x + 0.5, y + 0.5, w - 1, h - 1);
    if (w > 40 && h > 14) {
      pen.save();
      pen.beginPath();
      pen.rect(x + 2, y, w - 4, 15);
      pen.clip();
      pen.fillStyle = style.getPropertyValue("--text");
      pen.fillText(`${(pathText(at) || kindText(at)).slice(0, 200)}  ${bytesText(heap.rows.retained[at])}`, x + 3, y + 12);
      pen.restore();
    }
  }
  fillCrumbs();
}

function fillCrumbs() {
  const way = [];
  for (let at = map.zoom; at >= 0; at = heap.rows.above[at]) way.unshift(at);
  const begin = way.length > 8 ? way.slice(-8) : way;
  const buttons = [-1, ...begin].map((at) => {
    const button = document.createElement("button");
    button.dataset.row = at;
    button.textContent = at < 0 ? "everything" : kindText(at);
    return button;
  });
  get("crumbs").replaceChildren(...buttons.flatMap((button, at) => (at ? [" › ", button] : [button])));
}

function tellRow(at) {
  map.told = at;
  if (at < 0) {
    get("detail").textContent = "\u00a0";
    return;
  }
  const { rows } = heap;
  const words = [kindText(at), pathText(at), `keeps ${bytesText(rows.retained[at])} alive, ${share(rows.retained[at], heap.whole)}`, `${rows.held[at]} objects`, `${bytesText(rows.shallow[at])} itself`];
  if (!rows.open[at]) words.push("what is below it is not in this page: biopsy heap retained --tree shows it");
  get("detail").textContent = words.filter(Boolean).join("; ");
}

function rowUnder(event) {
  const place = get("map").getBoundingClientRect();
  const [x, y] = [event.clientX - place.left, event.clientY - place.top];
  let found = -1;
  for (const box of map.boxes) if (x >= box.x && x < box.x + box.w && y >= box.y && y < box.y + box.h) found = box.at;
  return found;
}

function zoomMap(at) {
  map.zoom = at >= 0 && heap.rows.first[at] < 0 ? heap.rows.above[at] : at;
  map.mark = -1;
  drawMap();
  tellRow(at);
}

// With the keys: among those beside it, into it and out of it.
function moveMap(key) {
  const { rows } = heap;
  const above = map.mark >= 0 ? rows.above[map.mark] : map.zoom;
  const beside = childrenOf(above);
  if (!beside.length) return;
  const now = beside.indexOf(map.mark);
  if (map.mark < 0) map.mark = beside[0];
  else if (key === "ArrowRight") map.mark = beside[Math.min(now + 1, beside.length - 1)];
  else if (key === "ArrowLeft") map.mark = beside[Math.max(now - 1, 0)];
  else if (key === "ArrowDown") map.mark = childrenOf(map.mark)[0] ?? map.mark;
  else if (key === "ArrowUp" && above !== map.zoom) map.mark = above;
  drawMap();
  tellRow(map.mark);
}

// The tree: the rows below one are made when it is unfolded.
const STEP = 40;
function treeItems(above, from) {
  const all = childrenOf(above);
  const items = all.slice(from, from + STEP).map((at) => {
    const item = document.createElement("li");
    item.role = "treeitem";
    const line = document.createElement("div");
    line.className = "line";
    line.tabIndex = 0;
    line.dataset.row = at;
    const { rows } = heap;
    const sign = document.createElement("i");
    sign.textContent = rows.first[at] >= 0 ? "▸" : rows.open[at] ? "" : "…";
    const [bytes, part, name] = [document.createElement("span"), document.createElement("span"), document.createElement("b")];
    bytes.textContent = bytesText(rows.retained[at]);
    part.textContent = share(rows.retained[at], heap.whole);
    const path = pathText(at);
    name.textContent = path ? `${kindText(at)}  ${path}` : kindText(at);
    name.title = name.textContent;
    line.append(sign, bytes, part, name);
    item.append(line);
    if (rows.first[at] >= 0) item.ariaExpanded = "false";
    return item;
  });
  if (all.length > from + STEP) {
    const item = document.createElement("li");
    const button = document.createElement("button");
    button.textContent = `${all.length - from - STEP} more`;
    button.addEventListener("click", () => item.replaceWith(...treeItems(above, from + STEP)));
    item.append(button);
    items.push(item);
  }
  return items;
}

function unfold(line) {
  const item = line.parentElement;
  const at = Number(line.dataset.row);
  tellRow(at);
  if (heap.rows.first[at] < 0) return;
  const isOpen = item.ariaExpanded === "true";
  item.ariaExpanded = String(!isOpen);
  line.firstChild.textContent = isOpen ? "▸" : "▾";
  if (isOpen) item.lastChild.remove();
  else {
    const list = document.createElement("ul");
    list.role = "group";
    list.append(...treeItems(at, 0));
    item.append(list);
  }
}
