//! The picture on a terminal that is none: sizes, hostile names, deep stacks, nothing at all.

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::app::{App, Then, VIEWS};
use super::data::Data;
use super::draw::{Abilities, Status, draw};
use crate::profile::record::Sample;
use crate::profile::{FunctionKind, Mode, ProcessId, Profile, Recorder, RunState, ThreadInfo};
use crate::view::stats::SortKey;

/// Stacks outermost first with milliseconds of CPU time.
fn profile(stacks: &[(Vec<&str>, u64)]) -> Profile {
    let mut recorder = Recorder::default();
    recorder.profile.processes.push(Default::default());
    recorder.profile.meta.has_cpu_time = true;
    recorder.profile.meta.duration_us = 1_000_000;
    let thread = recorder.add_thread(ThreadInfo {
        process: ProcessId(0),
        os_id: 7,
        python_id: 7,
        name: Some("\x1b[2Jthread\u{202e}".to_string()),
        started_us: 0,
    });
    for (names, ms) in stacks {
        let tables = &mut recorder.profile.tables;
        let mut stack = None;
        for name in names {
            let function = tables.function("/x/a.py", 1, name, FunctionKind::Python);
            let frame = tables.frame(function, 2);
            stack = Some(tables.stack(stack, frame));
        }
        recorder.add(Sample {
            thread,
            stack: stack.expect("not empty"),
            count: 1,
            wall_us: ms * 1000,
            cpu_us: ms * 1000,
            fresh_from: None,
            state: RunState::ON_CPU.with(RunState::GIL),
        });
    }
    recorder.profile
}

struct Shown {
    app: App,
    terminal: Terminal<TestBackend>,
}

impl Shown {
    fn of(profile: Profile, width: u16, height: u16) -> Shown {
        let mut app = App::new(Data::of_file(profile), Mode::Cpu, SortKey::Time);
        app.width = width;
        app.renew();
        let terminal = Terminal::new(TestBackend::new(width, height)).expect("a terminal");
        Shown { app, terminal }
    }

    fn picture(&mut self) -> String {
        let able = Abilities {
            colour: false,
            unicode: false,
        };
        let app = &mut self.app;
        let status = Status::default();
        let drawn = self.terminal.draw(|frame| draw(frame, app, &status, able));
        drawn.expect("drawn");
        self.terminal.backend().to_string()
    }

    fn press(&mut self, keys: &str) -> String {
        for key in keys.chars() {
            let code = match key {
                '\r' => KeyCode::Enter,
                'v' => KeyCode::Down,
                '^' => KeyCode::Home,
                key => KeyCode::Char(key),
            };
            let then = self.app.key(KeyEvent::new(code, KeyModifiers::NONE));
            assert_eq!(then, Then::Nothing, "{key}");
        }
        self.picture()
    }
}

#[test]
fn each_view_fits_any_size_and_has_no_control_characters() {
    let hostile = "\x1b]0;x\x07\n\u{202e}漢字".repeat(2000);
    let stacks = [
        (vec!["main", hostile.as_str()], 500),
        (vec!["main", "other"], 400),
    ];
    for (width, height) in [(60, 12), (1, 1), (24, 6), (300, 60), (80, 24), (25, 200)] {
        let mut shown = Shown::of(profile(&stacks), width, height);
        for key in ('1'..='7').chain(['?']) {
            let picture = shown.press(&key.to_string());
            let bad = picture
                .chars()
                .find(|c| c.is_control() && *c != '\n' || *c == '\u{202e}');
            assert_eq!(bad, None, "{key} at {width} x {height}");
        }
    }
    let mut shown = Shown::of(profile(&stacks), 60, 12);
    let picture = shown.picture();
    assert!(picture.contains("44.4 a.py:1(other)"), "{picture}");
    assert!(picture.contains("55.6 a.py:1(\\x1b]0;x"), "{picture}");
}

#[test]
fn a_hundred_thousand_frames_and_none() {
    let mut shown = Shown::of(profile(&[(vec!["f"; 100_000], 10)]), 60, 12);
    assert!(shown.picture().contains("a.py:1(f)"));
    for key in 1..=VIEWS.len() {
        shown.press(&key.to_string());
    }
    let picture = shown.press("2");
    assert!(picture.contains("100.0%"), "{picture}");
    shown
        .app
        .key(KeyEvent::new(KeyCode::End, KeyModifiers::NONE));
    let picture = shown.picture();
    assert!(picture.contains("[99999]"), "{picture}");
    let mut none = Shown::of(Profile::default(), 60, 12);
    assert!(none.picture().contains("nothing used the CPU"));
    assert!(none.press("x").contains("no samples"));
    for keys in [
        "2e", "3", "4", "5\r", "6", "7m", "[]a", "vv\r", "/zz\r", "l r", "<>o",
    ] {
        none.press(keys);
    }
}

