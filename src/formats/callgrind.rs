//! Callgrind's profile format, version 1, for KCachegrind, QCachegrind and callgrind_annotate:
//! <https://valgrind.org/docs/manual/cl-format.html>, with costs by line and calls by call site.
//!
//! Inclusive costs: both readers take what all calls of a function cost together for its inclusive cost
//! (the callgrind_annotate of Valgrind 3.19; `TracePartFunction::update` of KCachegrind). A call of a
//! function that is on the stack already therefore costs nothing: with recursion the sums are still those
//! of the table. A function that is called and is an outermost frame too gets a call from `<root>` for
//! the rest. Calls that only ever lead back into a ring of recursion are left out: KCachegrind would fold
//! the ring into a "cycle" that hides its members' times. Rings that are entered at several places stay
//! cycles; with its "Cycle Detection" off it shows the numbers of the table.
//!
//! Names: KCachegrind merges functions with one name in files with one *base* name; those get their
//! line or their path added. Threads or processes kept apart are "ELF objects" here, which KCachegrind
//! groups by; callgrind_annotate knows a function by file and name alone, so names get `#2`, `#3` … too.

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Write};

use rustc_hash::{FxHashMap, FxHashSet};

use super::{ExportOptions, Exporter, Loss, unsaid_bounds};
use crate::error::{Error, Result};
use crate::profile::{CallStats, CallTree, Certainty, FunctionId, Origin, Profile, Tables};
use crate::units;

/// Wall and CPU time: microseconds of samples, nanoseconds of traced calls.
type Cost = [u64; 2];

/// Writes callgrind files.
#[derive(Debug, Clone, Copy)]
pub struct Callgrind;

impl Exporter for Callgrind {
    fn export(
        &self,
        profile: &Profile,
        options: &ExportOptions,
        out: &mut dyn Write,
    ) -> Result<Vec<Loss>> {
        let mut costs = Costs::new(&profile.tables, options.strip_dirs);
        let mut losses = Vec::new();
        let mut certainty = Certainty::default();
        let groups: Vec<String> = match &profile.exact {
            Some(stats) => {
                costs.add_rows(stats);
                losses.push("costs stand at the first line of each function".to_string());
                stats.groups.clone()
            }
            None => {
                let tree = CallTree::of(profile, &options.filter);
                costs.add_tree(&tree);
                certainty = CallStats::of(&tree, &profile.tables).certainty(&tree);
                tree.groups.into_iter().map(|group| group.label).collect()
            }
        };
        let blocks = &costs.blocks;
        let bounds = blocks.iter().filter(|block| block.lower_bound).count();
        let seen_by = "which the file has no place to say";
        losses.extend(unsaid_bounds(bounds, blocks.len(), seen_by));
        costs.add_roots();
        if costs.open_rings() {
            losses.push("calls back into a ring of recursion are left out".to_string());
        }
        let with_cpu = profile.meta.has_cpu_time && profile.exact.is_none();
        let mut file = File {
            out: BufWriter::new(out),
            costs: &costs,
            groups: &groups,
            with_cpu,
            certainty,
        };
        file.write(profile)
            .map_err(|error| Error::write("the callgrind file", &error))?;
        Ok(losses)
    }
}

/// A function as the file shows it: functions that would look the same are one.
struct Shown {
    file: String,
    line: u32,
    name: String,
}

/// What the file says of one function in one group.
#[derive(Default)]
struct Block {
    group: u32,
    /// Position in [`Costs::shown`].
    shown: u32,
    /// By line.
    own: BTreeMap<u32, Cost>,
    /// By line of the call and position of the callee's block.
    calls: BTreeMap<(u32, u32), (u64, Cost)>,
    /// Time and calls that no caller accounts for.
    uncalled: Option<(u64, Cost)>,
    /// Whether there were at least so many calls of it.
    lower_bound: bool,
}

struct Costs<'a> {
    tables: &'a Tables,
    strip_dirs: bool,
    shown: Vec<Shown>,
    shown_ids: FxHashMap<(String, u32, String), u32>,
    of_function: Vec<Option<u32>>,
    blocks: Vec<Block>,
    block_ids: FxHashMap<(u32, u32), u32>,
    /// Callers and other callees that were on the stack already.
    back: FxHashSet<(u32, u32)>,
    total: Cost,
}

