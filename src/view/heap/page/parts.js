// Where the resident memory is, modules, caches, and lines over time.
function fillParts() {
  if (!heap.parts.length) return;
  get("resident").hidden = false;
  const all = heap.parts.reduce((sum, part) => sum + part.bytes, 0);
  const kernel = heap.rss === null ? "" : `; the kernel counts ${bytesText(heap.rss)}`;
  const swap = heap.swap ? `; ${bytesText(heap.swap)} are swapped out` : "";
  get("rss").textContent = `${bytesText(all)} in all${kernel}${swap}`;
  heap.parts.forEach((part, at) => {
    const color = `hsl(${(at * 47) % 360} 50% 60%)`;
    const piece = document.createElement("span");
    piece.style.setProperty("--color", color);
    piece.style.width = ((100 * part.bytes) / all).toFixed(3) + "%";
    piece.title = `${part.words}: ${bytesText(part.bytes)}`;
    get("parts").append(piece);
    const item = document.createElement("li");
    item.style.setProperty("--color", color);
    item.textContent = `${bytesText(part.bytes)} (${share(part.bytes, all)}) ${part.words}`;
    get("partNames").append(item);
  });
}

function cells(texts) {
  const line = document.createElement("tr");
  for (const text of texts) {
    const cell = line.insertCell();
    cell.textContent = text;
    cell.title = text;
  }
  return line;
}

function fillModules() {
  const list = heap.modules.filter(([name]) => name.toLowerCase().includes(picked.wanted));
  get("modules").hidden = !heap.modules.length;
  get("moduleRows").replaceChildren(...list.map(([name, objects, retained]) => cells([bytesText(retained), String(objects), name])));
}

function fillCaches() {
  const list = heap.caches.filter((row) => (row.function + row.place).toLowerCase().includes(picked.wanted));
  get("caches").hidden = !heap.caches.length;
  const rows = list.map((row) => cells([bytesText(row.retained), String(row.size), row.limit === null ? "none" : String(row.limit), String(row.hits), String(row.misses), `${row.function} (${row.place})`, row.path || ""]));
  get("cacheRows").replaceChildren(...rows);
  get("moreCaches").textContent = heap.more_caches ? `${heap.more_caches} more caches are not in this page` : "";
}

// Lines over time: the types of which there is most more, resident memory, all objects.
const chart = { off: new Set(), at: -1 };
const lineColor = (at) => `hsl(${(at * 137.5) % 360} 60% 50%)`;

function chartLines() {
  const { history } = heap;
  const unit = get("unit").value;
  if (get("line").value === "rss") return [["resident memory", history.rss]];
  if (get("line").value === "all") return [["all objects", history[unit]]];
  // Lines of what stays as it is are in the way of the others.
  const moves = (values) => values.some((value) => value !== values[0]);
  const moving = history.types.filter(([, objects, bytes]) => moves(objects) || moves(bytes));
  const shown = moving.length ? moving : history.types;
  return shown.map(([name, objects, bytes]) => [name, unit === "bytes" ? bytes : objects]);
}

function drawChart() {
  if (!heap.history) return;
  const { seconds } = heap.history;
  const canvas = get("lines");
  const { clientWidth: width, clientHeight: height } = canvas;
  const scale = devicePixelRatio || 1;
  canvas.width = width * scale;
  canvas.height = height * scale;
  const pen = canvas.getContext("2d");
  pen.scale(scale, scale);
  const lines = chartLines();
  const seen = lines.map(([, values], at) => (chart.off.has(at) ? [] : values)).flat().filter((value) => value !== null);
  const most = seen.reduce((most, value) => Math.max(most, value), 1);
  const end = seconds.at(-1) || 1;
  const x = (at) => 4 + ((width - 8) * seconds[at]) / end;
  const y = (value) => height - 4 - ((height - 24) * value) / most;
  lines.forEach(([, values], at) => {
    if (chart.off.has(at)) return;
    pen.strokeStyle = lineColor(at);
    pen.lineWidth = 2;
    pen.beginPath();
    let begun = false;
    values.forEach((value, moment) => {
      if (value === null) return;
      if (begun) pen.lineTo(x(moment), y(value));
      else pen.moveTo(x(moment), y(value));
      begun = true;
    });
    pen.stroke();
  });
  const style = getComputedStyle(document.documentElement);
  pen.fillStyle = style.getPropertyValue("--faint");
  pen.font = "12px system-ui, sans-serif";
  const text = get("unit").value === "bytes" || get("line").value === "rss" ? bytesText : String;
  pen.fillText(text(most), 6, 14);
  pen.fillText("0", 6, height - 6);
  if (chart.at >= 0) pen.fillRect(x(chart.at), 0, 1, height);
  get("lineNames").replaceChildren(
    ...lines.map(([name, values], at) => {
      const item = document.createElement("li");
      item.style.setProperty("--color", lineColor(at));
      item.className = chart.off.has(at) ? "off" : "";
      item.dataset.line = at;
      const now = values.at(chart.at < 0 ? -1 : chart.at);
      const change = values.length ? (now ?? 0) - (values[0] ?? 0) : 0;
      item.textContent = now === null || now === undefined ? `${name}: not known` : `${name}: ${text(now)} (${signed(change, text)})`;
      return item;
    }),
  );
  get("moment").textContent = chart.at >= 0 ? `after ${seconds[chart.at].toFixed(1)} s` : `${seconds.length} moments in ${end.toFixed(1)} s`;
}

function connectChart() {
  if (!heap.history) return;
  get("growth").hidden = false;
  const choices = [["types", "types that grew most"], ["all", "all objects"]];
  if (heap.history.rss.some((value) => value !== null)) choices.push(["rss", "resident memory"]);
  for (const [value, text] of choices) get("line").add(new Option(text, value));
  for (const id of ["line", "unit"]) {
    get(id).addEventListener("change", () => {
      chart.off.clear();
      drawChart();
    });
  }
  get("lineNames").addEventListener("click", (event) => {
    const item = event.target.closest("[data-line]");
    if (!item) return;
    const at = Number(item.dataset.line);
    if (!chart.off.delete(at)) chart.off.add(at);
    drawChart();
  });
  get("lines").addEventListener("mousemove", (event) => {
    const place = get("lines").getBoundingClientRect();
    const { seconds } = heap.history;
    const time = ((event.clientX - place.left - 4) / (place.width - 8)) * (seconds.at(-1) || 1);
    let best = 0;
    seconds.forEach((value, at) => {
      if (Math.abs(value - time) < Math.abs(seconds[best] - time)) best = at;
    });
    chart.at = best;
    drawChart();
  });
  get("lines").addEventListener("mouseleave", () => {
    chart.at = -1;
    drawChart();
  });
}
