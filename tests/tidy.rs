//! Reads the sources and fails on a breach of what `ARCHITECTURE.md` states and the compiler does not
//! check: layers, purity of the decisions, what may panic or print, size, words. It judges no style
//! that needs judgement. Each rule is proved by a breach of its own below.

use std::fs;
use std::path::Path;

#[path = "tidy/source.rs"]
mod source;

use source::{Source, lines_with};

/// From the innermost to the outermost: each may import from those before it.
const LAYERS: [&str; 12] = [
    "protocol", "sql", "routing", "config", "net", "server", "client", "monitor", "pool",
    "session", "inspect", "admin",
];
/// They may use all, and talk to a terminal.
const ABOVE_ALL: [&str; 2] = ["lab", "app"];
/// No I/O, no waiting, no clock, no log; and they do not import one another.
const PURE: [&str; 3] = ["protocol", "sql", "routing"];

const LINES_NOTED: usize = 400;
const LINES_ALLOWED: usize = 600;

#[test]
fn the_sources_keep_the_rules() {
    let sources = read_sources();
    assert!(sources.len() > 50, "only {} files", sources.len());
    for source in &sources {
        if let (lines @ LINES_NOTED.., true) = (lines_without_tests(source), is_ours(source)) {
            println!("note: {} has {lines} lines without its tests", source.path);
        }
    }
    let breaches: Vec<String> = sources.iter().flat_map(breaches).collect();
    assert!(breaches.is_empty(), "\n{}\n", breaches.join("\n"));
}

fn breaches(source: &Source) -> Vec<String> {
    let rules = [
        layers, purity, opening, panics, prints, size, words, dead_code, promises,
    ];
    let mut found: Vec<Breach> = rules.iter().flat_map(|rule| rule(source)).collect();
    found.sort();
    found.dedup();
    let lines = found.into_iter();
    lines
        .map(|(line, breach)| format!("{}:{line}: {breach}", source.path))
        .collect()
}

/// A line and what is wrong there.
type Breach = (usize, String);

fn layers(source: &Source) -> Vec<Breach> {
    let module = source.module();
    let Some(own) = module.first().and_then(|own| rank(own)) else {
        return Vec::new();
    };
    let is_breach = |used: &str| match rank(used) {
        Some(rank) if rank == own => false,
        Some(rank) => rank > own || PURE.contains(&LAYERS[own]),
        None => ABOVE_ALL.contains(&used),
    };
    let paths = source.paths().into_iter();
    paths
        .filter_map(|(line, path)| {
            let used = from_root(&path, module.len())?;
            let breach = format!("{} may not import from {used}", LAYERS[own]);
            is_breach(used).then_some((line, breach))
        })
        .collect()
}

fn rank(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| *layer == module)
}

/// The top-level module that a path in a module so deep leads to, if it leaves that module.
fn from_root(path: &[String], depth: usize) -> Option<&str> {
    let supers = path
        .iter()
        .skip_while(|part| *part == "self")
        .take_while(|part| *part == "super")
        .count();
    match path.first()?.as_str() {
        "crate" => Some(path.get(1)?),
        "super" | "self" if supers >= depth && supers > 0 => {
            let rest = path.iter().find(|part| *part != "self" && *part != "super");
            rest.map(String::as_str)
        }
        _ => None,
    }
}

fn purity(source: &Source) -> Vec<Breach> {
    const IMPURE: [&str; 12] = [
        "std::fs",
        "std::io",
        "std::net",
        "std::process",
        "std::thread",
        "std::env",
        "tokio",
        "tracing",
        "metrics",
        "SystemTime",
        "Instant::now",
        "elapsed",
    ];
    if !source
        .module()
        .first()
        .is_some_and(|own| PURE.contains(own))
    {
        return Vec::new();
    }
    let mut breaches = Vec::new();
    for (line, path) in source.paths() {
        let path = path.join("::");
        if matches!(path.as_str(), "async" | "await") {
            breaches.push((line, "a pure module awaits nothing".to_owned()));
        }
        let whole = format!("::{path}::");
        let impure = |name: &&&str| match name.contains(char::is_uppercase) || **name == "elapsed" {
            true => whole.contains(&format!("::{name}::")),
            false => whole.starts_with(&format!("::{name}::")),
        };
        if let Some(name) = IMPURE.iter().find(impure) {
            breaches.push((line, format!("a pure module does not use {name}")));
        }
    }
    breaches
}

fn opening(source: &Source) -> Vec<Breach> {
    // A test module's parent says what it tests.
    let needs_none = source.path.ends_with("/tests.rs") || source.text.starts_with("//!");
    match needs_none {
        true => Vec::new(),
        false => vec![(1, "a file opens with //!: what it is".to_owned())],
    }
}