#[test]
fn what_a_file_does_not_know_is_not_shown() {
    let mut stacks = profile(&[(vec!["main", "work"], 500)]);
    stacks.meta.has_cpu_time = false;
    let mut shown = Shown::of(stacks, 120, 24);
    // From CPU time to wall time, which is all there is.
    assert!(shown.press("x").contains("wall time"));
    let picture = shown.press("x");
    assert!(
        picture.contains("wall time") && picture.contains("neither CPU time nor the GIL"),
        "{picture}"
    );
    assert!(
        picture.contains("nothing says what threads did"),
        "{picture}"
    );
    let picture = shown.press("5");
    assert!(
        picture.contains("    -     -     -     -     -"),
        "{picture}"
    );
}

#[test]
fn small_rows_fold_and_rows_keep_their_places_while_one_reads() {
    let names: Vec<String> = (0..50).map(|at| format!("small{at}")).collect();
    let mut stacks = vec![(vec!["first"], 600_u64), (vec!["second"], 390)];
    stacks.extend(names.iter().map(|name| (vec![name.as_str()], 1)));
    let mut shown = Shown::of(profile(&stacks), 80, 24);
    let picture = shown.picture();
    assert!(picture.contains("other: 50 functions"), "{picture}");
    assert!(!picture.contains("small"), "{picture}");
    assert!(shown.press("o").contains("small0"));
    shown.press("o");
    // The order of names would be the other way round: it is held from the first move on.
    let order = |picture: &str| picture.find("(first)") < picture.find("(second)");
    let picture = shown.press("v");
    assert!(
        order(&picture) && picture.contains("order held"),
        "{picture}"
    );
    let grown = profile(&[(vec!["first"], 600), (vec!["second"], 3900)]);
    shown.app.data = Data::of_file(grown.clone());
    shown.app.renew();
    assert!(order(&shown.picture()));
    assert!(!order(&shown.press("^")));
    assert!(order(&shown.press("N")));
}

#[test]
fn long_messages_are_seen_whole() {
    let stacks = [(vec!["main", "f"], 500)];
    let mut shown = Shown::of(profile(&stacks), 60, 12);
    let path = "/a/".repeat(40);
    shown.app.say(format!(
        "cannot write {path}x.svg: its folder does not exist"
    ));
    let picture = shown.picture();
    let text: String = picture
        .lines()
        .map(|line| line.trim_matches('"').trim_end())
        .collect();
    assert!(text.contains(&format!("{path}x.svg:")), "{picture}");
    assert!(picture.contains("its folder does not exist"), "{picture}");
    // What is longer than the screen ends somewhere, and the head stays.
    shown.app.say("word ".repeat(1000));
    let picture = shown.picture();
    assert!(picture.contains("CPU time"), "{picture}");
}

#[test]
fn the_hot_path_is_unfolded_to_its_end() {
    // The innermost has less than half of the time of its caller.
    let stacks = [
        (vec!["main", "a", "b", "c", "d", "e"], 280),
        (vec!["main", "a", "b", "c"], 310),
        (vec!["main", "a", "x"], 280),
        (vec!["main", "a", "b", "y"], 270),
    ];
    let mut shown = Shown::of(profile(&stacks), 80, 24);
    let picture = shown.press("2");
    assert!(!picture.contains("(e)"), "{picture}");
    let picture = shown.press("e");
    assert!(picture.contains("(e)"), "{picture}");
}

#[test]
fn filters_are_expressions_or_plain_text() {
    let stacks = [(vec!["main", "a(b"], 500), (vec!["main", "other"], 400)];
    let mut shown = Shown::of(profile(&stacks), 80, 24);
    let picture = shown.press("/a(b\r");
    assert!(
        picture.contains("a.py:1(a(b)") && !picture.contains("(other)"),
        "{picture}"
    );
    shown.press("2");
    let picture = shown.picture();
    assert!(
        picture.contains("(main)") && !picture.contains("(other)"),
        "{picture}"
    );
}
