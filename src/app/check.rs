//! `causeway check`: would these settings work? Looks at every node at the same time, then judges
//! them together. It changes nothing.

mod judge;
mod look;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use tokio::task::JoinSet;

use crate::config::{Config, Loaded, Origin};

use look::{Facts, LookError};

/// What was found; displayed one finding a line, with a summary below.
#[derive(Debug)]
pub struct Report {
    nodes: usize,
    findings: Vec<Finding>,
}

#[derive(Debug)]
struct Finding {
    severity: Severity,
    origin: Origin,
    text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Severity {
    /// What a node is, when it answered.
    Fine,
    /// It would run, but perhaps not as meant.
    Warning,
    /// It would not work.
    Problem,
}

/// What one node showed.
struct View {
    facts: Result<Facts, LookError>,
    user_failures: Vec<UserFailure>,
}

/// A user whom this node did not let in, by its place in the settings.
struct UserFailure {
    user: usize,
    error: LookError,
}

/// Looks at every node, with the limits of `pool.connect_timeout` and `monitor.probe_timeout` each.
pub async fn check(loaded: &Loaded) -> Report {
    let config = Arc::new(loaded.config.clone());
    let mut looks = JoinSet::new();
    for index in 0..config.nodes.len() {
        let config = Arc::clone(&config);
        looks.spawn(async move { (index, view(&config, index).await) });
    }
    let mut views = looks.join_all().await;
    views.sort_by_key(|(index, _)| *index);
    let views: Vec<View> = views.into_iter().map(|(_, view)| view).collect();
    Report {
        nodes: views.len(),
        findings: judge::judge(&config, &loaded.origins, &views),
    }
}

async fn view(config: &Config, index: usize) -> View {
    let node = &config.nodes[index];
    let facts = look::look(config, node).await;
    let mut user_failures = Vec::new();
    // A node that cannot be reached would fail each user for the same reason.
    let reachable = facts
        .as_ref()
        .map_or_else(LookError::is_about_login, |_| true);
    let users = config.users.iter().enumerate().filter(|_| reachable);
    for (user, settings) in users {
        if settings.name == config.monitor.user {
            continue;
        }
        if let Some(Err(error)) =
            look::try_user(config, node, &settings.name, &settings.secret).await
        {
            user_failures.push(UserFailure { user, error });
        }
    }
    View {
        facts,
        user_failures,
    }
}

impl Report {
    /// Nothing was found that would not work.
    pub fn is_good(&self) -> bool {
        self.count(Severity::Problem) == 0
    }

    fn count(&self, severity: Severity) -> usize {
        self.findings
            .iter()
            .filter(|finding| finding.severity == severity)
            .count()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in &self.findings {
            writeln!(f, "{finding}")?;
        }
        writeln!(
            f,
            "nodes: {}, problems: {}, warnings: {}",
            self.nodes,
            self.count(Severity::Problem),
            self.count(Severity::Warning)
        )
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Fine => "ok",
            Severity::Warning => "warning",
            Severity::Problem => "problem",
        };
        match &self.origin {
            Origin::Default => write!(f, "{severity:8} {}", self.text),
            origin => write!(f, "{severity:8} {origin}: {}", self.text),
        }
    }
}
