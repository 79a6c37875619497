//! The picture: header, rows, a line at the foot, and the help.

use std::time::Duration;

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};

use super::app::{App, SORTS, Typing, VIEWS, View};
use super::page::Row;
use super::threads::is_task;
use crate::profile::states::Contention;
use crate::profile::{Mode, Origin, ThreadId};
use crate::units::{format_bytes, printable};
use crate::view::heap::counted;

/// Below this there is no room for anything.
const LEAST: (u16, u16) = (24, 6);

/// From this height on there is room for the line about the threads.
const ROOMY: u16 = 14;

/// With fewer columns, lines say the same in fewer words.
const WIDE: u16 = 100;

/// Cells of a heat bar.
const BAR: usize = 8;

/// Letters of a name that can be seen on the widest of screens.
const MOST_LETTERS: usize = 2000;

/// What is told above the rows beside the rows themselves.
#[derive(Debug, Clone, Default)]
pub struct Status {
    /// `top 4711 python3 server.py`, or the file.
    pub title: String,
    pub python: String,
    pub elapsed: Duration,
    pub rate: String,
    /// Samples a second of late; `None` for a file, or once it has ended.
    pub reached: Option<f64>,
    pub samples: u64,
    pub dropped: u64,
    pub ended: Option<&'static str>,
}

/// What the terminal can show.
#[derive(Debug, Clone, Copy)]
pub struct Abilities {
    pub colour: bool,
    pub unicode: bool,
}

impl Abilities {
    /// As the environment says.
    pub fn of_environment() -> Abilities {
        let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
            .iter()
            .find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
            .unwrap_or_default()
            .to_lowercase();
        Abilities {
            colour: !set("NO_COLOR") && std::env::var("TERM").is_ok_and(|term| term != "dumb"),
            unicode: locale.contains("utf-8") || locale.contains("utf8"),
        }
    }
}

fn put(frame: &mut Frame<'_>, area: Rect, line: u16, text: &str, style: Style) {
    if line < area.height {
        let row = Rect::new(area.x, area.y + line, area.width, 1);
        frame.buffer_mut().set_style(row, style);
        let buffer = frame.buffer_mut();
        buffer.set_stringn(row.x, row.y, text, usize::from(row.width), style);
    }
}

/// Draws everything; tells the app how many rows are seen.
pub fn draw(frame: &mut Frame<'_>, app: &mut App, status: &Status, able: Abilities) {
    let area = frame.area();
    if area.width < LEAST.0 || area.height < LEAST.1 {
        put(frame, area, 0, "too small", Style::new());
        return;
    }
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let reversed = Style::new().add_modifier(Modifier::REVERSED);
    put(frame, area, 0, &title(app, status), bold);
    put(frame, area, 1, &reading(app, status), Style::new());
    put(frame, area, 2, &choice(app), Style::new());
    let mut line = 3;
    if area.height >= ROOMY {
        put(frame, area, line, &doing(app, status), Style::new());
        line += 1;
    }
    let height = area.height - line - 2;
    app.height = usize::from(height);
    if app.help {
        let below = Rect::new(area.x, area.y + line, area.width, height + 1);
        draw_help(frame, app, below);
    } else {
        put(frame, area, line, &app.page.head, reversed);
        let below = Rect::new(area.x, area.y + line + 1, area.width, height);
        draw_rows(frame, app, below, able);
    }
    if app.typing.is_none() {
        let message = app.message().map(|message| printable(message).into_owned());
        match message {
            Some(message) => draw_message(frame, area, &message, height),
            None => put(frame, area, area.height - 1, &foot(app), Style::new()),
        }
    }
    if let Some((_, text)) = &app.typing {
        // The end of what is typed has to be seen.
        let label = foot_label(app);
        let room = usize::from(area.width).saturating_sub(label.chars().count() + 1);
        let letters: Vec<char> = text.chars().collect();
        let from = letters.len().saturating_sub(room);
        let seen: String = letters.iter().skip(from).collect();
        let line = format!("{label}{seen}_");
        put(frame, area, area.height - 1, &line, bold);
    }
}