fn panics(source: &Source) -> Vec<Breach> {
    if !is_ours(source) {
        return Vec::new();
    }
    let may_expect = is_above_all(source);
    let mut breaches = Vec::new();
    for (line, number) in source.code.lines().zip(1..) {
        // Evaluated by the compiler, which then says so.
        let is_constant = [
            "const ",
            "pub const ",
            "pub(super) const ",
            "pub(crate) const ",
        ]
        .iter()
        .any(|keyword| line.trim_start().starts_with(keyword));
        for call in [".unwrap()", ".expect(", "todo!", "unimplemented!", "dbg!"] {
            let is_excused = is_constant || may_expect && call == ".expect(";
            if line.contains(call) && !is_excused {
                breaches.push((number, format!("{call} outside of tests")));
            }
        }
        if line.contains(".expect(\"\")") {
            breaches.push((number, ".expect() needs a message".to_owned()));
        }
    }
    breaches
}

fn prints(source: &Source) -> Vec<Breach> {
    if !is_ours(source) || is_above_all(source) {
        return Vec::new();
    }
    let lines = ["println!", "print!"].map(|print| lines_with(&source.code, print));
    let lines = lines.into_iter().flatten();
    lines
        .map(|line| (line, "only lab, app and main print".to_owned()))
        .collect()
}

fn size(source: &Source) -> Vec<Breach> {
    let lines = lines_without_tests(source);
    match is_ours(source) && lines > LINES_ALLOWED {
        true => vec![(1, format!("{lines} lines without tests"))],
        false => Vec::new(),
    }
}

fn words(source: &Source) -> Vec<Breach> {
    const BANNED: [&str; 7] = [
        "master", "slave", "handler", "handlers", "manager", "util", "utils",
    ];
    let mut breaches = Vec::new();
    let names = source.declared().into_iter();
    let files = source
        .path
        .split(['/', '.'])
        .map(|part| (1, part.to_owned()));
    for (line, name) in names.chain(files) {
        for word in words_of(&name) {
            if BANNED.contains(&word.as_str()) {
                breaches.push((line, format!("{name}: not {word}; see the list of words")));
            }
        }
    }
    for phrase in ["slave", "backend connection"] {
        let text = source.text.to_lowercase();
        for line in lines_with(&text, phrase) {
            breaches.push((line, format!("not \"{phrase}\"; see the list of words")));
        }
    }
    breaches
}

/// `PoolManager` and `pool_manager` are both `pool`, `manager`.
fn words_of(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    for c in name.chars() {
        if c == '_' || c == '-' || c.is_uppercase() {
            words.push(String::new());
        }
        if c.is_alphanumeric()
            && let Some(word) = words.last_mut()
        {
            word.extend(c.to_lowercase());
        }
    }
    words
}

fn dead_code(source: &Source) -> Vec<Breach> {
    let lines = source.comments.lines().zip(1..);
    lines
        .filter(|(line, _)| {
            let line = line.trim();
            let is_doc = line.starts_with("///") || line.starts_with("//!");
            let is_code = [';', '{', '}'].iter().any(|end| line.ends_with(*end));
            line.starts_with("//") && !is_doc && is_code
        })
        .map(|(_, number)| (number, "looks like commented-out code".to_owned()))
        .collect()
}

fn promises(source: &Source) -> Vec<Breach> {
    let marks = ["TODO", "FIXME", "XXX:"];
    let lines = marks.map(|mark| lines_with(&source.text, mark));
    let lines = lines.into_iter().flatten();
    lines
        .map(|line| (line, "do it, or write an issue".to_owned()))
        .collect()
}

/// Part of the product, not of its tests and benches.
fn is_ours(source: &Source) -> bool {
    source.path.starts_with("src/")
}

fn is_above_all(source: &Source) -> bool {
    let module = source.module();
    let is_main = source.path == "src/main.rs";
    is_main || module.first().is_some_and(|own| ABOVE_ALL.contains(own))
}

fn lines_without_tests(source: &Source) -> usize {
    source.text.lines().count() - source.test_lines
}

/// All sources. Files that are modules of tests only (`#[cfg(test)] mod x;`) are all test.
fn read_sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    // It would find its own examples.
    let itself = |path: &str| path == "tests/tidy.rs";
    for directory in ["src", "tests", "benches", "fuzz/src", "fuzz/fuzz_targets"] {
        collect(root, &root.join(directory), &mut files);
    }
    files.retain(|(path, _)| !itself(path));
    let test_files: Vec<String> = files
        .iter()
        .flat_map(|(path, text)| test_modules(path, text))
        .collect();
    let sources = files.iter().map(|(path, text)| {
        let mut source = Source::new(path, text);
        if test_files.contains(path) {
            source.code.clear();
            source.test_lines = source.text.lines().count();
        }
        source
    });
    sources.collect()
}