impl<'a> Costs<'a> {
    fn new(tables: &'a Tables, strip_dirs: bool) -> Self {
        Costs {
            tables,
            strip_dirs,
            shown: Vec::new(),
            shown_ids: FxHashMap::default(),
            of_function: vec![None; tables.functions().len()],
            blocks: Vec::new(),
            block_ids: FxHashMap::default(),
            back: FxHashSet::default(),
            total: [0; 2],
        }
    }

    fn block(&mut self, group: u32, function: FunctionId) -> u32 {
        let shown = match self.of_function[function.index()] {
            Some(shown) => shown,
            None => {
                let (tables, line) = (self.tables, self.tables.line(function));
                let file = match tables.file(function) {
                    file if self.strip_dirs => base_name(file),
                    file => file,
                };
                let shown = self.show(
                    printable(file, "???"),
                    line,
                    printable(tables.name(function), "<unnamed>"),
                );
                self.of_function[function.index()] = Some(shown);
                shown
            }
        };
        self.block_of(group, shown)
    }

    fn show(&mut self, file: String, line: u32, name: String) -> u32 {
        let next = self.shown.len() as u32;
        *self
            .shown_ids
            .entry((file, line, name))
            .or_insert_with_key(|(file, line, name)| {
                self.shown.push(Shown {
                    file: file.clone(),
                    line: *line,
                    name: name.clone(),
                });
                next
            })
    }

    fn block_of(&mut self, group: u32, shown: u32) -> u32 {
        let next = self.blocks.len() as u32;
        *self.block_ids.entry((group, shown)).or_insert_with(|| {
            self.blocks.push(Block {
                group,
                shown,
                ..Block::default()
            });
            next
        })
    }

    fn add_own(&mut self, block: u32, line: u32, cost: Cost) {
        add(
            self.blocks[block as usize].own.entry(line).or_default(),
            cost,
        );
        add(&mut self.total, cost);
    }

    fn add_call(&mut self, caller: u32, line: u32, callee: u32, calls: u64, cost: Cost) {
        let call = self.blocks[caller as usize]
            .calls
            .entry((line, callee))
            .or_default();
        call.0 = call.0.saturating_add(calls);
        add(&mut call.1, cost);
    }

    fn add_uncalled(&mut self, block: u32, calls: u64, cost: Cost) {
        let uncalled = self.blocks[block as usize].uncalled.get_or_insert_default();
        uncalled.0 = uncalled.0.saturating_add(calls);
        add(&mut uncalled.1, cost);
    }

    /// Costs and calls of sampled stacks.
    fn add_tree(&mut self, tree: &CallTree) {
        let tables = self.tables;
        let blocks: Vec<u32> = (0..tree.nodes.len() as u32)
            .map(|at| self.block(tree.nodes[at as usize].group, tree.function(tables, at)))
            .collect();
        for (at, &block) in blocks.iter().enumerate() {
            let known = tree.known_calls(tree.nodes[at].group, tree.function(tables, at as u32));
            self.blocks[block as usize].lower_bound |= known.is_none();
        }
        // How often each function is on the stack on the way down.
        let open: Vec<std::cell::Cell<u32>> = vec![std::cell::Cell::new(0); self.blocks.len()];
        let of = |at: u32| &open[blocks[at as usize] as usize];
        tree.walk(
            |at| {
                let node = &tree.nodes[at as usize];
                let block = blocks[at as usize];
                let own = [node.self_wall_ns / 1000, node.self_cpu_ns / 1000];
                if own != [0; 2] {
                    self.add_own(block, tables.get_frame(node.frame).line, own);
                }
                let outermost = of(at).get() == 0;
                let cost = if outermost {
                    [node.total_wall_ns / 1000, node.total_cpu_ns / 1000]
                } else {
                    [0; 2]
                };
                match node.parent {
                    Some(parent) => {
                        let line = tables.get_frame(tree.nodes[parent as usize].frame).line;
                        let caller = blocks[parent as usize];
                        if !outermost && caller != block {
                            self.back.insert((caller, block));
                        }
                        self.add_call(caller, line, block, node.calls, cost);
                    }
                    None => self.add_uncalled(block, node.calls, cost),
                }
                of(at).set(of(at).get() + 1);
            },
            |at| of(at).set(of(at).get() - 1),
        );
    }

