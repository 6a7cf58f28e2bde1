//! How the monitor reaches a node: a pool of one control connection, as the node's TLS mode asks.

use std::sync::Arc;

use deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod, Runtime};
use tokio_postgres::NoTls;
use tokio_postgres::config::SslMode;
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::config::{MonitorConfig, NodeConfig, TlsMode};
use crate::net::tls::{TlsError, client_config};

/// A pool for control connections to `node`. Opens none yet.
pub fn pool(node: &NodeConfig, settings: &MonitorConfig) -> Result<Pool, TlsError> {
    let mut config = tokio_postgres::Config::new();
    config
        .host(&node.host)
        .port(node.port)
        .user(&settings.user)
        .dbname(&settings.database)
        .application_name("causeway monitor")
        .connect_timeout(settings.probe_timeout)
        .tcp_user_timeout(settings.probe_timeout);
    if let Some(password) = &settings.password {
        config.password(password.as_bytes());
    }
    // TLS is for TCP only, as in libpq.
    let mode = if node.host.starts_with('/') {
        TlsMode::Disable
    } else {
        node.tls.mode
    };
    config.ssl_mode(match mode {
        TlsMode::Disable => SslMode::Disable,
        TlsMode::Prefer => SslMode::Prefer,
        TlsMode::Require | TlsMode::VerifyCa | TlsMode::VerifyFull => SslMode::Require,
    });
    let manager_config = ManagerConfig {
        recycling_method: RecyclingMethod::Fast,
    };
    let manager = match mode {
        TlsMode::Disable => Manager::from_config(config, NoTls, manager_config),
        _ => {
            let tls = MakeRustlsConnect::new(Arc::unwrap_or_clone(client_config(&node.tls)?));
            Manager::from_config(config, tls, manager_config)
        }
    };
    let pool = Pool::builder(manager)
        .max_size(1)
        .runtime(Runtime::Tokio1)
        .build();
    // Only a pool that has timeouts and no runtime is refused, and this one has a runtime.
    Ok(pool.unwrap_or_else(|_| unreachable!("the pool has a runtime")))
}
