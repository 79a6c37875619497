//! `heap caches` says what is cached, where the cache is, and which memo dicts grew.

use crate::common;

use common::{Python, biopsy, in_company};

#[test]
fn caches_are_called_what_they_call_and_memo_dicts_are_found() {
    for python in Python::all().iter().filter(|python| python.minor >= 8) {
        let stage = python.stage();
        let mut target = python.start(&[&stage.fixture("caches.py")]);
        let pid = target.pid.to_string();
        let old = stage.path().join("old.heap");
        let old = old.to_str().expect("UTF-8");
        biopsy(&["heap", "snapshot", &pid, "-o", old]).ok();
        target.tell("");
        assert_eq!(target.line(), "grown");
        let asked = ["heap", "caches", &pid, "--since", old, "--json"];
        let document = biopsy(&asked).ok().json();
        let caches = document["caches"].as_array().expect("caches");
        for (path, function, has_place) in [
            ("part", "functools.partial(__main__.add)", true),
            ("inst", "__main__.Call.__call__", true),
            ("meth", "__main__.Base.method", true),
            ("root", "math.sqrt", false),
            ("kind", "__main__.Kind", false),
            ("nested", "functools.partial(__main__.Call.__call__)", true),
            ("Service.cached", "__main__.Service.cached", true),
        ] {
            let path = format!("__main__.{path}");
            let row = caches.iter().find(|row| row["path"] == path.as_str());
            let row = row.unwrap_or_else(|| panic!("{python}: {path} in {document:#}"));
            assert_eq!(row["function"], function, "{python}");
            let file = row["file"].as_str().expect("a file");
            assert_eq!(file.ends_with("caches.py"), has_place, "{python}: {path}");
            assert!(row["address"].as_str().expect("one").starts_with("0x"));
        }
        let grown = document["containers"].as_array().expect("containers");
        for path in [
            "slow.__closure__[1].cell_contents",
            "Service.look.__closure__[1].cell_contents",
            "classic.__defaults__[0]",
            "classic.__kwdefaults__['other']",
        ] {
            let path = format!("__main__.{path}");
            let row = grown.iter().find(|row| row["path"] == path.as_str());
            let row = row.unwrap_or_else(|| panic!("{python}: {path} in {document:#}"));
            let counts = (&row["items"], &row["items_before"]);
            assert_eq!(counts, (&500.into(), &5.into()), "{python}: {row}");
        }
        let text = biopsy(&["heap", "caches", &pid]).ok().stdout;
        let wanted = "functools.partial(__main__.add)";
        assert!(
            text.contains(wanted) && text.contains("__main__.part"),
            "{text}"
        );
    }
}

/// Caches of caches without an end, and one of a callable that calls the cache: as sqlite's cache of statements, whose function is the
/// connection that has it.
const ROUND: &str = "
import functools, time
class Connection:
    def __call__(self): pass
connection = Connection()
Connection.__call__ = functools.lru_cache(connection)
part = functools.partial(print)
ring = functools.lru_cache(part)
part.__setstate__((ring, (), {}, None))
deep = print
for _ in range(20000): deep = functools.lru_cache(deep)
print('ready', flush=True)
time.sleep(600)
";

#[test]
fn caches_that_lead_nowhere_are_named_all_the_same() {
    let _company = in_company();
    for python in Python::all().iter().filter(|python| python.minor >= 8) {
        let mut target = python.start(&["-c", ROUND]);
        let pid = target.pid.to_string();
        let text = biopsy(&["heap", "caches", &pid, "--limit", "all"])
            .ok()
            .stdout;
        for path in [
            "__main__.ring",
            "__main__.deep",
            "__main__.deep.__wrapped__",
        ] {
            assert!(
                text.lines().any(|line| line.ends_with(path)),
                "{python}, {path}"
            );
        }
        target.assert_free();
    }
}