    /// Costs and calls of exact rows: all at the first line of a function.
    fn add_rows(&mut self, stats: &CallStats) {
        let blocks: Vec<u32> = stats
            .rows
            .iter()
            .map(|row| self.block(row.group, row.function))
            .collect();
        let rings = self.rings(stats, &blocks);
        for (row, &block) in stats.rows.iter().zip(&blocks) {
            let line = self.tables.line(row.function);
            self.add_own(block, line, [nanoseconds(row.tottime), 0]);
            self.blocks[block as usize].lower_bound |= row.lower_bound;
            let all_calls = row
                .callers
                .iter()
                .fold(0u64, |sum, c| sum.saturating_add(c.1.ncalls));
            let mut edges: Vec<(u32, u32, u64, u64, bool)> = Vec::with_capacity(row.callers.len());
            for (caller, edge) in &row.callers {
                let from = self.block(row.group, *caller);
                let time = if from == block {
                    0
                } else if edge.count_only {
                    nanoseconds(row.cumtime * (edge.ncalls as f64 / all_calls.max(1) as f64))
                } else {
                    nanoseconds(edge.cumtime)
                };
                let same_ring = ring(&rings, from) == ring(&rings, block);
                edges.push((
                    from,
                    self.tables.line(*caller),
                    edge.ncalls,
                    time,
                    same_ring,
                ));
            }
            // Calls from within a ring of recursion lie within calls from outside: those come first,
            // and what is within gets what they leave of the cumulative time.
            let mut left = nanoseconds(row.cumtime);
            edges.sort_by_key(|edge| (edge.4, std::cmp::Reverse(edge.3)));
            for (from, line, calls, time, same_ring) in edges {
                if time > left && same_ring && from != block {
                    self.back.insert((from, block));
                }
                let time = time.min(left);
                left -= time;
                self.add_call(from, line, block, calls, [time, 0]);
            }
            // Rounding leaves up to a nanosecond an edge.
            if row.callers.is_empty() || left > row.callers.len() as u64 {
                let calls = row.ncalls.saturating_sub(all_calls);
                self.add_uncalled(block, calls, [left, 0]);
            }
        }
    }

    /// For each block the ring (strongly connected component) of calls that it belongs to, by Kosaraju's
    /// two passes.
    fn rings(&mut self, stats: &CallStats, blocks: &[u32]) -> Vec<u32> {
        let mut edges: Vec<(u32, u32)> = Vec::new();
        for (row, &block) in stats.rows.iter().zip(blocks) {
            for (caller, _) in &row.callers {
                edges.push((self.block(row.group, *caller), block));
            }
        }
        let count = self.blocks.len();
        let mut callees = vec![Vec::new(); count];
        let mut callers = vec![Vec::new(); count];
        for (from, to) in edges {
            callees[from as usize].push(to);
            callers[to as usize].push(from);
        }
        let mut finished = Vec::with_capacity(count);
        let mut seen = vec![false; count];
        for start in 0..count as u32 {
            visit(start, &callees, &mut seen, |at| finished.push(at));
        }
        let mut rings = vec![u32::MAX; count];
        seen.fill(false);
        for &start in finished.iter().rev() {
            visit(start, &callers, &mut seen, |at| rings[at as usize] = start);
        }
        rings
    }

    /// Makes up a caller for functions that are called and are outermost frames too: readers would
    /// count the calls alone.
    fn add_roots(&mut self) {
        let called: FxHashSet<u32> = self
            .blocks
            .iter()
            .flat_map(|block| block.calls.keys().map(|key| key.1))
            .collect();
        let needed = (0..self.blocks.len() as u32)
            .any(|at| self.blocks[at as usize].uncalled.is_some() && called.contains(&at));
        if !needed {
            return;
        }
        let root = self.show("~".to_string(), 0, "<root>".to_string());
        for at in 0..self.blocks.len() as u32 {
            let block = &self.blocks[at as usize];
            if let Some((calls, cost)) = block.uncalled {
                let from = self.block_of(block.group, root);
                self.add_call(from, 0, at, calls, cost);
            }
        }
    }

    /// Leaves out the calls that lead back into a ring at no cost; says whether there were any.
    fn open_rings(&mut self) -> bool {
        let back = &self.back;
        let mut found = false;
        for (caller, block) in self.blocks.iter_mut().enumerate() {
            block.calls.retain(|&(_, callee), &mut (_, cost)| {
                let open = cost == [0; 2] && back.contains(&(caller as u32, callee));
                found |= open;
                !open
            });
        }
        found
    }

