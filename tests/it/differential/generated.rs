//! Every thing of the corpus in every place where it can stand.

/// Of each volatility, honest or not, and what calls functions without saying so.
const EXPRESSIONS: [&str; 76] = [
    "1",
    "writes(1)",
    "writes_in_sql(1)",
    "writes_atomically(1)",
    "pure(1)",
    "looks_in_plpgsql(1)",
    "lies(1)",
    "lies_deeper(1)",
    "lies_dynamically(1)",
    "lies_in_default(1)",
    "borrowed('numbers')",
    "over(1)",
    "over('x'::text)",
    "upper(5)",
    "upper('x')",
    "app.writes_there()",
    "public.pure(2)",
    "1 <+> 2",
    "1 <*> 2",
    "1 OPERATOR(public.<+>) 2",
    "5::checked",
    "5::percent",
    "(ROW(1, 2)::pair).a",
    "(SELECT total(id) FROM item)",
    "(SELECT writing_total(id) FROM item)",
    "(SELECT i.touched FROM item i WHERE id = 1)",
    "(SELECT i.name_twice FROM item i WHERE id = 1)",
    "(SELECT abs(w) FROM of_wrapped)",
    "nextval('numbers')",
    "pg_current_xact_id()",
    // Volatile by declaration.
    "only_reads()",
    "reads_atomically(1)",
    "returns_one()",
    "reads_in_plpgsql(1)",
    "is_even(3)",
    "catches(1)",
    "(SELECT max(r.id) FROM rows_in_plpgsql() r)",
    "catches_writes(1)",
    "executes(1)",
    // What they are given is judged.
    "runs('SELECT max(id) FROM item')",
    "runs('SELECT writes(1)')",
    "runs($q$SELECT runs('SELECT count(*) FROM item WHERE name <> ''x''')$q$)",
    "runs($q$SELECT runs('SELECT writes(1)')$q$)",
    "runs(E'SELECT writes\\x281)')",
    "runs(lower('SELECT WRITES(1)'))",
    "runs('SELECT id FROM item WHERE id = 1 FOR UPDATE')",
    "(SELECT count(*) FROM explains('SELECT * FROM item', 'LIMIT 1'))",
    "(SELECT count(*) FROM explains('SELECT * FROM item', ', writing_view'))",
    "counts('item')",
    "counts('writing_view')",
    "(SELECT count(*) FROM filters('x'' OR writes(1) > 0 --'))",
    "runs_another('SELECT 1')",
    "runs_short('SELECT 1                                                    , writes(1)')",
    "locks_rows(1)",
    "locks_rows_in_sql(1)",
    "writes_in_branch(0)",
    "writes_in_branch(1)",
    "writes_in_with(1)",
    "writes_in_handler(1)",
    "writes_in_subscript(1)",
    "writes_in_declaration(1)",
    "writes_in_default(1)",
    "writes_by_cast(1)",
    "writes_by_column_type(1)",
    "writes_by_row_type(1)",
    "writes_by_operator(1)",
    "writes_by_view(1)",
    "writes_by_attribute(1)",
    "makes_table(1)",
    "makes_temporary(1)",
    "sets(1)",
    "locks_advisory(1)",
    "asks_the_node(1)",
    "opens_cursor(1)",
    "locks()",
    "(SELECT count(*) FROM writing_view)",
];

