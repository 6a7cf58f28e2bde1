//! Admin HTTP of a Causeway in front of a real cluster.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use causeway::app::{Causeway, Running, StartError};
use causeway::config::{Config, KeyStoreConfig, NodeConfig};
use causeway::lab::{APP_DATABASE, APP_USER, Lab, Mode};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{config, connect};

const SOON: Duration = Duration::from_secs(30);

const ANY_PORT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

async fn start(lab: &Lab) -> (Running, SocketAddr) {
    begin(Config {
        admin: Some(ANY_PORT),
        ..config(lab, "us-east")
    })
    .await
}

/// A Causeway whose only node does not exist.
fn alone(admin: SocketAddr) -> Config {
    Config {
        listen: ANY_PORT,
        admin: Some(admin),
        nodes: vec![NodeConfig::new("127.0.0.1", 1)],
        ..Config::default()
    }
}

async fn begin(config: Config) -> (Running, SocketAddr) {
    let running = Causeway::start(config).await.unwrap();
    let admin = running.admin_addr().unwrap();
    (running, admin)
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

/// Sends these bytes and reads what comes until the connection ends.
async fn exchange(admin: SocketAddr, request: &[u8]) -> Vec<u8> {
    let mut tcp = TcpStream::connect(admin).await.unwrap();
    // It may be closed while more than it wants to read is still being written, or be reset.
    let _ = tcp.write_all(request).await;
    let _ = tcp.shutdown().await;
    let mut answer = Vec::new();
    let _ = tcp.read_to_end(&mut answer).await;
    answer
}

async fn ask(admin: SocketAddr, method: &str, path: &str) -> Answer {
    let request = format!("{method} {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    let answer = String::from_utf8(exchange(admin, request.as_bytes()).await).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").expect("a whole head");
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer {
        status,
        head: head.to_ascii_lowercase(),
        body: body.to_owned(),
    }
}

async fn get(admin: SocketAddr, path: &str) -> Answer {
    ask(admin, "GET", path).await
}

/// Asks for the health until it is this one.
async fn until_health(admin: SocketAddr, wanted: &str) -> Answer {
    let deadline = Instant::now() + SOON;
    let mut glance = tokio::time::interval(Duration::from_millis(5));
    loop {
        let answer = get(admin, "/health").await;
        if answer.json()["status"] == wanted {
            return answer;
        }
        assert!(Instant::now() < deadline, "not {wanted}: {}", answer.body);
        glance.tick().await;
    }
}

/// Metric name to type, as `/metrics` says.
fn types(metrics: &str) -> BTreeMap<String, String> {
    let typed = metrics.lines().filter_map(|line| {
        let (name, kind) = line.strip_prefix("# TYPE ")?.split_once(' ')?;
        Some((name.to_owned(), kind.to_owned()))
    });
    typed.collect()
}

/// The sum of all samples whose name and labels begin so.
fn sum(metrics: &str, prefix: &str) -> f64 {
    let samples = metrics.lines().filter(|line| line.starts_with(prefix));
    let values = samples.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap());
    values.sum()
}

#[tokio::test]
async fn health_follows_the_nodes() {
    let lab = Lab::small().await.unwrap();
    let (_running, admin) = start(&lab).await;
    assert_eq!(until_health(admin, "healthy").await.status, 200);

    lab.node("eu-west").stop(Mode::Immediate).await.unwrap();
    let degraded = until_health(admin, "degraded").await;
    assert_eq!(degraded.status, 200);
    let nodes = &degraded.json()["nodes"];
    assert_eq!(nodes[0]["status"], "primary");
    assert_eq!(nodes[1]["status"], "down");
    assert!(
        nodes[1]["reason"]
            .as_str()
            .is_some_and(|reason| !reason.is_empty())
    );

    lab.node("us-east").stop(Mode::Immediate).await.unwrap();
    assert_eq!(until_health(admin, "unhealthy").await.status, 503);
    assert_eq!(get(admin, "/live").await.status, 200);

    lab.node("us-east").start().await.unwrap();
    lab.node("eu-west").start().await.unwrap();
    assert_eq!(until_health(admin, "healthy").await.status, 200);
}

