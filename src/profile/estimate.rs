//! A call tree estimated from exact rows, which know callers but no stacks.
//!
//! From the roots down, a function's time under a caller is its edge's share of its total, scaled by the
//! caller's own share on that path: right where a function behaves alike whoever calls it. What holds in
//! any case: the tree's own times of a function add up to its `tottime` in nanoseconds. What does not:
//! a call of a function that is on the path already is cut (its time is the function's already), and a
//! path with less than 1/100,000 of the whole is left out, its own times going to the places where the
//! same function is shown. Each function is shown at least once, below its biggest caller.

use std::collections::BinaryHeap;

use rustc_hash::FxHashMap;

use super::{CallStats, CallTree, FrameId, FunctionId, Group, Tables, TreeNode};

/// A flame graph of more boxes is neither drawn nor read; functions not yet shown are exempt.
const MAX_NODES: usize = 200_000;
/// The share of the whole below which a path is left out.
const MIN_SHARE: f64 = 1e-5;
/// Steps up the path to look for recursion, in total: bounds the time for hostile files, with chains of
/// thousands of functions below each other.
const MAX_STEPS: usize = 50_000_000;
/// No sum of all may leave 64 bits of nanoseconds: some 300 years.
const MOST_SECONDS: f64 = 1e10;
/// Calls are cut here so that their sums never overflow.
const MAX_CALLS: u64 = 1 << 40;

/// The estimated tree of `stats`.
pub fn tree(stats: &CallStats, tables: &Tables) -> CallTree {
    let mut tree = CallTree {
        nodes: Vec::new(),
        groups: stats
            .groups
            .iter()
            .map(|label| Group {
                label: label.clone(),
            })
            .collect(),
        ..CallTree::default()
    };
    if tree.groups.is_empty() {
        tree.groups.push(Group {
            label: String::new(),
        });
    }
    let graph = Graph::of(stats, tables, tree.groups.len() as u32 - 1);
    let mut growth = Growth::new(&graph);
    growth.grow();
    growth.share_out(&mut tree);
    tree.sum_totals();
    tree
}

/// A row with numbers that can be reckoned with.
struct Row {
    frame: FrameId,
    group: u32,
    own: f64,
    total: f64,
    calls: u64,
    /// Time that no caller accounts for.
    uncalled: f64,
    has_callers: bool,
}

/// One caller-callee edge, seen from the caller.
struct Edge {
    callee: usize,
    time: f64,
    calls: u64,
}

struct Graph {
    rows: Vec<Row>,
    /// Of each row, by time, biggest first.
    callees: Vec<Vec<Edge>>,
    whole: f64,
}

impl Graph {
    fn of(stats: &CallStats, tables: &Tables, last_group: u32) -> Graph {
        let own = stats
            .rows
            .iter()
            .map(|row| clean(row.tottime, MOST_SECONDS));
        let limit = if own.sum::<f64>() <= MOST_SECONDS {
            MOST_SECONDS
        } else {
            MOST_SECONDS / stats.rows.len().max(1) as f64
        };
        let mut positions: FxHashMap<(u32, FunctionId), usize> = FxHashMap::default();
        let mut rows = Vec::new();
        let mut sources = Vec::new();
        for source in &stats.rows {
            let line = tables.line(source.function);
            let Some(frame) = tables.find_frame(source.function, line) else {
                continue;
            };
            positions
                .entry((source.group, source.function))
                .or_insert(rows.len());
            let own = clean(source.tottime, limit);
            let total = clean(source.cumtime, limit).max(own);
            rows.push(Row {
                frame,
                group: source.group.min(last_group),
                own,
                total,
                calls: source.ncalls.min(MAX_CALLS),
                uncalled: total,
                has_callers: false,
            });
            sources.push(source);
        }
        let mut callees: Vec<Vec<Edge>> = rows.iter().map(|_| Vec::new()).collect();
        for (callee, source) in sources.iter().enumerate() {
            let all_calls: u64 = source
                .callers
                .iter()
                .fold(0, |sum, (_, edge)| sum.saturating_add(edge.ncalls));
            for (caller, edge) in &source.callers {
                let Some(&caller) = positions.get(&(source.group, *caller)) else {
                    continue;
                };
                if caller == callee {
                    continue;
                }
                let row = &mut rows[callee];
                let time = if edge.count_only {
                    row.total * (edge.ncalls as f64 / all_calls.max(1) as f64)
                } else {
                    clean(edge.cumtime, limit).min(row.total)
                };
                row.has_callers = true;
                row.uncalled -= time;
                let calls = edge.ncalls.min(MAX_CALLS);
                callees[caller].push(Edge {
                    callee,
                    time,
                    calls,
                });
            }
        }
        for edges in &mut callees {
            edges.sort_by(|a, b| b.time.total_cmp(&a.time).then(a.callee.cmp(&b.callee)));
        }
        let whole = rows.iter().map(|row| row.own).sum();
        Graph {
            rows,
            callees,
            whole,
        }
    }
}

