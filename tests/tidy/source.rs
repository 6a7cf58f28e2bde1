//! Reads Rust just well enough for the rules: what is comment, what is literal, what is only there
//! for tests, and which paths the rest names. Not a parser; the compiler has seen the text before.

/// One file, cut up. In all parts every line stays on its line.
pub struct Source {
    /// From the package's directory, with slashes.
    pub path: String,
    /// As it is.
    pub text: String,
    /// Without comments, the insides of literals, and what only tests see.
    pub code: String,
    /// Only the comments.
    pub comments: String,
    /// Lines that only tests see.
    pub test_lines: usize,
}

impl Source {
    pub fn new(path: &str, text: &str) -> Source {
        let (all_code, comments) = split(text);
        let (code, test_lines) = without_tests(&all_code);
        Source {
            path: path.to_owned(),
            text: text.to_owned(),
            code,
            comments,
            test_lines,
        }
    }

    /// The modules from the crate's root to this file: `src/a/b.rs` and `src/a/b/mod.rs` are `a`, `b`.
    pub fn module(&self) -> Vec<&str> {
        let path = self.path.strip_prefix("src/").unwrap_or(&self.path);
        let path = path.strip_suffix(".rs").unwrap_or(path);
        let mut parts: Vec<&str> = path.split('/').collect();
        if matches!(parts.last(), Some(&("mod" | "lib" | "main"))) {
            parts.pop();
        }
        parts
    }

    /// Every path in the code with its line, those of a `use` with braces written out.
    pub fn paths(&self) -> Vec<(usize, Vec<String>)> {
        let tokens = tokens(&self.code);
        let mut paths = Vec::new();
        let mut at = 0;
        while at < tokens.len() {
            if tokens[at].1 == "use" {
                at = use_tree(&tokens, at + 1, &[], &mut paths);
            } else if is_name(&tokens[at].1) {
                at = plain_path(&tokens, at, &mut paths);
            } else {
                at += 1;
            }
        }
        paths
    }

    /// Names of functions, types and modules that the code declares, with their lines.
    pub fn declared(&self) -> Vec<(usize, String)> {
        const KEYWORDS: [&str; 6] = ["fn", "struct", "enum", "trait", "mod", "type"];
        let tokens = tokens(&self.code);
        let pairs = tokens.iter().zip(tokens.iter().skip(1));
        pairs
            .filter(|((_, keyword), (_, name))| {
                KEYWORDS.contains(&keyword.as_str()) && is_name(name)
            })
            .map(|(_, declared)| declared.clone())
            .collect()
    }
}

/// Lines where `text` has `needle`, from 1.
pub fn lines_with(text: &str, needle: &str) -> Vec<usize> {
    let lines = text.lines().zip(1..);
    lines
        .filter(|(line, _)| line.contains(needle))
        .map(|(_, number)| number)
        .collect()
}

/// The code with comments and the insides of literals blanked, and the comments with all else blanked.
fn split(text: &str) -> (String, String) {
    let chars: Vec<char> = text.chars().collect();
    let (mut code, mut comments) = (String::new(), String::new());
    let blank = |c: char| if c == '\n' { '\n' } else { ' ' };
    let mut at = 0;
    while at < chars.len() {
        let (end, is_comment) = match element(&chars, at) {
            Element::Comment(end) => (end, true),
            Element::Literal(end) => {
                // The quotes stay, so that an empty literal can be told from others.
                for (place, c) in (at..end).zip(&chars[at..end]) {
                    let is_edge = place == at || place + 1 == end;
                    code.push(if is_edge { *c } else { blank(*c) });
                    comments.push(blank(*c));
                }
                at = end;
                continue;
            }
            Element::Code => (at + 1, false),
        };
        for c in &chars[at..end] {
            code.push(if is_comment { blank(*c) } else { *c });
            comments.push(if is_comment { *c } else { blank(*c) });
        }
        at = end;
    }
    (code, comments)
}

enum Element {
    /// Up to here.
    Comment(usize),
    /// Up to here.
    Literal(usize),
    /// One character.
    Code,
}

fn element(chars: &[char], at: usize) -> Element {
    let rest = &chars[at..];
    let after_name = at > 0 && (chars[at - 1].is_alphanumeric() || chars[at - 1] == '_');
    match rest {
        ['/', '/', ..] => {
            let length = rest.iter().position(|c| *c == '\n');
            Element::Comment(length.map_or(chars.len(), |length| at + length))
        }
        ['/', '*', ..] => Element::Comment(block_comment_end(chars, at)),
        ['"', ..] => Element::Literal(string_end(chars, at)),
        ['r', '"' | '#', ..] if !after_name => raw_string_end(chars, at + 1),
        ['b' | 'c', 'r', '"' | '#', ..] if !after_name => raw_string_end(chars, at + 2),
        ['\'', '\\', _, more @ ..] => {
            let length = more.iter().position(|c| *c == '\'');
            Element::Literal(length.map_or(chars.len(), |length| at + length + 4))
        }
        ['\'', _, '\'', ..] => Element::Literal(at + 3),
        _ => Element::Code,
    }
}

