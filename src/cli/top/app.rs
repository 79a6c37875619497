//! What is looked at, and what each key does to it.

use std::time::{Duration, Instant};

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use regex::{Regex, RegexBuilder};
use rustc_hash::FxHashSet;

use super::data::{Choice, Computed, Data};
use super::memory::Memory;
use super::page::{Cursor, Page, Stands};
use super::tree::{Folded, Look};
use super::{functions, source, threads};
use crate::cli::sources::Sources;
use crate::profile::{FunctionId, Mode, ThreadId};
use crate::view::stats::SortKey;

/// How often the picture is renewed.
const PERIOD: Duration = Duration::from_millis(500);

/// Making the picture takes no more of one CPU than one part in so many.
const SHARE: u32 = 20;

/// How long a message is seen.
const MESSAGE: Duration = Duration::from_secs(10);

/// More letters than this are not typed.
const MOST_TYPED: usize = 1000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum View {
    Functions,
    Tree,
    Calls,
    Source,
    Threads,
    Tasks,
    Memory,
}

/// The views by their keys, 1 first.
pub const VIEWS: [(View, &str); 7] = [
    (View::Functions, "functions"),
    (View::Tree, "tree"),
    (View::Calls, "callers"),
    (View::Source, "source"),
    (View::Threads, "threads"),
    (View::Tasks, "tasks"),
    (View::Memory, "memory"),
];

/// The sort keys with their letters, in the order of `<` and `>`.
pub const SORTS: [(SortKey, char); 9] = [
    (SortKey::Calls, 'n'),
    (SortKey::PrimitiveCalls, 'P'),
    (SortKey::Time, 't'),
    (SortKey::Cumulative, 'c'),
    (SortKey::Name, 'N'),
    (SortKey::NameFileLine, 'L'),
    (SortKey::File, 'F'),
    (SortKey::Line, 'I'),
    (SortKey::StandardName, 'S'),
];

/// What a line of text is typed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Typing {
    Filter,
    Write,
}

/// What the loop has to do after a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Then {
    Nothing,
    Quit,
    Suspend,
    Write(String),
}

pub struct App {
    pub data: Data,
    pub computed: Computed,
    pub page: Page,
    pub view: View,
    pub sort: SortKey,
    pub choice: Choice,
    pub paused: bool,
    pub typing: Option<(Typing, String)>,
    pub filter: String,
    pub help: bool,
    pub help_top: usize,
    pub memory: Memory,
    pub cursors: [Cursor; VIEWS.len()],
    /// Rows that are seen at a time.
    pub height: usize,
    pub width: u16,
    /// The name that is offered to write to.
    pub offered: String,
    message: Option<(String, Instant)>,
    pattern: Option<Regex>,
    function: Option<FunctionId>,
    back: Vec<FunctionId>,
    fold: bool,
    paths: bool,
    folded: Option<Folded>,
    open: FxHashSet<u64>,
    tree_seen: bool,
    sources: Sources,
    /// The function whose hottest line was gone to.
    source_seen: Option<FunctionId>,
    /// The same, whose own row among callers and callees was gone to.
    calls_seen: Option<FunctionId>,
    next: Instant,
}

impl App {
    pub fn new(data: Data, mode: Mode, sort: SortKey) -> App {
        App {
            data,
            computed: Computed::default(),
            page: Page::default(),
            view: View::Functions,
            sort,
            choice: Choice {
                recent: false,
                mode,
                thread: None,
            },
            paused: false,
            typing: None,
            filter: String::new(),
            help: false,
            help_top: 0,
            memory: Memory::default(),
            cursors: Default::default(),
            height: 10,
            width: 80,
            offered: String::new(),
            message: None,
            pattern: None,
            function: None,
            back: Vec::new(),
            fold: true,
            paths: false,
            folded: None,
            open: FxHashSet::default(),
            tree_seen: false,
            sources: Sources::default(),
            source_seen: None,
            calls_seen: None,
            next: Instant::now(),
        }
    }

    pub fn say(&mut self, message: impl Into<String>) {
        self.message = Some((message.into(), Instant::now()));
    }

    pub fn message(&self) -> Option<&str> {
        let (text, at) = self.message.as_ref()?;
        (at.elapsed() < MESSAGE).then_some(text.as_str())
    }

    /// Whether it is time to renew the picture.
    pub fn is_due(&self) -> bool {
        Instant::now() >= self.next
    }

    /// Makes the picture anew of what there is by now.
    pub fn renew(&mut self) {
        let began = Instant::now();
        if !self.paused {
            self.compute();
        }
        if self.memory.look() || !self.paused || self.view == View::Memory {
            self.lay_out();
        }
        self.next = Instant::now() + PERIOD.max(began.elapsed() * SHARE);
    }

