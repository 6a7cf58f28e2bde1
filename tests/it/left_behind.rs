//! What functions of the user's leave in their session: it is pinned to the server that has it, nobody
//! else sees it, and what leaves nothing pins nothing.

use std::time::Instant;

use tokio_postgres::Client;

use crate::front::{Front, PATIENCE, ask, code, try_ask};

const FUNCTIONS: &str = "
    CREATE FUNCTION set_tenant(tenant text) RETURNS void LANGUAGE plpgsql AS
        $$ BEGIN PERFORM set_config('app.tenant', tenant, false); END $$;
    CREATE FUNCTION by_sql(tenant text) RETURNS text LANGUAGE sql AS
        $$ SELECT set_config('app.tenant', tenant, false) $$;
    CREATE FUNCTION by_set() RETURNS void LANGUAGE plpgsql AS
        $$ BEGIN SET app.tenant = 'a'; END $$;
    CREATE FUNCTION by_dynamic_sql(tenant text) RETURNS void LANGUAGE plpgsql AS
        $$ BEGIN EXECUTE format('SET app.tenant = %L', tenant); END $$;
    CREATE FUNCTION indirect(tenant text) RETURNS void LANGUAGE plpgsql AS
        $$ BEGIN PERFORM set_tenant(tenant); END $$;
    CREATE FUNCTION said_to_be_stable(tenant text) RETURNS text STABLE LANGUAGE plpgsql AS
        $$ BEGIN RETURN set_config('app.tenant', tenant, false); END $$;
    CREATE PROCEDURE call_it(tenant text) LANGUAGE plpgsql AS
        $$ BEGIN PERFORM set_tenant(tenant); END $$;
    CREATE PROCEDURE keep_and_fail(tenant text) LANGUAGE plpgsql AS
        $$ BEGIN PERFORM set_tenant(tenant); COMMIT; PERFORM 1 / 0; END $$;
    CREATE VIEW view AS SELECT by_sql('a');
    CREATE TABLE note (tenant text);
    CREATE FUNCTION locally(tenant text) RETURNS text LANGUAGE sql AS
        $$ SELECT set_config('app.tenant', tenant, true) $$;
    CREATE FUNCTION by_set_local() RETURNS void LANGUAGE plpgsql AS
        $$ BEGIN SET LOCAL app.tenant = 'a'; UPDATE note SET tenant = 'a'; END $$;
    CREATE FUNCTION with_clause() RETURNS text LANGUAGE sql SET app.tenant = 'a' AS
        $$ SELECT current_setting('app.tenant') $$;
    CREATE FUNCTION changed(tenant text) RETURNS text LANGUAGE sql AS $$ SELECT tenant $$;
    GRANT ALL ON note, view TO app;
    ALTER ROLE app SET app.tenant TO 'nobody';
";

const TENANT: &str = "SELECT current_setting('app.tenant')";
/// The same, from the primary.
const TENANT_FAR: &str = "SELECT current_setting('app.tenant') || left(txid_current()::text, 0)";

async fn front() -> Front {
    let front = Front::with(|config| config.pool.size = 2).await;
    let admin = front.admin().await;
    admin.batch_execute(FUNCTIONS).await.unwrap();
    front.lab.wait_caught_up("eu-west").await.unwrap();
    front
}

async fn pin(client: &Client) -> String {
    ask(client, "SHOW causeway.pin").await
}

async fn sees(client: &Client, tenant: &str, context: &str) {
    for question in [TENANT, TENANT_FAR, TENANT] {
        assert_eq!(ask(client, question).await, tenant, "{context}");
    }
}