/// Negative numbers, NaN and infinities, which only damaged or hostile files have, become 0.
fn clean(seconds: f64, limit: f64) -> f64 {
    if seconds.is_finite() && seconds > 0.0 {
        seconds.min(limit)
    } else {
        0.0
    }
}

/// A node of the tree to be.
struct Shoot {
    parent: Option<u32>,
    row: usize,
    /// The part of the row's total that this path has.
    share: f64,
    calls: u64,
}

/// A node that may be added; the one with the most time comes first, then the first found.
struct Bud {
    time: f64,
    order: std::cmp::Reverse<u64>,
    parent: Option<u32>,
    row: usize,
    calls: u64,
}

impl PartialEq for Bud {
    fn eq(&self, other: &Bud) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Bud {}

impl PartialOrd for Bud {
    fn partial_cmp(&self, other: &Bud) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Bud {
    fn cmp(&self, other: &Bud) -> std::cmp::Ordering {
        self.time
            .total_cmp(&other.time)
            .then(self.order.cmp(&other.order))
    }
}

struct Growth<'a> {
    graph: &'a Graph,
    shoots: Vec<Shoot>,
    /// The first, which is the biggest, node of each row.
    first: Vec<Option<u32>>,
    buds: BinaryHeap<Bud>,
    /// For each row the node at which it was last seen on the path.
    on_path: Vec<u32>,
    order: u64,
    steps: usize,
    /// Nodes from here on have not passed on to callees that are not shown anywhere.
    passed_on: usize,
}

impl<'a> Growth<'a> {
    fn new(graph: &'a Graph) -> Self {
        Growth {
            graph,
            shoots: Vec::new(),
            first: vec![None; graph.rows.len()],
            buds: BinaryHeap::new(),
            on_path: vec![u32::MAX; graph.rows.len()],
            order: 0,
            steps: 0,
            passed_on: 0,
        }
    }

    fn grow(&mut self) {
        let least = self.graph.whole * MIN_SHARE;
        for (at, row) in self.graph.rows.iter().enumerate() {
            if !row.has_callers {
                self.bud(None, at, row.total, row.calls);
            } else if row.uncalled > least.max(1e-6) {
                self.bud(None, at, row.uncalled, 1);
            }
        }
        self.grow_buds();
        self.show_the_rest();
        // What is left are cycles that nothing outside of them calls.
        let mut unseen: Vec<usize> = (0..self.first.len())
            .filter(|&at| self.first[at].is_none())
            .collect();
        unseen.sort_by(|&a, &b| {
            let (a, b) = (&self.graph.rows[a], &self.graph.rows[b]);
            b.total.total_cmp(&a.total)
        });
        for at in unseen {
            if self.first[at].is_none() {
                let row = &self.graph.rows[at];
                self.bud(None, at, row.total, row.calls);
                self.grow_buds();
                self.show_the_rest();
            }
        }
    }

