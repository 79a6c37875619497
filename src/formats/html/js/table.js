// Text that fits into a few lines: cut in the middle, for names begin and paths end with what tells them apart.
const MOST_LETTERS = 240;
function shortened(text) {
  if (text.length <= MOST_LETTERS) return text;
  const letters = Array.from(text);
  return letters.slice(0, MOST_LETTERS / 3).join("") + " … " + letters.slice((-MOST_LETTERS * 2) / 3).join("");
}

// What tells a path from others is its end; all of it is in the title, and where the function is chosen.
const MOST_OF_PATH = 50;
function endOf(path) {
  const letters = Array.from(path);
  if (letters.length <= MOST_OF_PATH) return path;
  const end = letters.slice(-MOST_OF_PATH).join("");
  return "…" + end.slice(Math.max(0, end.indexOf("/")));
}

// The sortable table: pstats' columns, and the shares as bars.
const callsText = (row) => {
  if (row.calls === null) return "";
  return (row.bound ? "≥" : "") + (row.calls === row.primitive || row.primitive === undefined ? row.calls : row.calls + "/" + row.primitive);
};
// Nobody knows the time per call where there may have been more calls.
const perCall = (row, time, calls) => (row.calls === null || row.bound || !calls ? null : time / calls);
const perCallText = (value) => (value === null ? "" : value >= 0.001 || value === 0 ? value.toFixed(3) : value.toPrecision(3));
const fixed = (value) => (data.unit_unknown ? timeText(value) : value.toFixed(3));
const sideCalls = (side) => (side ? (side[1] ? "≥" : "") + side[0] : "");
const sideTime = (side, part) => (side ? fixed(side[part]) : "");
const change = (value) => (value > 0 ? "+" : value < 0 ? "-" : "") + fixed(Math.abs(value));
// Of a difference; a side is empty where the function does not occur.
const changeColumns = [
  { name: "tottime, change", key: (row) => Math.abs(row.ownChange), text: (row) => change(row.ownChange), bar: (row) => row.ownChange },
  { name: "old", key: (row) => row.old?.[2] ?? -1, text: (row) => sideTime(row.old, 2) },
  { name: "new", key: (row) => row.anew?.[2] ?? -1, text: (row) => sideTime(row.anew, 2) },
  { name: "cumtime, change", key: (row) => Math.abs(row.totalChange), text: (row) => change(row.totalChange), bar: (row) => row.totalChange },
  { name: "old", key: (row) => row.old?.[3] ?? -1, text: (row) => sideTime(row.old, 3), minor: true },
  { name: "new", key: (row) => row.anew?.[3] ?? -1, text: (row) => sideTime(row.anew, 3), minor: true },
  { name: "ncalls, old", key: (row) => row.old?.[0] ?? -1, text: (row) => sideCalls(row.old), minor: true },
  { name: "new", key: (row) => row.anew?.[0] ?? -1, text: (row) => sideCalls(row.anew), minor: true },
];
let columns = [
  { name: "ncalls", key: (row) => row.calls ?? -1, text: callsText },
  { name: "tottime", key: (row) => row.own, text: (row) => fixed(row.own), bar: (row) => row.own },
  { name: "percall", key: (row) => perCall(row, row.own, row.calls) ?? -1, text: (row) => perCallText(perCall(row, row.own, row.calls)), minor: true },
  { name: "cumtime", key: (row) => row.total, text: (row) => fixed(row.total), bar: (row) => row.total },
  { name: "percall", key: (row) => perCall(row, row.total, row.primitive) ?? -1, text: (row) => perCallText(perCall(row, row.total, row.primitive)), minor: true },
  { name: "function", key: (row) => nameOf(row.function), text: (row) => nameOf(row.function), words: true },
  { name: "file", key: (row) => placeOf(row.function), text: (row) => placeOf(row.function), words: true, short: endOf },
];
const table = { sorted: 3, falling: true, shown: 200 };

function fillTable() {
  const matches = matching();
  const list = now.rows.filter((row) => matches === null || matches[row.function]);
  const { key } = columns[table.sorted];
  const sign = table.falling ? -1 : 1;
  list.sort((a, b) => {
    const [x, y] = [key(a), key(b)];
    return x < y ? -sign : x > y ? sign : a.function - b.function;
  });
  const lines = list.slice(0, table.shown).map((row) => {
    const line = document.createElement("tr");
    line.dataset.function = row.function;
    line.tabIndex = 0;
    if (row.function === chosen.function) line.className = "chosen";
    for (const { text, bar, words, minor, short } of columns) {
      const cell = line.insertCell();
      cell.textContent = words ? (short ?? shortened)(text(row)) : text(row);
      cell.className = words ? "words" : minor ? "minor" : "";
      if (words) cell.title = text(row).slice(0, 2000);
      if (bar) {
        const share = now.seconds > 0 ? Math.min(1, Math.abs(bar(row)) / now.seconds) : 0;
        cell.className = !data.difference ? "bar" : bar(row) > 0 ? "bar more" : "bar less";
        cell.style.setProperty("--share", (100 * share).toFixed(2) + "%");
        if (data.difference) continue;
        const part = document.createElement("small");
        part.textContent = percent(bar(row), now.seconds);
        cell.append(part);
      }
    }
    return line;
  });
  get("rows").replaceChildren(...lines);
  get("more").hidden = list.length <= table.shown;
  tellFound(matches, list.length);
  [...get("head").children].forEach((cell, at) => {
    cell.ariaSort = at !== table.sorted ? "none" : table.falling ? "descending" : "ascending";
    cell.firstChild.textContent = columns[at].name + (at !== table.sorted ? "" : table.falling ? " ▾" : " ▴");
  });
}

function tellFound(matches, count) {
  const words = matches === null ? "" : `${count} found, on the stack for ${data.estimated ? "~" : ""}${percent(matchedTime(matches), now.all) || "0 %"} of the time`;
  get("found").textContent = words;
}

function makeHead() {
  if (data.difference) {
    columns = [...changeColumns, ...columns.filter(({ words }) => words)];
    table.sorted = 0;
    document.body.classList.add("difference");
  }
  const numbers = columns.filter(({ words }) => !words);
  const { style } = get("head").closest("table");
  style.setProperty("--all", numbers.length);
  style.setProperty("--few", numbers.filter(({ minor }) => !minor).length);
  columns.forEach(({ name, words, minor }, at) => {
    const cell = document.createElement("th");
    cell.className = words ? "words" : minor ? "minor" : "";
    cell.scope = "col";
    const button = document.createElement("button");
    button.textContent = name;
    button.addEventListener("click", () => {
      table.falling = table.sorted === at ? !table.falling : !words;
      table.sorted = at;
      fillTable();
    });
    cell.append(button);
    get("head").append(cell);
  });
}
