//! What a page knows: functions, the stacks that were seen as a tree, what each thread did when, and the table's rows.
//!
//! The rows are those of every other format. For a part of the time or of the threads the page adds up the stacks by
//! itself, in the same way, and shows no numbers of calls, which are known for the whole alone.

use serde::Serialize;

use super::pack::{Columns, zigzag};
use super::slices;
use super::sources::{self, File};
use crate::formats::ExportOptions;
use crate::profile::{
    CallStats, CallTree, Certainty, Filter, FunctionId, FunctionKind, Origin, Profile, Run,
    RunState, Split, StackId, Tables,
};
use crate::units::printable;

/// The JSON of a page.
#[derive(Debug, Serialize)]
pub(super) struct Head {
    pub(super) title: String,
    pub(super) note: String,
    /// Whether stacks may not have existed as wholes.
    pub(super) approximate: bool,
    /// Whether the stacks are estimated from who called whom.
    pub(super) estimated: bool,
    /// Whether the numbers of calls are exact.
    pub(super) exact: bool,
    /// Whether nobody knows what the numbers count.
    pub(super) unit_unknown: bool,
    pub(super) mode: &'static str,
    /// Nanoseconds that a number of the columns stands for.
    pub(super) tick_ns: u32,
    /// Whether runs stand in the order of time.
    pub(super) timeline: bool,
    /// Width of the slices of time in which runs were added up, microseconds; 0 where each stands for itself.
    pub(super) slice_us: u64,
    /// Whether it is known who waited for the GIL and who collected garbage.
    pub(super) has_states: bool,
    pub(super) duration_us: u64,
    /// Name, position of the file, first line, kind (0 Python, 1 C, 2 native).
    pub(super) functions: Vec<(String, u32, u32, u8)>,
    pub(super) files: Vec<File>,
    pub(super) threads: Vec<Thread>,
    /// Labels.
    pub(super) processes: Vec<String>,
    pub(super) views: Vec<View>,
    /// The functions' rows, of the page of a difference.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) difference: Option<Vec<super::difference::Row>>,
    pub(super) columns: Vec<(&'static str, usize)>,
}

/// A thread, in the order of its runs in the columns.
#[derive(Debug, Serialize)]
pub(super) struct Thread {
    pub(super) label: String,
    pub(super) process: u32,
    pub(super) started_us: u64,
    /// How many runs are its own.
    pub(super) runs: usize,
}

/// The rows of a part that is kept apart, or of all.
#[derive(Debug, Serialize)]
pub(super) struct View {
    label: String,
    /// Positions of its threads.
    threads: Vec<u32>,
    rows: Vec<Row>,
}

impl View {
    /// One without rows.
    pub(super) fn empty(label: &str, thread: u32) -> View {
        View {
            label: label.to_string(),
            threads: vec![thread],
            rows: Vec::new(),
        }
    }
}

/// Function, calls, primitive calls, own and cumulative seconds, 1 where the calls are a lower bound, callers.
type Row = (u32, u64, u64, f64, f64, u8, Vec<Caller>);

/// Function, calls, primitive calls, own and cumulative seconds of the callee along this edge.
type Caller = (u32, u64, u64, f64, f64);

/// The data of `profile`; says too how sure its numbers of calls are.
pub(super) fn of(profile: &Profile, options: &ExportOptions) -> (Head, Columns, Certainty) {
    let meta = &profile.meta;
    let mut columns = Columns::default();
    let sampled = profile.exact.is_none();
    let (threads, views, certainty, slice_us) = if sampled {
        of_samples(profile, options, &mut columns)
    } else {
        of_exact(profile, options, &mut columns)
    };
    let title = match options.title(profile) {
        "" => "Python",
        title => title,
    };
    let rows = views.first().map_or(&[][..], |view| &view.rows);
    let time = rows.iter().map(|row| (FunctionId(row.0), row.3)).collect();
    let (files, file_of) = sources::files(profile, options, &time);
    let head = Head {
        title: printable(title).into_owned(),
        note: String::new(),
        approximate: meta.approximate_stacks,
        estimated: !sampled,
        exact: !sampled && profile.exact.as_ref().is_some_and(|exact| exact.exact),
        unit_unknown: meta.unit_is_unknown(),
        mode: options.filter.mode.name(),
        tick_ns: if sampled { 1000 } else { 1 },
        timeline: meta.origin == Origin::Sampled
            && sampled
            && profile.has_timeline()
            && meta.duration_us > 0,
        slice_us,
        has_states: meta.has_states,
        duration_us: meta.duration_us,
        functions: functions(&profile.tables, &file_of, options),
        files,
        threads,
        processes: (0..profile.processes.len())
            .map(|at| profile.process_label(crate::profile::ProcessId(at as u32)))
            .map(|label| printable(&label).into_owned())
            .collect(),
        views,
        difference: None,
        columns: columns.names.clone(),
    };
    (head, columns, certainty)
}

fn functions(
    tables: &Tables,
    file_of: &[u32],
    options: &ExportOptions,
) -> Vec<(String, u32, u32, u8)> {
    let row = |((at, f), file): ((usize, &crate::profile::Function), &u32)| {
        let kind = match f.kind {
            FunctionKind::Python => 0,
            FunctionKind::Builtin => 1,
            FunctionKind::Native => 2,
        };
        let name = tables.shown_name(FunctionId(at as u32), options.qualnames);
        (printable(name).into_owned(), *file, f.line, kind)
    };
    let functions = tables.functions().iter().enumerate();
    functions.zip(file_of).map(row).collect()
}

/// The frames of `tables`: columns `frame_function` and `frame_line`, the latter from the function's first line on.
fn put_frames(tables: &Tables, columns: &mut Columns) {
    let frames = tables.frames();
    let mut last = 0;
    let steps = frames.iter().map(|frame| {
        let function = i64::from(frame.function.0);
        zigzag(function - std::mem::replace(&mut last, function))
    });
    columns.add("frame_function", steps);
    let lines = frames.iter().map(|frame| match frame.line {
        // An unknown line, which no line of the function is so far away from.
        0 => 0,
        line => 1 + zigzag(i64::from(line) - i64::from(tables.line(frame.function))),
    });
    columns.add("frame_line", lines);
}

/// A frame for each of so many functions, on lines that are not known.
pub(super) fn put_columns_of_functions(functions: usize, columns: &mut Columns) {
    let steps = (0..functions).map(|at| if at == 0 { 0 } else { zigzag(1) });
    columns.add("frame_function", steps);
    columns.add("frame_line", (0..functions).map(|_| 0));
}

/// The tree's nodes, parents first: how far back the parent is (0 for none), the frame's difference to the one before.
pub(super) fn put_nodes(nodes: &[(Option<u32>, u32)], columns: &mut Columns) {
    let backs = nodes.iter().enumerate();
    let backs = backs.map(|(at, (parent, _))| parent.map_or(0, |p| at as u64 - u64::from(p)));
    columns.add("node_back", backs);
    let mut last = 0;
    let frames = nodes.iter().map(|(_, frame)| {
        let frame = i64::from(*frame);
        zigzag(frame - std::mem::replace(&mut last, frame))
    });
    columns.add("node_frame", frames);
}

/// What a thread did: node, wall time, the time that counts, state.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cell {
    pub(super) node: u32,
    pub(super) wall: u64,
    pub(super) weight: u64,
    pub(super) state: u8,
}

