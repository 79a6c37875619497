// The source of a file with the time of each line, and the tree of files with the own time of each folder.
const source = { file: -1, function: -1, costs: null };

// Own time and time with what it calls of each line of a file, in ticks; which function had the most time there.
function lineCosts(file) {
  const { own, total } = now;
  const { function: functionOf, frame } = data.nodes;
  const { ofLine } = outermost();
  const lines = new Map();
  for (let at = 0; at < own.length; at++) {
    const of = functionOf[at];
    if (total[at] === 0 || data.functions[of][4] !== file) continue;
    const line = data.frames.line[frame[at]];
    let cost = lines.get(line);
    if (!cost) lines.set(line, (cost = { own: 0, total: 0, function: of, most: 0 }));
    cost.own += own[at];
    if (!ofLine[at]) continue;
    cost.total += total[at];
    if (total[at] > cost.most) [cost.function, cost.most] = [of, total[at]];
  }
  return lines;
}

// Files as a tree of folders, of which those with one entry alone are one with it.
function fileTree() {
  const times = new Float64Array(data.files.length);
  const seen = new Uint8Array(data.files.length);
  for (const { function: of, own } of now.rows) {
    const file = data.functions[of][4];
    if (data.functions[of][3] !== 0) continue;
    times[file] += own;
    seen[file] = 1;
  }
  const root = { name: "", own: 0, below: new Map(), file: -1 };
  data.files.forEach(({ name }, file) => {
    if (!seen[file]) return;
    const parts = name.split("/");
    let at = root;
    at.own += times[file];
    parts.forEach((part, depth) => {
      const isFile = depth === parts.length - 1;
      // Two files may have one name, where folders are left out.
      const key = isFile ? "f" + file : "d" + part;
      if (!at.below.has(key)) at.below.set(key, { name: part + (isFile ? "" : "/"), own: 0, below: new Map(), file: isFile ? file : -1 });
      at = at.below.get(key);
      at.own += times[file];
    });
  });
  return root;
}

function fillFiles() {
  get("source").hidden = data.estimated || Boolean(data.difference) || !now.rows.some((row) => data.functions[row.function][3] === 0);
  if (get("source").hidden) return;
  let left = 3000;
  const entry = (at, tag) => {
    const line = document.createElement(tag);
    line.className = "bar";
    line.style.setProperty("--share", (now.seconds > 0 ? (100 * at.own) / now.seconds : 0).toFixed(2) + "%");
    const [name, time] = [document.createElement("b"), document.createElement("span")];
    name.textContent = at.name || "(no name)";
    time.textContent = `${timeText(at.own)} ${percent(at.own, now.seconds)}`;
    line.title = at.name.slice(0, 2000);
    line.append(name, time);
    return line;
  };
  const fill = (at, into, depth) => {
    const list = [...at.below.values()].sort((a, b) => b.own - a.own || (a.name < b.name ? -1 : 1));
    for (let below of list) {
      if (left-- <= 0) return;
      while (below.below.size === 1 && below.file < 0) {
        const [only] = below.below.values();
        below = { ...only, name: below.name + only.name };
      }
      if (below.file >= 0) {
        const button = entry(below, "button");
        button.dataset.file = below.file;
        button.ariaCurrent = String(below.file === source.file);
        into.append(button);
        continue;
      }
      const folder = document.createElement("details");
      folder.open = depth < 2 && below.own > now.seconds / 20;
      folder.append(entry(below, "summary"));
      into.append(folder);
      // What lies deeper than paths do is not unfolded: names come from the program.
      if (depth < 100) fill(below, folder, depth + 1);
    }
  };
  const all = document.createDocumentFragment();
  fill(fileTree(), all, 0);
  get("files").replaceChildren(all);
}

// Opens a file, at a function where one is given.
function openFile(file, of) {
  source.file = file;
  source.function = of ?? -1;
  for (const button of get("files").querySelectorAll("[data-file]")) button.ariaCurrent = String(Number(button.dataset.file) === file);
  showFile(true);
}

function showFile(anew = false) {
  if (get("source").hidden) return;
  if (source.file < 0) {
    const own = (file) => now.rows.reduce((sum, row) => (data.functions[row.function][4] === file ? sum + row.own : sum), 0);
    let most = -1;
    data.files.forEach((file, at) => {
      if (file.text !== null && (most < 0 || own(at) > own(most))) most = at;
    });
    if (most < 0) return;
    source.file = most;
    anew = true;
    fillFiles();
  }
  const { name, text, note } = data.files[source.file];
  const costs = (source.costs = lineCosts(source.file));
  const lines = text === null ? [] : text.split("\n");
  if (lines.length && lines[lines.length - 1] === "") lines.pop();
  get("fileName").textContent = name || "(no name)";
  get("fileNote").textContent = note;
  const whole = [...costs.values()].reduce((most, cost) => Math.max(most, cost.total), 0);
  const numbers = new Set(costs.keys());
  lines.forEach((_, at) => numbers.add(at + 1));
  const first = source.function >= 0 ? data.functions[source.function][2] : -1;
  let target = null;
  const rows = [...numbers].sort((a, b) => a - b).map((number) => {
    const cost = costs.get(number);
    const row = document.createElement("div");
    row.dataset.line = number;
    if (cost) {
      row.dataset.function = cost.function;
      row.title = `${number ? "line " + number : "lines that are not known"}: own ${timeText(seconds(cost.own))}, with what it calls ${timeText(seconds(cost.total))}, ${percent(cost.total, now.all)} of all; in ${nameOf(cost.function).slice(0, 200)}`;
    }
    const missing = number === 0 ? "(lines that are not known)" : text === null ? "" : "(the file has no such line)";
    const texts = [number || "-", cost ? fixed(seconds(cost.own)) : "", cost ? fixed(seconds(cost.total)) : "", lines[number - 1] ?? missing];
    texts.forEach((part, at) => {
      const cell = document.createElement(at < 3 ? "i" : "code");
      cell.textContent = part;
      row.append(cell);
    });
    // Heat is the line's share of the hottest line.
    row.style.setProperty("--share", (cost && whole ? (100 * cost.total) / whole : 0).toFixed(1) + "%");
    if (number === first) row.className = "first";
    if (number === first || (target === null && first < 0 && cost && cost.total === whole)) target = row;
    return row;
  });
  const box = get("lines");
  box.replaceChildren(...rows);
  if (anew && target) box.scrollTop = target.offsetTop - box.offsetTop - box.clientHeight / 3;
}
