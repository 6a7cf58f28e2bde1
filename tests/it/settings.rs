//! Settings follow the client, to every server and nobody else; transactions undo them; and the
//! `causeway.*` settings do what they say.

use causeway::lab::SUPERUSER;

use crate::front::{Front, ask, code, read_on_replica, try_ask, until_known};
use crate::raw::{bind, describe_portal, describe_statement, execute, parse, query, sync};

#[tokio::test]
async fn a_setting_follows_the_client_to_other_servers() {
    let front = Front::with(|config| config.pool.size = 3).await;
    let client = front.client().await;
    client
        .batch_execute("SET work_mem TO '77kB'")
        .await
        .unwrap();
    let mut held = Vec::new();
    for _ in 0..3 {
        // `txid_current` writes, so this is the primary, and each time a server more is taken.
        let sql = "SELECT current_setting('work_mem') || (txid_current() > 0)::text";
        assert_eq!(ask(&client, sql).await, "77kBtrue");
        if held.len() < 2 {
            let other = front.client().await;
            other.batch_execute("BEGIN").await.unwrap();
            assert_eq!(ask(&other, sql).await, "4MBtrue");
            held.push(other);
        }
    }
    read_on_replica(&client, "SELECT current_setting('work_mem')", "77kB").await;
    drop(held);
}

/// What the operator says sets nothing, and does: it must be gone all the same for the next session.
#[tokio::test]
async fn what_code_sets_inside_stays_with_its_session() {
    let front = Front::with(|config| {
        config.pool.size = 1;
        config.routing.read_only_functions = vec!["quiet".to_owned()];
    })
    .await;
    let admin = front.admin().await;
    admin
        .batch_execute(
            "CREATE FUNCTION quiet(zone text) RETURNS text STABLE LANGUAGE plpgsql AS \
                 $$ BEGIN RETURN set_config('TimeZone', zone, false); END $$; \
             CREATE FUNCTION loud(zone text) RETURNS text LANGUAGE plpgsql AS \
                 $$ BEGIN RETURN public.quiet(zone); END $$; \
             CREATE PROCEDURE called(zone text) LANGUAGE plpgsql AS \
                 $$ BEGIN PERFORM quiet(zone); END $$",
        )
        .await
        .unwrap();
    front.lab.wait_caught_up("eu-west").await.unwrap();
    let (one, other) = (front.client().await, front.client().await);
    one.batch_execute("CREATE TABLE note (id int, text text)")
        .await
        .unwrap();
    until_known(&one, "note").await;
    one.batch_execute("PREPARE p AS SELECT loud('Asia/Tokyo')")
        .await
        .unwrap();
    other
        .batch_execute("SET application_name TO 'other'")
        .await
        .unwrap();
    let far = "SELECT concat(current_setting('TimeZone'), current_setting('application_name'), \
        left(txid_current()::text, 0))";
    let near = "SELECT concat(current_setting('TimeZone'), current_setting('application_name'))";
    let zone = ask(&admin, "SHOW TimeZone").await;
    for sql in [
        "SELECT quiet('Asia/Tokyo')",
        "SELECT loud('Asia/Tokyo')",
        "SELECT public.loud('Asia/Tokyo')",
        "INSERT INTO note VALUES (7, loud('Asia/Tokyo'))",
        "CALL called('Asia/Tokyo')",
        "DO $$ BEGIN PERFORM public.loud('Asia/Tokyo'); END $$",
        "EXECUTE p",
    ] {
        one.batch_execute(sql).await.unwrap();
        for question in [far, near] {
            assert_eq!(ask(&other, question).await, format!("{zone}other"), "{sql}");
        }
    }
    let run = one.prepare("SELECT loud($1)").await.unwrap();
    one.query(&run, &[&"Asia/Tokyo"]).await.unwrap();
    assert_eq!(ask(&other, far).await, format!("{zone}other"));
}

