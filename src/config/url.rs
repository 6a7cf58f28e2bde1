//! One `postgres://` URL, as `--primary` and `--replica` take it: libpq's form (manual, section
//! "Connection URIs") for one host, with Causeway's own parameters. It reads the text only; whether
//! the values make sense together is for `validate`.

use std::path::PathBuf;

use percent_encoding::percent_decode_str;
use zeroize::Zeroizing;

use super::words::{did_you_mean, word};
use super::{NodeConfig, TlsMode};

/// What a URL says. Parts that it leaves out are `None`.
#[derive(Clone, PartialEq, Eq)]
pub struct NodeUrl {
    /// A name, an address without brackets, or the directory of a Unix socket.
    pub host: String,
    pub port: Option<u16>,
    pub user: Option<String>,
    pub password: Option<Zeroizing<String>>,
    pub database: Option<String>,
    pub name: Option<String>,
    pub region: Option<String>,
    pub weight: Option<u32>,
    pub max_connections: Option<usize>,
    pub sslmode: Option<TlsMode>,
    pub sslrootcert: Option<PathBuf>,
}

const PARAMETERS: [&str; 8] = [
    "host",
    "port",
    "name",
    "region",
    "weight",
    "max_connections",
    "sslmode",
    "sslrootcert",
];

const MUST_ENCODE: &str =
    "`/`, `?`, `#`, `@`, `:` and `%` in a user or password must be percent-encoded";

impl NodeUrl {
    /// Reads a URL. The error is one line, and never quotes what could be a password.
    pub fn parse(text: &str) -> Result<NodeUrl, String> {
        let rest = text
            .strip_prefix("postgres://")
            .or_else(|| text.strip_prefix("postgresql://"))
            .ok_or("a node's URL begins with `postgres://`")?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
        if database.contains('@') || query.contains('@') {
            return Err(format!("the host's place is unclear: {MUST_ENCODE}"));
        }
        let (login, address) = match authority.rsplit_once('@') {
            Some((login, address)) => (Some(login), address),
            None => (None, authority),
        };
        let mut url = NodeUrl::empty();
        if let Some(login) = login {
            url.read_login(login)?;
        }
        url.read_address(address)?;
        url.database = non_empty(decode(database, "the database")?);
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            url.read_parameter(parameter)?;
        }
        if url.host.is_empty() {
            return Err("it names no host".to_owned());
        }
        Ok(url)
    }

    fn empty() -> Self {
        NodeUrl {
            host: String::new(),
            port: None,
            user: None,
            password: None,
            database: None,
            name: None,
            region: None,
            weight: None,
            max_connections: None,
            sslmode: None,
            sslrootcert: None,
        }
    }

    fn read_login(&mut self, login: &str) -> Result<(), String> {
        let (user, password) = match login.split_once(':') {
            Some((user, password)) => (user, Some(password)),
            None => (login, None),
        };
        if login.contains('@') || password.is_some_and(|password| password.contains(':')) {
            return Err(MUST_ENCODE.to_owned());
        }
        self.user = non_empty(decode(user, "the user")?);
        if let Some(password) = password {
            self.password = non_empty(decode(password, "the password")?).map(Zeroizing::new);
        }
        Ok(())
    }

    fn read_address(&mut self, address: &str) -> Result<(), String> {
        if address.contains(',') {
            return Err("it names several hosts; give one URL for each node".to_owned());
        }
        let (host, port) = match address.strip_prefix('[') {
            Some(rest) => {
                let (host, after) = rest
                    .split_once(']')
                    .ok_or("the `]` after the IPv6 address is missing")?;
                if host.parse::<std::net::Ipv6Addr>().is_err() {
                    return Err(format!("`{host}` is not an IPv6 address"));
                }
                match (after, after.strip_prefix(':')) {
                    ("", _) => (host, ""),
                    (_, Some(port)) => (host, port),
                    (_, None) => return Err("only a `:port` may follow `]`".to_owned()),
                }
            }
            None => address.split_once(':').unwrap_or((address, "")),
        };
        self.host = decode(host, "the host")?;
        if !port.is_empty() {
            // Not quoted: with a stray `/` in the password this is a part of it.
            self.port = Some(parse_port(port).ok_or_else(|| {
                format!("the port is not a number from 1 to 65535 ({MUST_ENCODE})")
            })?);
        }
        Ok(())
    }

    fn read_parameter(&mut self, parameter: &str) -> Result<(), String> {
        let (key, value) = parameter
            .split_once('=')
            .ok_or_else(|| format!("parameter `{parameter}` has no value"))?;
        let value = decode(value, key)?;
        if value.is_empty() {
            return Err(format!("parameter `{key}` has no value"));
        }
        match key {
            "host" => set_host(&mut self.host, value),
            "port" => set(&mut self.port, key, || {
                parse_port(&value).ok_or_else(|| format!("`{value}` is not from 1 to 65535"))
            }),
            "name" => set(&mut self.name, key, || Ok(value)),
            "region" => set(&mut self.region, key, || Ok(value)),
            "weight" => set(&mut self.weight, key, || number(&value)),
            "max_connections" => set(&mut self.max_connections, key, || number(&value)),
            "sslmode" => set(&mut self.sslmode, key, || word(&value)),
            "sslrootcert" => set(&mut self.sslrootcert, key, || Ok(PathBuf::from(value))),
            _ => Err(match did_you_mean(key, PARAMETERS) {
                Some(near) => format!("unknown parameter `{key}`; did you mean `{near}`?"),
                None => format!(
                    "unknown parameter `{key}`; the parameters are {}",
                    PARAMETERS.join(", ")
                ),
            }),
        }
    }

    /// The node that it names, without the user, password and database.
    pub fn to_node(&self) -> NodeConfig {
        let mut node = NodeConfig::new(&self.host, self.port.unwrap_or(5432));
        if let Some(name) = &self.name {
            node.name.clone_from(name);
        }
        node.region.clone_from(&self.region);
        if let Some(weight) = self.weight {
            node.weight = weight;
        }
        if let Some(max_connections) = self.max_connections {
            node.max_connections = max_connections;
        }
        if let Some(mode) = self.sslmode {
            node.tls.mode = mode;
        }
        node.tls.root_cert.clone_from(&self.sslrootcert);
        node
    }
}

