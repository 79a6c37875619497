// The chosen function: its numbers, its callers and callees with their shares of its time.
function showFunction() {
  const of = chosen.function;
  get("function").hidden = of < 0;
  if (of < 0) return;
  const row = now.rowOf.get(of);
  get("functionName").textContent = nameOf(of);
  const numbers = row
    ? `${placeOf(of)}  ·  ${[callsText(row) && callsText(row) + " calls", "own " + timeText(row.own), "cumulative " + timeText(row.total) + " (" + percent(row.total, now.seconds) + ")"].filter(Boolean).join(", ")}`
    : `${placeOf(of)}  ·  no time in what is chosen`;
  get("functionPlace").textContent = numbers;
  const sort = (list) => list.sort((a, b) => b.total - a.total || a.function - b.function);
  // Each caller's share of the function's time; of callees, the share of the function's time that passes in them.
  fillEdges(get("callers"), sort(callersOf(of)), row, "nobody on the stack calls it");
  fillEdges(get("callees"), sort(calleesOf(of)), row, "calls nothing that was seen");
}

function fillEdges(list, edges, row, none) {
  const whole = row?.total ?? 0;
  const names = new Map();
  for (const { function: of } of edges) names.set(nameOf(of), (names.get(nameOf(of)) ?? 0) + 1);
  // Functions of one name are told apart by where they are.
  const nameIn = (of) => (names.get(nameOf(of)) > 1 ? `${nameOf(of)}  ${placeOf(of).replace(/^.*\//, "")}` : nameOf(of));
  const lines = edges.slice(0, 100).map((edge) => {
    const line = document.createElement("li");
    const button = document.createElement("button");
    button.dataset.function = edge.function;
    button.className = "bar";
    button.style.setProperty("--share", (whole > 0 ? Math.min(100, (100 * edge.total) / whole) : 0).toFixed(2) + "%");
    const calls = edge.calls === null ? "" : `, ${edge.bound ? "≥" : ""}${edge.calls} calls`;
    for (const [tag, text] of [
      ["b", shortened(nameIn(edge.function))],
      ["span", `${timeText(edge.total)}, ${percent(edge.total, whole)}${calls}${data.difference ? ", " + signed(changeOf(edge.total, edge.other)) : ""}`],
    ]) {
      const part = document.createElement(tag);
      part.textContent = text;
      button.append(part);
    }
    button.title = placeOf(edge.function).slice(0, 2000);
    line.append(button);
    return line;
  });
  if (edges.length > 100 || edges.length === 0) {
    const line = document.createElement("li");
    line.textContent = edges.length ? `and ${edges.length - 100} more` : none;
    lines.push(line);
  }
  list.replaceChildren(...lines);
}
