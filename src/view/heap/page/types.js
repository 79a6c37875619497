// The table of types, and what is told of the chosen one.
const hasOld = () => heap.old !== null;
const typeColumns = [
  { name: "type", words: true, key: (row) => row.name, text: (row) => row.name || "(no name)" },
  { name: "# objects", key: (row) => row.objects, text: (row) => (heap.least ? "≥" : "") + row.objects },
  { name: "change", old: true, key: (row) => row.objects - (row.old ? row.old[0] : 0), text: (row) => (row.old ? signed(row.objects - row.old[0], String) : ""), change: true },
  { name: "total size", key: (row) => row.bytes, text: (row) => (heap.least ? "≥" : "") + bytesText(row.bytes), bar: (row) => row.bytes },
  { name: "change", old: true, key: (row) => row.bytes - (row.old ? row.old[1] : 0), text: (row) => (row.old ? signed(row.bytes - row.old[1], bytesText) : ""), change: true },
  { name: "retained", graph: true, key: (row) => row.retained ?? -1, text: (row) => (row.retained === null ? "" : bytesText(row.retained)) },
];
let shownColumns = [];
const order = { by: null, falling: true, most: 100 };

function makeTypesHead() {
  shownColumns = typeColumns.filter((column) => (!column.old || hasOld()) && (!column.graph || heap.whole !== null));
  order.by = shownColumns[hasOld() ? 4 : 2];
  get("head").closest("table").style.setProperty("--few", shownColumns.length - 1);
  for (const column of shownColumns) {
    const cell = document.createElement("th");
    cell.scope = "col";
    const button = document.createElement("button");
    button.textContent = column.name;
    button.addEventListener("click", () => {
      order.falling = order.by === column ? !order.falling : !column.words;
      order.by = column;
      fillTypes();
    });
    cell.append(button);
    get("head").append(cell);
  }
}

function fillTypes() {
  const list = heap.types.map((row, at) => ({ ...row, at })).filter((row) => row.name.toLowerCase().includes(picked.wanted));
  const sign = order.falling ? -1 : 1;
  const { key } = order.by;
  list.sort((a, b) => (key(a) < key(b) ? -sign : key(a) > key(b) ? sign : a.at - b.at));
  get("rows").replaceChildren(
    ...list.slice(0, order.most).map((row) => {
      const line = document.createElement("tr");
      line.dataset.type = row.at;
      line.tabIndex = 0;
      if (row.at === picked.type) line.className = "chosen";
      for (const column of shownColumns) {
        const cell = line.insertCell();
        cell.textContent = column.text(row);
        if (column.words) cell.title = row.name;
        if (column.change && column.key(row)) cell.className = column.key(row) > 0 ? "up" : "down";
        if (column.bar && heap.bytes > 0) {
          cell.className = "bar";
          cell.style.setProperty("--share", ((100 * column.bar(row)) / heap.bytes).toFixed(2) + "%");
        }
      }
      return line;
    }),
  );
  get("more").hidden = list.length <= order.most;
  [...get("head").children].forEach((cell, at) => {
    const is = shownColumns[at] === order.by;
    cell.ariaSort = !is ? "none" : order.falling ? "descending" : "ascending";
    cell.firstChild.textContent = shownColumns[at].name + (!is ? "" : order.falling ? " ▾" : " ▴");
  });
  const sum = list.reduce((sum, row) => sum + row.bytes, 0);
  get("found").textContent = picked.wanted ? `${list.length} ${list.length === 1 ? "type" : "types"} found, ${bytesText(sum)}, ${share(sum, heap.bytes)} of the objects' bytes` : "";
}

function listOf(id, texts) {
  get(id).replaceChildren(
    ...texts.map((text) => {
      const item = document.createElement("li");
      item.textContent = text;
      return item;
    }),
  );
}

function chooseType(at) {
  picked.type = at;
  for (const line of get("rows").children) line.className = Number(line.dataset.type) === at ? "chosen" : "";
  const row = heap.types[at];
  get("type").hidden = !row;
  if (!row) return;
  get("typeName").textContent = row.name || "(no name)";
  listOf("why", row.why);
  get("whyPart").hidden = !row.why.length;
  const all = (row.paths || []).map(([text, count]) => `${count} × ${text}`);
  if (row.more[0]) all.push(`${row.more[1]} × ${row.more[0]} more paths`);
  listOf("paths", all);
  get("pathsPart").hidden = !all.length;
  const none = row.paths ? "nothing that any root reaches" : heap.whole === null ? "the page was made without the references: who holds it is not in it" : "its paths are not in this page: biopsy heap path --type shows them";
  get("noPaths").textContent = none;
  get("noPaths").hidden = all.length > 0;
  get("type").scrollIntoView?.({ block: "nearest" });
}
