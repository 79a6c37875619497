// The heap of the page: what stands in the JSON, and the rows of the tree of holders as arrays.
let heap = null;
const picked = { type: -1, wanted: "" };

function readHeap(head, columns) {
  const back = columns.row_back || [];
  const count = back.length;
  const rows = { above: new Int32Array(count), next: new Int32Array(count).fill(-1), first: new Int32Array(count + 1).fill(-1) };
  // Children in the order of the file: each list is made from its end.
  for (let at = count - 1; at >= 0; at--) {
    const above = back[at] ? at - back[at] : -1;
    rows.above[at] = above;
    const place = above < 0 ? count : above;
    rows.next[at] = rows.first[place];
    rows.first[place] = at;
  }
  for (const name of ["kind", "path", "objects", "retained", "held", "shallow", "open"]) rows[name] = columns["row_" + name] || [];
  return { ...head, count, rows };
}

// The rows below one, -1 for those at the top; what holds most first.
function childrenOf(at) {
  const { rows, count } = heap;
  const found = [];
  for (let child = rows.first[at < 0 ? count : at]; child >= 0; child = rows.next[child]) found.push(child);
  return found.sort((a, b) => rows.retained[b] - rows.retained[a] || a - b);
}

// As the program's own tables print bytes.
function bytesText(bytes) {
  const sign = bytes < 0 ? "-" : "";
  let value = Math.abs(bytes);
  if (value < 1024) return `${sign}${value} B`;
  for (const unit of ["KiB", "MiB", "GiB", "TiB"]) {
    value /= 1024;
    if (value < 1024 || unit === "TiB") return `${sign}${value.toFixed(1)} ${unit}`;
  }
}
const signed = (value, text) => (value > 0 ? "+" : "") + text(value);
const share = (part, whole) => (whole > 0 ? ((100 * part) / whole).toFixed(1) + " %" : "");

function kindText(at) {
  const { rows, kinds } = heap;
  const kind = rows.kind[at] ? kinds[rows.kind[at] - 1] : "(other types)";
  return rows.objects[at] > 1 || !rows.kind[at] ? `${rows.objects[at]} × ${kind}` : kind;
}
const pathText = (at) => (heap.rows.path[at] ? heap.texts[heap.rows.path[at] - 1] : "");

function hue(text) {
  let sum = 7;
  for (let at = 0; at < text.length; at++) sum = (sum * 31 + text.charCodeAt(at)) % 3600;
  return sum / 10;
}