    fn bud(&mut self, parent: Option<u32>, row: usize, time: f64, calls: u64) {
        self.order += 1;
        let order = std::cmp::Reverse(self.order);
        self.buds.push(Bud {
            time,
            order,
            parent,
            row,
            calls,
        });
    }

    fn grow_buds(&mut self) {
        while let Some(bud) = self.buds.pop() {
            if self.shoots.len() >= MAX_NODES && self.first[bud.row].is_some() {
                continue;
            }
            let at = self.add(&bud);
            if self.shoots.len() < MAX_NODES && self.steps < MAX_STEPS {
                self.branch(at, bud.time);
            }
        }
    }

    fn add(&mut self, bud: &Bud) -> u32 {
        let at = self.shoots.len() as u32;
        let total = self.graph.rows[bud.row].total;
        self.shoots.push(Shoot {
            parent: bud.parent,
            row: bud.row,
            share: if total > 0.0 {
                (bud.time / total).min(1.0)
            } else {
                0.0
            },
            calls: bud.calls,
        });
        self.first[bud.row].get_or_insert(at);
        at
    }

    /// Offers the callees of the node `at`, which has `time`, for adding.
    fn branch(&mut self, at: u32, time: f64) {
        let least = self.graph.whole * MIN_SHARE;
        let mut next = Some(at);
        while let Some(node) = next {
            let shoot = &self.shoots[node as usize];
            self.on_path[shoot.row] = at;
            next = shoot.parent;
            self.steps += 1;
        }
        let Shoot { row, share, .. } = self.shoots[at as usize];
        let edges = &self.graph.callees[row];
        // Mutual recursion makes edges overlap: together they get no more than what there is.
        let open = |edge: &&Edge| self.on_path[edge.callee] != at;
        let wanted: f64 = edges
            .iter()
            .filter(open)
            .map(|edge| edge.time * share)
            .sum();
        let there = time - self.graph.rows[row].own * share;
        let fit = if wanted > there {
            (there / wanted).max(0.0)
        } else {
            1.0
        };
        let offered: Vec<(usize, f64, u64)> = edges
            .iter()
            .take_while(|edge| edge.time * share * fit >= least && edge.time > 0.0)
            .filter(open)
            .map(|edge| {
                (
                    edge.callee,
                    edge.time * share * fit,
                    scale(edge.calls, share),
                )
            })
            .collect();
        self.steps += edges.len();
        for (callee, time, calls) in offered {
            self.bud(Some(at), callee, time, calls);
        }
    }

    /// Adds callees that are not shown anywhere, as they have too little time, below the biggest node of
    /// a caller.
    fn show_the_rest(&mut self) {
        while let Some(shoot) = self.shoots.get(self.passed_on) {
            let parent = self.passed_on as u32;
            let row = shoot.row;
            self.passed_on += 1;
            if self.first[row] != Some(parent) {
                continue;
            }
            for edge in &self.graph.callees[row] {
                if self.first[edge.callee].is_none() {
                    self.add(&Bud {
                        time: edge.time,
                        order: std::cmp::Reverse(0),
                        parent: Some(parent),
                        row: edge.callee,
                        calls: edge.calls,
                    });
                }
            }
        }
    }