fn block_comment_end(chars: &[char], start: usize) -> usize {
    let (mut at, mut depth) = (start, 0);
    while at < chars.len() {
        match &chars[at..] {
            ['/', '*', ..] => (at, depth) = (at + 2, depth + 1),
            ['*', '/', ..] => (at, depth) = (at + 2, depth - 1),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

fn string_end(chars: &[char], start: usize) -> usize {
    let mut at = start + 1;
    while at < chars.len() {
        match chars[at] {
            '\\' => at += 2,
            '"' => return at + 1,
            _ => at += 1,
        }
    }
    chars.len()
}

/// `start` is at the first sharp or the quote.
fn raw_string_end(chars: &[char], start: usize) -> Element {
    let sharps = chars[start..].iter().take_while(|c| **c == '#').count();
    if chars.get(start + sharps) != Some(&'"') {
        return Element::Code; // a raw identifier
    }
    let closing: Vec<char> = ['"'].into_iter().chain(vec!['#'; sharps]).collect();
    let body = start + sharps + 1;
    let ends = chars[body..].windows(closing.len());
    let length = ends.into_iter().position(|window| window == closing);
    Element::Literal(length.map_or(chars.len(), |length| body + length + closing.len()))
}

/// Blanks every item that `#[cfg(test)]` or `#[test]` stands before, and counts its lines.
fn without_tests(code: &str) -> (String, usize) {
    let mut left = code.to_owned();
    let mut lines = 0;
    while let Some(start) = ["#[cfg(test)]", "#[test]"]
        .iter()
        .filter_map(|mark| left.find(mark))
        .min()
    {
        let end = start + item_length(&left[start..]);
        let item = &left[start..end];
        lines += item.lines().count();
        let blanked: String = item
            .chars()
            .map(|c| if c == '\n' { '\n' } else { ' ' })
            .collect();
        left.replace_range(start..end, &blanked);
    }
    (left, lines)
}

/// Up to the semicolon or the closing brace of the item that `code` begins with, in bytes.
fn item_length(code: &str) -> usize {
    let mut depth = 0;
    for (place, c) in code.char_indices() {
        match c {
            '{' | '(' | '[' => depth += 1,
            '}' | ')' | ']' => depth -= 1,
            _ => {}
        }
        if depth == 0 && (c == '}' || c == ';') {
            return place + 1;
        }
    }
    code.len()
}

/// Names, `::`, and single characters, with their lines.
fn tokens(code: &str) -> Vec<(usize, String)> {
    let mut tokens: Vec<(usize, String)> = Vec::new();
    for (line, number) in code.lines().zip(1..) {
        let mut rest = line.trim_start();
        while let Some(first) = rest.chars().next() {
            let is_part = |c: char| c.is_alphanumeric() || c == '_';
            let length = match first {
                c if is_part(c) => rest.find(|c| !is_part(c)).unwrap_or(rest.len()),
                ':' if rest.starts_with("::") => 2,
                c => c.len_utf8(),
            };
            tokens.push((number, rest[..length].to_owned()));
            rest = rest[length..].trim_start();
        }
    }
    tokens
}

fn is_name(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

fn plain_path(
    tokens: &[(usize, String)],
    start: usize,
    paths: &mut Vec<(usize, Vec<String>)>,
) -> usize {
    let mut path = vec![tokens[start].1.clone()];
    let mut at = start + 1;
    while let [(_, colons), (_, name), ..] = &tokens[at..]
        && colons == "::"
        && is_name(name)
    {
        path.push(name.clone());
        at += 2;
    }
    paths.push((tokens[start].0, path));
    at
}

/// Reads one tree of a `use` and gives the place behind it.
fn use_tree(
    tokens: &[(usize, String)],
    start: usize,
    before: &[String],
    paths: &mut Vec<(usize, Vec<String>)>,
) -> usize {
    let mut path = before.to_vec();
    let mut at = start;
    while let Some((line, token)) = tokens.get(at) {
        match token.as_str() {
            "{" => {
                at += 1;
                while tokens.get(at).is_some_and(|(_, token)| token != "}") {
                    at = use_tree(tokens, at, &path, paths);
                    at += usize::from(tokens.get(at).is_some_and(|(_, token)| token == ","));
                }
                return at + 1;
            }
            "::" => at += 1,
            "as" => at += 2,
            name if is_name(name) || name == "*" => {
                path.push(name.to_owned());
                let ends = tokens.get(at + 1).is_none_or(|(_, next)| next != "::");
                if ends {
                    paths.push((*line, path.clone()));
                }
                at += 1;
            }
            _ => return at,
        }
    }
    at
}
