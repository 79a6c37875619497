//! Patterns over names as a shell has them: `*` is any text, `?` is any one character, all others are
//! themselves. A pattern is about the whole name.

/// Whether `name` is what `pattern` says. Takes at most the product of both lengths in steps.
pub fn matches(pattern: &str, name: &str) -> bool {
    let (mut pattern, mut name) = (pattern.chars(), name.chars());
    // What follows the last `*`, and where in the name the text that the star stands for ends.
    let mut star = None;
    loop {
        let mut next = pattern.clone();
        match next.next() {
            Some('*') => {
                star = Some((next.clone(), name.clone()));
                pattern = next;
                continue;
            }
            Some(wanted) => {
                let mut rest = name.clone();
                if rest.next().is_some_and(|c| wanted == '?' || wanted == c) {
                    (pattern, name) = (next, rest);
                    continue;
                }
            }
            None if name.as_str().is_empty() => return true,
            None => {}
        }
        let Some((behind, end)) = &mut star else {
            return false;
        };
        if end.next().is_none() {
            return false;
        }
        (pattern, name) = (behind.clone(), end.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn patterns_as_a_shell_has_them() {
        for (pattern, name, expected) in [
            ("dict", "dict", true),
            ("dict", "dicts", false),
            ("dict", "", false),
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("*", "any.thing", true),
            ("myapp.*", "myapp.models.User", true),
            ("myapp.*", "myapp", false),
            ("*.User", "myapp.models.User", true),
            ("*.User", "myapp.models.Users", false),
            ("m*s.U*r", "myapp.models.User", true),
            ("*a*b*c", "xxaxxbxxbxxc", true),
            ("*a*b*c", "xxaxxcxxb", false),
            ("?", "é", true),
            ("??", "é", false),
            ("a?c*", "abc", true),
            ("**", "x", true),
            ("*?", "", false),
            ("function (*)", "function (main)", true),
            ("[ab]", "a", false),
            ("[ab]", "[ab]", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} on {name}");
        }
    }

    #[test]
    fn many_stars_take_no_time() {
        let pattern = "*a".repeat(200);
        assert!(!matches(&pattern, &"a".repeat(150)));
        assert!(matches(&pattern, &"a".repeat(5000)));
    }
}
