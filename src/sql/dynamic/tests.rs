//! Expressions that are executed, and the texts that they make.

use super::*;

/// With parameters `n` (a number), `q` and `t` (texts), given 7, `given` and `name`.
fn filled(expression: &str, given: &str, name: &str) -> Option<String> {
    let template = template(expression).ok()?;
    template.filled(&[None, Some(given.to_owned()), Some(name.to_owned())])
}

fn template(expression: &str) -> Told<Template> {
    let text = expression.as_bytes();
    let tokens: Vec<Token> = Lexer::new(text).collect();
    let parameters = [None, Some("q".into()), Some("t".into())];
    Template::new(text, &tokens, &parameters)
}

#[test]
fn texts_are_put_together_as_postgresql_does() {
    for (expression, expected) in [
        ("q", "SELECT 1"),
        ("$2", "SELECT 1"),
        ("\"q\"", "SELECT 1"),
        ("'EXPLAIN ' || q", "EXPLAIN SELECT 1"),
        ("('EXPLAIN ' || ($2)) || ''", "EXPLAIN SELECT 1"),
        ("$a$EXPLAIN $a$ || Q", "EXPLAIN SELECT 1"),
        ("format('EXPLAIN %s', $2)", "EXPLAIN SELECT 1"),
        ("format('%2$s LIMIT %s', t, q, '5')", "SELECT 1 LIMIT 5"),
        ("FORMAT('%s OFFSET %s', q, '10')", "SELECT 1 OFFSET 10"),
        ("format('SELECT 5 %% 2, %L', n)", "SELECT 5 % 2, 'x'"),
        ("format('SELECT %%%% %L', n)", "SELECT %% 'x'"),
        ("format('SELECT * FROM %I', t)", "SELECT * FROM item"),
        ("'SELECT * FROM ' || quote_ident(t)", "SELECT * FROM item"),
        (
            "format('SELECT %I FROM app.%I AS %I', 'Id', t, 'from')",
            "SELECT \"Id\" FROM app.item AS \"from\"",
        ),
        (
            "'SELECT ' || quote_literal(f(1, 2)) || ', ' || quote_nullable(n)",
            "SELECT 'x', 'x'",
        ),
        ("format('SELECT %1$L, %1$L', n)", "SELECT 'x', 'x'"),
        ("'SELECT ''it''''s'''", "SELECT 'it''s'"),
        ("'(SELECT 1)'", "(SELECT 1)"),
        ("'VALUES (1)' || $c$; TABLE x$c$", "VALUES (1); TABLE x"),
    ] {
        let found = filled(expression, "SELECT 1", "item");
        assert_eq!(found.as_deref(), Some(expected), "{expression}");
    }
}

#[test]
fn what_may_be_anything_is_no_template() {
    for expression in [
        "",
        "n",
        "$1",
        "$4",
        "$0",
        "$99999999999999999999999",
        "a",
        "q || n",
        "q || a",
        "a.q",
        "'SELECT ' || n::text",
        "'SELECT ' || lower(q)",
        "concat('SELECT ', q)",
        "app.format('SELECT 1')",
        "q || ",
        "|| q",
        "q q",
        "(q",
        "q)",
        "(q) || (q",
        "CASE WHEN n THEN 'SELECT 1' END",
        "coalesce(q, 'x')",
        "q + 'x'",
        "'SELECT ' || (SELECT 'x')",
        "E'SELECT \\'x\\''",
        "E'SELECT \\\\ 1'",
        "'SELECT \\ 1'",
        "U&'SELECT 1'",
        "B'1'",
        "'SELECT ' 'x'",
        "'SELECT '\n'x'",
        "format(q)",
        "format('%s')",
        "format('%s', n)",
        "format('%s', lower(q))",
        "format('%I', n)",
        "format('%I', lower(t))",
        "format('%10s', q)",
        "format('%-10s', q)",
        "format('%*s', 1, q)",
        "format('%0$s', q)",
        "format('%2$s', q)",
        "format('%$s', q)",
        "format('%1s', q)",
        "format('%x', q)",
        "format('%', q)",
        "format('SELECT 1 %', q)",
        "format('SELECT %L', VARIADIC a)",
        "format('SELECT %s', VARIADIC ARRAY['1'])",
        "format('SELECT %s', q || n)",
        "format('SELECT 1') (q)",
        "quote_literal(a) + (b)",
        "quote_literal(a) || (b) + quote_literal(c)",
        "quote_literal(a, b)",
        "quote_literal()",
        "quote_ident(n)",
        "\"FORMAT\"('SELECT 1')",
        "((((((((((q))))))))))",
    ] {
        assert!(template(expression).is_err(), "{expression}");
    }
}