fn draw_rows(frame: &mut Frame<'_>, app: &mut App, area: Rect, able: Abilities) {
    let (rows, height) = (app.page.rows.len(), usize::from(area.height));
    app.cursor().scroll(height, rows);
    let (top, at) = (app.cursor().top, app.cursor().at);
    let page = &app.page;
    if rows == 0 {
        put(frame, area, 0, &page.empty, Style::new());
    }
    for (line, row) in page.rows.iter().enumerate().skip(top).take(height) {
        let mut style = Style::new();
        if row.strong {
            style = style.add_modifier(Modifier::BOLD);
        }
        if able.colour {
            style = match row.heat {
                heat if heat >= 0.2 => style.fg(Color::Red),
                heat if heat >= 0.05 => style.fg(Color::Yellow),
                _ => style,
            };
        }
        if line == at {
            style = style.add_modifier(Modifier::REVERSED);
        }
        put(frame, area, (line - top) as u16, &text_of(row, able), style);
    }
}

fn text_of(row: &Row, able: Abilities) -> String {
    let name: String = row.name.chars().take(MOST_LETTERS).collect();
    if !row.bar {
        return match row.columns.is_empty() {
            true => name,
            false => format!("{} {name}", row.columns),
        };
    }
    let share = row.heat.clamp(0.0, 1.0);
    // The least of costs is seen.
    let cells = (share * BAR as f64).ceil() as usize;
    let full = if able.unicode { "█" } else { "#" };
    let bar = format!("{}{}", full.repeat(cells), " ".repeat(BAR - cells.min(BAR)));
    format!("{} {bar} {name}", row.columns)
}

fn title(app: &App, status: &Status) -> String {
    let seconds = status.elapsed.as_secs();
    let mut text = format!("biopsy {}", printable(&status.title));
    let mut end = String::new();
    if app.paused {
        end.push_str(" PAUSED");
    }
    if let Some(ended) = status.ended {
        end.push_str(&format!(" {ended}"));
    }
    if !app.data.is_file() {
        end.push_str(&format!(
            " {}:{:02}:{:02}",
            seconds / 3600,
            seconds / 60 % 60,
            seconds % 60
        ));
    }
    // The command may be long; what stands at the end may not be lost for it.
    let room = usize::from(app.width).saturating_sub(end.len());
    text = text.chars().take(room).collect();
    let width = text.chars().count();
    text.push_str(&" ".repeat(room.saturating_sub(width)));
    text.push_str(&end);
    text
}

/// How it is read.
fn reading(app: &App, status: &Status) -> String {
    let mut text = status.rate.clone();
    if let Some(reached) = status.reached {
        text.push_str(&format!(" ({reached:.0}/s)"));
    }
    // Numbers in files of other tools are times, or of what they do not say.
    if !app.data.is_file() || app.data.profile().meta.rate_hz > 0.0 {
        text.push_str(&format!(
            ": {} samples, {} dropped",
            status.samples, status.dropped
        ));
    }
    if app.data.lost > 0 {
        text.push_str(&format!(", {} not shown", app.data.lost));
    }
    if app.data.approximate {
        text.push_str("; approximate stacks");
    }
    // What the numbers rest on comes before what one knows.
    if !status.python.is_empty() && app.width >= WIDE {
        text.push_str(&format!("; Python {}", printable(&status.python)));
    }
    if !app.data.reader.is_empty() {
        text.push_str(&format!("; {}", printable(&app.data.reader)));
    }
    text
}

/// What is looked at.
fn choice(app: &App) -> String {
    let time = match app.choice.mode {
        Mode::Cpu => "CPU time",
        Mode::Wall => "wall time",
        Mode::Gil => "time with the GIL",
        Mode::Exception => "time handling exceptions",
    };
    let seconds = app.computed.seconds;
    let window = match (app.choice.recent && !app.data.is_file(), app.data.is_file()) {
        (true, _) => format!("last {:.0} s", seconds.floor()),
        (false, true) => format!("a recording of {seconds:.1} s"),
        (false, false) => format!("all of {:.0} s", seconds.floor()),
    };
    let profile = app.data.profile();
    let thread = match app.choice.thread {
        Some(thread) if thread.index() < profile.threads.len() => {
            printable(&profile.thread_label(thread)).into_owned()
        }
        _ => "all threads".to_string(),
    };
    let mut text = format!("{time}, {window}, {thread}");
    if !app.filter.is_empty() {
        text.push_str(&format!(", filter /{}/", printable(&app.filter)));
    }
    if app.view == View::Functions {
        text.push_str(&format!(", by {}", app.sort.description()));
    }
    if app.cursors[app.view as usize].held().is_some() {
        text.push_str(", order held (Home: follow)");
    }
    text
}

