//! Who may log in: the configured users, by name, with what follows from their settings.

use std::collections::HashMap;
use std::sync::Arc;

use crate::config::{Config, PoolConfig, PoolMode, UserConfig};
use crate::pool::Limits;
use crate::protocol::scram::InvalidVerifier;
use crate::server::Credential;
use crate::session::Mode;

pub struct User {
    pub credential: Arc<Credential>,
    pub limits: Limits,
    pub mode: Mode,
}

#[derive(Debug, thiserror::Error)]
#[error("user {user}: {error}")]
pub struct InvalidUser {
    user: String,
    error: InvalidVerifier,
}

/// All users of a configuration.
pub fn users(config: &Config) -> Result<HashMap<String, User>, InvalidUser> {
    let user = |user: &UserConfig| {
        let credential =
            Credential::new(&user.name, &user.secret).map_err(|error| InvalidUser {
                user: user.name.clone(),
                error,
            })?;
        let mode = match user.pool_mode.unwrap_or(config.pool.mode) {
            PoolMode::Transaction => Mode::Transaction,
            PoolMode::Session => Mode::Session,
        };
        let limits = limits(&config.pool, user);
        Ok((
            user.name.clone(),
            User {
                credential: Arc::new(credential),
                limits,
                mode,
            },
        ))
    };
    config.users.iter().map(user).collect()
}

fn limits(pool: &PoolConfig, user: &UserConfig) -> Limits {
    Limits {
        size: user.pool_size.unwrap_or(pool.size),
        min_idle: pool.min_idle,
        checkout_timeout: pool.checkout_timeout,
        idle_timeout: pool.idle_timeout,
        max_lifetime: pool.max_lifetime,
    }
}