    fn compute(&mut self) {
        self.computed = self.data.compute(self.choice);
        self.folded = None;
    }

    pub fn cursor(&mut self) -> &mut Cursor {
        &mut self.cursors[self.view as usize]
    }

    /// Lays out the rows of the view.
    pub fn lay_out(&mut self) {
        let held = self.cursors[self.view as usize].held().cloned();
        let look = Look {
            held: held.as_ref(),
            pattern: self.pattern.as_ref(),
            fold: self.fold,
            paths: self.paths,
            width: self.width,
        };
        let tables = self.data.tables();
        let computed = &self.computed;
        let mut goal = None;
        let page = match self.view {
            View::Functions => functions::functions(computed, tables, self.sort, &look),
            View::Calls => {
                if self.calls_seen != self.function {
                    self.calls_seen = self.function;
                    goal = self.function.map(functions::own_key);
                }
                functions::calls(computed, tables, self.function, &look)
            }
            View::Tree => {
                let folded = self
                    .folded
                    .get_or_insert_with(|| Folded::of(computed, tables));
                if !self.tree_seen && !folded.nodes.is_empty() {
                    self.tree_seen = true;
                    // Where the time spreads out, one wants to see the choice.
                    folded.open_hot_path(None, 0.5, &mut self.open);
                }
                folded.page(computed, tables, &self.open, &look)
            }
            View::Source => {
                let (page, hottest) = source::page(
                    computed,
                    tables,
                    self.function,
                    &mut self.sources,
                    self.memory.pid,
                    &look,
                );
                if self.source_seen != self.function && !page.rows.is_empty() {
                    self.source_seen = self.function;
                    goal = hottest;
                }
                page
            }
            View::Threads => threads::threads(computed, &self.data, &look),
            View::Tasks => threads::tasks(computed, &self.data, &look),
            View::Memory => self.memory.page(&look),
        };
        self.page = page;
        if self.page.empty.is_empty() {
            self.page.empty = self.nothing();
        }
        let cursor = &mut self.cursors[self.view as usize];
        cursor.renew(&self.page);
        if let Some(goal) = goal {
            cursor.find(&self.page, goal);
        }
    }

    /// Why there are no rows.
    fn nothing(&self) -> String {
        if self.pattern.is_some() {
            return "nothing matches the filter (/ and Enter: all)".to_string();
        }
        match self.choice.mode {
            Mode::Wall if self.data.is_file() => "no samples",
            Mode::Wall => "no samples yet",
            Mode::Cpu => "nothing used the CPU (x: wall time, waiting too)",
            Mode::Gil => "nothing held the GIL (x: wall time, waiting too)",
            Mode::Exception => "nothing handled an exception (x: all of the time)",
        }
        .to_string()
    }

    /// Another time, of those that are known.
    fn next_mode(&mut self) {
        let meta = &self.data.profile().meta;
        let knows = |mode: Mode| match mode {
            Mode::Exception => meta.mode == Mode::Exception,
            Mode::Gil if !self.data.has_gil() => false,
            _ if !self.data.is_file() => true,
            Mode::Wall => true,
            Mode::Cpu => meta.has_cpu_time,
            Mode::Gil => meta.has_states,
        };
        let order = [Mode::Wall, Mode::Gil, Mode::Cpu, Mode::Exception];
        let at = order
            .iter()
            .position(|mode| *mode == self.choice.mode)
            .unwrap_or(0);
        let mut others = (1..order.len()).map(|step| order[(at + step) % order.len()]);
        match others.find(|mode| knows(*mode)) {
            Some(mode) => self.choose(Choice {
                mode,
                ..self.choice
            }),
            None => self.say("this file knows neither CPU time nor the GIL".to_string()),
        }
    }

    fn look_at(&mut self, view: View) {
        if matches!(view, View::Calls | View::Source)
            && let Some(function) = self.chosen_function()
            && self.function != Some(function)
        {
            self.function = Some(function);
            self.back.clear();
            self.cursors[View::Calls as usize].follow();
        }
        self.view = view;
        self.lay_out();
    }

    fn chosen(&mut self) -> Stands {
        let at = self.cursor().at;
        self.page
            .rows
            .get(at)
            .map_or(Stands::Nothing, |row| row.stands)
    }

    fn chosen_function(&mut self) -> Option<FunctionId> {
        match self.chosen() {
            Stands::Function(function) => Some(function),
            Stands::Node(at) => Some(self.folded.as_ref()?.nodes.get(at)?.function),
            _ => None,
        }
    }