/// What the target does.
fn doing(app: &App, status: &Status) -> String {
    let states = &app.computed.states;
    let with_time: Vec<_> = states
        .iter()
        .filter(|times| times.wall_us > 0)
        .copied()
        .collect();
    let sums = Contention::of(&with_time);
    let span_us = (app.computed.seconds * 1e6).max(1.0);
    let cpu: u64 = app.computed.cpu_us.iter().sum();
    // Of those that have come and gone there may be thousands.
    let counts = |at: &usize| app.data.is_file() || app.data.ended || app.data.is_living(*at);
    let busy = states.iter().zip(&app.computed.cpu_us).enumerate();
    let busy = busy
        // Threads without Python have CPU time alone, and are none of those that are counted.
        .filter(|(at, (times, cpu_us))| {
            counts(at) && times.wall_us > 0 && **cpu_us > times.wall_us / 20
        })
        .count();
    let percent = |us: u64| format!("{:.0} %", 100.0 * us as f64 / span_us);
    let profile = app.data.profile();
    let seen = (0..states.len().min(profile.threads.len()))
        .filter(|at| states[*at].wall_us > 0 && counts(at))
        .map(|at| is_task(profile, ThreadId(at as u32)));
    let (tasks, threads): (Vec<bool>, Vec<bool>) = seen.partition(|is_task| *is_task);
    let mut who = counted(threads.len() as u64, "thread", "threads");
    if tasks.is_empty() {
        who.push_str(&format!(", {busy} busy"));
    } else {
        // A thread's time is that of its tasks: none of it says how busy it is. Tasks may come and go between two looks.
        let count = counted(tasks.len() as u64, "task", "tasks");
        let when = if app.data.is_file() || app.data.ended {
            ""
        } else {
            " of late"
        };
        who.push_str(&format!(", {count}{when}"));
    }
    // What nobody recorded is not nothing.
    let meta = &profile.meta;
    let (is_sampled, knows_waits) = match app.data.is_file() {
        true => (meta.origin == Origin::Sampled, meta.has_states),
        false => (true, !app.data.reader.contains("py-spy")),
    };
    if !is_sampled || (app.data.is_file() && !meta.has_cpu_time && !meta.has_states) {
        return "nothing says what threads did: neither CPU time nor states".to_string();
    }
    let wide = app.width >= WIDE;
    let (held, waited, garbage) = match wide {
        true => ("GIL held", "waited for", "garbage"),
        false => ("GIL", "wait", "GC"),
    };
    let waits = match knows_waits {
        true => format!(
            "{waited} {}, {garbage} {}",
            percent(sums.waited_us),
            percent(sums.gc_us)
        ),
        false if wide => "waits for it and garbage unknown".to_string(),
        false => "waits unknown".to_string(),
    };
    let held = match app.data.is_file() && !meta.has_states {
        true => format!("{held} unknown"),
        false => format!("{held} {}", percent(sums.held_us)),
    };
    let mut text = format!("{who}; CPU {}, {held}, {waits}", percent(cpu));
    if !app.data.has_gil() {
        let garbage = format!("{garbage} {}", percent(sums.gc_us));
        text = format!("{who}; CPU {}, no GIL, {garbage}", percent(cpu));
    }
    if let (Some(rss), None) = (app.memory.rss(), status.ended) {
        let resident = if wide { "resident " } else { "" };
        text.push_str(&format!("; {resident}{}", format_bytes(rss)));
    }
    text
}

fn foot_label(app: &App) -> String {
    match &app.typing {
        Some((Typing::Filter, _)) => "filter (Enter alone: all): ".to_string(),
        Some((Typing::Write, _)) => format!("write to [{}]: ", app.offered),
        None => String::new(),
    }
}

/// A message as the last lines, over as many rows as it takes.
fn draw_message(frame: &mut Frame<'_>, area: Rect, message: &str, rows: u16) {
    let lines = broken(message, usize::from(area.width));
    let shown = lines.len().min(usize::from(rows) + 1);
    let top = area.height - shown as u16;
    let bold = Style::new().add_modifier(Modifier::BOLD);
    for (at, line) in lines.iter().take(shown).enumerate() {
        let line = format!("{line:<0$}", usize::from(area.width));
        put(frame, area, top + at as u16, &line, bold);
    }
}

