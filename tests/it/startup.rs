//! From the first byte to ReadyForQuery: protocol versions, encryption, start-up parameters.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use causeway::config::{ClientTls, Config, Secret, ServerTls, TlsMode, UserConfig};
use causeway::lab::{APP_DATABASE, APP_USER, Lab, PASSWORD, SUPERUSER};
use tokio::net::TcpStream;
use tokio_postgres::config::TargetSessionAttrs;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::front::{Front, ask, code, read_on_replica, try_ask};
use crate::raw::{Message, Raw, last, packet, query, show, startup};

const V3_0: i32 = 3 << 16;
const V3_2: i32 = V3_0 + 2;
const LOG_IN: [(&str, &str); 2] = [("user", APP_USER), ("database", APP_DATABASE)];

fn parameter(greeting: &[Message], name: &str) -> String {
    let wanted = format!("S({name}=");
    let shown = greeting.iter().map(Message::to_string);
    let found =
        shown.filter_map(|text| Some(text.strip_prefix(&wanted)?.strip_suffix(')')?.to_owned()));
    found.collect::<Vec<_>>().join("; ")
}

#[tokio::test]
async fn protocol_versions_are_negotiated() {
    let front = Front::small().await;
    // Version, option, whether the server must negotiate, length of the cancel key's secret.
    for (version, option, negotiated, secret) in [
        (V3_0, None, false, 4),
        (V3_2, None, false, 32),
        (V3_0 + 9, None, true, 32),
        (V3_0, Some("_pq_.mystery"), true, 4),
        (V3_2, Some("_pq_.mystery"), true, 32),
    ] {
        let mut parameters = LOG_IN.to_vec();
        parameters.extend(option.map(|name| (name, "on")));
        let mut raw = Raw::connect(front.address()).await;
        let greeting = raw.start(version, &parameters, PASSWORD).await;
        let case = format!("{version:x} {option:?}: {greeting:?}");
        assert_eq!(last(&greeting), "Z(I)", "{case}");
        assert_eq!(raw.secret.len(), secret, "{case}");
        let answers: Vec<&Message> = greeting
            .iter()
            .filter(|message| message.tag == b'v')
            .collect();
        assert_eq!(answers.len(), usize::from(negotiated), "{case}");
        if let [answer] = answers[..] {
            let (newest, rest) = answer.body.split_first_chunk::<4>().unwrap();
            assert_eq!(i32::from_be_bytes(*newest), V3_2, "{case}");
            let names = option.map_or(vec![0, 0, 0, 0], |name| {
                [&[0, 0, 0, 1][..], name.as_bytes(), b"\0"].concat()
            });
            assert_eq!(rest, names, "{case}");
            // It comes before anything else is said.
            assert_eq!(greeting[0].tag, b'v', "{case}");
        }
        assert_eq!(
            raw.query("SELECT 1").await,
            "T D(1) C(SELECT 1) Z(I)",
            "{case}"
        );
    }
}

#[tokio::test]
async fn clients_are_told_the_primary_s_parameters() {
    let front = Front::small().await;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, front.primary().port()));
    let too_long = "x".repeat(65);
    for parameters in [
        LOG_IN.to_vec(),
        [
            &LOG_IN[..],
            &[("TimeZone", "Asia/Tokyo"), ("application_name", "a")],
        ]
        .concat(),
        [
            &LOG_IN[..],
            &[("options", "-c DateStyle=German --TimeZone=UTC")],
        ]
        .concat(),
        [&LOG_IN[..], &[("client_encoding", "LATIN1")]].concat(),
        // Of `options` the last counts, and what is named by itself comes behind it.
        [
            &LOG_IN[..],
            &[
                ("client_encoding", "UTF8"),
                ("options", "-c DateStyle=German"),
                ("options", "-c client_encoding=LATIN1 -c TimeZone=UTC"),
            ],
        ]
        .concat(),
        // Told with a notice.
        [&LOG_IN[..], &[("application_name", &too_long)]].concat(),
    ] {
        let mut direct = Raw::connect(address).await;
        let sorted = |greeting: Vec<Message>| {
            let mut shown: Vec<String> = greeting.iter().map(Message::to_string).collect();
            shown.retain(|text| text.starts_with(['S', 'N']));
            shown.sort();
            shown
        };
        let expected = sorted(direct.start(V3_0, &parameters, PASSWORD).await);
        assert!(expected.len() > 10);
        // The second client is told what the first one was.
        for _ in 0..2 {
            let mut raw = Raw::connect(front.address()).await;
            let seen = sorted(raw.start(V3_0, &parameters, PASSWORD).await);
            assert_eq!(seen, expected, "{parameters:?}");
        }
    }
}