#[tokio::test]
async fn what_a_function_sets_stays_with_its_session_and_follows_it() {
    let front = front().await;
    let other = front.client().await;
    for sql in [
        "SELECT set_tenant('a')",
        "SELECT public.set_tenant('a')",
        "SELECT by_sql('a')",
        "SELECT by_set()",
        "SELECT by_dynamic_sql('a')",
        "SELECT indirect('a')",
        "SELECT said_to_be_stable('a')",
        "CALL call_it('a')",
        "DO $$ BEGIN PERFORM set_tenant('a'); END $$",
        "SELECT * FROM view",
        "INSERT INTO note SELECT by_sql('a')",
        "BEGIN; SELECT set_tenant('a'); COMMIT",
        "CREATE TABLE made AS SELECT by_sql('a'); DROP TABLE made",
    ] {
        let client = front.client().await;
        sees(&client, "nobody", sql).await;
        client.batch_execute(sql).await.unwrap();
        assert_eq!(pin(&client).await, "setting made by a function", "{sql}");
        sees(&client, "a", sql).await;
        sees(&other, "nobody", sql).await;
        sees(&client, "a", sql).await;
        client.batch_execute("DISCARD ALL").await.unwrap();
        assert_eq!(pin(&client).await, "", "{sql}");
        sees(&client, "nobody", sql).await;
        // And one that leaves with it.
        client.batch_execute(sql).await.unwrap();
        drop(client);
        sees(&other, "nobody", sql).await;
    }
    // PostgreSQL undoes what a function has set that fails, or that fails with its statement.
    let client = front.client().await;
    for sql in [
        "SELECT 1 / (length(set_tenant('a')::text) * 0)",
        "SELECT 1; SELECT 1 / (length(set_tenant('a')::text) * 0)",
    ] {
        let error = client.batch_execute(sql).await.unwrap_err();
        assert_eq!(code(&error), "22012", "{sql}");
        assert_eq!(pin(&client).await, "", "{sql}");
        sees(&client, "nobody", sql).await;
    }
    let failed = try_ask(&client, "CALL keep_and_fail('a')").await;
    assert_eq!(failed, Err("22012".to_owned()));
    assert_eq!(pin(&client).await, "setting made by a function");
    sees(&client, "a", "a procedure that commits and fails").await;
}

#[tokio::test]
async fn what_a_function_undoes_itself_pins_nothing() {
    let front = front().await;
    let client = front.client().await;
    for (sql, tenant) in [
        ("SELECT locally('a')", "nobody"),
        ("SELECT by_set_local()", "nobody"),
        ("SELECT with_clause()", "nobody"),
        ("SELECT changed('a')", "nobody"),
        (
            "CREATE VIEW uses AS SELECT by_sql('a'); DROP VIEW uses",
            "nobody",
        ),
        ("SELECT 'set_tenant(1)' AS set_tenant", "nobody"),
        ("SELECT set_config('app.tenant', 'b', false)", "b"),
    ] {
        client.batch_execute(sql).await.unwrap();
        assert_eq!(pin(&client).await, "", "{sql}");
        sees(&client, tenant, sql).await;
    }
}

#[tokio::test]
async fn the_operator_may_say_that_a_function_leaves_nothing() {
    let front = Front::with(|config| {
        config.routing.read_only_functions = vec!["by_sql".to_owned()];
    })
    .await;
    let admin = front.admin().await;
    admin.batch_execute(FUNCTIONS).await.unwrap();
    front.lab.wait_caught_up("eu-west").await.unwrap();
    let client = front.client().await;
    client.batch_execute("SELECT by_sql('a')").await.unwrap();
    assert_eq!(pin(&client).await, "");
    client.batch_execute("SELECT indirect('a')").await.unwrap();
    assert_eq!(pin(&client).await, "setting made by a function");
}

/// What was prepared while a function set nothing pins when it does.
#[tokio::test]
async fn a_prepared_statement_does_what_its_function_does_now() {
    let front = front().await;
    let (client, other) = (front.client().await, front.client().await);
    let prepared = client.prepare("SELECT changed($1)").await.unwrap();
    client.query(&prepared, &[&"a"]).await.unwrap();
    assert_eq!(pin(&client).await, "");
    let admin = front.admin().await;
    let change = "CREATE OR REPLACE FUNCTION changed(tenant text) RETURNS text LANGUAGE sql AS \
        $$ SELECT set_config('app.tenant', tenant, false) $$; CREATE TABLE news ()";
    admin.batch_execute(change).await.unwrap();
    // A name that it lacks has the catalogue read again.
    let deadline = Instant::now() + PATIENCE;
    while pin(&other).await.is_empty() {
        other
            .batch_execute("SELECT FROM news WHERE false")
            .await
            .unwrap_err();
        other.batch_execute("SELECT changed('b')").await.unwrap();
        assert!(Instant::now() < deadline, "the change stays unknown");
    }
    client.query(&prepared, &[&"a"]).await.unwrap();
    assert_eq!(pin(&client).await, "setting made by a function");
    sees(&client, "a", "prepared").await;
    sees(&other, "b", "other").await;
}
