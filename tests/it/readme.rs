//! The documents keep their word: what they name exists, what exists they name, and the README's
//! first use goes as it says.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use causeway::app::{Causeway, Running};
use causeway::config::OnLag;
use causeway::lab::{APP_DATABASE, APP_USER, Lab};
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::support::{self, connect};

#[test]
fn consistency_md_has_exactly_the_settings_that_sessions_know() {
    let known: BTreeSet<String> = rust_files("src/session")
        .iter()
        .flat_map(|path| quoted(&code(path)))
        .filter(|text| text.starts_with("causeway.") && text.len() > "causeway.".len())
        .collect();
    assert!(known.contains("causeway.consistency"), "{known:?}");
    assert_eq!(first_cells("docs/consistency.md", "causeway."), known);
}

#[test]
fn limits_md_has_exactly_the_error_codes_that_are_made_here() {
    let codes = sql_states();
    let mut made = BTreeSet::new();
    for path in rust_files("src") {
        for call in fault_calls(&code(&path)) {
            // Without a name in it, it passes a server's own code on.
            if let Some((_, name)) = call.split_once("SqlState::") {
                let is_name = |letter: char| letter.is_ascii_uppercase() || letter == '_';
                let end = name.find(|letter| !is_name(letter)).unwrap_or(name.len());
                made.insert(codes[&name[..end]].clone());
            }
        }
    }
    assert!(made.len() > 10, "{made:?}");
    let is_code = |cell: &String| cell.len() == 5 && cell.starts_with(|c: char| c.is_ascii_digit());
    let listed = first_cells("docs/limits.md", "");
    let listed: BTreeSet<String> = listed.into_iter().filter(is_code).collect();
    assert_eq!(listed, made);
}

#[test]
fn architecture_md_has_every_module_and_no_path_that_is_not_there() {
    let text = read("ARCHITECTURE.md");
    for entry in std::fs::read_dir(root().join("src")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            let name = format!("`src/{}/`", path.file_name().unwrap().to_str().unwrap());
            assert!(text.contains(&name), "{name}");
        }
    }
    let paths = text.split('`').skip(1).step_by(2);
    let paths: Vec<&str> = paths
        .filter(|path| path.starts_with("src/") || path.starts_with("tests/"))
        .collect();
    assert!(paths.len() > 20, "{paths:?}");
    for path in paths.iter().filter(|path| !path.contains('*')) {
        assert!(root().join(path).exists(), "{path}");
    }
}

#[test]
fn links_between_documents_lead_somewhere() {
    let mut links = 0;
    for document in documents() {
        let text = std::fs::read_to_string(&document).unwrap();
        for link in text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split_once(')'))
        {
            let target = link.0;
            if target.starts_with("https://") {
                continue;
            }
            let (file, heading) = target.split_once('#').unwrap_or((target, ""));
            let path = match file {
                "" => document.clone(),
                _ => document.parent().unwrap().join(file),
            };
            assert!(path.exists(), "{target} in {}", document.display());
            let there = heading.is_empty() || headings(&path).contains(heading);
            assert!(there, "{target} in {}", document.display());
            links += 1;
        }
    }
    assert!(links > 20, "only {links} links");
}