/// Code may set what nobody sees, and a server at rest still has it when the next client comes.
#[tokio::test]
async fn nobody_is_told_what_another_s_code_has_set() {
    let lab = Lab::builder().quick().primary("us-east").build();
    let front = Front::before(lab.await.unwrap(), |config| config.pool.size = 1).await;
    let client = front.client().await;
    client
        .batch_execute(
            "CREATE FUNCTION sets_unseen() RETURNS int LANGUAGE plpgsql AS
             $$ BEGIN EXECUTE 'SE' || 'T DateStyle TO German'; RETURN 1; END $$",
        )
        .await
        .unwrap();
    for place in 0..3 {
        let mut one = front.raw().await;
        one.query("SELECT sets_unseen()").await;
        drop(one);
        let unusual = format!("-c work_mem={}kB", 100 + place);
        let mut next = Raw::connect(front.address()).await;
        let parameters = [&LOG_IN[..], &[("options", &unusual)]].concat();
        let greeting = next.start(V3_0, &parameters, PASSWORD).await;
        let told = greeting.iter().map(Message::to_string);
        let told: Vec<String> = told.filter(|text| text.contains("DateStyle")).collect();
        assert_eq!(told, ["S(DateStyle=ISO, MDY)"]);
        let held = next.query("SELECT current_setting('work_mem') || current_setting('DateStyle')");
        let expected = format!("T D({}kBISO, MDY) C(SELECT 1) Z(I)", 100 + place);
        assert_eq!(held.await, expected);
    }
}

#[tokio::test]
async fn start_up_settings_hold_on_every_node_and_bad_ones_are_fatal() {
    let front = Front::small().await;
    let client = front
        .try_client(|config| {
            config
                .application_name("startup")
                .options("-c work_mem=77kB -c app.mine=a\\ b");
        })
        .await
        .unwrap();
    let sql = "SELECT pg_is_in_recovery()::text || current_setting('work_mem') \
        || current_setting('app.mine') || current_setting('application_name')";
    assert_eq!(ask(&client, sql).await, "false77kBa bstartup");
    let sql = "SELECT current_setting('work_mem') || current_setting('application_name')";
    read_on_replica(&client, sql, "77kBstartup").await;
    client
        .batch_execute("SET work_mem TO '99kB'; RESET work_mem")
        .await
        .unwrap();
    assert_eq!(ask(&client, "SHOW work_mem").await, "77kB");

    for (name, value, expected) in [
        ("work_mem", "lots", "E(22023)"),
        ("no_such_setting", "1", "E(42704)"),
        ("TimeZone", "Nowhere/Never", "E(22023)"),
        ("shared_buffers", "1GB", "E(55P02)"),
        ("options", "-c", "E(42601)"),
        ("options", "-c work_mem=lots", "E(22023)"),
        ("causeway.consistency", "weak", "E(22023)"),
        ("causeway.nothing", "1", "E(42704)"),
    ] {
        let mut raw = Raw::connect(front.address()).await;
        let parameters = [&LOG_IN[..], &[(name, value)]].concat();
        let seen = raw.start(V3_0, &parameters, PASSWORD).await;
        assert_eq!(last(&seen), expected, "{name}={value}: {seen:?}");
        assert_eq!(seen.last().unwrap().field(b'V'), "FATAL", "{name}={value}");
        assert_eq!(raw.rest().await, b"", "{name}={value}");
    }
}

#[tokio::test]
async fn a_verifier_from_pg_authid_serves_as_well_as_a_password() {
    let lab = Lab::small().await.unwrap();
    let admin = lab
        .node("us-east")
        .connect(SUPERUSER, APP_DATABASE)
        .await
        .unwrap();
    let sql = "SELECT rolpassword FROM pg_authid WHERE rolname = 'app'";
    let verifier = ask(&admin, sql).await;
    let front = Front::before(lab, |config| {
        let secret = Secret::Verifier(verifier.into());
        config.users = vec![UserConfig::new(APP_USER, secret)];
    })
    .await;
    let refused = front.try_client(|config| {
        config.password("wrong");
    });
    assert_eq!(code(&refused.await.err().unwrap()), "28P01");
    let client = front.client().await;
    assert_eq!(ask(&client, "SELECT current_user").await, "app");
    client
        .batch_execute("CREATE TABLE made (n int)")
        .await
        .unwrap();
}

