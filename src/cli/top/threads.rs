//! Threads and tasks: what they do now, and what they did.

use super::data::{Computed, Data};
use super::page::{Page, Row, Stands, in_held_order, key_of};
use super::tree::Look;
use crate::profile::{Profile, RunState, ThreadId};
use crate::units::printable;

/// Whether this is the timeline of an asyncio task, or of several.
pub fn is_task(profile: &Profile, thread: ThreadId) -> bool {
    let info = &profile.threads[thread.index()];
    let name = info.name.as_deref().unwrap_or_default();
    info.os_id == 0 && (name.starts_with("task ") || name == "more tasks")
}

/// All threads.
pub fn threads(computed: &Computed, data: &Data, look: &Look<'_>) -> Page {
    let page = Page {
        head: format!(
            "{:<16} CPU%  GIL% wait% idle%   GC% thread, and where it is",
            "state"
        ),
        ..Page::default()
    };
    fill(page, computed, data, look, false)
}

/// All asyncio tasks.
pub fn tasks(computed: &Computed, data: &Data, look: &Look<'_>) -> Page {
    let page = Page {
        head: format!(
            "{:<10} {:>8} {:>8} task, and where it is",
            "state", "ran s", "waited s"
        ),
        empty: "no tasks: they are looked for with --async (3.11 and newer)".to_string(),
        ..Page::default()
    };
    fill(page, computed, data, look, true)
}

fn fill(mut page: Page, computed: &Computed, data: &Data, look: &Look<'_>, of_tasks: bool) -> Page {
    let profile = data.profile();
    let mut list: Vec<usize> = (0..profile.threads.len())
        .filter(|at| is_task(profile, ThreadId(*at as u32)) == of_tasks)
        .filter(|at| {
            computed
                .states
                .get(*at)
                .is_some_and(|times| times.wall_us > 0)
        })
        .collect();
    list.sort_by_key(|at| {
        let times = computed.states.get(*at).copied().unwrap_or_default();
        (
            !data.is_file() && !data.is_living(*at),
            std::cmp::Reverse((times.on_cpu_us, times.gil_us, times.wall_us)),
            *at,
        )
    });
    in_held_order(&mut list, look.held, |at| key_of(*at));
    let has_gil = data.has_gil();
    let has_tasks = (0..profile.threads.len()).any(|at| is_task(profile, ThreadId(at as u32)));
    for at in list {
        let id = ThreadId(at as u32);
        let times = computed.states.get(at).copied().unwrap_or_default();
        let cpu_us = computed.cpu_us.get(at).copied().unwrap_or_default();
        let percent = |us: u64| 100.0 * us as f64 / times.wall_us.max(1) as f64;
        let last = data.last.get(at).copied().unwrap_or_default();
        let state = if data.is_file() {
            "-"
        } else if !data.is_living(at) {
            "ended"
        } else if of_tasks {
            task_word(last.state)
        } else {
            word(last.state, has_gil)
        };
        let where_it_is = last.stack.map(|stack| {
            let frame = profile
                .tables
                .get_frame(profile.tables.get_stack(stack).frame);
            look.name(&profile.tables, frame.function)
        });
        let mut name = profile.thread_label(id);
        if has_tasks && !of_tasks {
            // Its row is what is left: the time in which it ran a task is that task's.
            name.push_str(", outside tasks");
        }
        if of_tasks {
            name = profile.threads[at].name.clone().unwrap_or_default();
        }
        if profile.processes.len() > 1 {
            let process = profile.threads[at].process;
            name = format!("{} {name}", profile.processes[process.index()].pid);
        }
        if let Some(place) = where_it_is {
            name = format!("{name}  {place}");
        }
        if look.pattern.is_some_and(|pattern| !pattern.is_match(&name)) {
            continue;
        }
        let columns = if of_tasks {
            let ran = times.wall_us - times.idle_us;
            let (ran, idle) = (ran as f64 / 1e6, times.idle_us as f64 / 1e6);
            format!("{state:<10} {ran:>8.3} {idle:>8.3}")
        } else {
            let (knows_cpu, knows_states) = match data.is_file() {
                true => (profile.meta.has_cpu_time, profile.meta.has_states),
                false => (true, true),
            };
            let parts = [
                (cpu_us, knows_cpu),
                (times.gil_us, knows_states && has_gil),
                (times.gil_wait_us, knows_states && has_gil),
                (times.idle_us, knows_states),
                (times.gc_us, knows_states),
            ];
            // What nobody recorded is not nothing.
            let parts = parts.map(|(us, known)| match known {
                true => format!("{:>5.1}", percent(us)),
                false => format!("{:>5}", "-"),
            });
            format!("{state:<15} {}", parts.join(" "))
        };
        page.rows.push(Row {
            key: key_of(at),
            columns,
            name: printable(&name).into_owned(),
            heat: percent(cpu_us) / 100.0,
            stands: Stands::Thread(id),
            ..Row::default()
        });
    }
    page
}

/// What a thread did when it was seen last.
fn word(state: RunState, has_gil: bool) -> &'static str {
    let (cpu, gil) = (state.has(RunState::ON_CPU), state.has(RunState::GIL));
    if state.has(RunState::GC) {
        "garbage"
    } else if state.has(RunState::GIL_WAIT) {
        "waits for GIL"
    } else {
        match (cpu, gil) {
            (true, _) if !has_gil => "runs",
            (true, true) => "runs",
            (true, false) => "runs, no GIL",
            (false, true) => "sleeps with GIL",
            (false, false) => "idle",
        }
    }
}

fn task_word(state: RunState) -> &'static str {
    match state == RunState::default() || state.has(RunState::ELSEWHERE) {
        true => "suspended",
        false => "running",
    }
}
