// The page's data: base64 of a zlib stream of JSON and columns of varints (see pack.rs).
async function unpack(text) {
  let packed;
  if (Uint8Array.fromBase64) packed = Uint8Array.fromBase64(text);
  else {
    const letters = atob(text);
    packed = new Uint8Array(letters.length);
    for (let at = 0; at < letters.length; at++) packed[at] = letters.charCodeAt(at);
  }
  let raw;
  if (typeof DecompressionStream === "function") {
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
    raw = new Uint8Array(await new Response(stream).arrayBuffer());
  } else raw = inflate(packed);
  const length = new DataView(raw.buffer, raw.byteOffset).getUint32(0, true);
  const head = JSON.parse(new TextDecoder().decode(raw.subarray(4, 4 + length)));
  let at = 4 + length;
  const columns = {};
  for (const [name, count] of head.columns) {
    const values = new Float64Array(count);
    for (let index = 0; index < count; index++) {
      let byte = raw[at++];
      let value = byte & 0x7f;
      for (let scale = 128; byte > 127; scale *= 128) {
        byte = raw[at++];
        value += (byte & 0x7f) * scale;
      }
      values[index] = value;
    }
    columns[name] = values;
  }
  return [head, columns];
}

const unzigzag = (value) => (value % 2 ? -(value + 1) / 2 : value / 2);

// Frames, nodes and runs as arrays that one can count with.
function decode(head, columns) {
  // Position of the file last, its name where it is asked for most.
  for (const of of head.functions) {
    of.push(of[1]);
    of[1] = head.files[of[1]].name;
  }
  const frames = { function: new Int32Array(columns.frame_function.length), line: new Int32Array(columns.frame_line.length) };
  let last = 0;
  columns.frame_function.forEach((step, at) => {
    last += unzigzag(step);
    frames.function[at] = last;
    const line = columns.frame_line[at];
    frames.line[at] = line ? head.functions[last][2] + unzigzag(line - 1) : 0;
  });
  const count = columns.node_back.length;
  const nodes = { parent: new Int32Array(count), frame: new Int32Array(count), function: new Int32Array(count) };
  last = 0;
  for (let at = 0; at < count; at++) {
    last += unzigzag(columns.node_frame[at]);
    nodes.frame[at] = last;
    nodes.function[at] = frames.function[last];
    nodes.parent[at] = columns.node_back[at] ? at - columns.node_back[at] : -1;
  }
  const all = columns.run_leaf.length;
  const runs = { node: new Int32Array(all), wall: columns.run_wall, state: new Uint8Array(columns.run_state), weight: columns.run_weight, begin: new Float64Array(all) };
  if (!runs.weight) runs.weight = runs.wall.map((wall, at) => (runs.state[at] & 16 ? 0 : wall));
  for (let at = 0; at < all; at++) runs.node[at] = columns.leaf_node[columns.run_leaf[at]];
  let first = 0;
  for (const thread of head.threads) {
    thread.first = first;
    thread.end = first + thread.runs;
    let time = thread.started_us;
    for (let at = first; at < thread.end; at++) {
      runs.begin[at] = time;
      time += runs.wall[at];
    }
    thread.until = time;
    first = thread.end;
  }
  return { ...head, frames, nodes, runs };
}

function get(id) {
  return document.getElementById(id);
}

function toggleTheme() {
  const root = document.documentElement;
  const isDark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = isDark ? "light" : "dark";
}