#[tokio::test]
async fn two_clients_on_one_server_never_see_each_other_s_settings() {
    let front = Front::with(|config| config.pool.size = 1).await;
    let admin = front.admin().await;
    admin
        .batch_execute("CREATE ROLE left_role; GRANT left_role TO app")
        .await
        .unwrap();
    front.lab.wait_caught_up("eu-west").await.unwrap();
    let (left, right, plain) = (
        front.client().await,
        front.client().await,
        front.client().await,
    );
    left.batch_execute(
        "SET application_name TO 'left'; SET work_mem TO '71kB'; SET ROLE left_role; \
         SET search_path TO a, \"B\"; SET app.mine TO 'left'",
    )
    .await
    .unwrap();
    right
        .batch_execute("SET application_name TO 'right'; SET DateStyle TO 'German'")
        .await
        .unwrap();
    let sql = "SELECT concat_ws('/', current_user, current_setting('application_name'), \
        current_setting('work_mem'), current_setting('search_path'), current_setting('DateStyle'), \
        current_setting('app.mine', true))";
    let writes = sql.replace("current_user", "txid_current() > 0, current_user");
    let expected = [
        (&left, "left_role/left/71kB/a, \"B\"/ISO, MDY/left"),
        (&right, "app/right/4MB/\"$user\", public/German, DMY/"),
        (&plain, "app//4MB/\"$user\", public/ISO, MDY/"),
    ];
    for _ in 0..4 {
        for (client, expected) in expected {
            // A setting of one's own that was reset is empty in PostgreSQL, not gone.
            let seen = ask(client, sql).await;
            assert_eq!(seen.trim_end_matches('/'), expected.trim_end_matches('/'));
            let seen = ask(client, &writes).await;
            assert_eq!(
                seen.trim_end_matches('/'),
                format!("t/{}", expected.trim_end_matches('/'))
            );
        }
    }
}

#[tokio::test]
async fn transactions_undo_settings() {
    let front = Front::with(|config| config.pool.size = 1).await;
    let client = front.client().await;
    let other = front.client().await;
    // What is said, and work_mem afterwards, on the same server after another client had it.
    for (texts, expected) in [
        (&["SET work_mem TO '71kB'"][..], "71kB"),
        (&["BEGIN", "SET work_mem TO '72kB'", "ROLLBACK"], "71kB"),
        (&["BEGIN; SET work_mem TO '72kB'; ROLLBACK"], "71kB"),
        (&["BEGIN", "SET work_mem TO '72kB'", "COMMIT"], "72kB"),
        (&["BEGIN", "SET LOCAL work_mem TO '73kB'", "COMMIT"], "72kB"),
        (
            &[
                "BEGIN",
                "SET work_mem TO '73kB'",
                "SAVEPOINT s",
                "SET work_mem TO '74kB'",
                "ROLLBACK TO s",
                "COMMIT",
            ],
            "73kB",
        ),
        (
            &[
                "BEGIN",
                "SAVEPOINT s",
                "SET work_mem TO '74kB'",
                "RELEASE s",
                "COMMIT",
            ],
            "74kB",
        ),
        (
            &["BEGIN", "SET work_mem TO '75kB'", "SELECT 1/0", "COMMIT"],
            "74kB",
        ),
        (
            &[
                "BEGIN",
                "SET work_mem TO '75kB'",
                "SAVEPOINT s",
                "SELECT 1/0",
                "ROLLBACK TO s",
                "COMMIT",
            ],
            "75kB",
        ),
        (&["SET work_mem TO '76kB'; SELECT 1/0"], "75kB"),
        (
            &[
                "BEGIN",
                "SET work_mem TO '76kB'",
                "COMMIT AND CHAIN",
                "SET work_mem TO '77kB'",
                "ROLLBACK",
            ],
            "76kB",
        ),
        (&["SELECT set_config('work_mem', '78kB', false)"], "78kB"),
        (&["SELECT set_config('work_mem', '79kB', true)"], "78kB"),
        (
            &[
                "BEGIN",
                "SELECT set_config('work_mem', '79kB', false)",
                "ROLLBACK",
            ],
            "78kB",
        ),
        (
            &["SELECT set_config('work_mem', (80 + 1) || 'kB', false)"],
            "81kB",
        ),
        (&["RESET work_mem"], "4MB"),
        (&["SET work_mem TO '82kB'", "RESET ALL"], "4MB"),
        (&["SET work_mem TO '83kB'", "DISCARD ALL"], "4MB"),
        (
            &["SET work_mem TO '84kB'", "SET work_mem TO DEFAULT"],
            "4MB",
        ),
        (
            &[
                "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE",
                "SET work_mem TO '85kB'",
            ],
            "85kB",
        ),
    ] {
        for sql in texts {
            if let Err(error) = client.simple_query(sql).await {
                assert_eq!(code(&error), "22012", "{sql}");
            }
        }
        // The one server of the primary serves the other in between, unless it is pinned.
        let show = "SELECT current_setting('work_mem') || '/' || (txid_current() > 0)::text";
        let pinned = texts.iter().any(|sql| sql.contains("80 + 1"));
        if !pinned {
            assert_eq!(ask(&other, show).await, "4MB/true", "{texts:?}");
        }
        assert_eq!(
            ask(&client, show).await,
            format!("{expected}/true"),
            "{texts:?}"
        );
        if pinned {
            client.batch_execute("DISCARD ALL").await.unwrap();
        }
    }
    assert_eq!(
        ask(&client, "SHOW default_transaction_isolation").await,
        "serializable"
    );
    assert_eq!(
        ask(&other, "SHOW default_transaction_isolation").await,
        "read committed"
    );
}