    pub fn key(&mut self, key: KeyEvent) -> Then {
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            match key.code {
                KeyCode::Char('c' | 'd') => return Then::Quit,
                KeyCode::Char('z') => return Then::Suspend,
                _ => {}
            }
        }
        if self.typing.is_some() {
            return self.type_key(key);
        }
        if self.help {
            match key.code {
                // Drawing keeps it within the lines.
                KeyCode::Down | KeyCode::Char('j') => self.help_top += 1,
                KeyCode::Up | KeyCode::Char('k') => {
                    self.help_top = self.help_top.saturating_sub(1);
                }
                KeyCode::PageDown | KeyCode::Char(' ') => self.help_top += self.height,
                KeyCode::PageUp => self.help_top = self.help_top.saturating_sub(self.height),
                KeyCode::End | KeyCode::Char('G') => self.help_top = usize::from(u16::MAX),
                KeyCode::Home | KeyCode::Char('g') => self.help_top = 0,
                KeyCode::Char('q') => return Then::Quit,
                _ => self.help = false,
            }
            return Then::Nothing;
        }
        self.message = None;
        let page = self.height.saturating_sub(1).max(1) as isize;
        match key.code {
            KeyCode::Char('q') => return Then::Quit,
            KeyCode::Char('?') | KeyCode::F(1) => (self.help, self.help_top) = (true, 0),
            KeyCode::Char(digit @ '1'..='7') => {
                self.look_at(VIEWS[digit as usize - '1' as usize].0);
            }
            KeyCode::Tab => self.look_at(VIEWS[(self.view as usize + 1) % VIEWS.len()].0),
            KeyCode::BackTab => {
                self.look_at(VIEWS[(self.view as usize + VIEWS.len() - 1) % VIEWS.len()].0);
            }
            KeyCode::Down | KeyCode::Char('j') => self.go_by(1),
            KeyCode::Up | KeyCode::Char('k') => self.go_by(-1),
            KeyCode::PageDown => self.go_by(page),
            KeyCode::PageUp => self.go_by(-page),
            KeyCode::End | KeyCode::Char('G') => self.go_by(isize::MAX),
            KeyCode::Home | KeyCode::Char('g') => {
                self.cursor().follow();
                self.lay_out();
            }
            KeyCode::Enter => self.enter(),
            KeyCode::Esc | KeyCode::Backspace => self.go_back(),
            KeyCode::Right | KeyCode::Char('+') => self.unfold(true),
            KeyCode::Left | KeyCode::Char('-') => self.unfold(false),
            KeyCode::Char('e') => self.unfold_hot(),
            KeyCode::Char('s') => self.look_at(View::Source),
            KeyCode::Char('<') => self.next_sort(SORTS.len() - 1),
            KeyCode::Char('>') => self.next_sort(1),
            KeyCode::Char('l') => self.choose(Choice {
                recent: !self.choice.recent,
                ..self.choice
            }),
            KeyCode::Char('x') => self.next_mode(),
            KeyCode::Char('[') => self.next_thread(false),
            KeyCode::Char(']') => self.next_thread(true),
            KeyCode::Char('a') => self.choose(Choice {
                thread: None,
                ..self.choice
            }),
            KeyCode::Char(' ') => self.pause(),
            KeyCode::Char('r') => self.reset(),
            KeyCode::Char('o') => {
                self.fold = !self.fold;
                self.lay_out();
            }
            KeyCode::Char('p') => {
                self.paths = !self.paths;
                self.lay_out();
            }
            KeyCode::Char('/') => self.typing = Some((Typing::Filter, String::new())),
            KeyCode::Char('w') => self.typing = Some((Typing::Write, String::new())),
            KeyCode::Char('m') => {
                if self.view == View::Memory {
                    self.memory.count();
                }
                self.look_at(View::Memory);
                if self.memory.pid.is_none() && !self.data.is_file() {
                    self.say("the process has ended: its heap is no more");
                }
            }
            KeyCode::Char(letter) => {
                if let Some((key, _)) = SORTS.iter().find(|(_, own)| *own == letter) {
                    self.sort_by(*key);
                }
            }
            _ => {}
        }
        Then::Nothing
    }

    /// A key while a line is typed.
    fn type_key(&mut self, key: KeyEvent) -> Then {
        let Some((typing, mut text)) = self.typing.take() else {
            return Then::Nothing;
        };
        match key.code {
            KeyCode::Esc => return Then::Nothing,
            KeyCode::Enter if typing == Typing::Write => {
                // Nothing typed: what is offered.
                let typed = text.trim();
                let name = if typed.is_empty() {
                    &self.offered
                } else {
                    typed
                };
                return match name.is_empty() {
                    true => Then::Nothing,
                    false => Then::Write(name.to_string()),
                };
            }
            KeyCode::Enter => {
                self.set_filter(text);
                return Then::Nothing;
            }
            KeyCode::Backspace => {
                text.pop();
            }
            KeyCode::Char('u') if key.modifiers.contains(KeyModifiers::CONTROL) => text.clear(),
            KeyCode::Char(letter) if !letter.is_control() && text.len() < MOST_TYPED => {
                text.push(letter);
            }
            _ => {}
        }
        self.typing = Some((typing, text));
        Then::Nothing
    }

    /// A regular expression, or the text itself where it is none; capitals matter where there are some.
    fn set_filter(&mut self, text: String) {
        let any_case = !text.chars().any(char::is_uppercase);
        let build = |text: &str| {
            RegexBuilder::new(text)
                .case_insensitive(any_case)
                .size_limit(1 << 20)
                .build()
        };
        self.pattern = match text.is_empty() {
            true => None,
            false => build(&text).or_else(|_| build(&regex::escape(&text))).ok(),
        };
        self.filter = text;
        for cursor in &mut self.cursors {
            cursor.follow();
        }
        self.lay_out();
    }

    fn go_by(&mut self, by: isize) {
        self.cursors[self.view as usize].go_by(&self.page, by);
    }

    fn enter(&mut self) {
        match (self.view, self.chosen()) {
            (_, Stands::Other) => {
                self.fold = false;
                self.lay_out();
            }
            (View::Threads | View::Tasks, Stands::Thread(thread)) => {
                self.choose(Choice {
                    thread: Some(thread),
                    ..self.choice
                });
                self.look_at(View::Functions);
            }
            (View::Calls, Stands::Function(function)) => {
                if let Some(before) = self.function.filter(|before| *before != function) {
                    self.back.push(before);
                    self.function = Some(function);
                    self.cursor().follow();
                    self.lay_out();
                } else {
                    self.look_at(View::Source);
                }
            }
            (View::Functions | View::Tree, _) => self.look_at(View::Calls),
            _ => {}
        }
    }

    fn go_back(&mut self) {
        match self.view {
            View::Calls if !self.back.is_empty() => {
                self.function = self.back.pop();
                self.cursor().follow();
                self.lay_out();
            }
            View::Functions => {
                self.cursor().follow();
                self.lay_out();
            }
            _ => {
                self.view = View::Functions;
                self.lay_out();
            }
        }
    }

    /// Folds or unfolds the chosen row of the tree; a row that is folded already leads to the one above.
    fn unfold(&mut self, wide: bool) {
        let (View::Tree, Stands::Node(at)) = (self.view, self.chosen()) else {
            return;
        };
        let Some(node) = self.folded.as_ref().and_then(|folded| folded.nodes.get(at)) else {
            return;
        };
        let (key, parent) = (node.key, node.parent);
        let changed = if wide {
            self.open.insert(key)
        } else {
            self.open.remove(&key)
        };
        if !changed && !wide {
            let above = parent.and_then(|at| Some(self.folded.as_ref()?.nodes.get(at)?.key));
            if let Some(above) = above {
                self.cursors[self.view as usize].find(&self.page, above);
            }
        }
        self.lay_out();
    }

    /// Unfolds the path below the chosen row on which most of the time is.
    fn unfold_hot(&mut self) {
        let at = match self.chosen() {
            Stands::Node(at) => Some(at),
            _ => None,
        };
        if let (View::Tree, Some(folded)) = (self.view, &self.folded) {
            folded.open_hot_path(at, 0.0, &mut self.open);
            self.lay_out();
        }
    }

    fn next_sort(&mut self, by: usize) {
        let at = SORTS
            .iter()
            .position(|(key, _)| *key == self.sort)
            .unwrap_or(0);
        self.sort_by(SORTS[(at + by) % SORTS.len()].0);
    }

    fn sort_by(&mut self, key: SortKey) {
        self.sort = key;
        self.cursors[View::Functions as usize].follow();
        self.look_at(View::Functions);
    }

    fn choose(&mut self, choice: Choice) {
        self.choice = choice;
        self.compute();
        self.lay_out();
    }

    fn next_thread(&mut self, forward: bool) {
        let count = self.data.profile().threads.len();
        if count == 0 {
            return;
        }
        let next = match (self.choice.thread, forward) {
            (None, true) => Some(0),
            (None, false) => Some(count - 1),
            (Some(thread), true) => Some(thread.index() + 1).filter(|next| *next < count),
            (Some(thread), false) => thread.index().checked_sub(1),
        };
        self.choose(Choice {
            thread: next.map(|next| ThreadId(next as u32)),
            ..self.choice
        });
    }

    fn pause(&mut self) {
        self.paused = !self.paused;
        if !self.paused {
            self.data.go_on();
            self.compute();
            self.lay_out();
        }
    }

    fn reset(&mut self) {
        if self.data.is_file() {
            self.say("a recording cannot be reset");
            return;
        }
        if self.data.ended {
            self.say("the process has ended: there would be nothing left to see");
            return;
        }
        self.data.reset();
        for cursor in &mut self.cursors {
            cursor.follow();
        }
        self.compute();
        self.lay_out();
    }
}