/// Runs as columns: nodes by how often they occur, so that frequent ones take one byte.
pub(super) fn put_cells(cells: &[Cell], nodes: usize, columns: &mut Columns) {
    let mut uses = vec![0u64; nodes];
    for cell in cells {
        uses[cell.node as usize] += 1;
    }
    let mut order: Vec<u32> = (0..nodes as u32).collect();
    order.retain(|&node| uses[node as usize] > 0);
    order.sort_by_key(|&node| std::cmp::Reverse(uses[node as usize]));
    let mut ranks = vec![0u64; nodes];
    for (rank, &node) in order.iter().enumerate() {
        ranks[node as usize] = rank as u64;
    }
    columns.add("leaf_node", order.iter().map(|&node| u64::from(node)));
    columns.add(
        "run_leaf",
        cells.iter().map(|cell| ranks[cell.node as usize]),
    );
    columns.add("run_wall", cells.iter().map(|cell| cell.wall));
    columns.add("run_state", cells.iter().map(|cell| u64::from(cell.state)));
    let elsewhere = RunState::ELSEWHERE;
    let is_plain = |cell: &Cell| {
        let counts = !RunState(cell.state).has(elsewhere);
        cell.weight == if counts { cell.wall } else { 0 }
    };
    if !cells.iter().all(is_plain) {
        columns.add("run_weight", cells.iter().map(|cell| cell.weight));
    }
}

/// Threads, views, how sure numbers of calls are, length of slices.
type Parts = (Vec<Thread>, Vec<View>, Certainty, u64);

