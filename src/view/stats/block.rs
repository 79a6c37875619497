//! Where a function ends in its source: the last line of the block that begins at a given one, as `inspect.getblock`
//! finds it, without a tokenizer of Python's: lines are told apart by indentation outside of brackets and strings.

/// Most lines that are looked at.
const MOST_LINES: usize = 100_000;

/// The last line (from 1) of the definition that begins at line `first`, decorators before it included; of what is no
/// definition, such as a lambda, the last line of its statement. 0 when there is no such line.
pub fn end(lines: &[String], first: usize) -> usize {
    let Some(begin) = first.checked_sub(1).filter(|at| *at < lines.len()) else {
        return 0;
    };
    let base = indent(&lines[begin]);
    let mut scanner = Scanner::default();
    // Whether the line with `def` or `class` is over.
    let mut in_body = false;
    let mut last = first;
    for (at, line) in lines.iter().enumerate().skip(begin).take(MOST_LINES) {
        let text = line.trim_start();
        let starts = scanner.is_between();
        if starts && (text.is_empty() || text.starts_with('#')) {
            // A comment that is indented belongs to the block, whatever follows.
            if in_body && indent(line) > base && !text.is_empty() {
                last = at + 1;
            }
            continue;
        }
        if starts && in_body && indent(line) <= base {
            break;
        }
        if starts && !in_body && at > begin && indent(line) < base {
            break;
        }
        let heads = ["def ", "class ", "async "];
        let decorates = starts && !in_body && text.starts_with('@');
        let heads = starts && !in_body && heads.iter().any(|head| text.starts_with(head));
        if heads {
            scanner.head = true;
        }
        scanner.line(line);
        last = at + 1;
        if !scanner.is_between() || decorates || in_body {
            continue;
        }
        if scanner.head {
            in_body = true;
        } else if !scanner.decorated {
            break;
        }
        scanner.decorated = false;
    }
    last
}

fn indent(line: &str) -> usize {
    let mut width = 0;
    for letter in line.chars() {
        match letter {
            ' ' => width += 1,
            '\t' => width += 8 - width % 8,
            _ => break,
        }
    }
    width
}

/// What is open at the end of a line.
#[derive(Default)]
struct Scanner {
    depth: usize,
    /// The quote of a string of several lines.
    long: Option<char>,
    continued: bool,
    head: bool,
    decorated: bool,
}

impl Scanner {
    /// Whether a statement may begin.
    fn is_between(&self) -> bool {
        self.depth == 0 && self.long.is_none() && !self.continued
    }

    fn line(&mut self, line: &str) {
        if self.is_between() && line.trim_start().starts_with('@') {
            self.decorated = true;
        }
        self.continued = false;
        let mut letters = line.trim_end_matches(['\n', '\r']).chars().peekable();
        // The quote of a string that ends on its line.
        let mut short: Option<char> = None;
        let is_three = |rest: &std::iter::Peekable<std::str::Chars<'_>>, quote: char| {
            let mut rest = rest.clone();
            rest.next() == Some(quote) && rest.next() == Some(quote)
        };
        while let Some(letter) = letters.next() {
            match (letter, short, self.long) {
                ('\\', None, None) => self.continued = letters.peek().is_none(),
                ('\\', ..) => {
                    // Of a short string that goes on in the next line the rest looks like code: no matter.
                    letters.next();
                }
                (_, None, Some(quote)) if letter == quote && is_three(&letters, quote) => {
                    letters.nth(1);
                    self.long = None;
                }
                (_, Some(quote), _) if letter == quote => short = None,
                (_, Some(_), _) | (_, None, Some(_)) => {}
                ('"' | '\'', None, None) => {
                    if is_three(&letters, letter) {
                        letters.nth(1);
                        self.long = Some(letter);
                    } else {
                        short = Some(letter);
                    }
                }
                ('#', ..) => break,
                ('(' | '[' | '{', ..) => self.depth += 1,
                (')' | ']' | '}', ..) => self.depth = self.depth.saturating_sub(1),
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_end_where_python_ends_them() {
        let source = "\
@decorate(
    1)
def f(a,
      b):
    '''Text
at the margin
    '''
    x = (1 +
2)
    # of f

    y = \"(\"; z = '''a''' \\
+ 3
# not of f

async def g(): pass
h = lambda: (
    1)
class C:
    def m(self):
        return [
]

    n = 1
done()
";
        let lines: Vec<String> = source.lines().map(str::to_string).collect();
        for (first, last) in [
            (1, 13),
            (3, 13),
            (16, 16),
            (17, 18),
            (19, 24),
            (20, 22),
            (24, 24),
            (25, 25),
            (26, 0),
            (0, 0),
        ] {
            assert_eq!(end(&lines, first), last, "{first}");
        }
    }
}