const PLACES: [&str; 32] = [
    "SELECT ({})::text",
    "SELECT 1 WHERE ({})::text <> ''",
    "SELECT id FROM item WHERE id = 1 AND ({})::text <> ''",
    "SELECT id FROM item WHERE id < 3 ORDER BY ({})::text",
    "SELECT count(*) FROM item WHERE id < 3 GROUP BY ({})::text",
    "SELECT count(*) FROM item HAVING ({})::text <> ''",
    "SELECT max(({})::text) FROM item WHERE id < 3",
    "SELECT count(*) FILTER (WHERE ({})::text <> '') FROM item WHERE id < 3",
    "SELECT sum(id) OVER (PARTITION BY ({})::text ROWS 1 PRECEDING EXCLUDE TIES) FROM item WHERE id < 3",
    "SELECT CASE WHEN id = 1 THEN ({})::text END FROM item WHERE id < 3",
    "SELECT coalesce(NULL, ({})::text) ISNULL",
    "SELECT ARRAY[({})::text]",
    "SELECT (ROW(({})::text)).*",
    "SELECT ARRAY(SELECT ({})::text)",
    "SELECT EXISTS (SELECT 1 WHERE ({})::text <> '')",
    "SELECT 'a' IN (({})::text), 'a' = ANY (ARRAY[({})::text])",
    "SELECT 'a' BETWEEN SYMMETRIC ({})::text AND 'b'",
    "SELECT x FROM (SELECT ({})::text AS x) s",
    "WITH w AS MATERIALIZED (SELECT ({})::text AS x) SELECT x FROM w",
    "WITH RECURSIVE w (n, x) AS (SELECT 1, '' UNION ALL SELECT n + 1, ({})::text FROM w WHERE n < 2) TABLE w",
    "VALUES (({})::text)",
    "SELECT 'a' UNION ALL SELECT ({})::text",
    "SELECT i.id FROM item i JOIN item j ON i.id = j.id AND ({})::text <> '' WHERE i.id < 3",
    "SELECT i.id, l.x FROM item i, LATERAL (SELECT ({})::text AS x) l WHERE i.id < 3",
    "SELECT * FROM ROWS FROM (unnest(ARRAY[({})::text]), generate_series(1, 2)) AS r",
    "SELECT concat(VARIADIC ARRAY[({})::text])",
    "SELECT string_agg(name, ({})::text ORDER BY id) FROM item WHERE id < 3",
    "SELECT DISTINCT ON (({})::text) id FROM item WHERE id < 3",
    "SELECT id FROM item LIMIT length(({})::text)",
    "COPY (SELECT ({})::text) TO STDOUT",
    "EXPLAIN ANALYZE SELECT ({})::text",
    "EXPLAIN SELECT ({})::text",
];

const RELATIONS: [&str; 30] = [
    "item",
    "plain_view",
    "pure_view",
    "writing_view",
    "over_writing_view",
    "counting_view",
    "locking_view",
    "sequence_view",
    "node_view",
    "unlogged_view",
    "casting_view",
    "operator_view",
    "locks_view",
    "stored",
    "parts",
    "parts_1",
    "parent",
    "scratch",
    "numbers",
    "ruled",
    "triggered",
    "guarded",
    "mildly_guarded",
    "of_checked",
    "of_wrapped",
    "rows_of()",
    "rows_in_plpgsql()",
    "writing_rows()",
    "pg_class",
    "pg_stat_activity",
];

const READERS: [&str; 14] = [
    "SELECT count(*) FROM {} r",
    "SELECT r::text FROM {} r LIMIT 3",
    "SELECT r.* FROM ONLY item LEFT JOIN {} r ON true LIMIT 3",
    "SELECT EXISTS (SELECT FROM {} r)",
    "SELECT (SELECT count(*) FROM {} r)",
    "SELECT * FROM (SELECT * FROM {} r LIMIT 1) s",
    "SELECT 1 FROM item i, LATERAL (SELECT * FROM {} r) l LIMIT 1",
    "WITH w AS (SELECT * FROM {} r) SELECT count(*) FROM w",
    "SELECT id FROM item WHERE id IN (SELECT 1 FROM {} r)",
    "SELECT 1 UNION SELECT 2 FROM {} r",
    "COPY (SELECT * FROM {} r) TO STDOUT",
    "EXPLAIN ANALYZE SELECT * FROM {} r",
    "EXPLAIN SELECT * FROM {} r",
    "SELECT * FROM {} r LIMIT 1 FOR SHARE",
];

/// They leave a setting and a lock: a second call would find nothing to do.
const LEAVE_SOMETHING: [&str; 2] = ["sets(1)", "locks()"];

/// All of that, and each expression prepared and executed too; or one in so many of the pairs, each thing and
/// each place among them.
pub fn script(one_in: usize) -> String {
    let mut script = String::new();
    let mut line = |sql: String| {
        script.push_str(&sql);
        script.push_str(";\n");
    };
    for (thing, expression) in EXPRESSIONS.iter().enumerate() {
        for (number, place) in PLACES.iter().enumerate() {
            if (thing + number).is_multiple_of(one_in) {
                line(place.replace("{}", expression));
                if LEAVE_SOMETHING.contains(expression) {
                    line("DISCARD ALL".to_owned());
                }
            }
        }
        if thing.is_multiple_of(one_in) {
            line(format!("PREPARE generated AS SELECT ({expression})::text"));
            line("EXECUTE generated".to_owned());
            line("EXPLAIN ANALYZE EXECUTE generated".to_owned());
            line("DEALLOCATE generated".to_owned());
        }
    }
    for (thing, relation) in RELATIONS.iter().enumerate() {
        for (number, reader) in READERS.iter().enumerate() {
            if (thing + number).is_multiple_of(one_in) {
                line(reader.replace("{}", relation));
            }
        }
    }
    script
}
