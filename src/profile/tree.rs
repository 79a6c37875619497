//! The call tree: every distinct stack that counts, with its own and its inclusive cost and the number
//! of invocations that the samples can tell apart.

use rustc_hash::FxHashMap;

use super::counts::CallEstimate;
use super::fresh::Fresh;
use super::ncalls;
use super::{Filter, FrameId, FunctionId, Profile, Split, StackId, Tables};

/// What a part of the tree belongs to when threads or processes are kept apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// For people: `MainThread (4711)`; empty when everything is merged.
    pub label: String,
}

/// One distinct stack.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TreeNode {
    /// Position of the caller's node, always lower than this one's; `None` for an outermost frame.
    pub parent: Option<u32>,
    /// The innermost frame.
    pub frame: FrameId,
    /// Position in [`CallTree::groups`].
    pub group: u32,
    /// Wall time with this stack exactly, nanoseconds.
    pub self_wall_ns: u64,
    /// CPU time with this stack exactly, nanoseconds.
    pub self_cpu_ns: u64,
    /// Wall time with this stack or one above it, nanoseconds.
    pub total_wall_ns: u64,
    /// CPU time with this stack or one above it, nanoseconds.
    pub total_cpu_ns: u64,
    /// Invocations of the innermost frame's function: those that the samples can tell apart, or more where more is known.
    pub calls: u64,
    /// Samples with this stack exactly.
    pub samples: u64,
}

/// All distinct stacks; parents stand before their children.
#[derive(Debug, Clone, Default)]
pub struct CallTree {
    /// The stacks.
    pub nodes: Vec<TreeNode>,
    /// What is kept apart; one unnamed group when nothing is.
    pub groups: Vec<Group>,
    /// Calls of each function in each group, with where the number comes from; empty unless sampled.
    pub estimates: FxHashMap<(u32, FunctionId), CallEstimate>,
}

impl CallTree {
    /// The tree of the runs that `filter` lets through.
    pub fn of(profile: &Profile, filter: &Filter) -> CallTree {
        let (mut tree, groups) = CallTree::seen(profile, filter, filter.split);
        if profile.meta.origin == super::Origin::Sampled {
            tree.estimates = ncalls::apply(profile, filter, &groups, &mut tree);
        }
        tree
    }

    /// The same with the calls that samples tell apart and no others, apart as `split` says; and each thread's group.
    pub(super) fn seen(profile: &Profile, filter: &Filter, split: Split) -> (CallTree, Vec<u32>) {
        let tables = &profile.tables;
        let mut builder = Builder {
            tables,
            tree: CallTree::default(),
            nodes: FxHashMap::default(),
        };
        let groups = builder.add_groups(profile, split);
        // Invocations are summed like costs: +1 at the sampled stack, -1 at the deepest frame that is
        // still the old invocation, so that a subtree's sum is the number of its fresh invocations.
        let mut fresh: Vec<i64> = Vec::new();
        let mut follow = Fresh::of(profile);
        let threads = filter.threads(profile);
        for (index, run) in profile.runs.iter().enumerate() {
            let counts = threads[run.thread.index()] && filter.accepts_state(run.state);
            let older = follow.next(run, counts);
            if !counts {
                continue;
            }
            let group = groups[run.thread.index()];
            let at = builder.node(group, run.stack);
            fresh.resize(builder.tree.nodes.len(), 0);
            let node = &mut builder.tree.nodes[at as usize];
            let wall_ns = nanoseconds(filter.weight_us(profile, run));
            node.self_wall_ns = node.self_wall_ns.saturating_add(wall_ns);
            node.self_cpu_ns = node.self_cpu_ns.saturating_add(nanoseconds(run.cpu_us));
            node.samples += u64::from(run.count);
            let depth = tables.get_stack(run.stack).depth;
            if let Some(fresh_from) = run.fresh(depth) {
                let times = i64::from(profile.times(index));
                fresh[at as usize] += times;
                if let Some(old) = builder.ancestor(at, depth, fresh_from) {
                    fresh[old as usize] -= times;
                }
            }
            if !older.is_empty() {
                let inner = match older.end > depth {
                    true => Some(at),
                    false => builder.ancestor(at, depth, older.end),
                };
                let ends = [(inner, 1), (builder.ancestor(at, depth, older.start), -1)];
                for (end, times) in ends {
                    if let Some(end) = end {
                        fresh[end as usize] += times;
                    }
                }
            }
        }
        let mut tree = builder.tree;
        fresh.resize(tree.nodes.len(), 0);
        tree.sum_totals();
        for at in (0..tree.nodes.len()).rev() {
            if let Some(parent) = tree.nodes[at].parent {
                fresh[parent as usize] += fresh[at];
            }
        }
        for (node, fresh) in tree.nodes.iter_mut().zip(fresh) {
            node.calls = fresh.max(0) as u64;
        }
        (tree, groups)
    }

