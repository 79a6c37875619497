//! One self-contained HTML page, offline, nothing loaded from anywhere (its content security policy forbids it): flame
//! graph, icicle and inverted graph, sortable table, callers and callees, source with heat, timeline.
//!
//! The data are packed as text without a character that HTML knows (see [`pack`]), and the script sets names as text only, so that
//! no name can end an element or begin one. The script's files are plain JavaScript that share one scope, in this order.

mod data;
mod difference;
pub(crate) mod pack;
mod slices;
mod sources;

pub use difference::write_difference;

use std::io::{self, BufWriter, Write};

use super::{ExportOptions, Exporter, Loss};
use crate::error::{Error, Result};
use crate::profile::{Certainty, Origin, Profile};
use crate::units::{printable, several};

/// What all our pages begin with.
const HEAD: &str = include_str!("head.html");
const PAGE: &str = include_str!("page.html");

/// What all our pages look like, and how their scripts read their data.
pub(crate) const STYLE: &str = include_str!("page.css");
pub(crate) const READING: [&str; 2] = [include_str!("js/inflate.js"), include_str!("js/load.js")];
const SCRIPTS: [&str; 8] = [
    include_str!("js/model.js"),
    include_str!("js/graph.js"),
    include_str!("js/table.js"),
    include_str!("js/calls.js"),
    include_str!("js/source.js"),
    include_str!("js/timeline.js"),
    include_str!("js/tasks.js"),
    include_str!("js/page.js"),
];

/// `.html` pages.
#[derive(Debug, Clone, Copy)]
pub struct Html;

impl Exporter for Html {
    fn needs_timeline(&self) -> bool {
        true
    }

    fn export(
        &self,
        profile: &Profile,
        options: &ExportOptions,
        out: &mut dyn Write,
    ) -> Result<Vec<Loss>> {
        let (mut head, columns, certainty) = data::of(profile, options);
        head.note = note(profile, options, certainty);
        let mut out = BufWriter::with_capacity(1 << 16, out);
        write_page(&head, &columns, &mut out)
            .map_err(|error| Error::write("the HTML page", &error))?;
        let mut losses = Vec::new();
        if head.estimated {
            losses.push("the profile has no stacks; those shown are estimates".to_string());
        }
        Ok(losses)
    }
}

fn write_page(head: &data::Head, columns: &pack::Columns, out: &mut dyn Write) -> io::Result<()> {
    let scripts = [&READING[..], &SCRIPTS].concat();
    fill(PAGE, &[STYLE], &scripts, out, |out| {
        pack::write(head, columns, out)
    })
}

/// Writes a page: [`HEAD`] and what comes behind it, with its three places filled in: `@CSS@`, `@DATA@` and `@JS@`.
pub(crate) fn fill(
    page: &str,
    styles: &[&str],
    scripts: &[&str],
    out: &mut dyn Write,
    mut data: impl FnMut(&mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    for text in [HEAD, page] {
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('@') {
            out.write_all(before.as_bytes())?;
            let (name, after) = after.split_once('@').unwrap_or((after, ""));
            let parts = match name {
                "CSS" => styles,
                "JS" => scripts,
                _ => {
                    data(out)?;
                    &[]
                }
            };
            for part in parts {
                out.write_all(part.as_bytes())?;
            }
            rest = after;
        }
        out.write_all(rest.as_bytes())?;
    }
    out.flush()
}

/// What the numbers are, in one line.
fn note(profile: &Profile, options: &ExportOptions, certainty: Certainty) -> String {
    let meta = &profile.meta;
    let text = match meta.origin {
        Origin::Exact => {
            let what = match profile.exact.as_ref().is_some_and(|exact| exact.exact) {
                true => "exact calls and times",
                false => "calls and times of samples",
            };
            format!("{what}; the flame graph is estimated: calls may stand beside their callers")
        }
        Origin::Collapsed if meta.unit_is_unknown() => {
            "from collapsed stacks: the unit is not known".to_string()
        }
        Origin::Collapsed => "from collapsed stacks".to_string(),
        Origin::Sampled => {
            let rate = if meta.rate_hz > 0.0 {
                format!("{} Hz", meta.rate_hz)
            } else {
                "full speed".to_string()
            };
            let approximate = if meta.approximate_stacks {
                "; stacks are approximate"
            } else {
                ""
            };
            format!(
                "{}sampled at {rate} for {:.2} s, mode {}: {}, {} given up; {}\
                 {approximate}",
                if meta.python.is_empty() {
                    String::new()
                } else {
                    format!("Python {}, ", printable(&meta.python))
                },
                meta.duration_us as f64 / 1e6,
                options.filter.mode.name(),
                several(meta.samples, "sample"),
                meta.given_up,
                certainty.words("ncalls"),
            )
        }
    };
    text + &printable(&meta.shown())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::FunctionKind;

    #[test]
    fn no_name_ends_the_script() {
        let mut profile = Profile::default();
        let name = "</script><!--<script>&\u{2028}";
        profile
            .tables
            .function("a.py", 1, name, FunctionKind::Python);
        let mut out = Vec::new();
        Html.export(&profile, &ExportOptions::default(), &mut out)
            .expect("writes");
        let page = String::from_utf8(out).expect("UTF-8");
        let (_, data) = page.split_once("id=\"data\">").expect("data");
        let (data, _) = data.split_once("</script>").expect("an end");
        assert!(!data.contains(['<', '>', '&']));
        let (head, _) = pack::read(data);
        assert_eq!(head["functions"][0][0], printable(name).as_ref());
        assert_eq!(page.matches("</script>").count(), 2);
    }

    #[test]
    fn nothing_is_loaded_or_made_of_text() {
        for script in READING.into_iter().chain(SCRIPTS) {
            for word in [
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
                "new Function",
                "fetch(",
                "XMLHttpRequest",
                "import(",
            ] {
                assert!(!script.contains(word), "{word}");
            }
            assert!(script.lines().count() <= 700);
        }
        assert!(!PAGE.contains("http:") && !PAGE.contains("https:") && !STYLE.contains("url("));
    }
}
