// Drives a page of biopsy in headless Chromium and tells what it saw as JSON.
// Arguments: the folder of puppeteer-core, the browser, the page, the task as JSON. What the task means is tests/formats/page.rs's.
const [, , modules, executablePath, file, taskText] = process.argv;
const puppeteer = require(modules);
const task = JSON.parse(taskText);

async function open(browser, width, before) {
  const page = await browser.newPage();
  const seen = { width, errors: [], requests: [] };
  page.on("pageerror", (error) => seen.errors.push(error.message));
  page.on("console", (message) => message.type() === "error" && seen.errors.push(message.text()));
  page.on("request", (request) => request.url() !== "file://" + file && seen.requests.push(request.url()));
  await page.setViewport({ width, height: 900 });
  if (before) await page.evaluateOnNewDocument(before);
  const began = Date.now();
  await page.goto("file://" + file);
  await page.waitForFunction(() => document.documentElement.dataset.ready === "yes", { timeout: 60000 });
  seen.ready_ms = Date.now() - began;
  return [page, seen];
}

const rowsOf = (page) =>
  page.evaluate(() =>
    [...document.querySelectorAll("#rows tr")].map((line) => {
      const text = (at) => line.cells[at].firstChild?.textContent ?? "";
      return { ncalls: text(0), tottime: text(1), percall: text(2), cumtime: text(3), function: text(5), file: line.cells[6].title };
    }),
  );
const overflowOf = (page) => page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
const textOf = (page, id) => page.$eval("#" + id, (element) => element.textContent);
// `graph`, `get` and `nameOf` in what is evaluated are those of the page's script.
async function use(page, seen) {
  seen.rows = await rowsOf(page);
  seen.overflow = await overflowOf(page);
  seen.boxes = await page.evaluate(() => {
    const levels = [];
    for (const { box, w } of graph.drawn) {
      const share = w / get("scroll").clientWidth;
      if (!levels[box.depth] || levels[box.depth].share < share) levels[box.depth] = { name: nameOf(box.function), share };
    }
    return levels;
  });
  const yOfRoot = () => page.evaluate(() => graph.drawn.find(({ box }) => box.depth === 0).y);
  const above = await yOfRoot();
  await page.click('[data-shape="flame"]');
  seen.flame_is_turned = (await yOfRoot()) > above;
  await page.click('[data-shape="inverted"]');
  seen.inverted = await page.evaluate(() => nameOf(rootBoxes()[0].function));
  await page.click('[data-shape="icicle"]');
  // Search.
  await page.keyboard.press("/");
  await page.keyboard.type(task.search);
  seen.found = await textOf(page, "found");
  seen.found_rows = (await rowsOf(page)).length;
  await page.keyboard.press("Escape");
  // A function.
  await page.evaluate((name) => [...document.querySelectorAll("#rows tr")].find((line) => line.cells[5].textContent === name).click(), task.choose);
  const edges = (id, parts) =>
    page.evaluate((id, parts) => [...document.querySelectorAll(`#${id} button`)].map((b) => [b.children[0].textContent, b.children[1].textContent.split(",")[0]].slice(0, parts).join(" ")), id, parts);
  seen.callees = await edges("callees", 2);
  seen.callers = await edges("callers", 1);
  // Its file: lines with time, and their text.
  seen.source = await page.evaluate(() => ({
    name: get("fileName").textContent,
    note: get("fileNote").textContent,
    count: get("lines").childElementCount,
    lines: [...document.querySelectorAll("#lines [data-function]")].map((row) => [...row.children].map((part) => part.textContent)),
    current: document.querySelector('#files [aria-current="true"] b').textContent,
  }));
  // Zoom by a click on a box, and back.
  const zoom = () => page.evaluate(() => [graph.zoom && nameOf(graph.zoom.function), !get("reset").hidden]);
  const spot = await page.evaluate(() => {
    const { x, y, w } = graph.drawn.find(({ box }) => nameOf(box.function) === "burn_30");
    get("flame").scrollIntoView();
    const place = get("flame").getBoundingClientRect();
    return [place.left + x + w / 2, place.top + y + 9];
  });
  await page.mouse.click(...spot);
  seen.zoomed = await zoom();
  await page.keyboard.press("Escape");
  seen.left = await zoom();
  // The same without a mouse.
  await page.focus("#scroll");
  await page.keyboard.press("ArrowDown");
  await page.keyboard.press("ArrowDown");
  await page.keyboard.press("Enter");
  seen.by_keys = [(await zoom())[0], await textOf(page, "functionName")];
  await page.keyboard.press("Escape");
  // A range of time, dragged, and all of it again.
  const lanes = await page.evaluate(() => {
    get("lanes").scrollIntoView({ block: "center" });
    const { left, top, width } = get("lanes").getBoundingClientRect();
    return [left, top + 8, width];
  });
  await page.mouse.move(lanes[0] + lanes[2] * 0.4, lanes[1]);
  await page.mouse.down();
  await page.mouse.move(lanes[0] + lanes[2] * 0.5, lanes[1], { steps: 3 });
  await page.mouse.move(lanes[0] + lanes[2] * 0.7, lanes[1], { steps: 3 });
  await page.mouse.up();
  seen.range = await page.evaluate(() => chosen.range);
  seen.range_text = await textOf(page, "range");
  seen.range_rows = await rowsOf(page);
  await page.click("#allTime");
  seen.whole_again = JSON.stringify(await rowsOf(page)) === JSON.stringify(seen.rows);
  // Another order of rows.
  await page.click("#head th:nth-child(6) button");
  seen.sorted_by_name = (await rowsOf(page))[0].function;
  const back = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  seen.themes = [await back()];
  await page.keyboard.press("t");
  seen.themes.push(await back());
}