fn set<T>(
    slot: &mut Option<T>,
    key: &str,
    value: impl FnOnce() -> Result<T, String>,
) -> Result<(), String> {
    if slot.is_some() {
        return Err(format!("`{key}` is given twice"));
    }
    *slot = Some(value().map_err(|error| format!("parameter `{key}`: {error}"))?);
    Ok(())
}

fn set_host(host: &mut String, value: String) -> Result<(), String> {
    if !host.is_empty() {
        return Err("`host` is given twice".to_owned());
    }
    *host = value;
    Ok(())
}

fn parse_port(text: &str) -> Option<u16> {
    text.parse().ok().filter(|port| *port != 0)
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse()
        .map_err(|_| format!("`{text}` is not a whole number that is 0 or more"))
}

fn non_empty(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

/// Strict, as libpq is: a `%` that is not followed by two hexadecimal digits is an error.
fn decode(text: &str, what: &str) -> Result<String, String> {
    let malformed = text.split('%').skip(1).any(|after| {
        let digits = after.as_bytes().get(..2);
        !digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    });
    if malformed {
        return Err(format!(
            "{what} has a `%` without two hexadecimal digits behind it"
        ));
    }
    let decoded = percent_decode_str(text)
        .decode_utf8()
        .map_err(|_| format!("{what} is not UTF-8"))?;
    if decoded.contains('\0') {
        return Err(format!("{what} contains a zero byte"));
    }
    Ok(decoded.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> NodeUrl {
        NodeUrl::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    fn error(text: &str) -> String {
        match NodeUrl::parse(text) {
            Ok(_) => panic!("{text} was accepted"),
            Err(error) => error,
        }
    }

    #[test]
    fn every_part_is_read() {
        let url = parse(
            "postgres://ap%40p:s%2Fe%3Acret@db.example:5433/my%20app?region=eu-west&name=b\
             &weight=7&max_connections=30&sslmode=verify-ca&sslrootcert=%2Fca.pem",
        );
        assert_eq!(url.user.as_deref(), Some("ap@p"));
        assert_eq!(url.password.as_ref().map(|p| p.as_str()), Some("s/e:cret"));
        assert_eq!(url.database.as_deref(), Some("my app"));
        let mut node = NodeConfig::new("db.example", 5433);
        node.name = "b".to_owned();
        node.region = Some("eu-west".to_owned());
        node.weight = 7;
        node.max_connections = 30;
        node.tls.mode = TlsMode::VerifyCa;
        node.tls.root_cert = Some(PathBuf::from("/ca.pem"));
        assert_eq!(url.to_node(), node);
    }

    #[test]
    fn hosts_and_ports() {
        for (text, host, port, name) in [
            ("postgres://a", "a", None, "a:5432"),
            ("postgresql://a:1/", "a", Some(1), "a:1"),
            ("postgres://u@10.0.0.1", "10.0.0.1", None, "10.0.0.1:5432"),
            ("postgres://[::1]:5433/d", "::1", Some(5433), "[::1]:5433"),
            (
                "postgres://[2001:db8::1]",
                "2001:db8::1",
                None,
                "[2001:db8::1]:5432",
            ),
            (
                "postgres://u:p@%2Frun%2Fpg:5433/d",
                "/run/pg",
                Some(5433),
                "/run/pg:5433",
            ),
            (
                "postgres:///d?host=/run/pg&port=6",
                "/run/pg",
                Some(6),
                "/run/pg:6",
            ),
            ("postgres://u@/d?host=h", "h", None, "h:5432"),
        ] {
            let url = parse(text);
            assert_eq!((url.host.as_str(), url.port), (host, port), "{text}");
            assert_eq!(url.to_node().name, name, "{text}");
        }
    }

    #[test]
    fn what_is_left_out_is_none() {
        let url = parse("postgres://:@a/?");
        assert!(url.user.is_none() && url.password.is_none() && url.database.is_none());
        assert_eq!(url.to_node(), NodeConfig::new("a", 5432));
    }

    #[test]
    fn errors_say_what_is_wrong() {
        for (text, message) in [
            ("mysql://a", "a node's URL begins with `postgres://`"),
            ("10.0.0.1", "a node's URL begins with `postgres://`"),
            ("postgres://", "it names no host"),
            ("postgres:///app", "it names no host"),
            (
                "postgres://a,b/d",
                "it names several hosts; give one URL for each node",
            ),
            (
                "postgres://[::1/d",
                "the `]` after the IPv6 address is missing",
            ),
            ("postgres://[::1]5432", "only a `:port` may follow `]`"),
            ("postgres://[a]", "`a` is not an IPv6 address"),
            (
                "postgres://a/%zz",
                "the database has a `%` without two hexadecimal digits behind it",
            ),
            (
                "postgres://a%/",
                "the host has a `%` without two hexadecimal digits behind it",
            ),
            ("postgres://a/%ff", "the database is not UTF-8"),
            ("postgres://a/%00", "the database contains a zero byte"),
            (
                "postgres://a?regoin=x",
                "unknown parameter `regoin`; did you mean `region`?",
            ),
            (
                "postgres://a?application_name=x",
                "unknown parameter `application_name`; the parameters are host, port, name, region, \
                 weight, max_connections, sslmode, sslrootcert",
            ),
            (
                "postgres://a?weight=-1",
                "parameter `weight`: `-1` is not a whole number that is 0 or more",
            ),
            ("postgres://a?weight", "parameter `weight` has no value"),
            ("postgres://a?weight=", "parameter `weight` has no value"),
            ("postgres://a?name=x&name=y", "`name` is given twice"),
            ("postgres://a?host=b", "`host` is given twice"),
            ("postgres://a:1?port=2", "`port` is given twice"),
            (
                "postgres://a?sslmode=allow",
                "parameter `sslmode`: `allow` is not an sslmode; it is one of disable, prefer, \
                 require, verify-ca, verify-full",
            ),
        ] {
            assert_eq!(error(text), message, "{text}");
        }
    }

    #[test]
    fn no_error_quotes_a_password() {
        for text in [
            "postgres://app:SECRET/x@10.0.0.1/app",
            "postgres://app:SECRET?x@10.0.0.1/app",
            "postgres://app:SECRET@x@10.0.0.1/app",
            "postgres://app:SECRET:x@10.0.0.1/app",
            "postgres://app:SECRET%x@10.0.0.1/app",
            "postgres://app:SECRET",
            "mysql://app:SECRET@10.0.0.1/app",
        ] {
            let error = error(text);
            assert!(!error.contains("SECRET"), "{text}: {error}");
        }
    }
}
