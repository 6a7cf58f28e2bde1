//! The reviewed table of PostgreSQL's own functions and operators against a live catalogue: a version
//! that adds what nobody has judged fails here.

use causeway::lab::{APP_DATABASE, Lab, SUPERUSER};
use causeway::sql::functions::{is_builtin_operator, is_keyword, is_reviewed, verdict};

/// What SQL can call: the others take or give what SQL has no values of.
const CALLABLE: &str = "\
SELECT proname::text, bool_or(provolatile = 'v') FROM pg_proc \
 WHERE pronamespace = 'pg_catalog'::regnamespace AND oid < 16384 \
       AND 'internal'::regtype <> ALL (proargtypes) \
       AND prorettype NOT IN ('internal'::regtype, 'trigger'::regtype, 'event_trigger'::regtype, \
                              'index_am_handler'::regtype, 'table_am_handler'::regtype, \
                              'tsm_handler'::regtype, 'fdw_handler'::regtype, \
                              'language_handler'::regtype) \
 GROUP BY proname ORDER BY proname";

#[tokio::test]
async fn every_function_and_operator_of_this_version_has_been_judged() {
    let lab = Lab::builder()
        .quick()
        .primary("us-east")
        .build()
        .await
        .unwrap();
    let client = lab
        .node("us-east")
        .connect(SUPERUSER, APP_DATABASE)
        .await
        .unwrap();
    let functions = client.query(CALLABLE, &[]).await.unwrap();
    assert!(functions.len() > 2_000, "{}", functions.len());
    let mut volatile = 0;
    let mut unknown = Vec::new();
    for row in &functions {
        let (name, is_volatile): (&str, bool) = (row.get(0), row.get(1));
        volatile += usize::from(is_volatile);
        if verdict(name).is_none() || is_volatile && !is_reviewed(name) {
            unknown.push(name);
        }
    }
    assert!(volatile > 150, "{volatile}");
    assert_eq!(
        unknown,
        Vec::<&str>::new(),
        "review these, see src/sql/builtins/stable.sql"
    );

    let keywords = "SELECT word FROM pg_get_keywords() WHERE catcode IN ('R', 'C')";
    let keywords = client.query(keywords, &[]).await.unwrap();
    let names = keywords.iter().map(|row| row.get::<_, &str>(0));
    let unknown: Vec<&str> = names.filter(|name| !is_keyword(name)).collect();
    assert_eq!(unknown, Vec::<&str>::new(), "add them to keywords.txt");
    let names = "SELECT word FROM pg_get_keywords() WHERE catcode = 'T'";
    for row in client.query(names, &[]).await.unwrap() {
        let name: &str = row.get(0);
        assert!(!is_keyword(name), "a function can be called {name}");
    }

    let operators = "SELECT DISTINCT oprname::text FROM pg_operator WHERE oid < 16384";
    let operators = client.query(operators, &[]).await.unwrap();
    let names = operators.iter().map(|row| row.get::<_, &str>(0));
    let unknown: Vec<&str> = names.filter(|name| !is_builtin_operator(name)).collect();
    assert_eq!(unknown, Vec::<&str>::new());
    assert!(!is_builtin_operator("<+++>") && verdict("no_such_function").is_none());
}
