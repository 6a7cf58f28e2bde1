//! From a request's method and path to its answer. Nothing else of a request is looked at.

use std::time::Instant;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue,
    X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Method, Response, StatusCode};

use super::{Admin, Asker, gauges, json};
use crate::inspect::Health;

const TEXT: &str = "text/plain; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";
const JSON: &str = "application/json";
/// As Prometheus asks for it (its manual, section "Text-based format").
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// It loads nothing and reads `status` of the same origin.
const PAGE: &str = include_str!("page.html");
const PAGE_MAY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'";

const PATHS: &str = "There are /, /health, /live, /metrics, /status and /learned_writes.\n";

/// What was learned, as a whole; behind a slash one fingerprint of it.
const LEARNED: &str = "/learned_writes";

impl Admin {
    pub(super) fn answer(
        &self,
        asker: Asker,
        method: &Method,
        path: &str,
    ) -> Response<Full<Bytes>> {
        match *method {
            Method::GET | Method::HEAD => self.show(path),
            // No page of another origin can send it without asking first, and nobody answers that.
            Method::DELETE => self.forget(asker, path),
            _ => not_allowed("GET, HEAD, DELETE", "Only GET, HEAD and DELETE.\n"),
        }
    }

    fn show(&self, path: &str) -> Response<Full<Bytes>> {
        match path {
            "/" => {
                let mut page = respond(StatusCode::OK, HTML, PAGE);
                let policy = HeaderValue::from_static(PAGE_MAY);
                page.headers_mut().insert(CONTENT_SECURITY_POLICY, policy);
                page
            }
            "/live" => respond(StatusCode::OK, TEXT, "live\n"),
            "/health" => self.health(),
            "/status" => {
                let status = json::status(&self.view, Instant::now());
                respond(StatusCode::OK, JSON, status.to_string())
            }
            LEARNED => {
                let learned = json::learned_writes(&self.view);
                respond(StatusCode::OK, JSON, learned.to_string())
            }
            "/metrics" => respond(StatusCode::OK, METRICS, self.metrics()),
            _ => respond(StatusCode::NOT_FOUND, TEXT, PATHS),
        }
    }

    fn forget(&self, asker: Asker, path: &str) -> Response<Full<Bytes>> {
        let Some(which) = path.strip_prefix(LEARNED) else {
            return not_allowed("GET, HEAD", "Only learned writes can be deleted.\n");
        };
        if asker == Asker::Elsewhere {
            let refusal = "Only from the machine that Causeway runs on.\n";
            return respond(StatusCode::FORBIDDEN, TEXT, refusal);
        }
        let forgotten = match which.strip_prefix('/') {
            None if which.is_empty() => self.memory.forget_all(),
            None => return respond(StatusCode::NOT_FOUND, TEXT, PATHS),
            Some(fingerprint) => match u128::from_str_radix(fingerprint, 16) {
                Ok(fingerprint) => self.memory.forget(fingerprint),
                Err(_) => 0,
            },
        };
        let status = match (which, forgotten) {
            ("", _) | (_, 1..) => StatusCode::OK,
            (_, 0) => StatusCode::NOT_FOUND,
        };
        respond(status, JSON, json::forgotten(forgotten).to_string())
    }

    fn health(&self) -> Response<Full<Bytes>> {
        let status = match self.view.health() {
            Health::Healthy | Health::Degraded => StatusCode::OK,
            Health::Unhealthy => StatusCode::SERVICE_UNAVAILABLE,
        };
        let body = json::health(&self.view, Instant::now());
        respond(status, JSON, body.to_string())
    }

    fn metrics(&self) -> String {
        let mut text = self.recorded.render();
        gauges::put(
            &mut text,
            &self.view.pools(),
            self.view.totals(Instant::now()),
        );
        text
    }
}

fn not_allowed(allowed: &'static str, why: &'static str) -> Response<Full<Bytes>> {
    let mut refusal = respond(StatusCode::METHOD_NOT_ALLOWED, TEXT, why);
    let allowed = HeaderValue::from_static(allowed);
    refusal.headers_mut().insert(ALLOW, allowed);
    refusal
}

fn respond(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    for (name, value) in [
        (CONTENT_TYPE, content_type),
        (CACHE_CONTROL, "no-store"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ] {
        let value = HeaderValue::from_static(value);
        response.headers_mut().insert(name, value);
    }
    response
}
