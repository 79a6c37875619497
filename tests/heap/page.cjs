// Drives a page of a heap in headless Chromium and tells what it saw as JSON.
// Arguments: the folder of puppeteer-core, the browser, the page, the task as JSON. What the task means is tests/heap/page.rs's.
const [, , modules, executablePath, file, taskText] = process.argv;
const puppeteer = require(modules);
const task = JSON.parse(taskText);

const textOf = (page, id) => page.$eval("#" + id, (element) => element.textContent);
const textsOf = (page, selector) => page.$$eval(selector, (all) => all.map((element) => element.textContent));
const rowsOf = (page) => page.$$eval("#rows tr", (lines) => lines.map((line) => [...line.cells].map((cell) => cell.textContent)));

async function use(page, seen) {
  seen.rows = await rowsOf(page);
  seen.tree = await textsOf(page, "#tree > li > .line b");
  // `map`, `heap`, `pathText` and the like in what is evaluated are those of the page's script.
  seen.boxes = await page.evaluate(() => map.boxes.filter(({ depth }) => depth === 0).sort((a, b) => b.w * b.h - a.w * a.h).slice(0, 5).map(({ at, w, h }) => [pathText(at), heap.rows.retained[at], (w * h) / (get("map").clientWidth * get("map").clientHeight)]));
  // Search, and a type.
  await page.keyboard.press("/");
  await page.keyboard.type(task.search);
  seen.found = await textOf(page, "found");
  seen.found_rows = (await rowsOf(page)).map((row) => row[0]);
  await page.click("#rows tr");
  seen.type = await textOf(page, "typeName");
  seen.paths = await textsOf(page, "#paths li");
  seen.why = await textsOf(page, "#why li");
  await page.focus("#search");
  await page.keyboard.press("Escape");
  seen.all_rows = (await rowsOf(page)).length;
  if (await page.$eval("#holders", (element) => element.hidden)) return;
  // The treemap with the keys: into the biggest, and out of it.
  await page.focus("#map");
  await page.keyboard.press("ArrowRight");
  seen.marked = await textOf(page, "detail");
  await page.keyboard.press("Enter");
  seen.zoomed = await textsOf(page, "#crumbs button");
  await page.keyboard.press("Escape");
  seen.left = await textsOf(page, "#crumbs button");
  // The tree: the first holder, unfolded by a key and folded by a click.
  await page.focus("#tree .line");
  await page.keyboard.press("Enter");
  seen.below = await textsOf(page, "#tree > li:first-child > ul > li > .line b");
  await page.click("#tree .line");
  seen.folded = (await page.$$("#tree > li:first-child > ul")).length;
  const back = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  seen.themes = [await back()];
  await page.evaluate(() => document.activeElement.blur());
  await page.keyboard.press("t");
  seen.themes.push(await back());
}

async function look(page, seen) {
  seen.rows = await rowsOf(page);
  seen.elements = await page.evaluate(() => ["img", "#rows b", "#paths b", "#tree script"].map((tag) => document.querySelectorAll(tag).length));
}

(async () => {
  const browser = await puppeteer.launch({ executablePath, headless: true, args: ["--no-sandbox", "--disable-gpu"] });
  const widths = [];
  try {
    for (const width of [375, 800, 1600]) {
      const page = await browser.newPage();
      const seen = { width, errors: [], requests: [] };
      page.on("pageerror", (error) => seen.errors.push(error.message));
      page.on("console", (message) => message.type() === "error" && seen.errors.push(message.text()));
      page.on("request", (request) => request.url() !== "file://" + file && seen.requests.push(request.url()));
      await page.setViewport({ width, height: 900 });
      await page.goto("file://" + file);
      await page.waitForFunction(() => document.documentElement.dataset.ready === "yes", { timeout: 60000 });
      await { use, look }[task.do](page, seen);
      seen.overflow = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
      seen.totals = await textOf(page, "totals");
      seen.lines = await textsOf(page, "#lineNames li");
      seen.parts = await textsOf(page, "#partNames li");
      if (process.env.BIOPSY_SCREENSHOTS) await page.screenshot({ path: `${process.env.BIOPSY_SCREENSHOTS}-heap-${width}.png` });
      widths.push(seen);
      await page.close();
    }
  } finally {
    await browser.close();
  }
  console.log(JSON.stringify({ widths }));
})();