/// A literal or a name is what it is, whatever is in it, or it counts for nothing.
#[test]
fn what_is_not_known_is_a_token_of_its_own() {
    for expression in [
        "format('SELECT ''%L''', n)",
        "format('SELECT ''a %L b''', n)",
        "format('SELECT $$%L$$', n)",
        "format('SELECT \"%L\"', n)",
        "format('SELECT 1 -- %L', n)",
        "format('SELECT 1 /* %L */', n)",
        "format('SELECT E%L', n)",
        "format('SELECT U&%L', n)",
        "format('SELECT x%L', n)",
        "format('SELECT 1%L', n)",
        "format('SELECT %L%L', n, n)",
        "format('SELECT %L''x''', n)",
        "format('SELECT ''x''%L', n)",
        "format('SELECT %Lx', n)",
        "format('SELECT \u{e9}%L', n)",
        "format('SELECT %L\n''x''', n)",
        "'SELECT ''x''\n' || quote_literal(n)",
        "format('SELECT %I%I', t, t)",
        "format('SELECT x%I', t)",
        "format('SELECT %Ix', t)",
        "format('SELECT %I''x''', t)",
        "format('SELECT %I&''x''', t)",
        "format('SELECT ''%I''', t)",
        "format('SELECT \"%I\"', t)",
        "format('SELECT $%I$', t)",
        "format('SELECT 1 /* %I */', t)",
        // Not a query, or none.
        "''",
        "'DROP TABLE x'",
        "format('%I', t)",
        "format('%L', n)",
        "t || ' SELECT 1'",
    ] {
        assert_eq!(filled(expression, "SELECT 1", "item"), None, "{expression}");
    }
    // What is given may change what comes behind.
    for (given, expected) in [
        ("SELECT ", Some("SELECT 'x'")),
        ("SELECT '", None),
        ("SELECT 1 --", None),
        ("SELECT 1 /*", None),
        ("SELECT E", None),
        ("SELECT $a$", None),
        ("SELECT \"", None),
    ] {
        let found = filled("q || quote_literal(n)", given, "item");
        assert_eq!(found.as_deref(), expected, "{given}");
    }
}

#[test]
fn names_are_quoted_where_postgresql_would() {
    for (name, expected) in [
        ("item", "item"),
        ("_a1", "_a1"),
        ("1a", "\"1a\""),
        ("Item", "\"Item\""),
        ("a b", "\"a b\""),
        ("a\"b", "\"a\"\"b\""),
        ("select", "\"select\""),
        ("x; DROP TABLE y", "\"x; DROP TABLE y\""),
        ("\u{e9}", "\"\u{e9}\""),
        ("", "\"\""),
    ] {
        let found = filled("format('SELECT * FROM %I', t)", "", name);
        assert_eq!(found, Some(format!("SELECT * FROM {expected}")), "{name}");
    }
}

#[test]
fn values_that_are_not_there_make_no_text() {
    let template = template("'EXPLAIN ' || q").unwrap();
    assert_eq!(template.given().collect::<Vec<_>>(), [1]);
    let select = || Some("SELECT 1".to_owned());
    assert!(template.filled(&[None, select()]).is_some());
    for values in [vec![], vec![select()], vec![select(), None]] {
        assert_eq!(template.filled(&values), None);
    }
}