/// The files that a file declares as modules of its tests.
fn test_modules(path: &str, text: &str) -> Vec<String> {
    let stem = path.strip_suffix(".rs").unwrap_or(path);
    let directory = ["/mod", "/lib", "/main"]
        .iter()
        .find_map(|root| stem.strip_suffix(root))
        .unwrap_or(stem);
    let lines = text.lines().zip(text.lines().skip(1));
    lines
        .filter(|(mark, _)| mark.trim() == "#[cfg(test)]")
        .filter_map(|(_, line)| line.split_once("mod ")?.1.strip_suffix(';'))
        .map(|module| format!("{directory}/{module}.rs"))
        .collect()
}

fn collect(root: &Path, directory: &Path, files: &mut Vec<(String, String)>) {
    let Ok(entries) = fs::read_dir(directory) else {
        return;
    };
    for entry in entries {
        let path = entry.expect("a directory entry").path();
        if path.is_dir() {
            collect(root, &path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix(root).expect("below the root");
            let name = name.to_str().expect("UTF-8").replace('\\', "/");
            files.push((name, fs::read_to_string(&path).expect("UTF-8")));
        }
    }
}

/// What the rules find in one file of this text; its opening line is given.
fn found(path: &str, text: &str) -> Vec<String> {
    breaches(&Source::new(path, &format!("//! What.\n{text}\n")))
}

#[test]
fn an_import_from_a_lower_line_is_found_however_it_is_written() {
    for (path, text) in [
        ("src/net/tls.rs", "use crate::pool::Pools;"),
        (
            "src/net/tls.rs",
            "use crate::{config::Config, session::{self, Options}};",
        ),
        ("src/net/tls.rs", "use super::super::monitor::Feed;"),
        ("src/net/mod.rs", "use super::monitor::Feed;"),
        ("src/net/tls.rs", "use self::super::super::client;"),
        ("src/net/tls.rs", "fn f() -> crate::admin::Admin {}"),
        ("src/pool/mod.rs", "pub use crate::app as outer;"),
        ("src/inspect/mod.rs", "use crate::lab::Lab;"),
        ("src/sql/mod.rs", "use crate::protocol::frame;"),
        ("src/routing/mod.rs", "use crate::sql;"),
    ] {
        let found = found(path, text);
        assert!(
            found.len() == 1 && found[0].contains("may not import"),
            "{text}: {found:?}"
        );
    }
}

#[test]
fn imports_from_above_and_from_tests_are_allowed() {
    for (path, text) in [
        ("src/net/tls.rs", "use crate::config::Config;"),
        ("src/net/a/b.rs", "use super::super::wire::Wire;"),
        ("src/session/mod.rs", "use crate::{monitor::Feed, pool};"),
        ("src/sql/mod.rs", "use crate::sql::lexer;"),
        ("src/lab/demo/mod.rs", "use crate::app::Causeway;"),
        ("src/net/tls.rs", "// use crate::pool, if that were allowed"),
        ("src/net/tls.rs", "const A: &str = \"crate::pool::Pools\";"),
        (
            "src/net/tls.rs",
            "#[cfg(test)]\nmod tests {\n    use crate::app::Causeway;\n}",
        ),
        ("src/net/tls.rs", "#[cfg(test)]\nuse crate::app::Causeway;"),
        (
            "src/net/tls.rs",
            "const A: char = '\"'; const B: &str = \" use crate::app;\";",
        ),
        ("src/net/tls.rs", "const A: &str = r#\"\" crate::pool \"#;"),
    ] {
        assert_eq!(found(path, text), Vec::<String>::new(), "{text}");
    }
    let after_tests = "#[cfg(test)]\nmod tests {\n fn a() { '{'; }\n}\nuse crate::app;";
    assert_eq!(found("src/net/tls.rs", after_tests).len(), 1);
}

#[test]
fn what_a_pure_module_may_not_do_is_found() {
    for text in [
        "fn f() { let now = Instant::now(); }",
        "fn f() { let now = std::time::Instant::now(); }",
        "use std::time::{Duration, SystemTime};",
        "use std::{fs, fmt};",
        "use std::net::IpAddr;",
        "use tokio::sync::Notify;",
        "fn f() { tracing::info!(\"x\"); }",
        "fn f() { metrics::counter!(\"x\"); }",
        "async fn f() {}",
        "fn f() { g().await; }",
        "fn f(at: Instant) { at.elapsed(); }",
    ] {
        assert_eq!(found("src/routing/a.rs", text).len(), 1, "{text}");
        assert_eq!(found("src/pool/a.rs", text).len(), 0, "{text}");
    }
    for text in [
        "use std::time::{Duration, Instant};",
        "use super::metrics_of;",
        "fn f(elapsed_ms: u64) {}",
        "// Instant::now() would be wrong here.",
        "#[cfg(test)]\nmod tests {\n    use std::fs;\n}",
    ] {
        assert_eq!(found("src/routing/a.rs", text).len(), 0, "{text}");
    }
}

#[test]
fn what_may_panic_or_print_is_found() {
    for (path, text, count) in [
        ("src/net/a.rs", "fn f() { a.unwrap(); }", 1),
        ("src/net/a.rs", "fn f() { a.expect(\"b\"); }", 1),
        ("src/net/a.rs", "fn f() { todo!() }", 1),
        ("src/net/a.rs", "fn f() { unimplemented!() }", 1),
        ("src/net/a.rs", "fn f() { dbg!(1); }", 1),
        ("src/net/a.rs", "fn f() { println!(); }", 1),
        ("src/net/a.rs", "fn f() { eprintln!(); }", 1),
        (
            "src/net/a.rs",
            "const A: NonZeroUsize = NonZeroUsize::new(1).unwrap();",
            0,
        ),
        ("src/net/a.rs", "fn f() { a.unwrap_or_default(); }", 0),
        ("src/net/a.rs", "/// `a.unwrap()` panics.", 0),
        (
            "src/net/a.rs",
            "#[cfg(test)]\nmod tests { fn f() { a.unwrap(); println!() } }",
            0,
        ),
        ("src/lab/a.rs", "fn f() { a.unwrap(); }", 1),
        (
            "src/lab/a.rs",
            "fn f() { a.expect(\"a reason\"); println!(); }",
            0,
        ),
        ("src/lab/a.rs", "fn f() { a.expect(\"\"); }", 1),
        ("src/main.rs", "fn f() { eprintln!(); }", 0),
        ("tests/it/a.rs", "fn f() { a.unwrap(); println!(); }", 0),
    ] {
        let found = found(path, text);
        assert_eq!(found.len(), count, "{path} {text}: {found:?}");
    }
}

#[test]
fn size_counts_without_tests() {
    let long = "fn f() {}\n".repeat(LINES_ALLOWED);
    assert_eq!(found("src/net/a.rs", &long).len(), 1);
    assert_eq!(found("tests/it/a.rs", &long).len(), 0);
    let tests = format!("#[cfg(test)]\nmod tests {{\n{long}}}");
    assert_eq!(found("src/net/a.rs", &tests).len(), 0);
}

#[test]
fn files_open_with_what_they_are() {
    let bare = |path| breaches(&Source::new(path, "use std::fmt;\n")).len();
    assert_eq!((bare("src/net/a.rs"), bare("tests/it/a.rs")), (1, 1));
    assert_eq!(bare("src/net/a/tests.rs"), 0);
}

#[test]
fn other_words_for_our_things_are_found() {
    for (path, text) in [
        ("src/net/a.rs", "struct PoolManager;"),
        ("src/net/a.rs", "fn message_handler() {}"),
        ("src/net/a.rs", "mod utils {}"),
        ("src/net/a.rs", "enum Role { A }\ntype Master = Role;"),
        ("src/net/util.rs", "fn f() {}"),
        ("src/net/a.rs", "// A backend connection."),
        ("src/net/a.rs", "// The slave."),
    ] {
        assert_eq!(found(path, text).len(), 1, "{text}");
    }
    for text in [
        "struct Postmaster;",
        "use tracing_subscriber::util::TryInitError;",
        "// A backend message.",
        "fn manage() {}",
    ] {
        assert_eq!(found("src/net/a.rs", text).len(), 0, "{text}");
    }
}

#[test]
fn leftovers_are_found() {
    for text in [
        "// let a = 1;".to_owned(),
        "fn f() {\n    // if a {\n}".to_owned(),
        format!("fn f() {{}} // {}: later", "TODO"),
        format!("/// {} this.", "FIXME"),
    ] {
        assert_eq!(found("src/net/a.rs", &text).len(), 1, "{text}");
    }
    for text in [
        "/// let a = 1;",
        "// Why; and so on.",
        "const A: &str = \"// a;\";",
    ] {
        assert_eq!(found("src/net/a.rs", text).len(), 0, "{text}");
    }
}