/// Two regions, the replica nearer by far.
async fn lab() -> Lab {
    Lab::builder()
        .quick()
        .primary("us-east")
        .replica("eu-west")
        .round_trip("us-east", "eu-west", Duration::from_millis(300))
        .build()
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_use_goes_as_the_readme_says() {
    let lab = lab().await;
    let primary = lab.node("us-east").connect(APP_USER, APP_DATABASE).await;
    let create = "CREATE TABLE notes (id int PRIMARY KEY, body text)";
    primary.unwrap().batch_execute(create).await.unwrap();
    lab.wait_caught_up("eu-west").await.unwrap();
    let causeway = start(&lab).await;
    let client = connect(&causeway).await;
    let readme = read("README.md");
    let mut answer = String::new();
    let mut routes = 0;
    for line in readme.lines().map(str::trim) {
        if let Some(sql) = line.strip_prefix("app=> ") {
            answer = simple(&client, sql).await;
        } else if line.starts_with("node=") {
            let promised = ["role=", "region="].map(|key| word(line, key));
            let seen = ["role=", "region="].map(|key| word(&answer, key));
            assert_eq!(seen, promised, "{answer}");
            routes += 1;
        }
    }
    assert_eq!(routes, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_setting_of_ours_stays_with_its_session() {
    let lab = lab().await;
    let causeway = start(&lab).await;
    let (one, other) = (connect(&causeway).await, connect(&causeway).await);
    // There is one server only, so that both use the same.
    let on_the_server = "SELECT coalesce(current_setting('causeway.consistency', true), '')";
    simple(&one, "SET causeway.consistency = 'eventual'").await;
    assert_eq!(simple(&other, on_the_server).await, "");
    assert_eq!(simple(&other, "SHOW causeway.consistency").await, "session");

    simple(&one, "BEGIN").await;
    simple(&one, "SET causeway.consistency = 'strong'").await;
    simple(&one, "ROLLBACK").await;
    assert_eq!(simple(&one, "SHOW causeway.consistency").await, "eventual");
    assert_eq!(simple(&other, on_the_server).await, "");
}

/// A Causeway in eu-west with one server per node.
async fn start(lab: &Lab) -> Running {
    let mut config = support::config(lab, "eu-west");
    config.pool.size = 1;
    // A test's machine may be slow, and a read that waits for the replica longer than a round trip goes
    // to the primary instead.
    config.routing.on_lag = OnLag::Wait;
    config.routing.max_wait = Duration::from_secs(20);
    Causeway::start(config).await.unwrap()
}

/// The first value of the answer, or nothing.
async fn simple(client: &Client, sql: &str) -> String {
    let messages = client.simple_query(sql).await.unwrap();
    let value = messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    });
    value.unwrap_or_default()
}

/// The word in `text` that begins with `key`.
fn word<'t>(text: &'t str, key: &str) -> Option<&'t str> {
    text.split_whitespace().find(|word| word.starts_with(key))
}

/// What stands in backticks in the first column of the document's tables.
fn first_cells(document: &str, prefix: &str) -> BTreeSet<String> {
    let text = read(document);
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `"));
    let cells = rows.filter_map(|row| row.split_once("` |"));
    let cells = cells.map(|(cell, _)| cell.to_owned());
    cells.filter(|cell| cell.starts_with(prefix)).collect()
}

fn documents() -> Vec<PathBuf> {
    let directories = [root().to_owned(), root().join("docs")];
    let entries = directories
        .iter()
        .flat_map(|directory| std::fs::read_dir(directory).unwrap());
    let paths = entries.map(|entry| entry.unwrap().path());
    let is_document = |path: &PathBuf| path.extension().is_some_and(|kind| kind == "md");
    paths.filter(is_document).collect()
}

/// The anchors of a document's headings, as code hosts make them.
fn headings(path: &Path) -> BTreeSet<String> {
    let text = std::fs::read_to_string(path).unwrap();
    let headings = text.lines().filter(|line| line.starts_with('#'));
    let anchor = |line: &str| {
        let title = line
            .trim_start_matches('#')
            .trim()
            .to_lowercase()
            .replace(' ', "-");
        title.replace(|c: char| !(c.is_alphanumeric() || c == '-' || c == '_'), "")
    };
    headings.map(anchor).collect()
}

/// The calls that make a fault, each up to the parenthesis that ends it.
fn fault_calls(code: &str) -> Vec<&str> {
    let constructors = [
        "Fault::error(",
        "Fault::fatal(",
        "Fault::verbatim(",
        "Fault::new(",
    ];
    let starts = constructors.iter().flat_map(|name| {
        let found = code.match_indices(name);
        found.map(|(place, _)| place + name.len())
    });
    let calls = starts.map(|start| {
        let mut depth = 1;
        let end = code[start..].find(|letter| {
            depth += match letter {
                '(' => 1,
                ')' => -1,
                _ => 0,
            };
            depth == 0
        });
        &code[start..start + end.expect("a call ends")]
    });
    calls.collect()
}

/// Codes by their names, as `protocol::error` declares them.
fn sql_states() -> BTreeMap<String, String> {
    let text = read("src/protocol/error.rs");
    let declarations = text.lines().filter_map(|line| {
        let (name, code) = line.trim().split_once(" = b\"")?;
        Some((name.to_owned(), code.strip_suffix("\",")?.to_owned()))
    });
    declarations.collect()
}

/// The string literals of a source without escapes, as ours with settings are.
fn quoted(code: &str) -> Vec<String> {
    let lines = code
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    let literals = lines.flat_map(|line| line.split('"').skip(1).step_by(2));
    literals.map(str::to_owned).collect()
}

/// A source without its tests.
fn code(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap();
    let end = text.find("#[cfg(test)]").unwrap_or(text.len());
    text[..end].to_owned()
}

/// All sources below a directory, test files apart.
fn rust_files(directory: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut directories = vec![root().join(directory)];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs")
                && !path.ends_with("tests.rs")
            {
                files.push(path);
            }
        }
    }
    files
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