/// Lines of at most `width` letters: broken between words where there are some, and words that are longer anywhere.
pub fn broken(text: &str, width: usize) -> Vec<String> {
    let width = width.max(1);
    let mut lines = Vec::new();
    let mut now = String::new();
    for word in text.split(' ') {
        let letters: Vec<char> = word.chars().collect();
        let used = now.chars().count();
        if used > 0 && used + 1 + letters.len() <= width {
            now.push(' ');
            now.extend(letters);
            continue;
        }
        if used > 0 {
            lines.push(std::mem::take(&mut now));
        }
        for part in letters.chunks(width) {
            if !now.is_empty() {
                lines.push(std::mem::take(&mut now));
            }
            now.extend(part);
        }
    }
    lines.push(now);
    lines
}

fn foot(app: &App) -> String {
    let mut text = "? help  q quit ".to_string();
    for (at, (view, name)) in VIEWS.iter().enumerate() {
        let key = at + 1;
        match *view == app.view {
            true => text.push_str(&format!(" [{key} {name}]")),
            false if app.width >= WIDE => text.push_str(&format!(" {key} {name}")),
            false => {}
        }
    }
    if app.width < WIDE {
        text.push_str("  1-7 views");
    }
    // As many as there is room for, and none of them in part.
    for key in ["/ filter", "l last 10 s", "space pause", "w write"] {
        if text.len() + 2 + key.len() > usize::from(app.width) {
            break;
        }
        text.push_str(&format!("  {key}"));
    }
    text
}

fn help_lines() -> Vec<String> {
    let mut lines: Vec<String> = [
        "1-7, Tab    functions, call tree, callers and callees, source, threads, tasks, memory",
        "Up Down     choose a row, PgUp PgDn End too; rows keep their places from then on",
        "Home        to the top; the best is on top again",
        "Enter       of a function: who calls it, what it calls; of a thread: that thread alone",
        "s           the source of the chosen function; Esc, Backspace: back",
        "Right Left  unfold and fold (tree); e: unfold the path with most of the time",
        "< >         the sort key before or after; by letter:",
    ]
    .map(str::to_string)
    .to_vec();
    for (key, letter) in SORTS {
        lines.push(format!("            {letter}  {}", key.description()));
    }
    lines.extend(
        [
            "l           the last 10 s, or all since the start or reset",
            "x           CPU time, wall time (waiting too), time with the GIL",
            "[ ]         one thread after the other; a: all",
            "/           only functions, threads, types that match (part of a name, or a regular expression)",
            "o           show rows below 0.5 % one by one; p: files with their folders",
            "space       hold the picture; sampling goes on",
            "r           forget what was gathered so far; w still writes all of it",
            "w           write a file; its ending chooses the format:",
            "            .prof .svg .biopsy .html .json .speedscope.json .gecko.json .pb.gz .callgrind .collapsed .lprof",
            "m           memory; there, m again reads the heap, which stops the process meanwhile",
            "q, Ctrl-C   quit; Ctrl-Z: to the shell",
            "ncalls      >= n: calls that samples tell apart, there may be many more",
            "            exact numbers: biopsy calls; better ones: biopsy attach",
        ]
        .map(str::to_string),
    );
    lines
}

/// Where what a key does begins.
const HELP_INDENT: usize = 12;

/// Lines of help that are no longer than `width`, where words allow it.
fn wrapped(lines: &[String], width: usize) -> Vec<String> {
    let mut all = Vec::new();
    for line in lines {
        let mut now = String::new();
        // What lies before is no place to break at.
        let from = HELP_INDENT.min(line.len());
        let (key, text) = line.split_at_checked(from).unwrap_or((line.as_str(), ""));
        now.push_str(key);
        for word in text.split_inclusive(' ') {
            let length = now.chars().count() + word.trim_end().chars().count();
            if length > width && now.trim_end().len() > HELP_INDENT {
                all.push(std::mem::replace(&mut now, " ".repeat(HELP_INDENT)));
            }
            now.push_str(word);
        }
        all.push(now);
    }
    all
}

fn draw_help(frame: &mut Frame<'_>, app: &mut App, area: Rect) {
    let lines = wrapped(&help_lines(), usize::from(area.width));
    let height = usize::from(area.height);
    app.help_top = app.help_top.min(lines.len().saturating_sub(height));
    for (at, line) in lines.iter().skip(app.help_top).take(height).enumerate() {
        put(frame, area, at as u16, line, Style::new());
    }
}
