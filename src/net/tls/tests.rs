use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::{ALPN, TlsError, client_config, server_config};
use crate::config::{ClientTls, ServerTls, TlsMode};

/// Two authorities, a server certified by the first for `db.example`, and one that certifies
/// itself for the same name.
struct Files {
    dir: TempDir,
}

impl Files {
    fn new() -> Files {
        let files = Files {
            dir: tempfile::tempdir().unwrap(),
        };
        let ours = authority();
        files.write("ours.pem", &ours.pem());
        files.write("other.pem", &authority().pem());

        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["db.example".to_owned()]).unwrap();
        let signed = params.signed_by(&key, &ours).unwrap();
        files.write("signed.pem", &(signed.pem() + &ours.pem()));
        files.write("signed.key", &key.serialize_pem());

        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["db.example".to_owned()]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        files.write("self.pem", &params.self_signed(&key).unwrap().pem());
        files.write("self.key", &key.serialize_pem());
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    fn shown(&self, server: &str) -> ClientTls {
        ClientTls {
            certificate: self.path(&format!("{server}.pem")),
            key: self.path(&format!("{server}.key")),
            required: false,
        }
    }

    fn wanted(&self, mode: TlsMode, root: Option<&str>) -> ServerTls {
        ServerTls {
            mode,
            root_cert: root.map(|root| self.path(root)),
        }
    }
}

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// Shakes hands, moves a byte each way, and gives the ALPN protocol that the server saw.
async fn handshake(
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
    host: &str,
) -> std::io::Result<Option<Vec<u8>>> {
    let (near, far) = duplex(4096);
    let serve = tokio::spawn(async move {
        let mut stream = TlsAcceptor::from(server).accept(far).await?;
        let byte = stream.read_u8().await?;
        stream.write_u8(byte + 1).await?;
        stream.flush().await?;
        std::io::Result::Ok(stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec))
    });
    let name = ServerName::try_from(host.to_owned()).unwrap();
    let mut stream = TlsConnector::from(client).connect(name, near).await?;
    stream.write_u8(41).await?;
    stream.flush().await?;
    assert_eq!(stream.read_u8().await?, 42);
    serve.await.unwrap()
}

#[tokio::test]
async fn each_mode_accepts_and_refuses_what_it_should() {
    use TlsMode::*;
    let files = Files::new();
    // mode, root file, server shown, host asked for, accepted
    let table = [
        (Prefer, None, "signed", "elsewhere.example", true),
        (Require, None, "signed", "elsewhere.example", true),
        (Require, None, "self", "db.example", true),
        (Prefer, Some("other.pem"), "signed", "db.example", false),
        (
            Prefer,
            Some("ours.pem"),
            "signed",
            "elsewhere.example",
            true,
        ),
        (Require, Some("other.pem"), "signed", "db.example", false),
        (
            Require,
            Some("ours.pem"),
            "signed",
            "elsewhere.example",
            true,
        ),
        (
            VerifyCa,
            Some("ours.pem"),
            "signed",
            "elsewhere.example",
            true,
        ),
        (VerifyCa, Some("ours.pem"), "signed", "127.0.0.1", true),
        (VerifyCa, Some("other.pem"), "signed", "db.example", false),
        (VerifyCa, Some("ours.pem"), "self", "db.example", false),
        (
            VerifyCa,
            Some("self.pem"),
            "self",
            "elsewhere.example",
            true,
        ),
        (VerifyCa, None, "signed", "db.example", false),
        (VerifyFull, Some("ours.pem"), "signed", "db.example", true),
        (
            VerifyFull,
            Some("ours.pem"),
            "signed",
            "elsewhere.example",
            false,
        ),
        (VerifyFull, Some("ours.pem"), "signed", "127.0.0.1", false),
        (VerifyFull, Some("other.pem"), "signed", "db.example", false),
        (VerifyFull, Some("self.pem"), "self", "db.example", true),
        (
            VerifyFull,
            Some("self.pem"),
            "self",
            "elsewhere.example",
            false,
        ),
        (VerifyFull, None, "signed", "db.example", false),
    ];
    for (mode, root, shown, host, accepted) in table {
        let case = format!("{mode:?} with root {root:?}, server {shown}, host {host}");
        let server = server_config(&files.shown(shown)).unwrap();
        let client = match client_config(&files.wanted(mode, root)) {
            Ok(client) => client,
            // A machine without root certificates of its own refuses earlier.
            Err(TlsError::NoSystemRoots { .. }) if root.is_none() && !accepted => continue,
            Err(error) => panic!("{case}: {error}"),
        };
        let outcome = handshake(client, server, host).await;
        assert_eq!(outcome.is_ok(), accepted, "{case}: {outcome:?}");
        if let Ok(alpn) = outcome {
            assert_eq!(alpn.as_deref(), Some(ALPN), "{case}");
        }
    }
}

#[tokio::test]
async fn a_client_may_leave_alpn_out() {
    let files = Files::new();
    let server = server_config(&files.shown("signed")).unwrap();
    let mut client =
        Arc::unwrap_or_clone(client_config(&files.wanted(TlsMode::Require, None)).unwrap());
    client.alpn_protocols.clear();
    let alpn = handshake(Arc::new(client), server, "db.example").await;
    assert_eq!(alpn.unwrap(), None);
}

#[test]
fn errors_name_the_file_and_what_is_wrong_with_it() {
    let files = Files::new();
    files.write("empty.pem", "nothing here\n");
    files.write("torn.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n");
    files.write(
        "garbage.pem",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    );
    let roots = [
        ("missing.pem", "could not read root certificate"),
        ("empty.pem", "holds no certificate"),
        ("torn.pem", "is not valid PEM"),
        ("garbage.pem", "cannot be used"),
    ];
    for (file, complaint) in roots {
        let text = client_config(&files.wanted(TlsMode::VerifyCa, Some(file)))
            .unwrap_err()
            .to_string();
        assert!(text.contains(complaint) && text.contains(file), "{text}");
    }
    let pairs = [
        ("missing.pem", "signed.key", "could not read certificate"),
        ("signed.pem", "missing.key", "could not read private key"),
        ("signed.pem", "ours.pem", "holds no unencrypted private key"),
        ("signed.pem", "self.key", "cannot be used together"),
    ];
    for (certificate, key, complaint) in pairs {
        let text = server_config(&ClientTls {
            certificate: files.path(certificate),
            key: files.path(key),
            required: false,
        })
        .unwrap_err()
        .to_string();
        assert!(text.contains(complaint), "{text}");
    }
}