    /// Fills in the inclusive costs from the own ones.
    pub(super) fn sum_totals(&mut self) {
        for node in &mut self.nodes {
            node.total_wall_ns = node.self_wall_ns;
            node.total_cpu_ns = node.self_cpu_ns;
        }
        for at in (0..self.nodes.len()).rev() {
            let node = self.nodes[at];
            if let Some(parent) = node.parent {
                let parent = &mut self.nodes[parent as usize];
                // Exact times from a damaged file may be anything.
                parent.total_wall_ns = parent.total_wall_ns.saturating_add(node.total_wall_ns);
                parent.total_cpu_ns = parent.total_cpu_ns.saturating_add(node.total_cpu_ns);
            }
        }
    }

    /// Wall time of the whole tree, nanoseconds.
    pub fn total_wall_ns(&self) -> u64 {
        self.nodes
            .iter()
            .fold(0, |sum, node| sum.saturating_add(node.self_wall_ns))
    }

    /// Nodes of each node, in order; the first entry of the pair holds the outermost ones.
    pub fn children(&self) -> (Vec<u32>, Vec<Vec<u32>>) {
        let mut roots = Vec::new();
        let mut children = vec![Vec::new(); self.nodes.len()];
        for (at, node) in self.nodes.iter().enumerate() {
            match node.parent {
                Some(parent) => children[parent as usize].push(at as u32),
                None => roots.push(at as u32),
            }
        }
        (roots, children)
    }

    /// Visits every node from the outside in, children after their parent. `enter` is called before a
    /// node's children and `leave` after them. Uses no recursion: stacks may be 10,000 deep.
    pub fn walk(&self, mut enter: impl FnMut(u32), mut leave: impl FnMut(u32)) {
        let (roots, children) = self.children();
        let mut open: Vec<(u32, usize)> = Vec::new();
        for root in roots {
            enter(root);
            open.push((root, 0));
            while let Some((at, next)) = open.last_mut() {
                if let Some(&child) = children[*at as usize].get(*next) {
                    *next += 1;
                    enter(child);
                    open.push((child, 0));
                } else {
                    leave(*at);
                    open.pop();
                }
            }
        }
    }

    /// The function of a node.
    pub fn function(&self, tables: &Tables, at: u32) -> FunctionId {
        tables.get_frame(self.nodes[at as usize].frame).function
    }

    /// The nodes of one stack, innermost first.
    pub fn path(&self, at: u32) -> impl Iterator<Item = u32> + '_ {
        let mut next = Some(at);
        std::iter::from_fn(move || {
            let at = next?;
            next = self.nodes[at as usize].parent;
            Some(at)
        })
    }
}

/// Of microseconds.
fn nanoseconds(us: u32) -> u64 {
    u64::from(us) * 1000
}

struct Builder<'a> {
    tables: &'a Tables,
    tree: CallTree,
    nodes: FxHashMap<(u32, StackId), u32>,
}

impl Builder<'_> {
    /// Adds the groups that `split` asks for; gives each thread's group.
    fn add_groups(&mut self, profile: &Profile, split: Split) -> Vec<u32> {
        let groups = &mut self.tree.groups;
        match split {
            Split::Merged => {
                groups.push(Group {
                    label: String::new(),
                });
                vec![0; profile.threads.len()]
            }
            Split::Processes => {
                groups.extend((0..profile.processes.len()).map(|at| Group {
                    label: profile.process_label(super::ProcessId(at as u32)),
                }));
                profile.threads.iter().map(|t| t.process.0).collect()
            }
            Split::Threads => {
                let several = profile.processes.len() > 1;
                groups.extend(profile.threads.iter().enumerate().map(|(at, info)| {
                    let thread = profile.thread_label(super::ThreadId(at as u32));
                    let label = if several {
                        format!("{}, {thread}", profile.process_label(info.process))
                    } else {
                        thread
                    };
                    Group { label }
                }));
                (0..profile.threads.len() as u32).collect()
            }
        }
    }

    /// The node of `stack` in `group`, with all its parents.
    fn node(&mut self, group: u32, stack: StackId) -> u32 {
        if let Some(&at) = self.nodes.get(&(group, stack)) {
            return at;
        }
        let mut missing = vec![stack];
        let mut parent = None;
        let mut next = self.tables.get_stack(stack).parent;
        while let Some(stack) = next {
            if let Some(&at) = self.nodes.get(&(group, stack)) {
                parent = Some(at);
                break;
            }
            missing.push(stack);
            next = self.tables.get_stack(stack).parent;
        }
        while let Some(stack) = missing.pop() {
            let at = self.tree.nodes.len() as u32;
            self.tree.nodes.push(TreeNode {
                parent,
                frame: self.tables.get_stack(stack).frame,
                group,
                self_wall_ns: 0,
                self_cpu_ns: 0,
                total_wall_ns: 0,
                total_cpu_ns: 0,
                calls: 0,
                samples: 0,
            });
            self.nodes.insert((group, stack), at);
            parent = Some(at);
        }
        parent.unwrap_or(0)
    }

    /// The ancestor of the node `at` (which has `depth`) just outside of `fresh_from`.
    fn ancestor(&self, at: u32, depth: u32, fresh_from: u32) -> Option<u32> {
        let mut at = at;
        for _ in 0..=(depth - fresh_from) {
            at = self.tree.nodes[at as usize].parent?;
        }
        Some(at)
    }
}