fn of_samples(profile: &Profile, options: &ExportOptions, columns: &mut Columns) -> Parts {
    let tables = &profile.tables;
    let filter = &options.filter;
    let wanted = filter.threads(profile);
    let shown = |run: &&Run| {
        let counts = filter.accepts_state(run.state);
        wanted[run.thread.index()] && (counts || profile.has_timeline())
    };
    // The stacks that are needed, with their parents, keep their order.
    let mut nodes_of: Vec<u32> = vec![0; tables.stacks().len()];
    for run in profile.runs.iter().filter(shown) {
        let mut next = Some(run.stack);
        while let Some(stack) = next.filter(|stack| nodes_of[stack.index()] == 0) {
            nodes_of[stack.index()] = 1;
            next = tables.get_stack(stack).parent;
        }
    }
    let mut nodes = Vec::new();
    for at in 0..nodes_of.len() {
        if nodes_of[at] == 0 {
            continue;
        }
        let stack = tables.get_stack(StackId(at as u32));
        let parent = stack.parent.map(|parent| nodes_of[parent.index()]);
        nodes_of[at] = nodes.len() as u32;
        nodes.push((parent, stack.frame.0));
    }
    put_frames(tables, columns);
    put_nodes(&nodes, columns);
    let mut by_thread: Vec<Vec<&Run>> = vec![Vec::new(); profile.threads.len()];
    for run in profile.runs.iter().filter(shown) {
        by_thread[run.thread.index()].push(run);
    }
    let cell = |run: &&Run| Cell {
        node: nodes_of[run.stack.index()],
        wall: u64::from(run.wall_us),
        weight: if filter.accepts_state(run.state) {
            u64::from(filter.weight_us(profile, run))
        } else {
            0
        },
        state: run.state.0,
    };
    let cells = by_thread.iter().map(|runs| runs.iter().map(cell).collect());
    let (cells, slice_us) = slices::cut(cells.collect());
    let counts: Vec<usize> = cells.iter().map(Vec::len).collect();
    put_cells(&cells.concat(), nodes.len(), columns);
    let places = (0..).zip(&wanted).filter(|(_, wanted)| **wanted);
    let places: Vec<u32> = places.map(|(at, _)| at).collect();
    let mut threads = Vec::new();
    for &at in &places {
        let info = &profile.threads[at as usize];
        let label = profile.thread_label(crate::profile::ThreadId(at));
        threads.push(Thread {
            label: printable(&label).into_owned(),
            process: info.process.0,
            started_us: info.started_us,
            runs: counts[at as usize],
        });
    }
    let merged = Filter {
        split: Split::Merged,
        ..filter.clone()
    };
    let tree = CallTree::of(profile, &merged);
    let stats = CallStats::of(&tree, tables);
    let certainty = stats.certainty(&tree);
    let all = (0..threads.len() as u32).collect();
    let mut views = vec![view(&stats, 0, all, sampled_time)];
    if filter.split != Split::Merged {
        let stats = profile.stats(filter);
        for (group, label) in (0..).zip(&stats.groups) {
            let in_group = |at: &u32| match filter.split {
                Split::Threads => *at == group,
                _ => profile.threads[*at as usize].process.0 == group,
            };
            let members = (0..).zip(&places).filter(|(_, at)| in_group(at));
            let members: Vec<u32> = members.map(|(position, _)| position).collect();
            if !members.is_empty() && stats.groups.len() > 1 {
                let mut view = view(&stats, group, members, sampled_time);
                view.label = printable(label).into_owned();
                views.push(view);
            }
        }
    }
    (threads, views, certainty, slice_us)
}

/// One thread for each group; the tree is estimated from who called whom.
fn of_exact(profile: &Profile, options: &ExportOptions, columns: &mut Columns) -> Parts {
    let (tree, _) = profile.tree(&options.filter);
    let stats = profile.stats(&options.filter);
    let nodes: Vec<_> = tree.nodes.iter().map(|n| (n.parent, n.frame.0)).collect();
    put_frames(&profile.tables, columns);
    put_nodes(&nodes, columns);
    let groups = stats.groups.len().max(1);
    let mut cells: Vec<Vec<Cell>> = (0..groups).map(|_| Vec::new()).collect();
    for (at, node) in (0..).zip(&tree.nodes) {
        let group = (node.group as usize).min(groups - 1);
        if node.self_wall_ns > 0 {
            cells[group].push(Cell {
                node: at,
                wall: node.self_wall_ns,
                weight: node.self_wall_ns,
                state: 0,
            });
        }
    }
    let label = |at: usize| {
        let label = stats.groups.get(at).map_or("", String::as_str);
        printable(label).into_owned()
    };
    let threads = cells.iter().enumerate().map(|(at, cells)| Thread {
        label: label(at),
        process: 0,
        started_us: 0,
        runs: cells.len(),
    });
    let threads: Vec<Thread> = threads.collect();
    let views = (0..groups).map(|at| {
        let mut view = view(&stats, at as u32, vec![at as u32], finite);
        view.label = label(at);
        view
    });
    let views = views.collect();
    let cells: Vec<Cell> = cells.into_iter().flatten().collect();
    put_cells(&cells, nodes.len(), columns);
    let certainty = stats.certainty(&tree);
    (threads, views, certainty, 0)
}

fn finite(seconds: f64) -> f64 {
    if seconds.is_finite() { seconds } else { 0.0 }
}

/// Sampled times are whole microseconds, which sums of floats only nearly are.
fn sampled_time(seconds: f64) -> f64 {
    (finite(seconds) * 1e6).round() / 1e6
}

fn view(stats: &CallStats, group: u32, threads: Vec<u32>, time: fn(f64) -> f64) -> View {
    let rows = stats.rows.iter().filter(|row| row.group == group);
    let rows = rows.map(|row| {
        let callers = row.callers.iter().map(|(caller, edge)| {
            let (tottime, cumtime) = (time(edge.tottime), time(edge.cumtime));
            (caller.0, edge.ncalls, edge.primitive, tottime, cumtime)
        });
        (
            row.function.0,
            row.ncalls,
            row.primitive,
            time(row.tottime),
            time(row.cumtime),
            u8::from(row.lower_bound),
            callers.collect(),
        )
    });
    View {
        label: String::new(),
        threads,
        rows: rows.collect(),
    }
}