#[tokio::test]
async fn a_read_only_transaction_runs_on_a_replica_whole() {
    let front = Front::small().await;
    let client = front.client().await;
    // The truth of what node it is comes from the server: each has its name.
    let node = "SELECT current_setting('cluster_name')";
    for begin in [
        "BEGIN READ ONLY",
        "START TRANSACTION READ ONLY",
        "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
    ] {
        client.batch_execute(begin).await.unwrap();
        for _ in 0..3 {
            assert_eq!(ask(&client, node).await, "eu-west", "{begin}");
        }
        assert_eq!(
            try_ask(&client, "SELECT nextval('x')").await,
            Err("42P01".to_owned())
        );
        client.batch_execute("ROLLBACK").await.unwrap();
    }
    for begin in ["BEGIN", "BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY"] {
        client.batch_execute(begin).await.unwrap();
        assert_eq!(ask(&client, node).await, "us-east", "{begin}");
        client.batch_execute("COMMIT").await.unwrap();
    }
    // What was read on the primary must be on the replica before that may answer again.
    read_on_replica(&client, "SELECT 1 FROM (VALUES (1)) v", "1").await;
    client.batch_execute("BEGIN READ ONLY").await.unwrap();
    assert_eq!(ask(&client, node).await, "eu-west");
    let refused = client.batch_execute("CREATE TABLE t ()").await.unwrap_err();
    assert_eq!(code(&refused), "25006");
    client.batch_execute("ROLLBACK").await.unwrap();
    client.batch_execute("CREATE TABLE t ()").await.unwrap();
}

#[tokio::test]
async fn begin_needs_no_server() {
    // Without a free server a transaction can begin and end, as long as nothing happens in it.
    let front = Front::with(|config| {
        config.pool.size = 1;
        // Long enough to open a server on a busy machine.
        config.pool.checkout_timeout = std::time::Duration::from_secs(2);
    })
    .await;
    let (holder, client) = (front.client().await, front.client().await);
    holder
        .batch_execute("BEGIN; SELECT txid_current()")
        .await
        .unwrap();
    client.batch_execute("BEGIN").await.unwrap();
    client.batch_execute("COMMIT").await.unwrap();
    client.batch_execute("START TRANSACTION").await.unwrap();
    client.batch_execute("ROLLBACK").await.unwrap();

    let mut raw = front.raw().await;
    let run = [
        bind("", "", &[]),
        describe_portal(""),
        execute("", 0),
        sync(),
    ];
    let cycle = |sql| [vec![parse("", sql), describe_statement("")], run.to_vec()].concat();
    let begun = raw.exchange(&cycle("START TRANSACTION READ WRITE")).await;
    assert_eq!(begun, "1 t n 2 n C(START TRANSACTION) Z(T)");
    let ended = raw.exchange(&cycle("/* s */ COMMIT")).await;
    assert_eq!(ended, "1 t n 2 n C(COMMIT) Z(I)");
    let named = [
        parse("b", "BEGIN"),
        bind("", "b", &[]),
        execute("", 0),
        sync(),
    ];
    assert_eq!(raw.exchange(&named).await, "1 2 C(BEGIN) Z(T)");
    let again = [bind("", "b", &[]), execute("", 0), sync()];
    let refused = raw.exchange(&again).await;
    assert_eq!(refused, "E(53300) Z(E)");
    assert_eq!(raw.query("ROLLBACK").await, "C(ROLLBACK) Z(I)");
    assert_eq!(raw.exchange(&again).await, "2 C(BEGIN) Z(T)");
    assert_eq!(raw.query("ROLLBACK").await, "C(ROLLBACK) Z(I)");

    client.batch_execute("START TRANSACTION").await.unwrap();
    assert_eq!(
        try_ask(&client, "SELECT txid_current()").await,
        Err("53300".to_owned())
    );
    assert_eq!(try_ask(&client, "SELECT 1").await, Err("25P02".to_owned()));
    client.batch_execute("ROLLBACK").await.unwrap();
    holder.batch_execute("COMMIT").await.unwrap();
    client.batch_execute("BEGIN").await.unwrap();
    assert_eq!(ask(&client, "SELECT txid_current() > 0").await, "t");
    client.batch_execute("COMMIT").await.unwrap();
    // A portal with a name stays until the transaction ends.
    let portal = [bind("p", "b", &[]), execute("p", 0), sync()];
    assert_eq!(raw.exchange(&portal).await, "2 C(BEGIN) Z(T)");
    assert_eq!(raw.exchange(&portal).await, "E(42P03) Z(E)");
    assert_eq!(raw.query("ROLLBACK").await, "C(ROLLBACK) Z(I)");
}