/// A self-signed certificate for 127.0.0.1 and its key, in files.
struct Certificate {
    _directory: tempfile::TempDir,
    certificate: PathBuf,
    key: PathBuf,
}

impl Certificate {
    fn new(name: &str) -> Certificate {
        let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let write = |file: &str, text: String| {
            let path = directory.path().join(file);
            std::fs::write(&path, text).unwrap();
            path
        };
        Certificate {
            certificate: write("cert.pem", made.cert.pem()),
            key: write("key.pem", made.signing_key.serialize_pem()),
            _directory: directory,
        }
    }

    fn offer(&self, required: bool) -> Option<ClientTls> {
        Some(ClientTls {
            certificate: self.certificate.clone(),
            key: self.key.clone(),
            required,
        })
    }
}

async fn encrypt(
    tcp: TcpStream,
    root: &Path,
    alpn: &[&[u8]],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(root).unwrap())
        .unwrap();
    let mut config = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    TlsConnector::from(Arc::new(config))
        .connect(name, tcp)
        .await
}

const SSL_REQUEST: [u8; 4] = 80_877_103u32.to_be_bytes();
const GSS_REQUEST: [u8; 4] = 80_877_104u32.to_be_bytes();

async fn logs_in(mut raw: Raw) {
    let greeting = raw.start(V3_0, &LOG_IN, PASSWORD).await;
    assert_eq!(last(&greeting), "Z(I)", "{greeting:?}");
    assert_eq!(raw.query("SELECT 1").await, "T D(1) C(SELECT 1) Z(I)");
}

#[tokio::test]
async fn without_tls_encryption_is_declined_and_the_log_in_goes_on() {
    let front = Front::small().await;
    let mut raw = Raw::connect(front.address()).await;
    for request in [GSS_REQUEST, SSL_REQUEST, SSL_REQUEST] {
        raw.send(&packet(&request)).await;
        assert_eq!(raw.byte().await, b'N');
    }
    logs_in(raw).await;
}

#[tokio::test]
async fn clients_with_tls() {
    let certificate = Certificate::new("127.0.0.1");
    let front = Front::with(|config| config.client.tls = certificate.offer(true)).await;
    let root = &certificate.certificate;
    let tcp = || async { TcpStream::connect(front.address()).await.unwrap() };

    // Asked for, with and without ALPN, also behind a refused GSSENCRequest.
    for alpn in [&[][..], &[&b"postgresql"[..]]] {
        let mut raw = Raw::connect(front.address()).await;
        raw.send(&packet(&GSS_REQUEST)).await;
        assert_eq!(raw.byte().await, b'N');
        let mut tcp = tcp().await;
        tokio::io::AsyncWriteExt::write_all(&mut tcp, &packet(&SSL_REQUEST))
            .await
            .unwrap();
        assert_eq!(
            tokio::io::AsyncReadExt::read_u8(&mut tcp).await.unwrap(),
            b'S'
        );
        logs_in(Raw::over(encrypt(tcp, root, alpn).await.unwrap())).await;
    }

    // Direct, which needs ALPN.
    logs_in(Raw::over(
        encrypt(tcp().await, root, &[b"postgresql"]).await.unwrap(),
    ))
    .await;
    for alpn in [&[][..], &[&b"h2"[..]]] {
        if let Ok(stream) = encrypt(tcp().await, root, alpn).await {
            let mut raw = Raw::over(stream);
            // It may be gone before it has read this.
            let _ = raw.try_send(&startup(V3_0, &LOG_IN)).await;
            assert_eq!(raw.until_closed().await, [], "{alpn:?}");
        }
    }

    // Plain is refused, and so is what somebody slipped in ahead of the handshake.
    let mut raw = Raw::connect(front.address()).await;
    let seen = raw.start(V3_0, &LOG_IN, PASSWORD).await;
    assert_eq!(show(&seen), "E(28000)", "{seen:?}");
    let mut raw = Raw::connect(front.address()).await;
    raw.send(&[packet(&SSL_REQUEST), startup(V3_0, &LOG_IN)].concat())
        .await;
    assert_eq!(raw.rest().await, b"");

    // A cancel request needs no encryption, but works with it as well.
    let stream = encrypt(tcp().await, root, &[b"postgresql"]).await.unwrap();
    let mut raw = Raw::over(stream);
    let greeting = raw.start(V3_2, &LOG_IN, PASSWORD).await;
    assert_eq!(last(&greeting), "Z(I)", "{greeting:?}");
    raw.send(&query("SELECT pg_sleep(600)")).await;
    let admin = front.admin().await;
    let asleep = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
    // It may sleep on either node.
    let west = front
        .lab
        .node("eu-west")
        .connect(SUPERUSER, APP_DATABASE)
        .await
        .unwrap();
    while ask(&admin, asleep).await == "0" && ask(&west, asleep).await == "0" {
        tokio::task::yield_now().await;
    }
    let mut body = 80_877_102u32.to_be_bytes().to_vec();
    body.extend(raw.pid.to_be_bytes());
    body.extend(&raw.secret);
    let mut cancel = Raw::over(encrypt(tcp().await, root, &[b"postgresql"]).await.unwrap());
    cancel.send(&packet(&body)).await;
    assert_eq!(show(&raw.until_ready().await), "T E(57014) Z(I)");
}

