//! Reading Rust without a parser: enough to find words, imports and the ends of functions.

/// The source with comments and the insides of strings blanked; lines stay where they were.
pub fn code(source: &str) -> String {
    let text: Vec<char> = source.chars().collect();
    let mut out = String::with_capacity(source.len());
    let mut at = 0;
    while at < text.len() {
        let end = skipped(&text, at);
        if end == at {
            out.push(text[at]);
            at += 1;
        } else {
            out.extend(text[at..end].iter().map(|&c| if c == '\n' { '\n' } else { ' ' }));
            at = end;
        }
    }
    out
}

/// The end of the comment or literal that begins here; `at` itself when none does.
fn skipped(text: &[char], at: usize) -> usize {
    let next = |ahead: usize| text.get(at + ahead).copied().unwrap_or(' ');
    let word_before = at > 0 && (text[at - 1].is_alphanumeric() || text[at - 1] == '_');
    match text[at] {
        '/' if next(1) == '/' => find(text, at, |c| c == '\n'),
        '/' if next(1) == '*' => block_comment(text, at),
        '"' => string(text, at),
        'r' if !word_before
            && (next(1) == '"' || (next(1) == '#' && matches!(next(2), '"' | '#'))) =>
        {
            raw_string(text, at + 1)
        }
        'b' if !word_before && next(1) == 'r' && matches!(next(2), '"' | '#') => {
            raw_string(text, at + 2)
        }
        '\'' if next(1) == '\\' => find(text, at + 3, |c| c == '\'') + 1,
        '\'' if next(2) == '\'' => at + 3,
        _ => at,
    }
}

fn find(text: &[char], from: usize, wanted: impl Fn(char) -> bool) -> usize {
    (from..text.len()).find(|&at| wanted(text[at])).unwrap_or(text.len())
}

fn block_comment(text: &[char], from: usize) -> usize {
    let (mut at, mut depth) = (from, 0);
    while at + 1 < text.len() {
        match (text[at], text[at + 1]) {
            ('/', '*') => (at, depth) = (at + 2, depth + 1),
            ('*', '/') => (at, depth) = (at + 2, depth - 1),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    text.len()
}

fn string(text: &[char], from: usize) -> usize {
    let mut at = from + 1;
    while at < text.len() {
        match text[at] {
            '\\' => at += 2,
            '"' => return at + 1,
            _ => at += 1,
        }
    }
    text.len()
}

fn raw_string(text: &[char], from: usize) -> usize {
    let hashes = find(text, from, |c| c != '#') - from;
    let closed =
        |at: usize| text[at] == '"' && (1..=hashes).all(|ahead| text.get(at + ahead) == Some(&'#'));
    let end = (from + hashes + 1..text.len()).find(|&at| closed(at));
    end.map_or(text.len(), |at| at + hashes + 1)
}

/// What comes before the file's own tests.
pub fn without_tests(source: &str) -> &str {
    source.split("#[cfg(test)]\nmod ").next().unwrap_or(source)
}

/// Words of code (identifiers and keywords), each with its line, from 1.
pub fn words(code: &str) -> impl Iterator<Item = (usize, &str)> {
    code.lines().enumerate().flat_map(|(line, text)| {
        let words = text.split(|c: char| !c.is_alphanumeric() && c != '_');
        words.filter(|word| !word.is_empty()).map(move |word| (line + 1, word))
    })
}

/// Functions with a body: name, first line and how many lines. A `fn` type has no body.
pub fn functions(code: &str) -> Vec<(String, usize, usize)> {
    let mut found = vec![];
    for (at, _) in code.match_indices("fn ") {
        let begins = !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let name: String =
            code[at + 3..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        if begins
            && !name.is_empty()
            && let Some(end) = body_end(code, at)
        {
            let line = |at: usize| code[..at].matches('\n').count() + 1;
            found.push((name, line(at), line(end) - line(at) + 1));
        }
    }
    found
}

/// Where the body that follows ends; `None` for a declaration, which ends with a semicolon.
fn body_end(code: &str, from: usize) -> Option<usize> {
    let (mut braces, mut others) = (0, 0);
    for (at, c) in code[from..].char_indices() {
        match c {
            '(' | '[' => others += 1,
            ')' | ']' => others -= 1,
            ';' if braces == 0 && others == 0 => return None,
            '{' => braces += 1,
            '}' => {
                braces -= 1;
                if braces == 0 {
                    return Some(from + at);
                }
            }
            _ => {}
        }
    }
    None
}

/// Every path of our own that the code names, as segments from the crate's root.
///
/// Understands `crate::…`, `super::…` and `{…}` lists of imports; `module` is where the code is.
pub fn paths(code: &str, module: &[String]) -> Vec<Vec<String>> {
    let clustered: String =
        code.split_whitespace().collect::<Vec<_>>().join(" ").replace(" ::", "::");
    let mut found = vec![];
    for root in ["crate::", "super::"] {
        for (at, _) in clustered.match_indices(root) {
            if clustered[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':') {
                continue;
            }
            let mut rest = &clustered[at..];
            let mut base: Vec<String> = vec![];
            if let Some(tail) = rest.strip_prefix("crate::") {
                rest = tail;
            } else {
                base = module.to_vec();
                while let Some(tail) = rest.strip_prefix("super::") {
                    base.pop();
                    rest = tail;
                }
            }
            branches(rest, base, &mut found);
        }
    }
    found
}

/// Follows one path through its `{a, b::c}` lists.
fn branches(text: &str, base: Vec<String>, found: &mut Vec<Vec<String>>) -> usize {
    let text_start = text.trim_start();
    let mut at = text.len() - text_start.len();
    let mut path = base;
    loop {
        let rest = &text[at..];
        if rest.starts_with('{') {
            at += 1;
            while !text[at..].trim_start().starts_with('}') && at < text.len() {
                at += branches(&text[at..], path.clone(), found);
                let comma = text[at..].len() - text[at..].trim_start_matches([' ', ',']).len();
                let stuck = comma == 0 && !text[at..].starts_with('}');
                at += comma;
                if stuck {
                    break;
                }
            }
            return at + 1;
        }
        let word = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').count();
        let word: String = rest.chars().take(word).collect();
        at += word.len();
        if !word.is_empty() {
            path.push(word);
        }
        match text[at..].strip_prefix("::") {
            Some(_) => at += 2,
            None => break,
        }
    }
    let alias = text[at..].strip_prefix(" as ").map_or(0, |tail| {
        4 + tail.chars().take_while(|c| c.is_alphanumeric() || *c == '_').count()
    });
    let star = usize::from(text[at..].starts_with('*'));
    found.push(path);
    at + alias + star
}