#[tokio::test]
async fn metrics_and_status_tell_what_clients_did() {
    let lab = Lab::small().await.unwrap();
    let (running, admin) = start(&lab).await;
    let runs = "causeway_node_runs_total";
    let before = get(admin, "/metrics").await;
    assert!(before.head.contains("text/plain; version=0.0.4"));
    assert_eq!(sum(&before.body, "causeway_clients"), 0.0);

    let client = connect(&running).await;
    client
        .batch_execute("CREATE TABLE t (n int)")
        .await
        .unwrap();
    client
        .batch_execute("INSERT INTO t VALUES (1)")
        .await
        .unwrap();
    let metrics = get(admin, "/metrics").await.body;
    // Other tests of this process count too: the recorder is the process's. The second statement
    // may have come while the first one's server was still lent, and then counts with it.
    assert!(
        sum(&metrics, runs) >= sum(&before.body, runs) + 1.0,
        "{metrics}"
    );
    let writes = r#"causeway_routes_total{reason="write"}"#;
    assert!(
        sum(&metrics, writes) >= sum(&before.body, writes) + 1.0,
        "{metrics}"
    );
    assert_eq!(sum(&metrics, "causeway_clients"), 1.0);
    let pool = format!(
        r#"causeway_pool_servers{{node="us-east",database="{APP_DATABASE}",user="{APP_USER}","#
    );
    assert!(sum(&metrics, &pool) >= 1.0, "{metrics}");

    let status = get(admin, "/status").await.json();
    assert_eq!(status["clients"], 1);
    let [east, west] = &status["nodes"].as_array().unwrap()[..] else {
        panic!("{status}");
    };
    assert_eq!(
        (&east["status"], &west["status"]),
        (&"primary".into(), &"replica".into())
    );
    assert!(east["servers"]["open"].as_u64().unwrap() >= 1);
    for node in [east, west] {
        assert!(node["position"].as_str().unwrap().contains('/'), "{node}");
        assert!(node["round_trip_seconds"].as_f64().unwrap() > 0.0, "{node}");
    }
    let pools = status["pools"].as_array().unwrap();
    let places: Vec<_> = pools
        .iter()
        .map(|pool| pool["node"].as_str().unwrap())
        .collect();
    assert_eq!(places, ["us-east", "eu-west"]);

    drop(client);
    let deadline = Instant::now() + SOON;
    let mut glance = tokio::time::interval(Duration::from_millis(5));
    while sum(&get(admin, "/metrics").await.body, "causeway_clients") > 0.0 {
        assert!(Instant::now() < deadline, "the client still counts");
        glance.tick().await;
    }
}

