//! `currval()` and `lastval()`: what the session itself got, and never what another one got.

use tokio_postgres::Client;

use crate::front::{Front, ask, read_on_replica, try_ask, until_known};

const UNDEFINED: &str = "55000";

async fn front() -> Front {
    let front = Front::small().await;
    let admin = front.admin().await;
    admin
        .batch_execute("CREATE TABLE t (id serial, a int); GRANT ALL ON t, t_id_seq TO app")
        .await
        .unwrap();
    front
}

async fn insert(client: &Client) -> String {
    ask(client, "INSERT INTO t (a) VALUES (1) RETURNING id").await
}

async fn pin(client: &Client) -> String {
    ask(client, "SHOW causeway.pin").await
}

#[tokio::test]
async fn a_session_that_asks_for_what_it_got_keeps_the_server_that_knows() {
    let front = front().await;
    let client = front.client().await;
    until_known(&client, "t").await;
    let id = insert(&client).await;
    assert_eq!(pin(&client).await, "");
    assert_eq!(ask(&client, "SELECT lastval()").await, id);
    assert_eq!(pin(&client).await, "currval, lastval");
    read_on_replica(&client, &format!("SELECT id FROM t WHERE id = {id}"), &id).await;
    let others = front.client().await;
    for _ in 0..3 {
        let id = insert(&client).await;
        assert_ne!(insert(&others).await, id);
        assert_eq!(ask(&client, "SELECT currval('t_id_seq')").await, id);
        let sum = "INSERT INTO t (a) VALUES (currval('t_id_seq')) RETURNING a";
        assert_ne!(ask(&client, sum).await, id);
    }
    client.batch_execute("DISCARD SEQUENCES").await.unwrap();
    assert_eq!(pin(&client).await, "");
    let answer = try_ask(&client, "SELECT currval('t_id_seq')").await;
    assert_eq!(answer, Err(UNDEFINED.to_owned()));
}

#[tokio::test]
async fn a_question_beside_what_it_is_about_pins_nothing() {
    let front = front().await;
    let client = front.client().await;
    client.batch_execute("BEGIN").await.unwrap();
    let id = insert(&client).await;
    assert_eq!(ask(&client, "SELECT lastval()").await, id);
    client.batch_execute("COMMIT").await.unwrap();
    assert_eq!(pin(&client).await, "");
    let both = "SELECT nextval('t_id_seq') - currval('t_id_seq'); SELECT lastval()";
    assert_eq!(ask(&client, both).await, "0");
    assert_eq!(pin(&client).await, "");
    // A column.
    ask(
        &client,
        "SELECT t.lastval::text FROM (SELECT 1 AS lastval) t",
    )
    .await;
    assert_eq!(pin(&client).await, "");
}

#[tokio::test]
async fn nobody_is_told_what_another_session_got() {
    let front = front().await;
    let (one, two) = (front.client().await, front.client().await);
    insert(&one).await;
    let undefined = Err(UNDEFINED.to_owned());
    let question = "SELECT currval('t_id_seq')";
    assert_eq!(try_ask(&two, question).await, undefined);
    two.batch_execute("DISCARD ALL").await.unwrap();
    // One that writes, but uses no sequence, has not got anything either.
    insert(&one).await;
    two.batch_execute("UPDATE t SET a = 2").await.unwrap();
    assert_eq!(try_ask(&two, question).await, undefined);
    // It has fallen on another server, and will not a second time.
    two.batch_execute("DISCARD ALL").await.unwrap();
    let id = insert(&two).await;
    insert(&one).await;
    let answer = try_ask(&two, question).await;
    assert!(answer == undefined || answer == Ok(id), "{answer:?}");
    let id = insert(&two).await;
    insert(&one).await;
    assert_eq!(ask(&two, question).await, id);
}