    /// Gives each row's own time in nanoseconds to its nodes by their shares, so that the sum holds.
    fn share_out(self, tree: &mut CallTree) {
        let mut shares = vec![0.0; self.first.len()];
        for shoot in &self.shoots {
            shares[shoot.row] += shoot.share;
        }
        let mut passed = vec![0.0; self.first.len()];
        let mut given = vec![0u64; self.first.len()];
        for (at, shoot) in self.shoots.iter().enumerate() {
            let (row, index) = (&self.graph.rows[shoot.row], shoot.row);
            let units = (row.own * 1e9).round() as u64;
            passed[index] += shoot.share;
            let due = if shares[index] > 0.0 {
                (units as f64 * (passed[index] / shares[index])).round() as u64
            } else if self.first[index] == Some(at as u32) {
                units
            } else {
                0
            };
            // The last of a row's nodes has all of its shares: the quotient is exactly 1.
            let due = due.clamp(given[index], units.max(given[index]));
            tree.nodes.push(TreeNode {
                parent: shoot.parent,
                frame: row.frame,
                group: row.group,
                self_wall_ns: due - given[index],
                self_cpu_ns: 0,
                total_wall_ns: 0,
                total_cpu_ns: 0,
                calls: shoot.calls,
                samples: 0,
            });
            given[index] = due;
        }
    }
}

fn scale(calls: u64, share: f64) -> u64 {
    ((calls as f64 * share).round() as u64).max(1)
}

#[cfg(test)]
mod tests {
    use super::super::{EdgeStats, FunctionKind, FunctionStats, Meta, Profile};
    use super::*;