#[tokio::test]
async fn what_was_learned_is_listed_and_forgotten() {
    let lab = Lab::small().await.unwrap();
    // Beside the replica.
    let (running, admin) = begin(Config {
        admin: Some(ANY_PORT),
        ..config(&lab, "eu-west")
    })
    .await;
    let client = connect(&running).await;
    client
        .batch_execute(
            "CREATE SEQUENCE s;
             CREATE FUNCTION lies(name text) RETURNS bigint STABLE LANGUAGE plpgsql AS
                 $$ DECLARE n bigint; BEGIN EXECUTE 'SELECT next' || name INTO n; RETURN n; END $$",
        )
        .await
        .unwrap();
    // It is no read, whatever it says of itself: only the replica that refuses it finds out.
    let sql = "SELECT lies($$val('s')$$)";
    let once_more = client.prepare(sql).await.unwrap();
    let learned = async || {
        let deadline = Instant::now() + SOON;
        loop {
            client.query_one(&once_more, &[]).await.unwrap();
            let listed = get(admin, "/learned_writes").await.json();
            if listed.as_array().unwrap().len() == 1 {
                return listed[0].clone();
            }
            assert!(Instant::now() < deadline, "it is not learned");
        }
    };
    let first = learned().await;
    assert_eq!(first["text"], sql);
    assert_eq!(
        get(admin, "/status").await.json()["learned_writes"][0],
        first
    );

    let nobody = ask(admin, "DELETE", "/learned_writes/abc").await;
    assert_eq!((nobody.status, &*nobody.body), (404, r#"{"forgotten":0}"#));
    let nonsense = ask(admin, "DELETE", "/learned_writes/it").await;
    assert_eq!(nonsense.status, 404);
    assert_eq!(ask(admin, "DELETE", "/learned_writesx").await.status, 404);
    let fingerprint = first["fingerprint"].as_str().unwrap();
    let one = ask(admin, "DELETE", &format!("/learned_writes/{fingerprint}")).await;
    assert_eq!((one.status, &*one.body), (200, r#"{"forgotten":1}"#));
    assert_eq!(get(admin, "/learned_writes").await.body, "[]");

    // Prepared as it was, a replica is asked again.
    assert_eq!(learned().await, first);
    let all = ask(admin, "DELETE", "/learned_writes").await;
    assert_eq!((all.status, &*all.body), (200, r#"{"forgotten":1}"#));
    assert_eq!(get(admin, "/learned_writes").await.body, "[]");
}

#[tokio::test]
async fn every_metric_is_documented_and_no_other() {
    let lab = Lab::small().await.unwrap();
    let (running, admin) = start(&lab).await;
    // The first client makes the pools; the key store need not be there.
    let _client = connect(&running).await;
    let sharing = Causeway::start(Config {
        key_store: Some(KeyStoreConfig::new("redis://127.0.0.1:1")),
        ..config(&lab, "us-east")
    });
    let _sharing = sharing.await.unwrap();
    let metrics = get(admin, "/metrics").await.body;
    let rendered = types(&metrics);

    let manual = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operate.md");
    let manual = fs::read_to_string(manual).unwrap();
    let rows = manual
        .lines()
        .filter(|line| line.starts_with("| `causeway_"));
    let documented: BTreeMap<String, String> = rows
        .map(|row| {
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            let name = cells[1].trim_matches('`').to_owned();
            (name, cells[2].to_owned())
        })
        .collect();
    assert!(!documented.is_empty());
    assert_eq!(
        documented, rendered,
        "docs/operate.md (left) and /metrics (right)"
    );

    let reasons: Vec<&str> = metrics
        .lines()
        .filter_map(|line| {
            line.strip_prefix("causeway_routes_total{reason=\"")?
                .split('"')
                .next()
        })
        .collect();
    assert!(!reasons.is_empty());
    for reason in reasons {
        assert!(manual.contains(&format!("| `{reason}` |")), "{reason}");
    }
}

#[tokio::test]
async fn what_is_not_asked_properly_is_refused_and_harms_nobody() {
    let (_running, admin) = begin(alone(ANY_PORT)).await;
    assert_eq!(get(admin, "/health").await.status, 503);

    let unknown = get(admin, "/metric").await;
    assert_eq!(unknown.status, 404);
    assert!(unknown.body.contains("/metrics"));
    let post = ask(admin, "POST", "/status").await;
    assert_eq!(post.status, 405);
    assert!(post.head.contains("allow: get, head, delete"));
    let delete = ask(admin, "DELETE", "/status").await;
    assert_eq!(delete.status, 405);
    assert!(delete.head.contains("allow: get, head\r\n"));
    let head = ask(admin, "HEAD", "/status").await;
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    let page = get(admin, "/").await;
    assert!(page.head.contains("text/html") && page.body.contains("<title>Causeway</title>"));
    assert!(!page.body.contains("http://") && !page.body.contains("https://"));

    let long_path = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(1 << 20));
    let many_headers = format!("GET / HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(1_000));
    for garbage in [
        &b"\0\0\0\x08\x04\xd2\x16\x2f"[..],
        &[0xFF; 100_000],
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"GET",
        b"",
        long_path.as_bytes(),
        many_headers.as_bytes(),
    ] {
        let answer = exchange(admin, garbage).await;
        let answer = String::from_utf8_lossy(&answer);
        let is_refusal = answer.is_empty() || answer.starts_with("HTTP/1.1 4");
        assert!(is_refusal, "{answer}");
        assert_eq!(get(admin, "/live").await.status, 200);
    }
}

#[tokio::test]
async fn silent_connections_leave_room_for_others() {
    let (running, admin) = begin(alone(ANY_PORT)).await;
    let mut silent = Vec::new();
    for _ in 0..40 {
        silent.push(TcpStream::connect(admin).await.unwrap());
    }
    assert_eq!(get(admin, "/live").await.status, 200);
    drop(running);
    // With the Causeway its admin connections end too.
    for mut tcp in silent {
        assert!(matches!(tcp.read(&mut [0]).await, Ok(0) | Err(_)));
    }
}

#[tokio::test]
async fn a_taken_admin_port_is_named() {
    let (_running, admin) = begin(alone(ANY_PORT)).await;
    let error = Causeway::start(alone(admin)).await.err();
    assert!(
        matches!(&error, Some(StartError::Listen { address, .. }) if *address == admin),
        "{error:?}"
    );
    assert!(error.unwrap().to_string().contains(&admin.to_string()));
}