#[tokio::test]
async fn tls_is_offered_but_plain_clients_are_welcome() {
    let certificate = Certificate::new("127.0.0.1");
    let front = Front::with(|config| config.client.tls = certificate.offer(false)).await;
    logs_in(Raw::connect(front.address()).await).await;
    let mut raw = Raw::connect(front.address()).await;
    raw.send(&packet(&GSS_REQUEST)).await;
    assert_eq!(raw.byte().await, b'N');
    logs_in(raw).await;
}

#[tokio::test]
async fn servers_with_tls() {
    let certificate = Certificate::new("127.0.0.1");
    let stranger = Certificate::new("127.0.0.1");
    let lab = Lab::builder()
        .quick()
        .primary("us-east")
        .tls(&certificate.certificate, &certificate.key)
        .access_rule("hostnossl all app 127.0.0.1/32 reject")
        .build()
        .await
        .unwrap();
    let lab = Arc::new(lab);
    let answer = |mode, root: Option<PathBuf>| {
        let lab = Arc::clone(&lab);
        async move {
            let mut config: Config = crate::front::config(&lab);
            config.nodes[0].tls = ServerTls {
                mode,
                root_cert: root,
            };
            config.routing.failover_wait = std::time::Duration::from_millis(200);
            let running = causeway::app::Causeway::start(config).await.unwrap();
            let mut raw = Raw::connect(running.listen_addr()).await;
            let seen = raw.start(V3_0, &LOG_IN, PASSWORD).await;
            match last(&seen).as_str() {
                "Z(I)" => {
                    let sql = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
                    raw.query(sql).await
                }
                _ => {
                    let fault = seen.last().unwrap();
                    format!("{fault:?} {}", fault.field(b'D'))
                }
            }
        }
    };
    let encrypted = "T D(t) C(SELECT 1) Z(I)";
    let root = || Some(certificate.certificate.clone());
    for (mode, root) in [
        (TlsMode::Prefer, None),
        (TlsMode::Require, None),
        (TlsMode::VerifyCa, root()),
        (TlsMode::VerifyFull, root()),
    ] {
        assert_eq!(answer(mode, root).await, encrypted, "{mode:?}");
    }
    for mode in [TlsMode::Require, TlsMode::VerifyCa, TlsMode::VerifyFull] {
        let refused = answer(mode, Some(stranger.certificate.clone())).await;
        assert!(refused.contains("E(08006)"), "{mode:?}: {refused}");
        assert!(
            refused.to_lowercase().contains("certificate"),
            "{mode:?}: {refused}"
        );
    }
    let refused = answer(TlsMode::Disable, None).await;
    assert!(refused.contains("E(28000)"), "{refused}");
}