async function look(page, seen) {
  seen.rows = await rowsOf(page);
  seen.overflow = await overflowOf(page);
  seen.title = await page.title();
  seen.detail = await textOf(page, "detail");
  seen.elements = await page.evaluate(() => ["img", "i", "#rows b"].map((tag) => document.querySelectorAll(tag).length));
}

// A difference: its rows, the boxes with their changes (positive: more time) and colours, and those of the older side.
async function compare(page, seen) {
  seen.overflow = await overflowOf(page);
  seen.note = await textOf(page, "note");
  const look = () =>
    page.evaluate(() => ({
      rows: [...document.querySelectorAll("#rows tr")].map((line) => [...line.cells].map((cell) => cell.firstChild?.textContent ?? "")),
      boxes: graph.drawn.map(({ box, w }) => [nameOf(box.function), changeOf(box.total, box.other) / 1e9, diffColor(box).slice(0, 7), w]),
    }));
  seen.newer = await look();
  await page.click('[data-shape="inverted"]');
  seen.inverted = (await look()).boxes;
  await page.click('[data-shape="icicle"]');
  await page.select("#view", "1");
  seen.older = await look();
  await page.evaluate(() => [...document.querySelectorAll("#rows tr")].find((line) => line.textContent.includes("work")).click());
  seen.callees = await page.evaluate(() => [...document.querySelectorAll("#callees button")].map((button) => button.textContent));
}

// Tasks and threads that are chosen, and the timeline's keys.
async function choose(page, seen) {
  seen.overflow = await overflowOf(page);
  seen.rows = await rowsOf(page);
  await page.click("#tasks summary");
  const listed = () => page.$$eval("#taskList label", (all) => all.map((one) => [one.children[1].textContent, one.children[2].textContent, one.children[0].checked]));
  const tick = (selector, name) =>
    page.evaluate((selector, name) => [...document.querySelectorAll(selector)].find((one) => one.textContent.startsWith(name)).firstElementChild.click(), selector, name);
  seen.tasks = await listed();
  await page.click("#noTasks");
  seen.none = (await rowsOf(page)).length;
  await tick("#taskList label", task.task);
  seen.of_task = await rowsOf(page);
  seen.text = await textOf(page, "range");
  await tick("#taskList label", "outside of tasks");
  seen.of_task_and_outside = await rowsOf(page);
  await page.click("#allTasks");
  seen.all_again = JSON.stringify(await rowsOf(page)) === JSON.stringify(seen.rows);
  await tick("#laneNames label", task.thread);
  seen.without_thread = await rowsOf(page);
  await tick("#laneNames label", task.thread);
  seen.with_thread = JSON.stringify(await rowsOf(page)) === JSON.stringify(seen.rows);
  await page.focus("#lanes");
  seen.ranges = [];
  for (const key of ["+", "ArrowRight", "ArrowLeft", "ArrowLeft", "-"]) {
    await page.keyboard.press(key);
    seen.ranges.push(await page.evaluate(() => chosen.range));
  }
  await page.keyboard.press("Escape");
  seen.after_escape = await page.evaluate(() => [chosen.range, chosen.threads, chosen.tasks]);
}

(async () => {
  const browser = await puppeteer.launch({ executablePath, headless: true, args: ["--no-sandbox", "--disable-gpu"], timeout: 120000, protocolTimeout: 120000 });
  const result = { widths: [] };
  try {
    for (const width of [375, 800, 1600]) {
      const [page, seen] = await open(browser, width);
      await { use, look, compare, choose }[task.do](page, seen);
      if (process.env.BIOPSY_SCREENSHOTS) await page.screenshot({ path: `${process.env.BIOPSY_SCREENSHOTS}-${task.do}-${width}.png` });
      result.widths.push(seen);
      await page.close();
    }
    if (task.do === "use") {
      const [page, seen] = await open(browser, 1600, () => delete window.DecompressionStream);
      seen.rows = await rowsOf(page);
      result.without_streams = seen;
    }
  } finally {
    await browser.close();
  }
  console.log(JSON.stringify(result));
})();
