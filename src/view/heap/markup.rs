//! Names and tables in Markdown (GitHub's), and JUnit XML as `pytest --junit-xml` and CI servers have it.

use crate::units::printable;

/// A name as code in a cell of a Markdown table.
pub fn code(name: &str) -> String {
    let name = printable(name).replace('|', "\\|");
    let fence = if name.contains('`') { "``" } else { "`" };
    let blank = if name.contains('`') { " " } else { "" };
    format!("{fence}{blank}{name}{blank}{fence}")
}

/// Plain text in Markdown, with what would be markup escaped.
pub fn plain(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in printable(text).chars() {
        if matches!(
            letter,
            '\\' | '`' | '*' | '_' | '<' | '>' | '|' | '[' | ']' | '#' | '@'
        ) {
            escaped.push('\\');
        }
        escaped.push(letter);
    }
    escaped
}

/// A Markdown table: the first column to the left, all others to the right.
pub fn table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let header: Vec<String> = header.iter().map(|cell| cell.to_string()).collect();
    let mut text = line(&header);
    let rules: Vec<String> = (0..header.len())
        .map(|at| if at == 0 { "---" } else { "---:" }.to_string())
        .collect();
    text.push_str(&line(&rules));
    for row in rows {
        text.push_str(&line(&row));
    }
    text
}

/// One test of a [`suite`].
#[derive(Debug, Clone)]
pub struct TestCase {
    /// What it is called.
    pub name: String,
    /// Why it failed: in short, and in full. `None` when it passed.
    pub failure: Option<(String, String)>,
}

/// A JUnit document of one suite.
pub fn suite(
    name: &str,
    properties: &[(&str, String)],
    cases: &[TestCase],
    output: &str,
) -> String {
    let failures = cases.iter().filter(|case| case.failure.is_some()).count();
    let counts = format!(
        "tests=\"{}\" failures=\"{failures}\" errors=\"0\" skipped=\"0\"",
        cases.len()
    );
    let name = xml(name);
    let mut text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites {counts}>\n  <testsuite name=\"{name}\" {counts}>\n    <properties>\n"
    );
    for (key, value) in properties {
        let (key, value) = (xml(key), xml(value));
        text.push_str(&format!(
            "      <property name=\"{key}\" value=\"{value}\"/>\n"
        ));
    }
    text.push_str("    </properties>\n");
    for case in cases {
        let head = format!(
            "    <testcase classname=\"{name}\" name=\"{}\" time=\"0\"",
            xml(&case.name)
        );
        match &case.failure {
            None => text.push_str(&format!("{head}/>\n")),
            Some((short, full)) => text.push_str(&format!(
                "{head}>\n      <failure message=\"{}\">{}</failure>\n    </testcase>\n",
                xml(short),
                xml(full)
            )),
        }
    }
    text.push_str(&format!(
        "    <system-out>{}</system-out>\n  </testsuite>\n</testsuites>\n",
        xml(output)
    ));
    text
}

/// Text in XML 1.0: markup escaped, and what no XML document may hold replaced.
fn xml(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\n' | '\t' => escaped.push(letter),
            '\u{fffe}' | '\u{ffff}' => escaped.push('\u{fffd}'),
            letter if letter.is_control() => escaped.push('\u{fffd}'),
            letter => escaped.push(letter),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_do_not_break_a_markdown_table() {
        assert_eq!(code("dict"), "`dict`");
        assert_eq!(code("a|b\n"), "`a\\|b\\n`");
        assert_eq!(code("a`b"), "`` a`b ``");
        assert_eq!(plain("@me *x*"), "\\@me \\*x\\*");
        let text = table(&["type", "n"], [vec!["`a`".to_string(), "1".to_string()]]);
        assert_eq!(text, "| type | n |\n| --- | ---: |\n| `a` | 1 |\n");
    }

    #[test]
    fn the_suite_is_xml_whatever_the_names_hold() {
        let name = "a<b>&\"c\"\u{0}\u{1b}\u{ffff}\n";
        let case = |failure| TestCase {
            name: name.to_string(),
            failure,
        };
        let text = suite(
            name,
            &[("k", name.to_string())],
            &[case(None), case(Some((name.into(), name.into())))],
            name,
        );
        let document = roxmltree::Document::parse(&text).expect("XML");
        let suite = document.root_element().first_element_child().expect("one");
        assert_eq!(suite.attribute("tests"), Some("2"));
        assert_eq!(suite.attribute("failures"), Some("1"));
        let cases = suite
            .children()
            .filter(|node| node.has_tag_name("testcase"));
        let failed: Vec<bool> = cases
            .map(|node| node.first_element_child().is_some())
            .collect();
        assert_eq!(failed, [false, true]);
    }
}