    /// Each shown function's name with what tells it from others in files of the same base name.
    fn names(&self) -> Vec<String> {
        let mut alike: FxHashMap<(&str, &str), Vec<u32>> = FxHashMap::default();
        for (at, shown) in self.shown.iter().enumerate() {
            alike
                .entry((base_name(&shown.file), &shown.name))
                .or_default()
                .push(at as u32);
        }
        let mut names: Vec<String> = self.shown.iter().map(|shown| shown.name.clone()).collect();
        for group in alike.into_values().filter(|group| group.len() > 1) {
            let mut in_file: FxHashMap<&str, usize> = FxHashMap::default();
            for &at in &group {
                *in_file.entry(&self.shown[at as usize].file).or_default() += 1;
            }
            let files: Vec<&str> = in_file.keys().copied().collect();
            let folders = folders_needed(&files);
            for &at in &group {
                let Shown { file, line, .. } = &self.shown[at as usize];
                let name = &mut names[at as usize];
                if in_file.get(file.as_str()).is_some_and(|&count| count > 1) {
                    name.push_str(&format!(":{line}"));
                }
                if files.len() > 1 {
                    name.push_str(&format!(" ({})", path_end(file, folders)));
                }
            }
        }
        names
    }
}

fn ring(rings: &[u32], block: u32) -> u32 {
    rings.get(block as usize).copied().unwrap_or(u32::MAX)
}

/// Depth first without recursion; `leave` is called when all behind a node has been visited.
fn visit(start: u32, next: &[Vec<u32>], seen: &mut [bool], mut leave: impl FnMut(u32)) {
    if std::mem::replace(&mut seen[start as usize], true) {
        return;
    }
    let mut open = vec![(start, 0)];
    while let Some((at, position)) = open.last_mut() {
        match next[*at as usize].get(*position) {
            Some(&to) => {
                *position += 1;
                if !std::mem::replace(&mut seen[to as usize], true) {
                    open.push((to, 0));
                }
            }
            None => {
                leave(*at);
                open.pop();
            }
        }
    }
}

/// How many folders of each path it takes to tell the paths apart.
fn folders_needed(files: &[&str]) -> usize {
    let most = files
        .iter()
        .map(|file| file.matches('/').count())
        .max()
        .unwrap_or(0);
    // Paths that differ only at their beginning are written whole.
    (0..most.min(8))
        .find(|&folders| {
            let ends: FxHashSet<&str> = files.iter().map(|file| path_end(file, folders)).collect();
            ends.len() == files.len()
        })
        .unwrap_or(most)
}

/// The last part of a path with this many folders before it.
fn path_end(file: &str, folders: usize) -> &str {
    match file.rmatch_indices('/').nth(folders) {
        Some((at, _)) => &file[at + 1..],
        None => file,
    }
}

fn base_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// Text for a line of its own; `empty` where nothing is left, as an empty name would be read as a
/// reference to an earlier one.
fn printable(text: &str, empty: &str) -> String {
    match units::printable(text).trim() {
        "" => empty.to_string(),
        text => text.to_string(),
    }
}

fn add(sum: &mut Cost, cost: Cost) {
    sum[0] = sum[0].saturating_add(cost[0]);
    sum[1] = sum[1].saturating_add(cost[1]);
}

/// Negative numbers and NaN, which only damaged files have, become 0.
fn nanoseconds(seconds: f64) -> u64 {
    (seconds * 1e9).round() as u64
}

/// The file while it is written: names stand in full at first use, then by number. Numbers begin with 1,
/// as KCachegrind stumbles over 0.
struct File<'a, W: Write> {
    out: W,
    costs: &'a Costs<'a>,
    groups: &'a [String],
    with_cpu: bool,
    certainty: Certainty,
}

#[derive(Default)]
struct Used {
    files: FxHashMap<String, usize>,
    functions: FxHashSet<u32>,
    groups: FxHashSet<u32>,
}

