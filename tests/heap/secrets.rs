//! What the heap commands print and keep holds no value of the program unless --values asks for it: no argument of its
//! command line, no variable of its environment, no key that is no name.

use crate::common;

use common::{Python, biopsy};

/// Objects under keys of every kind; each key has SECRET in it, and so have an argument and a variable.
const PROGRAM: &str = "
import functools, sys
class Record(object): pass
class Slotless(object): pass
many = [Slotless() for _ in range(3)]
for each in many:
    each.name = Record()
    setattr(each, 'SECRET inline', [Record()])
shared = Slotless()
shared.__dict__['SECRET-two'] = [Record() for _ in range(30)]
globals()['SECRET global'] = [Record()]
setattr(Slotless, 'SECRET class', [Record()])
plain = {'SECRET dict': [Record()], 'SECRET_identifier': [Record()], b'SECRET bytes': [Record()]}
@functools.lru_cache(None)
def cached(argument): return Record()
cached('SECRET argument')
print('ready', flush=True)
for line in sys.stdin:
    many.append(Slotless())
    setattr(many[-1], 'SECRET inline', [Record() for _ in range(100)])
    plain['SECRET new'] = [Record() for _ in range(100)]
    print('grown', flush=True)
";

#[test]
fn no_value_is_shown_or_kept_without_being_asked_for() {
    let _company = common::in_company();
    for python in Python::all().iter().filter(|python| python.minor >= 8) {
        let stage = python.stage();
        let script = stage.put("program.py", PROGRAM);
        let mut command = python.command(&[&script, "--password=SECRET_argument"]);
        let mut target = common::Target::start(command.env("TOKEN", "SECRET_variable"));
        let pid = target.pid.to_string();
        let file = |name: &str| stage.path().join(name).display().to_string();
        let (plain, full) = (file("plain.heap"), file("full.heap"));
        biopsy(&["heap", "snapshot", &pid, "-q", "-o", &plain]).ok();
        biopsy(&["heap", "snapshot", &pid, "-q", "--values", "-o", &full]).ok();
        target.tell("");
        target.line();
        let records = ["--type", "__main__.Record"];
        let asked: [&[&str]; 9] = [
            &["summary", "@", "--json"],
            &["summary", "@", "--format", "markdown"],
            &["path", "@", records[0], records[1], "--json"],
            &["retained", "@", "--tree", "--limit", "500"],
            &["retained", "@", "--json"],
            &["referrers", "@", records[0], records[1], "--depth", "4"],
            &["caches", "@", "--json"],
            &["diff", &plain, "@", "--why", "--json"],
            &["diff", &plain, "@", "--why", "--format", "junit"],
        ];
        for words in asked {
            for of in [&pid, &plain] {
                let mut words: Vec<&str> = words.to_vec();
                if let Some(place) = words.iter_mut().find(|word| **word == "@") {
                    *place = of;
                }
                let ran = biopsy(&[&["heap"], &words[..]].concat()).ok();
                assert!(
                    !ran.stdout.contains("SECRET") && !ran.stderr.contains("SECRET"),
                    "{python}: {ran}"
                );
            }
        }
        let forms = biopsy(&["heap", "path", &plain, records[0], records[1], "--json"]).ok();
        for form in forms.json()["paths"].as_array().expect("paths") {
            let example = form["example"].as_str().expect("an address");
            let drawn = biopsy(&["heap", "referrers", &plain, "--address", example, "--dot"]).ok();
            assert!(!drawn.stdout.contains("SECRET"), "{python}: {drawn}");
        }
        // What a file without values does not have cannot be asked for; for one with values it was asked when it was taken.
        let path = |target: &str, more: &[&str]| {
            let words = [
                "heap", "path", target, records[0], records[1], "--count", "99",
            ];
            biopsy(&[&words[..], more].concat()).ok().stdout
        };
        let kept = path(&plain, &["--values"]);
        assert!(!kept.contains("SECRET"), "{python}: {kept}");
        for shown in [path(&pid, &["--values"]), path(&full, &[])] {
            for key in [
                "SECRET inline",
                "SECRET-two",
                "SECRET global",
                "SECRET class",
            ] {
                assert!(shown.contains(key), "{python}: no {key} in {shown}");
            }
        }
        assert!(kept.contains(".name × 2"), "{python}: {kept}");
        // The script is told, what it was given is not.
        let summary = biopsy(&["heap", "summary", &pid, "--json"]).ok().json();
        let command = summary["command"].as_str().expect("a command");
        assert!(command.ends_with("program.py ..."), "{python}: {command}");
        target.assert_free();
    }
}