#[tokio::test]
async fn causeway_settings() {
    let front = Front::small().await;
    let client = front.client().await;
    let level = "SHOW causeway.consistency";
    assert_eq!(ask(&client, level).await, "session");
    client
        .batch_execute("CREATE TABLE t (n int)")
        .await
        .unwrap();
    front.lab.node("eu-west").pause_replay().await.unwrap();
    client
        .batch_execute("INSERT INTO t VALUES (1)")
        .await
        .unwrap();
    let count = "SELECT count(*) FROM t";
    assert_eq!(ask(&client, count).await, "1");

    // What it is allowed to be stale about is decided by the level: only `eventual` is.
    let stale = async |expected: bool, why: &str| {
        let node = ask(
            &client,
            "SELECT current_setting('cluster_name') FROM (VALUES (1)) v",
        )
        .await;
        assert_eq!(node == "eu-west", expected, "{why}: {node}");
    };
    stale(false, "default").await;
    client
        .batch_execute("SET causeway.consistency TO 'eventual'")
        .await
        .unwrap();
    assert_eq!(ask(&client, level).await, "eventual");
    stale(true, "eventual").await;
    for bad in [
        "SET causeway.consistency TO 'weak'",
        "SET causeway.max_staleness TO 'soon'",
    ] {
        assert_eq!(
            code(&client.batch_execute(bad).await.unwrap_err()),
            "22023",
            "{bad}"
        );
        stale(true, bad).await;
    }
    let unknown = client
        .batch_execute("SET causeway.nothing TO 1")
        .await
        .unwrap_err();
    assert_eq!(code(&unknown), "42704");
    client
        .batch_execute("BEGIN; SET causeway.consistency TO 'strong'; ROLLBACK")
        .await
        .unwrap();
    assert_eq!(ask(&client, level).await, "eventual");
    client
        .batch_execute("BEGIN; SET causeway.consistency TO 'strong'; COMMIT")
        .await
        .unwrap();
    assert_eq!(ask(&client, level).await, "strong");
    stale(false, "strong").await;
    client
        .batch_execute("RESET causeway.consistency")
        .await
        .unwrap();
    assert_eq!(ask(&client, level).await, "session");
    stale(false, "reset").await;

    // Hints in comments, for one statement.
    let hinted = "/* causeway.consistency='eventual' */ SELECT current_setting('cluster_name')";
    assert_eq!(ask(&client, hinted).await, "eu-west");
    stale(false, "after a hint").await;
    let route = ask(&client, "SHOW causeway.last_route").await;
    assert!(route.contains("node=us-east role=primary"), "{route}");
    let write = "/* causeway.consistency='eventual' */ INSERT INTO t VALUES (2)";
    client.batch_execute(write).await.unwrap();
    let route = ask(&client, "SHOW causeway.last_route").await;
    assert!(
        route.contains("node=us-east") && route.contains("reason=\"write\""),
        "{route}"
    );
    assert_eq!(ask(&client, count).await, "2");
    front.lab.node("eu-west").resume_replay().await.unwrap();
    read_on_replica(&client, count, "2").await;
}