impl<W: Write> File<'_, W> {
    fn write(&mut self, profile: &Profile) -> io::Result<()> {
        self.header(profile)?;
        let names = self.costs.names();
        let mut used = Used::default();
        for (at, block) in self.costs.blocks.iter().enumerate() {
            if !block.own.is_empty() || !block.calls.is_empty() {
                self.block(at as u32, block, &names, &mut used)?;
            }
        }
        write!(self.out, "\ntotals:")?;
        self.cost(self.costs.total)?;
        self.out.flush()
    }

    fn header(&mut self, profile: &Profile) -> io::Result<()> {
        let meta = &profile.meta;
        let out = &mut self.out;
        writeln!(out, "# callgrind format\nversion: 1")?;
        writeln!(out, "creator: biopsy {}", env!("CARGO_PKG_VERSION"))?;
        if meta.pid != 0 {
            writeln!(out, "pid: {}", meta.pid)?;
        }
        if !meta.command.is_empty() {
            writeln!(out, "cmd: {}", printable(&meta.command, "?"))?;
        }
        match meta.origin {
            Origin::Sampled => writeln!(
                out,
                "desc: Sampled: {} in {:.2} s, {} given up; {}{}",
                units::several(meta.samples, "sample"),
                meta.duration_us as f64 / 1e6,
                meta.given_up,
                self.certainty.words("call counts"),
                if meta.approximate_stacks {
                    "; approximate stacks"
                } else {
                    ""
                }
            )?,
            Origin::Exact => writeln!(out, "desc: Traced: costs stand at first lines")?,
            Origin::Collapsed if meta.unit_is_unknown() => {
                writeln!(out, "desc: From collapsed stacks: units unknown")?;
            }
            Origin::Collapsed => writeln!(out, "desc: From collapsed stacks")?,
        }
        if !meta.narrowed.is_empty() {
            writeln!(out, "desc: Shown: {}", printable(&meta.narrowed, "?"))?;
        }
        writeln!(out, "positions: line")?;
        let unit = match meta.origin {
            _ if meta.unit_is_unknown() => "Weight",
            Origin::Exact => "Wall time (ns)",
            _ => "Wall time (us)",
        };
        writeln!(out, "event: Wall : {unit}")?;
        if self.with_cpu {
            writeln!(out, "event: Cpu : CPU time (us)\nevents: Wall Cpu")?;
        } else {
            writeln!(out, "events: Wall")?;
        }
        write!(self.out, "summary:")?;
        self.cost(self.costs.total)
    }

    fn block(
        &mut self,
        at: u32,
        block: &Block,
        names: &[String],
        used: &mut Used,
    ) -> io::Result<()> {
        writeln!(self.out)?;
        let file = &self.costs.shown[block.shown as usize].file;
        if self.groups.len() > 1 {
            self.group("ob", block.group, used)?;
        }
        self.file("fl", file, used)?;
        self.function("fn", at, names, used)?;
        for (line, cost) in &block.own {
            write!(self.out, "{line}")?;
            self.cost(*cost)?;
        }
        for (&(line, callee), &(calls, cost)) in &block.calls {
            let shown = &self.costs.shown[self.costs.blocks[callee as usize].shown as usize];
            if shown.file != *file {
                self.file("cfi", &shown.file, used)?;
            }
            self.function("cfn", callee, names, used)?;
            // Without a count callgrind_annotate would take the next line for own cost.
            write!(self.out, "calls={} {}\n{line}", calls.max(1), shown.line)?;
            self.cost(cost)?;
        }
        Ok(())
    }

    fn cost(&mut self, cost: Cost) -> io::Result<()> {
        if self.with_cpu {
            writeln!(self.out, " {} {}", cost[0], cost[1])
        } else {
            writeln!(self.out, " {}", cost[0])
        }
    }

    fn file(&mut self, key: &str, file: &str, used: &mut Used) -> io::Result<()> {
        if let Some(id) = used.files.get(file) {
            return writeln!(self.out, "{key}=({id})");
        }
        let id = used.files.len() + 1;
        used.files.insert(file.to_string(), id);
        writeln!(self.out, "{key}=({id}) {file}")
    }

    fn function(
        &mut self,
        key: &str,
        at: u32,
        names: &[String],
        used: &mut Used,
    ) -> io::Result<()> {
        let id = at + 1;
        if !used.functions.insert(at) {
            return writeln!(self.out, "{key}=({id})");
        }
        let block = &self.costs.blocks[at as usize];
        let name = &names[block.shown as usize];
        match block.group {
            0 => writeln!(self.out, "{key}=({id}) {name}"),
            group => writeln!(self.out, "{key}=({id}) {name} #{}", group + 1),
        }
    }

    /// KCachegrind shows what stands behind the last slash of an object.
    fn group(&mut self, key: &str, group: u32, used: &mut Used) -> io::Result<()> {
        let id = group + 1;
        if !used.groups.insert(group) {
            return writeln!(self.out, "{key}=({id})");
        }
        let label = self.groups.get(group as usize).map_or("", String::as_str);
        writeln!(
            self.out,
            "{key}=({id}) {}",
            printable(label, "?").replace('/', "∕")
        )
    }
}