#[tokio::test]
async fn a_replication_connection_goes_to_the_primary() {
    let lab = Lab::builder()
        .quick()
        .primary("us-east")
        .replica("eu-west")
        .access_rule("host replication postgres 127.0.0.1/32 scram-sha-256")
        .build();
    let front = Front::before(lab.await.unwrap(), |_| {}).await;
    let parameters = |value| {
        [
            ("user", SUPERUSER),
            ("database", APP_DATABASE),
            ("replication", value),
        ]
    };
    for value in ["database", "true", "1"] {
        let mut raw = Raw::connect(front.address()).await;
        let greeting = raw.start(V3_0, &parameters(value), PASSWORD).await;
        assert_eq!(last(&greeting), "Z(I)", "{value}: {greeting:?}");
        assert_eq!(parameter(&greeting, "in_hot_standby"), "off", "{value}");
        let seen = raw.query("IDENTIFY_SYSTEM").await;
        assert!(
            seen.starts_with("T D(7") && seen.ends_with("C(IDENTIFY_SYSTEM) Z(I)"),
            "{seen}"
        );
    }
    let mut raw = Raw::connect(front.address()).await;
    let greeting = raw.start(V3_0, &parameters("false"), PASSWORD).await;
    assert_eq!(last(&greeting), "Z(I)");
    assert!(raw.query("IDENTIFY_SYSTEM").await.starts_with("E(42601)"));

    // A role without the right is refused in the server's words.
    let mut raw = Raw::connect(front.address()).await;
    let mut parameters = parameters("true");
    parameters[0].1 = APP_USER;
    let seen = raw.start(V3_0, &parameters, PASSWORD).await;
    assert_eq!(last(&seen), "E(28000)", "{seen:?}");
}

#[tokio::test]
async fn a_log_in_needs_nothing_that_the_replica_does_not_have_yet() {
    let front = Front::small().await;
    let replica = front.lab.node("eu-west");
    replica.pause_replay().await.unwrap();
    let admin = front.admin().await;
    for statement in ["CREATE DATABASE newborn", "CREATE ROLE newcomer"] {
        admin.batch_execute(statement).await.unwrap();
    }
    let client = front
        .try_client(|config| {
            config
                .user(SUPERUSER)
                .dbname("newborn")
                .options("-c role=newcomer");
        })
        .await
        .unwrap();
    let sql = "SELECT current_database() || '/' || current_user";
    assert_eq!(ask(&client, sql).await, "newborn/newcomer");
    let client = front
        .try_client(|config| {
            config.user(SUPERUSER).options("-c role=newcomer");
        })
        .await
        .unwrap();
    assert_eq!(ask(&client, "SELECT current_user").await, "newcomer");
    replica.resume_replay().await.unwrap();
}

/// They ask for `transaction_read_only`, which the replica that is near would answer with "on".
#[tokio::test]
async fn drivers_that_look_for_the_primary_find_it() {
    let front = Front::small().await;
    let client = front
        .try_client(|config| {
            config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        })
        .await
        .unwrap();
    read_on_replica(&client, "SELECT 'found'", "found").await;
    assert_eq!(ask(&client, "SHOW transaction_read_only").await, "off");
    assert_eq!(ask(&client, "SHOW in_hot_standby").await, "off");
    for setting in ["transaction_read_only", "in_hot_standby"] {
        let question = format!("SELECT current_setting('{setting}')");
        assert_eq!(ask(&client, &question).await, "off");
        let question = format!("SELECT setting FROM pg_settings WHERE name = '{setting}'");
        assert_eq!(ask(&client, &question).await, "off");
    }
}

#[tokio::test]
async fn databases_and_users_default_as_in_postgres() {
    let front = Front::small().await;
    // The database is named like the user.
    let mut raw = Raw::connect(front.address()).await;
    let greeting = raw.start(V3_0, &[("user", APP_USER)], PASSWORD).await;
    assert_eq!(last(&greeting), "Z(I)");
    assert_eq!(
        raw.query("SELECT current_database()").await,
        "T D(app) C(SELECT 1) Z(I)"
    );
    for parameters in [&[][..], &[("database", APP_DATABASE)], &[("user", "")]] {
        let mut raw = Raw::connect(front.address()).await;
        let seen = raw.start(V3_0, parameters, PASSWORD).await;
        assert_eq!(show(&seen), "E(28000)", "{parameters:?}: {seen:?}");
    }
    let client = front.client().await;
    assert_eq!(try_ask(&client, "SELECT 1").await.unwrap(), "1");
}