#[tokio::test]
async fn a_role_can_be_set_as_soon_as_it_has_been_created() {
    let front = Front::small().await;
    let client = front
        .try_client(|config| {
            config.user(SUPERUSER);
        })
        .await
        .unwrap();
    let replica = front.lab.node("eu-west");
    replica.pause_replay().await.unwrap();
    client.batch_execute("CREATE ROLE newcomer").await.unwrap();
    client.batch_execute("SET ROLE newcomer").await.unwrap();
    // Any node answers this, also one that cannot take the role yet.
    client
        .batch_execute("SET work_mem TO '77kB'")
        .await
        .unwrap();
    let sql = "SELECT current_user || '/' || current_setting('work_mem')";
    assert_eq!(ask(&client, sql).await, "newcomer/77kB");
    replica.resume_replay().await.unwrap();
}

#[tokio::test]
async fn a_setting_that_can_be_made_no_more_fails_all_of_a_pipeline_alike() {
    let front = Front::small().await;
    let admin = front.admin().await;
    let made = "CREATE ROLE brief_role; GRANT brief_role TO app";
    admin.batch_execute(made).await.unwrap();
    front.lab.wait_caught_up("eu-west").await.unwrap();
    let mut raw = front.raw().await;
    assert_eq!(raw.query("SET ROLE brief_role").await, "C(SET) Z(I)");
    admin.batch_execute("DROP ROLE brief_role").await.unwrap();
    let write = "SELECT txid_current()";
    let cycle = [parse("", write), bind("", "", &[]), execute("", 0), sync()];
    let pipeline = [&[query(write)], &cycle[..], &[query(write)]].concat();
    let told = raw.exchange(&pipeline).await;
    assert_eq!(told, ["E(22023) Z(I)"; 3].join(" "));
}

#[tokio::test]
async fn another_session_user_ends_the_role_on_every_server() {
    let front = Front::small().await;
    let admin = front.admin().await;
    admin
        .batch_execute(
            "CREATE ROLE left_role; CREATE ROLE right_role; GRANT left_role TO right_role",
        )
        .await
        .unwrap();
    front.lab.wait_caught_up("eu-west").await.unwrap();
    let client = front
        .try_client(|config| {
            config.user(SUPERUSER);
        })
        .await
        .unwrap();
    for statement in ["SET ROLE left_role", "SET SESSION AUTHORIZATION right_role"] {
        client.batch_execute(statement).await.unwrap();
    }
    // The settings were made on the replica: the primary's server receives them anew.
    let sql = "SELECT current_user || (txid_current() > 0)::text";
    assert_eq!(ask(&client, sql).await, "right_roletrue");
    read_on_replica(&client, "SELECT current_user", "right_role").await;
}

#[tokio::test]
async fn what_the_superuser_has_set_stays_set_for_another_session_user() {
    let front = Front::with(|config| config.pool.size = 1).await;
    let admin = front.admin().await;
    admin.batch_execute("CREATE ROLE low_role").await.unwrap();
    front.lab.wait_caught_up("eu-west").await.unwrap();
    let client = front
        .try_client(|config| {
            config.user(SUPERUSER);
        })
        .await
        .unwrap();
    let sql = "SELECT concat_ws('/', current_user, current_setting('lo_compat_privileges'), txid_current() > 0)";
    client
        .batch_execute("SET SESSION AUTHORIZATION low_role")
        .await
        .unwrap();
    assert_eq!(ask(&client, sql).await, "low_role/off/t");
    for (statement, expected) in [
        ("SET lo_compat_privileges TO on", "low_role/on/t"),
        ("RESET lo_compat_privileges", "low_role/off/t"),
    ] {
        // These run on the replica: the primary's server is low_role all the while, who may not do that.
        for statement in [
            "RESET SESSION AUTHORIZATION",
            statement,
            "SET SESSION AUTHORIZATION low_role",
        ] {
            client.batch_execute(statement).await.unwrap();
        }
        assert_eq!(ask(&client, sql).await, expected);
    }
}

#[tokio::test]
async fn half_a_date_style_keeps_the_session_s_other_half() {
    let front = Front::with(|config| config.pool.size = 1).await;
    let (client, other) = (front.client().await, front.client().await);
    other
        .batch_execute("SET DateStyle TO 'German'")
        .await
        .unwrap();
    client
        .batch_execute("SET DateStyle TO 'SQL'")
        .await
        .unwrap();
    client
        .batch_execute("SET DateStyle TO 'YMD'")
        .await
        .unwrap();
    for _ in 0..3 {
        for (client, expected) in [(&client, "SQL, YMDtrue"), (&other, "German, DMYtrue")] {
            let sql = "SELECT current_setting('DateStyle') || (txid_current() > 0)::text";
            assert_eq!(ask(client, sql).await, expected);
        }
    }
}
