//! Rows of a view, the row that is chosen, and an order that holds while one reads.

use std::hash::{Hash, Hasher};

use rustc_hash::{FxHashMap, FxHasher};

use crate::profile::{FunctionId, ThreadId};

/// Rows that have less than this share of the time, alone and with what they call, are one row.
pub const SMALL: f64 = 0.005;

/// What a row stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Stands {
    #[default]
    Nothing,
    Function(FunctionId),
    /// A node of the folded tree.
    Node(usize),
    Thread(ThreadId),
    /// Rows that are folded into one.
    Other,
}

/// A row.
#[derive(Debug, Clone, Default)]
pub struct Row {
    /// Tells it apart from others of its view, now and later.
    pub key: u64,
    /// The columns, laid out.
    pub columns: String,
    /// What comes last and is cut at the edge; printable.
    pub name: String,
    /// Share of the whole, from 0 to 1; how hot it is.
    pub heat: f64,
    /// Whether a bar is drawn before the name.
    pub bar: bool,
    pub strong: bool,
    pub stands: Stands,
}

/// What a view shows.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// Above the rows.
    pub head: String,
    pub rows: Vec<Row>,
    /// What is said when there are no rows.
    pub empty: String,
}

/// Where one is in a view.
#[derive(Debug, Clone, Default)]
pub struct Cursor {
    /// Place of the chosen row.
    pub at: usize,
    /// The first row that is seen.
    pub top: usize,
    key: Option<u64>,
    held: Option<FxHashMap<u64, usize>>,
}

pub fn key_of(value: impl Hash) -> u64 {
    let mut hasher = FxHasher::default();
    value.hash(&mut hasher);
    hasher.finish()
}

impl Cursor {
    /// Places of rows in the order that is held; `None` while the best is to be on top.
    pub fn held(&self) -> Option<&FxHashMap<u64, usize>> {
        self.held.as_ref()
    }

    /// Keeps the order of `page` from now on.
    fn hold(&mut self, page: &Page) {
        if self.held.is_none() {
            let rows = page.rows.iter().enumerate();
            self.held = Some(rows.map(|(at, row)| (row.key, at)).collect());
        }
    }

    /// Goes to the top, where rows come and go.
    pub fn follow(&mut self) {
        *self = Cursor::default();
    }

    /// Goes to a row, and holds the order unless that is the first.
    pub fn go(&mut self, page: &Page, to: usize) {
        let last = page.rows.len().saturating_sub(1);
        self.at = to.min(last);
        if self.at > 0 {
            self.hold(page);
        }
        self.key = page.rows.get(self.at).map(|row| row.key);
    }

    pub fn go_by(&mut self, page: &Page, by: isize) {
        self.go(page, self.at.saturating_add_signed(by));
    }

    /// Goes to the row with this key, if there is one.
    pub fn find(&mut self, page: &Page, key: u64) {
        if let Some(at) = page.rows.iter().position(|row| row.key == key) {
            self.go(page, at);
        }
    }

    /// The page has new rows: the chosen one stays chosen. While the order is not held, that is the first.
    pub fn renew(&mut self, page: &Page) {
        let last = page.rows.len().saturating_sub(1);
        if self.held.is_none() && self.at == 0 {
            self.key = None;
            return;
        }
        let found = self
            .key
            .and_then(|key| page.rows.iter().position(|row| row.key == key));
        self.at = found.unwrap_or(self.at).min(last);
        if let Some(held) = &mut self.held {
            for row in &page.rows {
                let next = held.len();
                held.entry(row.key).or_insert(next);
            }
        }
    }

    /// Scrolls so that the chosen row is seen among `height` rows.
    pub fn scroll(&mut self, height: usize, rows: usize) {
        let height = height.max(1);
        self.top = self.top.min(rows.saturating_sub(height));
        if self.at < self.top {
            self.top = self.at;
        } else if self.at >= self.top + height {
            self.top = self.at + 1 - height;
        }
    }
}

/// Brings items into the order that is held; new ones come last, in the order that they have.
pub fn in_held_order<T>(
    items: &mut [T],
    held: Option<&FxHashMap<u64, usize>>,
    key: impl Fn(&T) -> u64,
) {
    if let Some(held) = held {
        items.sort_by_key(|item| held.get(&key(item)).copied().unwrap_or(usize::MAX));
    }
}