    type Callers<'a> = &'a [(&'a str, f64)];

    /// Rows: name, own time, cumulative time, callers with the edge's cumulative time.
    fn profile(rows: &[(&str, f64, f64, Callers<'_>)]) -> Profile {
        let mut tables = Tables::default();
        let mut id = |name: &str| tables.function("a.py", 1, name, FunctionKind::Python);
        let rows = rows
            .iter()
            .map(|&(name, tottime, cumtime, callers)| FunctionStats {
                function: id(name),
                group: 0,
                ncalls: 10,
                primitive: 10,
                tottime,
                cumtime,
                callers: callers
                    .iter()
                    .map(|&(caller, cumtime)| {
                        let edge = EdgeStats {
                            ncalls: 5,
                            primitive: 5,
                            cumtime,
                            ..EdgeStats::default()
                        };
                        (id(caller), edge)
                    })
                    .collect(),
                lower_bound: false,
            })
            .collect();
        let stats = CallStats {
            rows,
            groups: vec![String::new()],
            exact: true,
        };
        Profile::from_exact(tables, Meta::default(), stats)
    }

    fn estimate(profile: &Profile) -> CallTree {
        tree(profile.exact.as_ref().expect("exact"), &profile.tables)
    }

    /// `a;b own/total` of each node, sorted.
    fn paths(profile: &Profile, tree: &CallTree) -> Vec<String> {
        let mut paths: Vec<String> = (0..tree.nodes.len() as u32)
            .map(|at| {
                let mut names: Vec<&str> = tree
                    .path(at)
                    .map(|at| profile.tables.name(tree.function(&profile.tables, at)))
                    .collect();
                names.reverse();
                let node = tree.nodes[at as usize];
                format!(
                    "{} {}/{}",
                    names.join(";"),
                    node.self_wall_ns,
                    node.total_wall_ns
                )
            })
            .collect();
        paths.sort();
        paths
    }

    #[test]
    fn a_shared_callee_is_split_by_its_edges() {
        let profile = profile(&[
            ("main", 1.0, 10.0, &[]),
            ("a", 1.0, 7.0, &[("main", 7.0)]),
            ("b", 0.0, 2.0, &[("main", 2.0)]),
            ("work", 8.0, 8.0, &[("a", 6.0), ("b", 2.0)]),
        ]);
        let expected = [
            "main 1000000000/10000000000",
            "main;a 1000000000/7000000000",
            "main;a;work 6000000000/6000000000",
            "main;b 0/2000000000",
            "main;b;work 2000000000/2000000000",
        ];
        assert_eq!(paths(&profile, &estimate(&profile)), expected);
    }

    #[test]
    fn recursion_is_cut_and_keeps_the_totals() {
        let profile = profile(&[
            ("main", 0.0, 10.0, &[]),
            ("even", 4.0, 10.0, &[("main", 10.0), ("odd", 8.0)]),
            ("odd", 6.0, 9.0, &[("even", 9.0), ("odd", 1.0)]),
        ]);
        let expected = [
            "main 0/10000000000",
            "main;even 4000000000/10000000000",
            "main;even;odd 6000000000/6000000000",
        ];
        assert_eq!(paths(&profile, &estimate(&profile)), expected);
    }

    #[test]
    fn a_cycle_that_nothing_calls_starts_at_its_biggest() {
        let profile = profile(&[
            ("a", 1.0, 2.0, &[("b", 2.0)]),
            ("b", 2.0, 3.0, &[("a", 3.0)]),
        ]);
        assert_eq!(
            paths(&profile, &estimate(&profile)),
            ["b 2000000000/3000000000", "b;a 1000000000/1000000000"]
        );
    }

    #[test]
    fn small_functions_are_shown_once_and_counted() {
        let mut rows: Vec<(String, f64)> = (0..50).map(|at| (format!("f{at}"), 1e-6)).collect();
        rows.push(("big".into(), 10.0));
        let callers = [("main", 1e-6)];
        let big = [("main", 10.0)];
        let mut all: Vec<(&str, f64, f64, Callers<'_>)> = vec![("main", 0.0, 10.00005, &[])];
        all.extend(rows.iter().map(|(name, time)| {
            (
                name.as_str(),
                *time,
                *time,
                if *time > 1.0 { &big[..] } else { &callers[..] },
            )
        }));
        let profile = profile(&all);
        let tree = estimate(&profile);
        assert_eq!(tree.nodes.len(), 52);
        assert_eq!(tree.total_wall_ns(), 10_000_050_000);
        assert_eq!(
            tree.nodes
                .iter()
                .filter(|node| node.parent.is_none())
                .count(),
            1
        );
    }

    #[test]
    fn a_ladder_of_many_paths_stays_bounded_and_exact() {
        // Two functions a step, each called by both of the step before: 2^30 paths.
        let names: Vec<[String; 2]> = (0..30)
            .map(|at| [format!("a{at}"), format!("b{at}")])
            .collect();
        let mut edges: Vec<Vec<(&str, f64)>> = vec![vec![("main", 30.0)]];
        for at in 1..30 {
            let time = (30 - at) as f64;
            edges.push(
                names[at - 1]
                    .iter()
                    .map(|name| (name.as_str(), time))
                    .collect(),
            );
        }
        let mut rows: Vec<(&str, f64, f64, Callers<'_>)> = vec![("main", 0.0, 60.0, &[])];
        for (at, pair) in names.iter().enumerate() {
            let total = if at == 0 {
                30.0
            } else {
                2.0 * (30 - at) as f64
            };
            rows.extend(
                pair.iter()
                    .map(|name| (name.as_str(), 1.0, total, &edges[at][..])),
            );
        }
        let profile = profile(&rows);
        let tree = estimate(&profile);
        assert!(tree.nodes.len() <= MAX_NODES + 61);
        assert_eq!(tree.total_wall_ns(), 60_000_000_000);
        let parents_first =
            |(at, node): (usize, &TreeNode)| node.parent.is_none_or(|p| (p as usize) < at);
        assert!(tree.nodes.iter().enumerate().all(parents_first));
    }

    #[test]
    fn hostile_numbers_neither_panic_nor_count() {
        let wrong = [
            f64::NAN,
            f64::INFINITY,
            f64::NEG_INFINITY,
            -1.0,
            1e300,
            f64::MIN_POSITIVE,
        ];
        for a in wrong {
            for b in wrong {
                let profile = profile(&[
                    ("main", a, b, &[("x", b)]),
                    ("x", b, a, &[("main", a), ("x", b), ("y", a)]),
                    ("y", 1.0, b, &[("x", a), ("main", b)]),
                ]);
                let tree = estimate(&profile);
                assert!(tree.nodes.len() >= 3);
                assert!(tree.total_wall_ns() >= 1_000_000_000);
            }
        }
    }
}
